"""`stapes shim`: a stand-in in site-packages is written whole, never over something, and removed as it was written."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import zipfile
from importlib.metadata import distribution, distributions
from pathlib import Path

import pytest

from stapes.compat import stand_ins
from stapes.compat.stand_ins import STAND_INS
from stapes.errors import OutputError
from tests.cli.running import Run, runner

SOURCE = Path(__file__).parents[2] / "src"
INFO = "faster_whisper-1.2.1+stapes.dist-info"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(stand_ins, "site_folder", lambda: tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], site: Path) -> Run:
    return runner(capsys)


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def installed(folder: Path, name: str = "faster-whisper") -> list[str]:
    return [one.version for one in distributions(name=name, path=[str(folder)])]


@pytest.mark.parametrize("name", STAND_INS)
def test_the_files_are_those_of_run_as_with_installers_metadata(name: str, tmp_path: Path) -> None:
    one = STAND_INS[name]
    (here,) = distributions(name=name, path=[str(one.folder)])
    stand_ins.install(one, one.version, tmp_path, [str(one.folder)])
    (there,) = distributions(name=name, path=[str(tmp_path)])
    assert here.metadata.json == there.metadata.json
    module = f"{one.package}/__init__.py"
    assert (one.folder / module).read_bytes() == (tmp_path / module).read_bytes()
    assert {path.name for path in one.folder.iterdir()} == {
        one.package,
        one.metadata_folder(one.version).replace(".dist-info", ".egg-info"),
    }
    assert here.version == f"{one.version}+stapes"
    assert here.metadata["Summary"].startswith("stand-in by stapes, not affiliated with ")
    assert here.metadata["License"] == distribution("stapes").metadata["License-Expression"]
    assert [text for text in here.requires or () if "extra ==" not in text] == ["stapes"]


def test_both_packages_are_the_same_few_lines() -> None:
    texts = {(one.folder / one.package / "__init__.py").read_text().partition("\n")[2] for one in STAND_INS.values()}
    assert len(texts) == 1


def test_install_and_remove(run: Run, site: Path) -> None:
    (site / "other.py").write_text("x")
    assert run("shim", "install", "faster-whisper") == (0, [], [
        f"stapes: wrote faster-whisper 1.2.1+stapes to {site}: 'import faster_whisper' is stapes there now",
        "stapes: to undo: stapes shim remove faster-whisper",
    ])  # fmt: skip
    (found,) = distributions(name="faster-whisper", path=[str(site)])
    assert found.version == "1.2.1+stapes"
    assert found.files is not None
    assert {str(one) for one in found.files} == tree(site).keys() - {"other.py"}
    assert all(one.hash for one in found.files if one.name != "RECORD")
    assert run("shim", "remove", "faster_whisper") == (
        0, [], [f"stapes: removed the stand-in for faster-whisper 1.2.1 from {site}"],
    )  # fmt: skip
    assert {path.name for path in site.iterdir()} == {"other.py"}
    assert run("shim", "remove", "faster-whisper") == (
        2, [], [f"stapes: {site}: has no stand-in for faster-whisper that stapes wrote; nothing is removed"],
    )  # fmt: skip


def test_another_version_replaces_an_earlier_one(run: Run, site: Path) -> None:
    for version in ("1.1.0", "1.2.0", "1.2.0"):
        assert run("shim", "install", "faster-whisper", "--version", version)[0] == 0
        assert installed(site) == [f"{version}+stapes"]
        assert {path.name for path in site.iterdir()} == {
            "faster_whisper",
            f"faster_whisper-{version}+stapes.dist-info",
        }
    assert run("shim", "install", "openai-whisper")[0] == 0
    assert run("shim", "remove", "faster-whisper")[0] == 0
    assert (installed(site), installed(site, "openai-whisper")) == ([], ["20250625+stapes"])


def test_what_python_compiled_is_removed_too(run: Run, site: Path) -> None:
    run("shim", "install", "faster-whisper")
    cache = site / "faster_whisper" / "__pycache__"
    cache.mkdir()
    (cache / "__init__.cpython-311.pyc").write_bytes(b"x")
    assert run("shim", "remove", "faster-whisper")[0] == 0
    assert not list(site.iterdir())


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("faster_whisper/__init__.py", "was changed"),
        (f"{INFO}/METADATA", "was changed"),
        (f"{INFO}/RECORD", "was changed"),
        ("faster_whisper/assets.bin", "was not written by stapes"),
        ("faster_whisper/__pycache__/other.cpython-311.pyc", "was not written by stapes"),
        (f"{INFO}/REQUESTED", "was not written by stapes"),
    ],
)
@pytest.mark.parametrize("words", [("remove", "faster-whisper"), ("install", "faster-whisper", "--version", "1.1")])
def test_what_was_changed_or_added_stays(run: Run, site: Path, path: str, what: str, words: tuple[str, ...]) -> None:
    run("shim", "install", "faster-whisper")
    (site / path).parent.mkdir(exist_ok=True)
    (site / path).write_bytes(b"mine")
    before = tree(site)
    assert run("shim", *words) == (
        2, [], [f"stapes: {site / path}: {what} since the stand-in was written; nothing is removed or replaced"],
    )  # fmt: skip
    assert tree(site) == before


def test_a_link_in_place_of_the_package_stays(run: Run, site: Path) -> None:
    run("shim", "install", "faster-whisper")
    (site / "faster_whisper").rename(site / "elsewhere")
    (site / "faster_whisper").symlink_to("elsewhere")
    assert "faster_whisper: is a link" in run("shim", "remove", "faster-whisper")[2][0]
    assert (site / "elsewhere" / "__init__.py").exists()


def test_an_interrupted_installation_can_be_removed_or_repeated(run: Run, site: Path) -> None:
    for words in (("remove", "faster-whisper"), ("install", "faster-whisper")):
        run("shim", "install", "faster-whisper")
        (site / "faster_whisper" / "__init__.py").unlink()
        (site / "faster_whisper").rmdir()
        assert run("shim", *words)[0] == 0
    assert installed(site) == ["1.2.1+stapes"]
    assert (site / "faster_whisper" / "__init__.py").exists()


@pytest.mark.parametrize("installer", ["pip\n", "uv", None])
def test_where_the_original_is_installed_nothing_is_written(run: Run, site: Path, installer: str | None) -> None:
    info = site / "faster_whisper-1.2.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: faster-whisper\nVersion: 1.2.1\n")
    if installer:
        (info / "INSTALLER").write_text(installer)
    before = tree(site)
    code, _, err = run("shim", "install", "faster-whisper")
    assert (code, len(err), tree(site)) == (2, 1, before)
    assert "faster-whisper 1.2.1 is installed in" in err[0]
    assert run("shim", "remove", "faster-whisper")[0] == 2
    assert tree(site) == before


@pytest.mark.parametrize("name", ["whisper", "whisper.py", f"whisper{sysconfig.get_config_var('EXT_SUFFIX')}"])
def test_another_package_of_the_name_is_not_replaced(run: Run, site: Path, name: str) -> None:
    (site / name).write_text("graphite has a module of this name")
    before = tree(site)
    code, _, err = run("shim", "install", "openai-whisper")
    assert (code, tree(site)) == (2, before)
    assert "is there and was not written by stapes" in err[0]


def test_a_failure_in_the_middle_leaves_what_was(run: Run, site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("shim", "install", "faster-whisper")
    before, rename = tree(site), Path.rename

    def fail(path: Path, target: Path) -> Path:
        if path.parent.name == "new" and path.name == "faster_whisper":
            raise OSError(28, "No space left on device")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    code, _, err = run("shim", "install", "faster-whisper", "--version", "1.2.0")
    assert (code, len(err)) == (2, 1)
    assert err[0].endswith("; nothing was changed")
    assert tree(site) == before
    assert {path.name for path in site.iterdir()} == {"faster_whisper", INFO}


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="nothing was changed"):
        stand_ins.install(STAND_INS["faster-whisper"], "1.2.1", tmp_path / "gone", [])


def test_a_python_of_the_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "EXTERNALLY-MANAGED").write_text("")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / name).removesuffix("/stdlib"))
    assert stand_ins.site_folder() == tmp_path / "purelib"  # a virtual environment
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    with pytest.raises(OutputError, match=r"\(EXTERNALLY-MANAGED\).*'python -m venv FOLDER'"):
        stand_ins.site_folder()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "shim: write 'stapes shim install NAME'"),
        (("install",), "shim install: write"),
        (("install", "torch"), "with faster-whisper or openai-whisper for the name"),
        (("add", "faster-whisper"), "shim add faster-whisper: write"),
        (("install", "faster-whisper", "--version", "v1"), "version 'v1': give a release of faster-whisper"),
        (("install", "faster-whisper", "--version", "1.2.1+stapes"), "'+stapes' is added"),
        (("install", "faster-whisper", "--version", "../x"), "give a release"),
        (("remove", "faster-whisper", "--version", "1.2.1"), "--version goes with install"),
        (("install", "faster-whisper", "--force"), "unknown flag --force"),
    ],
)
def test_wrong_words_are_refused(run: Run, site: Path, words: tuple[str, ...], said: str) -> None:
    code, out, err = run("shim", *words)
    assert (code, out, len(err)) == (2, [], 1)
    assert said in err[0]
    assert not list(site.iterdir())


def dummy_wheel(folder: Path, requirement: str) -> Path:
    path = folder / "needsit-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(
            "needsit-1.0.dist-info/METADATA",
            f"Metadata-Version: 2.1\nName: needsit\nVersion: 1.0\nRequires-Dist: {requirement}\n",
        )
        wheel.writestr("needsit-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("needsit-1.0.dist-info/RECORD", "")
    return path


@pytest.mark.slow
def test_pip_takes_a_requirement_as_satisfied_and_uninstalls_the_stand_in(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"

    def called(*words: str) -> str:
        done = subprocess.run([python, "-m", *words], capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    (site,) = (tmp_path / "venv").rglob("site-packages")
    (site / "here.pth").write_text(f"{SOURCE}\n{sysconfig.get_path('purelib')}\n")  # stapes, pip
    called("stapes", "shim", "install", "faster-whisper")
    program = "import faster_whisper, stapes.compat.faster_whisper as face; assert faster_whisper is face"
    subprocess.run([python, "-c", program], check=True, cwd=tmp_path)
    wheel = dummy_wheel(tmp_path, "faster-whisper>=1.2.1,<2")
    offline = ("pip", "--isolated", "--disable-pip-version-check", "install", "--no-index", "--dry-run")
    assert "Would install needsit-1.0\n" in called(*offline, str(wheel))
    assert "faster-whisper" in called("pip", "list")
    called("pip", "uninstall", "-y", "faster-whisper")
    assert {path.name for path in site.iterdir()} == {"here.pth"}
