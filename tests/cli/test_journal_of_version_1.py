"""A journal that an earlier stapes has left: today's code makes the same keys, reads the same answers, and goes on.

tests/data/journal_1.json holds what the keys were made of, their digests, and the rows. It is never regenerated.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import os
import platform
import sqlite3
import wave
from dataclasses import field, fields, is_dataclass, make_dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from stapes.cli import main as command
from stapes.cli.command import Command
from stapes.cli.flags import parse, read_words
from stapes.cli.report import PAGES, _command, _parser
from stapes.journal.codec import AnswerBounds
from stapes.journal.journal import JOURNAL_NAME, open_journal
from stapes.journal.keys import output_keys as keys_of_outputs
from stapes.journal.keys import recording_key, settings_key
from stapes.options import TranscribeOptions
from stapes.testing import random_engine, tiny_spec
from tests.cli.scripted_engine import ScriptedEngine, ScriptedSpec

JOURNAL: dict[str, Any] = json.loads((Path(__file__).parents[1] / "data" / "journal_1.json").read_text("utf-8"))
RUNS = {run["name"]: run for run in JOURNAL["runs"]}
SPECS = {"scripted": ScriptedSpec(), "random": tiny_spec()}


def output_keys(command: Command) -> frozenset[str]:
    return keys_of_outputs(command.formats, command.layout, command.page)


def digest(values: object) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode("ascii")).hexdigest()


def described(values: dict[str, Any]) -> Any:
    """Return what the engine of that time said of itself."""
    model, computing = values["model"], values["computing"]
    given = {**model, **computing, "model": model["name"], "path": None, "spec": SPECS[model["name"]]}
    return SimpleNamespace(**given, window_bytes=0, row_bytes=0, precision_measured=True)


def noise() -> bytes:
    """Return 100 s of the same samples on every machine."""
    at = np.arange(100 * 16_000, dtype=np.int64)
    samples = (at * 440 // 16_000) % 2 * 6000 - 3000 + at * (at // 16_000) % 997 * 3
    file = io.BytesIO()
    with wave.open(file, "wb") as written:
        written.setnchannels(1)
        written.setsampwidth(2)
        written.setframerate(16_000)
        written.writeframes(samples.astype("<i2").tobytes())
    return file.getvalue()


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let paths, machine and versions of libraries be those of the journal."""
    computing = JOURNAL["info"]["computing"]
    plain = os.path.realpath

    def place(path: Any, **keywords: Any) -> str:
        found = plain(path, **keywords)
        return found.replace(plain(tmp_path), "/recordings") if isinstance(found, str) else found

    monkeypatch.setattr(os.path, "realpath", place)
    monkeypatch.setattr(platform, "machine", lambda: computing["machine"])
    monkeypatch.setattr(importlib.metadata, "version", lambda name: computing["libraries"][name])
    monkeypatch.chdir(tmp_path)


def restored(run: dict[str, Any], folder: Path) -> None:
    """Put the recordings of an interrupted run into a folder, with its journal."""
    for recording in run["recordings"]:
        path = folder / recording["file"]
        path.write_bytes(recording["text"].encode() if "text" in recording else noise())
        os.utime(path, ns=(recording["inputs"][2],) * 2)
    connection = sqlite3.connect(folder / JOURNAL_NAME)
    connection.executescript("".join(run["sql"]))
    connection.close()


#: fields of answers that came later, and are absent where they were not asked for
LATER = ("token_logprobs",)


def bits(value: Any) -> Any:
    """Turn answers into plain values, floats bit for bit."""
    if is_dataclass(value):
        values = {item.name: bits(getattr(value, item.name)) for item in fields(value)}
        values = {name: one for name, one in values.items() if one is not None or name not in LATER}
        return {"is": type(value).__name__, **values}
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, dict):
        return {key: bits(one) for key, one in value.items()}
    return [bits(one) for one in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("case", JOURNAL["settings"], ids=lambda case: case["name"])
def test_the_settings_have_the_key_that_they_had(case: dict[str, Any]) -> None:
    assert digest({**JOURNAL["info"], "options": case["options"]}) == case["key"]
    options = TranscribeOptions() if case["words"] is None else parse(case["words"]).options
    assert settings_key(described(JOURNAL["info"]), options) == case["key"]


@pytest.mark.parametrize("case", JOURNAL["outputs"], ids=lambda case: " ".join(case["words"]))
def test_the_outputs_have_the_keys_that_they_had(case: dict[str, Any]) -> None:
    first, *rest = case["words"]
    found = _command(first, read_words(rest, _parser(first))) if first in PAGES else parse(case["words"])
    assert sorted(output_keys(found)) == case["keys"]


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_the_rows_hold_the_answers_that_they_held(run: dict[str, Any], tmp_path: Path) -> None:
    restored(run, tmp_path)
    settings = settings_key(described(run["info"]), parse(run["words"]).options)
    assert settings == run["settings_key"]
    bounds = AnswerBounds(
        n_vocab=run["info"]["model"]["spec"].get("n_vocab", 100), n_text_ctx=448,
        languages=frozenset({"en", *(code for one in run["answers"].values() for code in one[0]["probabilities"])}),
    )  # fmt: skip
    warned: list[str] = []
    journal = open_journal(tmp_path, warned.append)
    assert journal is not None
    n_answers = 0
    for recording in run["recordings"]:
        assert digest(recording["inputs"]) == recording["key"]
        assert recording_key(recording["file"], settings) == recording["key"]
        stem = Path(recording["file"]).stem
        entry = journal.entry(stem, recording["key"], bounds)
        assert [bits(answer) for answer in entry.answers] == run["answers"].get(stem, [])
        assert entry.outputs_done == (frozenset() if entry.answers else frozenset(run["output_keys"]))
        n_answers += len(entry.answers)
    journal.close(finished=False)
    assert (n_answers, warned) == (4, [])


class OfThatTime:
    """An engine that describes itself as the one that wrote the journal."""

    def __init__(self, engine: Any, run: dict[str, Any]) -> None:
        self._engine = engine
        found = described(run["info"])
        found.n_vocab, found.languages = engine.info.n_vocab, engine.info.languages
        self.info = found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def __enter__(self) -> OfThatTime:
        self._engine.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._engine.__exit__(*error)


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_an_interrupted_run_goes_on_from_it(
    run: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    restored(run, tmp_path)
    for recording in run["recordings"]:  # the scripted engine interrupts once; what was written, is written
        (tmp_path / f"{recording['file']}.interrupted").touch()
    (tmp_path / "short.srt").write_text("written before")
    make = ScriptedEngine if run["name"] == "scripted" else random_engine
    monkeypatch.setattr(command, "load_engine", lambda _: OfThatTime(make(), run))
    assert command.main([*run["words"], "--progress", "json"]) == 0
    reported = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    begun = {one["file"]: one["resumed_windows"] for one in reported if one["event"] == "file_start"}
    skipped = [(one["file"], one["reason"]) for one in reported if one["event"] == "file_skipped"]
    texts = [one["text"] for one in reported if one["event"] == "segment"]
    if run["name"] == "scripted":
        assert (begun, skipped) == ({"stop.mp3": 3}, [("short.mp3", "done_before")])
        assert texts == [" First", " Zweites, grün", " Third", " Fourth"]
    else:
        assert (begun, skipped) == ({"noise.wav": 3}, [])
        windows = [one["resumed"] for one in reported if one["event"] == "window"]
        assert windows[:4] == [True, True, True, False]
    assert not (tmp_path / JOURNAL_NAME).exists()


def with_later_field(values: Any, default: object, given: object) -> Any:
    """Return the same values of a class of another name, which has one more field."""
    kind = make_dataclass("Renamed", [("later_option", Any, field(default=default))], bases=(type(values),),
                          frozen=True, slots=True, kw_only=True)  # fmt: skip
    return kind(**{item.name: getattr(values, item.name) for item in fields(values)}, later_option=given)


@pytest.mark.parametrize("default", [None, 0, (), "auto"])
def test_an_option_that_comes_later_stands_in_a_key_only_where_it_is_given(default: object) -> None:
    plain = parse(["talk.mp3", "-f", "srt"])

    def keys(options: Any = None, layout: Any = None, sizes: Any = None) -> tuple[str, frozenset[str]]:
        info = described(RUNS["scripted"]["info"])
        info.spec = sizes or info.spec
        groups = replace(plain.options, speech=options or plain.options.speech)
        return settings_key(info, groups), output_keys(replace(plain, layout=layout or plain.layout))

    before = {"options": plain.options.speech, "layout": plain.layout, "sizes": ScriptedSpec()}
    assert keys(**{name: with_later_field(one, default, default) for name, one in before.items()}) == keys()
    found = {
        keys(**{name: with_later_field(one, default, given)}) for name, one in before.items() for given in (1, "x")
    }
    assert len(found | {keys()}) == 7
