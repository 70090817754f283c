"""Manifests: every kind gives the same rows; bad lines have numbers and reasons; what is no manifest is refused."""

from __future__ import annotations

import gzip
import io
import json
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stapes.batch.manifest import BadLine, ManifestRow, read_manifest
from stapes.batch.sources import row_id, row_key
from stapes.errors import OptionError, StapesWarning


def written(folder: Path, name: str, text: str | bytes) -> str:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def found(manifest: str, **keywords: Any) -> list[Any]:
    """Return (line, uri, id or None, options) of rows, and (line, reason) of bad lines."""
    return [
        (one.line, one.reason)
        if isinstance(one, BadLine)
        else (one.line, one.row.uri, one.row.id if one.row.id != row_id(one.row.uri) else None, one.row.options)
        for one in read_manifest(manifest, **keywords)
    ]


def test_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = "\ufeff/a b.wav\r\n\n  \n./c.wav\nhttps://h/d.wav?sig=secret\nfile:///e%20.wav\nx::s3://b/f\nlast "
    assert found(written(tmp_path, "rows.txt", text)) == [
        (1, "/a b.wav", None, "{}"),
        (4, f"{tmp_path}/c.wav", None, "{}"),
        (5, "https://h/d.wav?sig=secret", None, "{}"),
        (6, "/e .wav", None, "{}"),
        (7, "several addresses joined by '::' are not opened; give the recording's own address"),
        (8, f"{tmp_path}/last ", None, "{}"),
    ]
    row = next(read_manifest("rows.txt"))
    assert isinstance(row, ManifestRow)
    assert row.row.key == row_key(row.row.id)


TABLE = 'ID,Path,language,word_timestamps,temperature\n"é ""1""",/a.wav,en,yes,0.2\n,/b.wav,,,\n'
EXPECTED = [
    ("/a.wav", 'é "1"', '{"language":"en","temperature":0.2,"word_timestamps":true}'),
    ("/b.wav", None, "{}"),
]


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "gz", "parquet", "memory"])
def test_every_kind_gives_the_same_rows(tmp_path: Path, kind: str) -> None:
    values = [
        {"id": 'é "1"', "path": "/a.wav", "language": "en", "word_timestamps": True, "temperature": 0.2},
        {"id": None, "path": "/b.wav", "language": "", "word_timestamps": None, "temperature": float("nan")},
    ]
    lines = "\n".join(map(json.dumps, values))
    if kind == "parquet":
        pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        manifest = str(tmp_path / "rows.parquet")
        pq.write_table(pa.Table.from_pylist(values), manifest)
    elif kind == "memory":
        pytest.importorskip("fsspec").filesystem("memory").pipe("/batch/rows.jsonl", lines.encode())
        manifest = "memory://batch/rows.jsonl?sig=secret".partition("?")[0]
    elif kind == "gz":
        manifest = written(tmp_path, "rows.jsonl.gz", gzip.compress(lines.encode()))
    else:
        text = {"csv": TABLE, "tsv": TABLE.replace(",", "\t"), "jsonl": lines}[kind]
        manifest = written(tmp_path, f"rows.{kind}", text)
    assert [one[1:] for one in found(manifest)] == EXPECTED


def test_whole_numbers_of_pandas(tmp_path: Path) -> None:
    assert found(written(tmp_path, "a.jsonl", '{"uri": "/a", "beam_size": 5.0}')) == [
        (1, "/a", None, '{"beam_size":5}')
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("3", "not a JSON object"),
        ("{}", "names no recording"),
        ('{"uri": null}', "names no recording"),
        ('{"uri": 3}', "a path or an address, got int"),
        ('{"uri": "a", "path": "b"}', "twice"),
        ('{"uri": "a\\u0000"}', "NUL"),
        ('{"uri": "a\\ud800"}', "not UTF-8"),
        ('{"uri": "a", "id": 7}', "id must be text"),
        (json.dumps({"uri": "a", "id": "x" * 513}), "513 characters"),
        ('{"uri": "a", "id": "x\\n"}', "control"),
        ('{"uri": "a", "task": "xx"}', "task"),
        ('{"uri": "a", "beam_size": "5"}', "beam_size"),
        ('{"uri": "a", "temperature": NaN, "length_penalty": Infinity}', "options must be"),
        (b'{"uri": "\xff"}', "not UTF-8"),
        ('{"uri": "' + "a" * (1 << 20) + '"}', "longer than 1 MiB"),
    ],
)
def test_a_bad_line_does_not_stop_the_others(tmp_path: Path, line: str | bytes, reason: str) -> None:
    data = b'{"uri": "/first"}\n' + (line if isinstance(line, bytes) else line.encode()) + b'\n{"uri": "/last"}\n'
    first, bad, last = found(written(tmp_path, "a.jsonl", data))
    assert (first[:2], last[:2]) == ((1, "/first"), (3, "/last"))
    assert bad[0] == 2
    assert reason in bad[1]
    assert len(bad[1]) <= 300


def test_bad_rows_of_a_table(tmp_path: Path) -> None:
    rows = b'path,beam_size\n/a,1\n/b,many\n/c\n/\xff,1\n,1\n/d,\n"/e\n/f",2\n/g,"' + b"x" * 140_000 + b'"\n/h,\n'
    lines = found(written(tmp_path, "a.csv", rows))
    assert [one[0] for one in lines] == [2, 3, 4, 5, 6, 7, 8, 10, 11]
    reasons = [one[1] for one in lines]
    assert [reasons[0], reasons[5], reasons[8]] == ["/a", "/d", "/h"]
    for number, text in {
        1: "whole number",
        2: "1 fields, but 2",
        3: "UTF-8",
        4: "no recording",
        6: "quote",
        7: "quote",
    }.items():
        assert text in reasons[number]


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.txt", "", "empty"),
        ("a.txt", "\n \n", "empty"),
        ("a.csv", "path,id\n", "empty"),
        ("a.txt", b"RIFF\0\0", "binary"),
        ("a.txt", "/a.wav\n".encode("utf-16"), "binary"),
        ("a.jsonl", '[{"uri": "a"}]', "one JSON array"),
        ("a.csv", "name,id\na,b\n", "no column for the recording"),
        ("a.csv", "path,uri\na,b\n", "several columns"),
        ("a.csv", "path,language,Language\na,,\n", "several columns for language"),
        ("a.csv", "path,languag\na,b\n", "did you mean 'language'"),
        ("a.jsonl", '{"uri": "a", "lang": "en"}', "give language instead"),
        ("a.gz", gzip.compress(b"/a\n" * 100, mtime=0)[:-9], "cannot be read"),
        ("a.gz", b"/a\n", "cannot be read"),
        ("a.parquet", b"PAR1" * 10, "no Parquet file"),
    ],
)
def test_what_is_no_manifest(tmp_path: Path, name: str, data: str | bytes, reason: str) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    with pytest.raises(OptionError, match=reason):
        found(written(tmp_path, name, data))


def test_manifests_that_cannot_be_opened(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    for manifest in (str(tmp_path), str(tmp_path / "none.txt"), "memory://none/rows.txt?sig=secret"):
        with pytest.raises(OptionError, match="cannot be read") as caught:
            found(manifest)
        assert "secret" not in str(caught.value)
    with pytest.raises(OptionError, match="no kind of manifest"):
        found("a.txt", kind="xml")


def test_other_columns_are_ignored_with_one_warning(tmp_path: Path) -> None:
    nemo = '{"audio_filepath": "/a", "duration": 1.5, "text": "x", "speaker": 1}\n{"uri": "/b", "text": "y"}'
    for manifest in (
        written(tmp_path, "a.jsonl", nemo),
        written(tmp_path, "a.csv", "audio_filepath,duration,text,speaker\n/a,1,x,1\n/b,,,\n"),
    ):
        with pytest.warns(StapesWarning, match="'duration', 'text', 'speaker'") as caught:
            assert [one[1] for one in found(manifest)] == ["/a", "/b"]
        assert len(caught) == 1


def test_options_of_a_row_go_with_those_of_the_batch(tmp_path: Path) -> None:
    manifest = written(tmp_path, "a.csv", "path,rules_of\n/a,faster-whisper\n")
    assert "needs mode 'reference'" in found(manifest)[0][1]
    assert found(manifest, base={"mode": "reference"})[0][1] == "/a"


def test_standard_input_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.BytesIO(b"/a\n/b\n")
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=stream))
    assert [one[1] for one in found("-")] == ["/a", "/b"]
    assert not stream.closed


def test_an_address_as_an_id_loses_its_query(tmp_path: Path) -> None:
    line = '{"uri": "https://h/a?sig=secret", "id": "https://u:secret@h/a?sig=secret"}'
    assert found(written(tmp_path, "a.jsonl", line))[0][2] == "https://h/a"


paths = st.text(st.characters(exclude_characters="\n\r\0", exclude_categories=["Cs"]), max_size=20).map("/{}x".format)


@given(st.lists(paths, min_size=1, max_size=8))
def test_any_path_comes_back(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    folder = tmp_path_factory.getbasetemp()
    names = [name for name in names if "://" not in name] or ["/x"]
    for name, text in (
        ("any.txt", "\n".join(names)),
        ("any.jsonl", "\n".join(json.dumps({"path": one}) for one in names)),
        ("any.csv", "path\n" + "".join('"{}"\n'.format(one.replace('"', '""')) for one in names)),
    ):
        assert [one[1] for one in found(written(folder, name, text))] == names


def test_memory_does_not_grow_with_the_manifest(tmp_path: Path) -> None:
    lines = "".join(f'{{"uri": "/{number}.wav", "key{number}": 1}}\n' for number in range(8000))
    tracemalloc.start()
    with pytest.warns(StapesWarning, match="more"):
        assert sum(1 for _ in read_manifest(written(tmp_path, "a.jsonl", lines))) == 8000
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()
