"""The five formats against text made by hand, and files that are written whole or not at all."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from stapes.errors import OptionError, OutputError
from stapes.output.files import output_stem
from stapes.output.subtitles import Layout
from stapes.output.writers import (
    WRITERS,
    format_names,
    format_timestamp,
    to_json,
    to_srt,
    to_tsv,
    to_txt,
    to_vtt,
    write_files,
)
from stapes.report import write_plot, write_report
from stapes.results import Segment, Transcript


def segment(number: int, start_s: float, end_s: float, text: str) -> Segment:
    return Segment(
        id=number,
        seek=0,
        start_s=start_s,
        end_s=end_s,
        text=text,
        tokens=(50364, 7, 50464),
        temperature=0.0,
        avg_logprob=-0.25,
        compression_ratio=1.5,
        no_speech_prob=0.125,
    )


def transcript(*texts: str) -> Transcript:
    segments = tuple(segment(i, 2.0 * i, 2.0 * i + 2.0, text) for i, text in enumerate(texts))
    return Transcript(text="".join(texts), segments=segments, language="en", duration_s=60.0)


TWO = Transcript(
    text=" Grüße\taus Wien. 你好",
    segments=(segment(0, 0.0, 3.28, " Grüße\taus Wien."), segment(1, 3599.9996, 3661.5, " 你好")),
    language="de",
    duration_s=4000.0,
)


def test_txt_has_one_line_per_segment() -> None:
    assert to_txt(TWO) == "Grüße\taus Wien.\n你好\n"


def test_vtt_shows_hours_only_from_the_first_one_on() -> None:
    assert to_vtt(TWO) == (
        "WEBVTT\n\n"
        "00:00.000 --> 00:03.280\nGrüße\taus Wien.\n\n"
        "01:00:00.000 --> 01:01:01.500\n你好\n\n"
    )  # fmt: skip


def test_srt_numbers_its_cues_and_always_shows_hours() -> None:
    assert to_srt(TWO) == (
        "1\n00:00:00,000 --> 00:00:03,280\nGrüße\taus Wien.\n\n"
        "2\n01:00:00,000 --> 01:01:01,500\n你好\n\n"
    )  # fmt: skip


def test_tsv_counts_milliseconds_and_has_no_tab_in_text() -> None:
    assert to_tsv(TWO) == "start\tend\ttext\n0\t3280\tGrüße aus Wien.\n3600000\t3661500\t你好\n"


def test_json_is_the_reference_dict_on_one_ascii_line() -> None:
    assert to_json(TWO) == (
        '{"text": " Gr\\u00fc\\u00dfe\\taus Wien. \\u4f60\\u597d", "segments": ['
        '{"id": 0, "seek": 0, "start": 0.0, "end": 3.28, "text": " Gr\\u00fc\\u00dfe\\taus Wien.", '
        '"tokens": [50364, 7, 50464], "temperature": 0.0, "avg_logprob": -0.25, "compression_ratio": 1.5, '
        '"no_speech_prob": 0.125}, '
        '{"id": 1, "seek": 0, "start": 3599.9996, "end": 3661.5, "text": " \\u4f60\\u597d", '
        '"tokens": [50364, 7, 50464], "temperature": 0.0, "avg_logprob": -0.25, "compression_ratio": 1.5, '
        '"no_speech_prob": 0.125}], "language": "de"}'
    )
    assert json.loads(to_json(TWO)) == TWO.to_dict()


def test_a_recording_without_speech_gives_headers_only() -> None:
    empty = transcript()
    assert (to_txt(empty), to_vtt(empty), to_srt(empty), to_tsv(empty)) == (
        "", "WEBVTT\n\n", "", "start\tend\ttext\n"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a --> b", "a -> b"),
        ("a ---> b", "a -> b"),
        ("----->", "->"),
        ("-->-->", "->->"),
        ("- -> -", "- -> -"),
    ],
)
def test_no_arrow_is_left_in_a_cue(text: str, expected: str) -> None:
    assert to_srt(transcript(text)).splitlines()[2] == expected
    assert to_vtt(transcript(text)).splitlines()[3] == expected


@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\n\n", "\r", "\v", "\f", "\x85", "\u2028", " \n \n "])
def test_a_line_break_in_text_becomes_a_space(line_break: str) -> None:
    broken, whole = transcript(f" a{line_break}b"), transcript(" a b")
    for write in (to_txt, to_vtt, to_srt, to_tsv):
        assert write(broken) == write(whole)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "00:00.000"), (0.0005, "00:00.000"), (0.0015, "00:00.002"), (59.9996, "01:00.000"),
     (3600, "01:00:00.000"), (360000.5, "100:00:00.500")],
)  # fmt: skip
def test_timestamps_round_to_milliseconds(seconds: float, text: str) -> None:
    assert format_timestamp(seconds) == text


def test_stems_are_those_of_the_reference() -> None:
    names = {"in/a.b.mp3": "a.b", "talk": "talk", ".mp3": ".mp3", "-": "stdin", "x/talk.": "talk"}
    assert {name: output_stem(name) for name in names} == names


def test_format_names() -> None:
    assert format_names("all") == (
        "txt",
        "vtt",
        "srt",
        "tsv",
        "json",
    )  # the reference's: our other formats are asked for by name
    assert format_names(["srt", "txt", "srt"]) == ("srt", "txt")  # in the order asked for
    assert format_names("lrc, SRT,Lrc") == ("lrc", "srt")
    assert format_names("ass,ALL,srt") == ("ass", *format_names("all"))
    for wrong in ("doc", "srt,Doc", ["doc"]):
        with pytest.raises(OptionError, match="unknown output format 'doc'"):
            format_names(wrong)
    with pytest.raises(OptionError, match="unknown output format ''"):
        format_names("srt,")


def test_files_are_written_and_named_in_the_order_asked_for(tmp_path: Path) -> None:
    paths = write_files(transcript(" A."), "VTT,srt,txt", tmp_path, "talk")
    assert [path.name for path in paths] == ["talk.vtt", "talk.srt", "talk.txt"]


def _written(name: str, one: Any, _: Path) -> str:
    return WRITERS[name](one)


WRITING: dict[str, Callable[[Any, Path], Any]] = {
    **{name: partial(_written, name) for name in WRITERS},
    "readable": lambda one, _: to_srt(one, Layout(cue_style="readable")),
    "write_files": lambda one, folder: write_files(one, "txt", folder, "talk"),
    "write_report": lambda one, folder: write_report(one, b"", folder / "page.html"),
    "write_plot": lambda one, folder: write_plot(one, b"", folder / "page.png"),
}


@pytest.mark.parametrize("name", WRITING)
def test_the_references_dict_is_refused_with_what_to_give(name: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"must be the Transcript .*, got dict; leave \.to_dict\(\) out$"):
        WRITING[name](transcript(" A.").to_dict(), tmp_path)
    for other in ("text", None, [1]):
        with pytest.raises(OptionError, match=rf"transcribe\(\) returns, got {type(other).__name__}$"):
            WRITING[name](other, tmp_path)
    assert not list(tmp_path.iterdir())


def test_all_writes_every_format_in_utf8(tmp_path: Path) -> None:
    paths = write_files(TWO, "all", tmp_path, "a.b")
    assert [path.name for path in paths] == ["a.b.txt", "a.b.vtt", "a.b.srt", "a.b.tsv", "a.b.json"]
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in paths}
    for path in paths:
        assert path.read_bytes() == WRITERS[path.suffix[1:]](TWO).encode()


def failing(call: str, number: int, after: int = 0) -> Callable[..., object]:
    """Make a stand-in for a function of os that fails, once it has been called `after` times."""
    real, calls = getattr(os, call), []

    def stand_in(*arguments: Any) -> object:
        calls.append(arguments)
        if len(calls) > after:
            raise OSError(number, os.strerror(number))
        return real(*arguments)

    return stand_in


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("after", [0, 3])
def test_a_full_disk_leaves_the_old_files_and_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, after: int
) -> None:
    (tmp_path / "talk.json").write_text("old")
    monkeypatch.setattr(os, call, failing(call, errno.ENOSPC, after))
    with pytest.raises(OutputError, match=r"talk\.\w+: the disk is full; free some space") as caught:
        write_files(TWO, "all", tmp_path, "talk")
    assert isinstance(caught.value.__cause__, OSError)
    assert (tmp_path / "talk.json").read_text() == "old"
    left = {path.name for path in tmp_path.iterdir()}
    assert not [name for name in left if "tmp" in name]
    if call == "fsync":  # nothing is renamed before everything is on the disk
        assert left == {"talk.json"}


def test_an_interrupt_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_files(TWO, "all", tmp_path, "talk")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EACCES, "no permission"),
        (errno.EROFS, "read-only"),
        (errno.EDQUOT, "quota"),
        (errno.EIO, "cannot be"),
    ],
)
def test_each_cause_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str) -> None:
    monkeypatch.setattr(os, "fsync", failing("fsync", number))
    with pytest.raises(OutputError, match=words):
        write_files(TWO, "srt", tmp_path, "talk")


def test_folders_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "talk.srt").mkdir()
    with pytest.raises(OutputError, match=r"no such folder; make it first"):
        write_files(TWO, "txt", tmp_path / "missing", "talk")
    with pytest.raises(OutputError, match=r"not a folder but a file"):
        write_files(TWO, "txt", tmp_path / "file", "talk")
    with pytest.raises(OutputError, match=r"talk\.srt: a folder of this name is in the way"):
        write_files(TWO, "all", tmp_path, "talk")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "talk.srt"}


def test_a_name_up_to_the_disks_limit_is_written_and_a_longer_one_is_refused(tmp_path: Path) -> None:
    assert write_files(TWO, "txt", tmp_path, "n" * 251)[0].exists()
    with pytest.raises(OutputError, match="the name is too long"):
        write_files(TWO, "txt", tmp_path, "n" * 252)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("stem", ["", "a/b", "../a", "a\0b"])
def test_a_stem_is_a_plain_name(tmp_path: Path, stem: str) -> None:
    with pytest.raises(OutputError, match="plain file name"):
        write_files(TWO, "txt", tmp_path, stem)
