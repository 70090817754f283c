"""The build: what a package contains, what happens without a compiler, and which symbols kernels may export."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NATIVE = ROOT / "native"
TOOLS = Path(sys.prefix) / "bin"
DATA = (
    "tokenizer/data/english.txt", "tokenizer/data/multilingual.txt", "tokenizer/data/LICENSE-vocabularies",
    "report/style.css", "report/page.js", "report/explained.html",
)  # fmt: skip
NO_COMPILER = {"CC": "/nonexistent", "CXX": "/nonexistent"}

needs_the_builder = pytest.mark.skipif(
    subprocess.run(
        [sys.executable, "-c", "import scikit_build_core, nanobind"], check=False, capture_output=True
    ).returncode
    != 0,
    reason="the build's tools are not installed here; `make test` installs them",
)
needs_cmake = pytest.mark.skipif(not (TOOLS / "cmake").exists(), reason="no cmake in this environment")


def build(call: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Call the build backend as pip would, in the root of the checkout."""
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("SKBUILD", "STAPES", "CMAKE"))
    }
    environment |= {"PATH": f"{TOOLS}{os.pathsep}{os.environ['PATH']}"} | variables
    return subprocess.run(
        [sys.executable, "-c", f"from scikit_build_core import build; {call}"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@needs_the_builder
@needs_cmake
def test_without_a_compiler_the_package_is_pure_python(tmp_path: Path) -> None:
    done = build(f"build.build_wheel({str(tmp_path)!r})", **NO_COMPILER)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.iterdir()
    assert wheel.name.endswith("-py3-none-any.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert not [name for name in names if "/_native." in name]
    assert {f"stapes/{name}" for name in ("__init__.py", "py.typed", *DATA)} <= set(names)
    assert len([name for name in names if "/licenses/" in name]) == 2
    (scripts,) = (name for name in names if name.endswith("entry_points.txt"))
    assert b"stapes = stapes.cli.main:program" in zipfile.ZipFile(wheel).read(scripts)


@needs_the_builder
@needs_cmake
def test_a_build_that_must_succeed_says_that_it_did_not(tmp_path: Path) -> None:
    done = build(f"build.build_wheel({str(tmp_path)!r})", STAPES_REQUIRE_NATIVE="1", **NO_COMPILER)
    assert done.returncode != 0
    assert not list(tmp_path.iterdir())


@needs_the_builder
def test_a_source_package_holds_all_that_was_written_and_nothing_that_was_built(tmp_path: Path) -> None:
    done = build(f"build.build_sdist({str(tmp_path)!r})")
    assert done.returncode == 0, done.stderr
    (package,) = tmp_path.iterdir()
    with tarfile.open(package) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    written = {path.relative_to(ROOT).as_posix() for path in (*NATIVE.rglob("*.*"), *(ROOT / "src").rglob("*.py"))}
    assert written | {f"src/stapes/{name}" for name in ("py.typed", *DATA)} | {"LICENSE", "Makefile"} <= names
    assert not [name for name in names if name.endswith((".so", ".pyc", ".o"))]


def test_make_installs_the_tools_that_the_package_asks_for() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        wanted = tomllib.load(file)["build-system"]["requires"]
    (line,) = re.findall(r"^BUILD_TOOLS := (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert line.replace("'", "").split() == [*wanted, "cmake", "ninja"]
    reasons = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    assert not [one for one in wanted if f"`{re.split('[<>=]', one)[0]}`" not in reasons]


def test_numbers_are_compiled_as_they_are_written() -> None:
    assert "fast-math" not in (NATIVE / "CMakeLists.txt").read_text(encoding="utf-8")


def native_sources() -> list[Path]:
    return sorted(path for path in NATIVE.rglob("*.*") if path.suffix in (".cpp", ".h"))


def test_only_the_bindings_know_python_and_only_the_vectors_know_a_processor() -> None:
    wrong = []
    for path in native_sources():
        name, text = path.relative_to(NATIVE).as_posix(), path.read_text(encoding="utf-8")
        if not name.startswith("bindings/") and re.search(r"#include\s*[<\"](nanobind|Python\.h)", text):
            wrong.append(f"{name}: Python")
        if not name.startswith("kernels/vec") and re.search(r"#include\s*<\w*intrin\.h>|\b_mm(256|512)?_", text):
            wrong.append(f"{name}: intrinsics")
    assert not wrong


def test_native_code_keeps_to_what_types_promise() -> None:
    """No cast takes `const` away, and no class opens its private members to another."""
    wrong = [path.name for path in native_sources() if re.search(r"\bconst_cast\b|\bfriend\b", path.read_text("utf-8"))]
    assert not wrong


def test_native_files_are_short() -> None:
    lengths = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in native_sources()}
    assert not {name: lines for name, lines in lengths.items() if lines > 400}


def kernel_objects() -> dict[str, list[Path]]:
    """Return the objects of each instruction set, where make has compiled them."""
    found: dict[str, list[Path]] = {}
    for path in Path(sys.prefix, "native").rglob("kernels_*.dir/**/*.o"):
        (folder,) = (part for part in path.parts if part.startswith("kernels_") and part.endswith(".dir"))
        found.setdefault(folder[len("kernels_") : -len(".dir")], []).append(path)
    return found


@pytest.mark.skipif(not kernel_objects(), reason="make has compiled no native library in this environment")
@pytest.mark.skipif(shutil.which("nm") is None, reason="nm is not here")
def test_no_instruction_set_gives_its_code_to_others() -> None:
    """The linker keeps one of equal inline functions: it must not be one with instructions that a processor lacks."""
    leaks = []
    for isa, objects in kernel_objects().items():
        command = ["nm", "--demangle", "--defined-only", *map(str, objects)]
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        for line in listed.splitlines():
            found = re.fullmatch(r"[0-9a-f]+ ([A-Zu]) (.*)", line)
            # DW.ref: where the function that unwinds exceptions is; data, and the same in every object.
            if found and f"stapes::{isa}::" not in found[2] and not found[2].startswith("DW.ref."):
                name = found[2]
                leaks.append(f"{isa}: {name}")
    assert not sorted(leaks)


def run_make(rules: str, *words: str, on_terminal: bool = False) -> tuple[int, str]:
    """Run make with the Makefile and more rules; return the exit code, and standard error, of a terminal's if so."""
    pty = pytest.importorskip("pty", reason="needs a terminal of its own")
    outer, inner = pty.openpty()
    command = ["make", "-f", "-", *words]
    done = subprocess.run(
        command, input=f"include Makefile\n{rules}".encode(), cwd=ROOT, check=False, stdout=subprocess.DEVNULL,
        stderr=inner if on_terminal else subprocess.PIPE,
    )  # fmt: skip
    os.close(inner)
    shown = done.stderr or b""
    while on_terminal:
        try:
            block = os.read(outer, 4096)
        except OSError:
            break
        shown += block
        if not block:
            break
    os.close(outer)
    return done.returncode, shown.decode()


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
def test_make_shows_that_it_is_at_work_and_keeps_the_exit_code() -> None:
    rules = "good:\n\t@$(call busy,sleep 0.5)\nbad:\n\t@$(call busy,sleep 0.1; (exit 3))\n"
    code, shown = run_make(rules, "good", "DOT_SECONDS=0.1", on_terminal=True)
    assert code == 0
    assert 2 <= shown.count(".") <= 6
    assert set(shown) <= set(".\r\n")
    assert run_make(rules, "good", "DOT_SECONDS=0.1") == (0, "")
    code, shown = run_make(rules, "bad", "DOT_SECONDS=1", on_terminal=True)
    assert code == 2
    assert "Error 3" in shown


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
def test_make_run_ends_with_where_the_command_is() -> None:
    command = ["make", "-n", "--no-print-directory", "run"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-2:] == [
        ".venv/bin/stapes --model base samples/stapes.flac",
        'echo "make: the command is .venv/bin/stapes, for example: .venv/bin/stapes talk.mp3 -f srt" >&2',
    ]
