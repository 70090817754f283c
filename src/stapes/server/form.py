"""A multipart form, read piece by piece: text fields in memory, the file on the disk; everything bounded.

Fields may come in any order. Whatever goes wrong, no file is left.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.types import Receive

from stapes.output.files import sync_folder
from stapes.server.config import Bounds
from stapes.server.errors import ApiError, invalid_value
from stapes.server.spool import Spool

FILE: Final = "file"
MAX_PARTS, MAX_FIELDS_BYTES, MAX_NAME_BYTES, MAX_HEADER_BYTES, MAX_BOUNDARY_BYTES = 1000, 64 << 10, 200, 8192, 70
#: the rate of a body is looked at over so long
RATE_WINDOW_S: Final = 10.0


@dataclass(slots=True, eq=False)
class Upload:
    """A file that was sent."""

    path: Path
    filename: str
    content_type: str
    size: int = 0
    digest: Any = field(default_factory=hashlib.sha256)

    @property
    def sha256(self) -> str:
        """Of its bytes, in hexadecimal digits."""
        return str(self.digest.hexdigest())

    def open(self) -> int:
        """Return a descriptor that reads it."""
        return os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))

    def keep_as(self, place: Path) -> None:
        """Move it, so that it stays when its request ends; returns when it is on the disk."""
        file = self.open()
        try:
            os.fsync(file)
        finally:
            os.close(file)
        self.path.replace(place)
        sync_folder(place.parent)


@dataclass(slots=True, eq=False)
class Form:
    """What a form holds. fields: (name, text) in their order."""

    fields: list[tuple[str, str]] = field(default_factory=list)
    upload: Upload | None = None

    def file(self) -> Upload:
        """Return the file. Raises ApiError 400 where none was sent."""
        if self.upload is None:
            raise ApiError(400, "Missing required parameter: 'file'.", param=FILE, code="missing_required_parameter")
        return self.upload


@asynccontextmanager
async def read_form(
    chunks: AsyncIterator[bytes],
    headers: Mapping[str, str],
    spool: Spool,
    bounds: Bounds,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[Form]:
    """Read a body; give its form. The uploaded file is removed in the end.

    chunks: of the body.   headers: of the request, in lower case.
    Raises ApiError 400 for what is no form, 408 for a body that comes too slowly, 413 for one that is too large, 429
    where there is no room for it; and what `chunks` raises.
    """
    reader = _Reader(_boundary(headers.get("content-type", "")), spool)
    try:
        async for chunk in timely(chunks, bounds, clock=clock):
            reader.write(chunk, bounds.max_body_bytes)
        yield reader.finish()
    finally:
        reader.remove()


async def timely(
    chunks: AsyncIterator[bytes], bounds: Bounds, *, clock: Callable[[], float] = time.monotonic
) -> AsyncIterator[bytes]:
    """Yield the chunks of a body. Raises ApiError 408 where they come too slowly."""
    began = window = clock()
    n_bytes = 0  # in the present window
    source = chunks.__aiter__()
    coming: asyncio.Future[bytes] | None = None
    try:
        while True:
            now = clock()
            if now - began >= bounds.body_timeout_s:
                raise _slow(f"it is not complete after {bounds.body_timeout_s:g} s")
            if now - window >= RATE_WINDOW_S:
                if n_bytes < bounds.min_body_rate * (now - window):
                    raise _slow(f"less than {bounds.min_body_rate:g} bytes a second")
                window, n_bytes = now, 0
            if coming is None:
                coming = asyncio.ensure_future(anext(source))
            left_s = min(window + RATE_WINDOW_S, began + bounds.body_timeout_s) - now
            await asyncio.wait({coming}, timeout=left_s)  # a source that is cancelled could not be read on
            if coming.done():
                try:
                    chunk = coming.result()
                except StopAsyncIteration:
                    return
                coming, n_bytes = None, n_bytes + len(chunk)
                yield chunk
    finally:
        if coming is not None and not coming.done():
            coming.cancel()


async def disconnected(receive: Receive) -> None:
    """Return when the client has closed the connection. For a request whose body was read."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _slow(what: str) -> ApiError:
    return ApiError(408, f"The body came too slowly: {what}.", code="body_timeout")


def _boundary(content_type: str) -> bytes:
    """Return what separates the parts. Raises ApiError 400."""
    kind, parameters = parse_options_header(content_type)
    if kind != b"multipart/form-data":
        raise ApiError(
            400, "The body must be a form: Content-Type multipart/form-data, as curl -F sends it.", code="invalid_form"
        )
    boundary = parameters.get(b"boundary", b"")
    if not 0 < len(boundary) <= MAX_BOUNDARY_BYTES:
        raise _no_form("its boundary is missing or too long")
    return boundary


def _no_form(why: str) -> ApiError:
    return ApiError(400, f"The body is not a proper multipart form: {why}.", code="invalid_form")


class _Part:
    """One part of a form while it is read."""

    def __init__(self) -> None:
        self.headers: dict[str, bytes] = {}
        self.name = ""
        self.header_name, self.header_value = bytearray(), bytearray()
        self.text = bytearray()
        self.upload: Upload | None = None


class _Reader:
    """Takes a body's bytes; collects fields, and writes the file."""

    def __init__(self, boundary: bytes, spool: Spool) -> None:
        self._spool = spool
        self._form = Form()
        self._part = _Part()
        self._file: int | None = None
        self._n_parts = self._n_text = self._n_body = 0
        self._is_complete = False
        callbacks: dict[str, Any] = {
            "on_part_begin": self._begin_part,
            "on_header_field": partial(self._collect_header, "header_name"),
            "on_header_value": partial(self._collect_header, "header_value"),
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": self._take_data,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }
        self._parser = MultipartParser(boundary, callbacks, max_header_size=MAX_HEADER_BYTES)  # type: ignore[arg-type]

    def write(self, chunk: bytes, max_bytes: int) -> None:
        """Take more of the body. Raises ApiError."""
        self._n_body += len(chunk)
        if self._n_body > max_bytes:
            raise ApiError(413, f"The body is larger than {max_bytes >> 20} MiB.", code="body_too_large")
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise _no_form(str(error)[:200]) from None

    def finish(self) -> Form:
        """Return the form of a complete body. Raises ApiError 400."""
        if not self._is_complete:
            raise _no_form("it ends in the middle")
        upload = self._form.upload
        if upload is not None and not upload.size:
            raise ApiError(400, "The file is empty (0 bytes).", param=FILE, code="empty_file")
        return self._form

    def remove(self) -> None:
        """Close and remove the file."""
        self._close_file()
        if (upload := self._form.upload) is not None:
            upload.path.unlink(missing_ok=True)
            self._spool.give_back(upload.size)

    def _close_file(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    # The parser's callbacks.

    def _begin_part(self) -> None:
        self._n_parts += 1
        if self._n_parts > MAX_PARTS:
            raise _no_form(f"more than {MAX_PARTS} fields")
        self._part = _Part()

    def _collect_header(self, what: str, data: bytes, start: int, end: int) -> None:
        getattr(self._part, what).extend(data[start:end])

    def _end_header(self) -> None:
        part = self._part
        part.headers[part.header_name.decode("latin-1").lower()] = bytes(part.header_value)
        part.header_name, part.header_value = bytearray(), bytearray()

    def _end_headers(self) -> None:
        part = self._part
        disposition, parameters = parse_options_header(part.headers.get("content-disposition", b"").decode("latin-1"))
        if disposition != b"form-data" or b"name" not in parameters:
            raise _no_form("a part has no name")
        name = parameters[b"name"]
        if len(name) > MAX_NAME_BYTES:
            raise _no_form(f"a name is longer than {MAX_NAME_BYTES} bytes")
        part.name = _text(name, "a name")
        if part.name != FILE:
            if parameters.get(b"filename"):
                raise ApiError(
                    400,
                    f"A file belongs in the field 'file', not in '{part.name[:100]}'.",
                    param=part.name[:100],
                    code="invalid_value",
                )
            return
        if self._form.upload is not None:
            raise ApiError(400, "'file' is given twice.", param=FILE, code="invalid_value")
        path, self._file = self._spool.create()
        filename = parameters.get(b"filename", b"").decode("utf-8", "replace")
        content_type = part.headers.get("content-type", b"").decode("latin-1")
        part.upload = self._form.upload = Upload(path, filename[-255:], content_type[:255])

    def _take_data(self, data: bytes, start: int, end: int) -> None:
        part, size = self._part, end - start
        if part.upload is None:
            self._n_text += size
            if self._n_text > MAX_FIELDS_BYTES:
                raise invalid_value(
                    part.name[:100], f"The text fields are longer than {MAX_FIELDS_BYTES} bytes together."
                )
            part.text += data[start:end]
            return
        assert self._file is not None
        self._spool.take(size)
        part.upload.size += size
        block = memoryview(data)[start:end]
        part.upload.digest.update(block)
        try:
            while block:
                block = block[os.write(self._file, block) :]
        except OSError as error:
            raise ApiError(503, f"The upload could not be kept: {error.strerror}.", retry_after_s=60) from error

    def _end_part(self) -> None:
        part = self._part
        if part.upload is None:
            self._form.fields.append((part.name, _text(bytes(part.text), f"'{part.name[:100]}'")))
        else:
            self._close_file()

    def _end(self) -> None:
        self._is_complete = True


def _text(data: bytes, what: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise _no_form(f"{what} is not UTF-8") from None
