"""Multipart bodies -> forms: any cut into chunks, any order, hostile ones; no file is left."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stapes.server.config import Bounds
from stapes.server.errors import ApiError
from stapes.server.form import read_form
from stapes.server.spool import Spool
from tests.random_cases import random_cases

BOUNDARY = "xyz"
TYPE = f"multipart/form-data; boundary={BOUNDARY}"


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool.open(tmp_path, max_bytes=1 << 20)


def files_in(folder: Path) -> list[Path]:
    return [one for one in folder.rglob("*") if one.is_file()]


def part(name: str, value: bytes, filename: str | None = None) -> bytes:
    more = "" if filename is None else f'; filename="{filename}"'
    return f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + value + b"\r\n"


def body(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


FILE = part("file", b"sound", "a.wav")
GOOD = body(part("model", b"base"), FILE, part("prompt", "é".encode()))


async def pieces(chunks: Iterable[bytes], pause_s: float = 0.0) -> AsyncIterator[bytes]:
    for one in chunks:
        await asyncio.sleep(pause_s)
        yield one


def read(spool: Spool, chunks: Iterable[bytes], content_type: str = TYPE, **bounds: Any) -> tuple[Any, bytes]:
    """Return a form's fields, and the bytes of its file."""

    async def work() -> tuple[Any, bytes]:
        limits = Bounds(**{"max_body_bytes": 1 << 20, **bounds})
        async with read_form(pieces(chunks), {"content-type": content_type}, spool, limits) as form:
            return form.fields, b"" if form.upload is None else form.upload.path.read_bytes()

    return asyncio.run(work())


def refused(spool: Spool, chunks: Iterable[bytes], content_type: str = TYPE, **bounds: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        read(spool, chunks, content_type, **bounds)
    return caught.value


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, len(GOOD) - 1), max_size=8))
def test_any_cut_into_chunks_gives_the_same_form(spool: Spool, cuts: list[int]) -> None:
    edges = [0, *sorted(set(cuts)), len(GOOD)]
    chunks = [GOOD[start:end] for start, end in pairwise(edges)]
    assert read(spool, chunks) == ([("model", "base"), ("prompt", "é")], b"sound")
    assert spool.n_bytes == 0


def test_the_upload_has_its_digest_and_is_removed_in_the_end(spool: Spool, tmp_path: Path) -> None:
    async def work() -> None:
        async with read_form(pieces([GOOD]), {"content-type": TYPE}, spool, Bounds()) as form:
            assert form.upload is not None
            assert (form.upload.filename, form.upload.size) == ("a.wav", 5)
            assert form.upload.sha256.startswith("a6f6d1a5")  # of b"sound"
            assert form.upload.path.stat().st_mode & 0o077 == 0

    with pytest.raises(AssertionError, match="a6f6d1a5"):
        asyncio.run(work())
    assert not files_in(tmp_path)


@pytest.mark.parametrize(
    ("chunks", "status", "words"),
    [
        ([b""], 400, "ends in the middle"),
        ([GOOD[:-10]], 400, "ends in the middle"),
        ([body(part("model", b"\xff"))], 400, "not UTF-8"),
        ([body(part("file", b"", "a.wav"))], 400, "empty"),
        ([body(FILE, FILE)], 400, "twice"),
        ([body(*[part("a", b"")] * 1001)], 400, "more than 1000 fields"),
        ([body(part("a" * 300, b""))], 400, "a name is longer"),
        ([body(part("a", b"x" * (70 << 10)))], 400, "text fields"),
        ([f"--{BOUNDARY}\r\n".encode() + b"x" * 20_000], 400, "proper multipart form"),
        ([f"--{BOUNDARY}\r\ncontent-type: text/plain\r\n\r\nx\r\n--{BOUNDARY}--\r\n".encode()], 400, "no name"),
        ([b"x" * (2 << 20)], 413, "larger than 1 MiB"),
    ],
)
def test_a_bad_body_is_refused_and_leaves_nothing(
    chunks: list[bytes], status: int, words: str, spool: Spool, tmp_path: Path
) -> None:
    error = refused(spool, chunks)
    assert error.status == status
    assert words in error.message
    assert not files_in(tmp_path)
    assert spool.n_bytes == 0


@pytest.mark.parametrize(
    "kind", ["", "application/json", "multipart/form-data", f"multipart/form-data; boundary={'x' * 80}"]
)
def test_what_is_no_form_is_refused(kind: str, spool: Spool) -> None:
    assert refused(spool, [GOOD], kind).code == "invalid_form"


def test_a_full_spool_is_a_busy_server(tmp_path: Path) -> None:
    error = refused(Spool.open(tmp_path, max_bytes=4), [GOOD])
    assert (error.status, error.retry_after_s) == (429, 10)


def test_a_body_that_takes_too_long_is_ended(spool: Spool, tmp_path: Path) -> None:
    async def work() -> None:
        chunks = pieces([GOOD[:60], GOOD[60:]], pause_s=5.0)
        async with read_form(chunks, {"content-type": TYPE}, spool, Bounds(body_timeout_s=0.2)):
            pass

    with pytest.raises(ApiError, match=r"not complete after 0\.2 s") as caught:
        asyncio.run(work())
    assert caught.value.status == 408
    assert not files_in(tmp_path)


def test_a_body_below_the_least_rate_is_ended(spool: Spool) -> None:
    moments = iter(range(0, 1000, 6))

    async def work() -> None:
        limits, chunks = Bounds(min_body_rate=100.0), pieces([bytes([one]) for one in GOOD])
        async with read_form(chunks, {"content-type": TYPE}, spool, limits, clock=lambda: next(moments)):
            pass

    with pytest.raises(ApiError, match="less than 100 bytes a second"):
        asyncio.run(work())


def test_files_of_processes_that_have_ended_are_removed(tmp_path: Path) -> None:
    folder = next(iter({Spool.open(tmp_path, max_bytes=1)._folder}))
    left = [folder / f"upload-{number}-{'0' * 32}" for number in (2**22 + 1, os.getpid())]
    others = [folder / f"upload-{os.getppid()}-{'0' * 32}", folder / "notes.txt"]
    for one in (*left, *others):
        one.touch()
    Spool.open(tmp_path, max_bytes=1)
    assert [one.exists() for one in (*left, *others)] == [False, False, True, True]


@random_cases(100, 2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=12), st.integers(0, len(GOOD)), st.integers(0, 12))
def test_mutated_bodies_are_forms_or_refused(spool: Spool, new: bytes, place: int, length: int) -> None:
    status = 200
    try:
        read(spool, [GOOD[:place] + new + GOOD[place + length :]])
    except ApiError as error:
        status = error.status
    assert status in (200, 400, 413)
    assert not files_in(spool._folder)
    assert spool.n_bytes == 0
