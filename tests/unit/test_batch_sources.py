"""Recordings by path or address: what is shown of them, names of their files, and how they are fetched."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stapes.batch import sources
from stapes.batch.sources import file_stem, is_address, opened, row_id, row_key, scrub, shown_uri
from stapes.errors import AudioError, FetchError, OptionError, OutputError

SIGNED = "https://user:pa55word@host.example:8443/a/b%20c.wav?X-Amz-Credential=AKIAEXAMPLE%2F2026&X-Amz-Signature=0123abcd%2Fef"
SECRETS = ("pa55word", "AKIAEXAMPLE", "0123abcd")


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("talk?1#2.wav", "talk?1#2.wav"),
        ("a::b@c.wav", "a::b@c.wav"),
        (r"C:\talks\a.wav", r"C:\talks\a.wav"),
        ("file:///a%20b%3F.wav", "/a b?.wav"),
        ("file://localhost/a.wav", "/a.wav"),
        ("FILE:///a::b.wav", "/a::b.wav"),
        (SIGNED, "https://host.example:8443/a/b%20c.wav"),
        ("HTTPS://h/a.wav#x?y", "https://h/a.wav"),
        ("https://h?sig=secret", "https://h"),
        ("https://u:p/a?s#s@h/a@b.wav", "https://b.wav"),  # the password is not encoded: rather too little
        ("http://[::1]:80/a.wav?x=a::b", "http://[::1]:80/a.wav"),
        ("s3://bucket/a@b.wav?versionId=1", "s3://bucket/a@b.wav"),
        ("az://box/a.wav?sv=1&sig=x", "az://box/a.wav"),
        ("abfs://box@account.example/a.wav?sig=x", "abfs://box@account.example/a.wav"),
    ],
)
def test_what_is_shown_of_an_address(uri: str, shown: str) -> None:
    assert shown_uri(uri) == shown
    assert shown_uri(shown) == shown


@pytest.mark.parametrize(
    "uri", ["simplecache::s3://k:secret@b/a.wav", "zip://a.wav::https://u:secret@h/a.zip?sig=secret"]
)
def test_chained_addresses_are_refused_without_their_text(uri: str) -> None:
    with pytest.raises(OptionError, match="'::'") as caught:
        shown_uri(uri)
    assert "secret" not in str(caught.value)


def test_ids_and_keys() -> None:
    assert row_id(SIGNED) == row_id(shown_uri(SIGNED)) != row_id("https://host.example/a.wav")
    assert row_key("Stra\u00dfe \u00e9") == row_key("STRASSE E\u0301")
    assert len(row_key("a")) == 32
    assert is_address("S3://b/k")
    assert not any(map(is_address, ("a.wav", "file:///a", "c://a", r"C:\a")))


names = st.text(st.characters(exclude_categories=()), max_size=12) | st.sampled_from(
    ["con", "CON.txt", "nul", "com1", "a.", ".", "..", "%2E", "~", "x" * 201, "x" * 200, "x" * 168 + "-" + "0" * 32]
)


@given(names, names)
def test_names_of_files_differ_where_ids_do_and_are_safe(one: str, other: str) -> None:
    first, second = file_stem(one), file_stem(other)
    assert (first == second) == (one == other)
    assert row_key(one) == row_key(other) or first.lower() != second.lower()
    assert first.isascii()
    assert not set(first) & set('/\\:*?"<>|~ \0')
    assert len(first) <= 201
    assert not first.startswith(".")
    assert not first.endswith(".")
    assert first.partition(".")[0].lower() not in {"con", "nul", "com1", "aux", "prn"}


def test_a_long_name_is_cut_unlike_any_short_one() -> None:
    cut = file_stem("é" * 300)
    assert file_stem(cut) != cut
    assert file_stem("é" * 301) != cut
    assert len(cut) == 201


MESSAGES = (
    "403, message='Forbidden', url='{uri}'",
    "Cannot connect: {decoded}",
    "{encoded} is not there (HTTPSConnectionPool: Max retries exceeded with url: /a/b?{query} (Caused by x))",
    "<Error><AWSAccessKeyId>AKIAEXAMPLE/2026</AWSAccessKeyId><Sig>0123abcd%2fef</Sig></Error>",
    "redirected to https://other:pa55word@b.example/x?token=0123abcd&y='0123abcd' and gs://b/k?X-Goog=0123abcd",
)


@pytest.mark.parametrize("message", MESSAGES)
def test_messages_lose_their_credentials(message: str) -> None:
    full = message.format(
        uri=SIGNED, decoded=unquote(SIGNED), encoded=quote(SIGNED, safe=""), query=SIGNED.partition("?")[2]
    )
    scrubbed = scrub(full, SIGNED)
    assert not [one for one in SECRETS if one in scrubbed], scrubbed
    assert scrub("no credentials here", SIGNED) == "no credentials here"


@given(st.text("abcdefgh0123456789+/=%&' @?#\"<>", min_size=8, max_size=30), st.sampled_from([str, quote]))
def test_no_query_survives(secret: str, spell: Any) -> None:
    uri = f"https://h.example/a.wav?sig={secret}"
    assert f"sig={spell(secret)}" not in scrub(f"Forbidden: {uri.partition('sig=')[0]}sig={spell(secret)}", uri)


def test_a_local_recording_is_its_own_file(tmp_path: Path) -> None:
    path = tmp_path / "a b?.wav"
    path.write_bytes(b"x")
    for uri in (str(path), path.as_uri()):
        with opened(uri, timeout_s=1, folder=tmp_path) as found:
            assert found == path
    assert path.exists()


def test_what_is_no_local_recording(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, reason in (("none.wav", "no such file"), (".", "folder"), ("pipe", "pipe"), ("a\0b", "NUL")):
        with pytest.raises(AudioError, match=reason), opened(f"{tmp_path}/{name}", timeout_s=1, folder=tmp_path):
            pass


@pytest.fixture
def memory() -> Iterator[Any]:
    fsspec = pytest.importorskip("fsspec")
    place = fsspec.filesystem("memory")
    place.pipe("/batch/a.wav", b"sound" * 1000)
    yield place
    place.rm("/batch", recursive=True)


def left(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_a_fetched_recording_is_private_and_removed(tmp_path: Path, memory: Any) -> None:
    def fetched(number: int) -> bytes:
        with opened("memory://batch/a.wav", timeout_s=5, folder=tmp_path) as path:
            assert path.suffix == ".wav"
            assert path.stat().st_mode & 0o777 == 0o600
            return path.read_bytes()

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(fetched, range(8))) == {b"sound" * 1000}
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("raised", "expected", "text"),
    [
        (FileNotFoundError("{uri}"), AudioError, "is not there"),
        (PermissionError("{uri}"), AudioError, "credentials"),
        (ImportError("Install s3fs to access S3"), AudioError, "Install s3fs"),
        (ConnectionResetError("reset {uri}"), FetchError, "reset"),
        (OSError(5, "{uri}"), FetchError, "could not be fetched"),
        (OSError(28, "No space left"), OutputError, "No space left"),
    ],
)
def test_errors_of_a_file_system(
    tmp_path: Path, memory: Any, monkeypatch: pytest.MonkeyPatch, raised: Exception, expected: type, text: str
) -> None:
    uri = "memory://batch/a.wav?sig=topsecret"
    raised.args = tuple(one.format(uri=uri) if isinstance(one, str) else one for one in raised.args)

    def fail(*_: Any, **__: Any) -> None:
        raise raised

    monkeypatch.setattr(type(memory), "_open", fail)
    with pytest.raises(expected, match=text) as caught, opened(uri, timeout_s=5, folder=tmp_path):
        pass
    assert type(caught.value) is expected
    assert "topsecret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert left(tmp_path) == []


def test_an_unknown_scheme_and_a_full_disk(tmp_path: Path, memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AudioError, match="nowhere://"), opened("nowhere://a/b", timeout_s=5, folder=tmp_path):
        pass
    monkeypatch.setattr(sources, "_FREE_BYTES", 1 << 62)
    with pytest.raises(OutputError, match="are free"), opened("memory://batch/a.wav", timeout_s=5, folder=tmp_path):
        pass
    assert left(tmp_path) == []


def test_a_copy_that_came_short_is_worth_another_try(
    tmp_path: Path, memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(memory.store["/batch/a.wav"]), "size", 6000)
    with (
        pytest.raises(FetchError, match="5000 of its 6000"),
        opened("memory://batch/a.wav", timeout_s=5, folder=tmp_path),
    ):
        pass


def test_a_source_that_hangs_is_given_up_and_its_thread_cleans_up(
    tmp_path: Path, memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    open_file = type(memory)._open

    def hang(*given: Any, **named: Any) -> Any:
        go_on.wait(10)
        return open_file(*given, **named)

    monkeypatch.setattr(type(memory), "_open", hang)
    started = time.monotonic()
    uri = "memory://batch/a.wav"
    with pytest.raises(FetchError, match=r"sent nothing for 0\.1 s"), opened(uri, timeout_s=0.1, folder=tmp_path):
        pass
    assert time.monotonic() - started < 5
    thread = next(one for one in threading.enumerate() if one.name == "stapes-fetch")
    go_on.set()
    thread.join(5)
    assert not thread.is_alive()
    assert left(tmp_path) == []


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status = int(self.path[1:4])
        self.send_response(status)
        self.send_header("Content-Length", "2000" if "short" in self.path else "1000")
        self.end_headers()
        self.wfile.write(b"x" * 1000)
        if "hang" in self.path:
            time.sleep(1)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    pytest.importorskip("aiohttp")
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_http(tmp_path: Path, address: str) -> None:
    with opened(f"{address}/200.wav?sig=topsecret", timeout_s=5, folder=tmp_path) as path:
        assert path.read_bytes() == b"x" * 1000
    wrong = {"404": AudioError, "403": AudioError, "416": AudioError, "429": FetchError, "503": FetchError}
    for name, kind in {**wrong, "200short": FetchError}.items():
        with (
            pytest.raises(AudioError) as caught,
            opened(f"{address}/{name}?sig=topsecret", timeout_s=5, folder=tmp_path),
        ):
            pass
        assert type(caught.value) is kind, name
        assert "topsecret" not in str(caught.value), name
    with pytest.raises(FetchError), opened(f"{address}/200shorthang", timeout_s=0.2, folder=tmp_path):
        pass
    deadline = time.monotonic() + 5
    while left(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert left(tmp_path) == []
    with pytest.raises(FetchError), opened("http://127.0.0.1:9/a?sig=topsecret", timeout_s=5, folder=tmp_path):
        pass


def test_local_paths_load_no_fsspec() -> None:
    program = (
        "import sys; from pathlib import Path; from stapes.batch.sources import opened\n"
        "with opened(__import__('os').__file__, timeout_s=1, folder=Path()): print('fsspec' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tempfile.gettempdir(),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.stdout.strip() == "False"
