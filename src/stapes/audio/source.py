"""Where a recording's bytes come from: a file, standard input, bytes in memory, a file object -> `ByteSource`."""

from __future__ import annotations

import errno
import io
import os
import re
import stat
import sys
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import IO, Any

from stapes.errors import AudioError

# A pipe is copied to a temporary file before it is read: the index of an MP4 may be at its end, and what a
# demuxer finds must not depend on how the file came. The cap keeps an endless pipe from filling the disk.
MAX_PIPE_BYTES = 8 << 30
_PIPE_MEMORY_BYTES = 8 << 20  # copies below this stay in memory
_BLOCK_BYTES = 1 << 20
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT) if hasattr(errno, "EDQUOT") else (errno.ENOSPC,)


class ByteSource:
    """A seekable run of bytes as libav wants it: `read`, `seek`, `tell`, a `name` with the suffix.

    Never raises into libav, which would lose the error or print it: a failed read ends the stream, and `raise_failure`
    raises the error later.
    """

    def __init__(self, file: IO[bytes], label: str, *, suffix: str = "", owned: bool = True) -> None:
        self.label = label
        # Demuxers read the suffix, never the rest: an address inside the name has no effect.
        self.name = "input" + suffix
        self._file = file
        self._owned = owned
        self._failure: BaseException | None = None

    def read(self, size: int) -> bytes:
        """At most `size` bytes; b"" at the end or after a failure."""
        try:
            data = bytes(self._file.read(size) or b"")
        except BaseException as failure:  # Ctrl-C too: raised again by raise_failure
            self._failure = failure
            return b""
        # PyAV copies as many bytes as it is given into a buffer of `size`.
        return data[:size]

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move, and return the new position; -1 (libav's "cannot") if the file refuses."""
        try:
            self._file.seek(offset, whence)
            return self._file.tell()
        except (OSError, ValueError):
            return -1
        except BaseException as failure:  # as in read
            self._failure = failure
            return -1

    def tell(self) -> int:
        """The position from the start in bytes."""
        return self._file.tell()

    def raise_failure(self) -> None:
        """Raise what went wrong while libav was reading, if anything did."""
        failure, self._failure = self._failure, None
        if isinstance(failure, Exception):
            raise AudioError(f"{self.label}: reading failed: {failure}") from failure
        if failure is not None:
            raise failure

    def refuse_empty(self) -> None:
        """Raise AudioError if there is not a single byte; the position is then, as after opening, the start."""
        self._file.seek(0)
        is_empty = not self._file.read(1)
        self._file.seek(0)
        if is_empty:
            raise AudioError(f"{self.label}: the file is empty (0 bytes); nothing was recorded or copied into it")

    def close(self) -> None:
        """Close what we opened; a caller's file object stays open."""
        if self._owned:
            self._file.close()


def is_source(source: object) -> bool:
    """True for what `open_source` opens: a path, bytes, a file object."""
    return isinstance(source, str | os.PathLike | bytes | bytearray | memoryview) or callable(
        getattr(source, "read", None)
    )


def open_source(source: object) -> ByteSource:
    """Open a recording; arrays excepted.

    source: a path, "-" (standard input), the bytes of a file, or a binary file object, which is read from its start if
    it can seek, from where it stands if not, and stays open.
    Raises AudioError if it cannot be opened, is a folder or a device, or holds no bytes.
    """
    opened = _open_any(source)
    try:
        opened.refuse_empty()
    except OSError as failure:
        opened.close()
        raise AudioError(f"{opened.label}: reading failed: {failure}") from failure
    except AudioError:
        opened.close()
        raise
    return opened


def _open_any(source: object) -> ByteSource:
    if isinstance(source, str) and source == "-":
        return ByteSource(_copy_pipe(sys.stdin.buffer.read, "standard input"), "standard input")
    if isinstance(source, str | os.PathLike):
        return _open_path(source)
    if isinstance(source, bytes | bytearray | memoryview):
        contents = io.BytesIO(source)
        return ByteSource(contents, f"the {contents.getbuffer().nbytes} bytes")
    if callable(getattr(source, "read", None)):
        return _open_file_object(source)
    raise AudioError(
        f"cannot read audio from {type(source).__name__}; expected a path, '-', the bytes of a file, "
        "a binary file object, or a NumPy array or what converts to one"
    )


def _open_path(source: str | os.PathLike[str]) -> ByteSource:
    text = os.fsdecode(source)
    if not text:
        raise AudioError("the name of the file is empty; name one, or '-' for standard input")
    try:
        path = Path(text)
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise AudioError(f"{text}: is a folder; name the audio files in it one by one")
        if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
            raise AudioError(f"{text}: is a device or a socket; name a file, or pipe the audio in as '-'")
        file = path.open("rb")
    except OSError as failure:
        raise AudioError(_cannot_open(text, failure)) from failure
    except ValueError as failure:  # a NUL inside the name
        raise AudioError(f"{text!r}: not a file name ({failure})") from failure
    suffix = path.suffix.lower()
    if stat.S_ISFIFO(mode):
        with file:
            return ByteSource(_copy_pipe(file.read, text), text, suffix=suffix)
    return ByteSource(file, text, suffix=suffix)


def _cannot_open(text: str, failure: OSError) -> str:
    if "://" in text:
        return f"{shown_address(text)}: stapes opens no addresses; download the file and name it"
    if isinstance(failure, FileNotFoundError):
        return f"{text}: no such file (looked in {Path.cwd()})"
    if isinstance(failure, PermissionError):
        return f"{text}: no permission to read it; ask its owner, or copy it to where you may"
    return f"{text}: cannot be opened: {failure.strerror or failure}"


def shown_address(address: str) -> str:
    """Return an address as messages show it: without user, password, query and fragment, where secrets are."""
    scheme, mark, rest = address.partition("://")
    if not mark:
        return address
    host, slash, path = rest.partition("/")
    path = re.split(r"[?#]", host.rpartition("@")[2] + slash + path, maxsplit=1)[0]
    return f"{scheme}://{path}"


def _open_file_object(file: Any) -> ByteSource:
    name = getattr(file, "name", None)
    label = os.fsdecode(name) if isinstance(name, str | bytes) else f"the {type(file).__name__} object"
    if _gives_text(file):
        raise AudioError(f"{label}: a text file object; open it with open(..., 'rb')")
    suffix = PurePath(label).suffix.lower() if isinstance(name, str | bytes) else ""
    try:
        seekable = bool(file.seekable()) and callable(getattr(file, "seek", None))
    except AttributeError:
        seekable = False
    except ValueError as failure:  # a closed file
        raise AudioError(f"{label}: {failure}; hand over an open file object") from failure
    if seekable:
        return ByteSource(file, label, suffix=suffix, owned=False)
    return ByteSource(_copy_pipe(file.read, label), label, suffix=suffix)


def _gives_text(file: Any) -> bool:
    mode = getattr(file, "mode", "rb")
    if isinstance(file, io.TextIOBase) or not isinstance(mode, str) or "b" in mode:  # gzip's mode is a number
        return isinstance(file, io.TextIOBase)
    try:  # the member of a zip is binary, and its mode is "r"
        return isinstance(file.read(0), str)
    except (OSError, TypeError, ValueError):  # raised again when it is read
        return False


def _copy_pipe(read: Callable[[int], bytes], label: str) -> IO[bytes]:
    import tempfile  # noqa: PLC0415 (8 ms, for pipes only)

    copy = tempfile.SpooledTemporaryFile(max_size=_PIPE_MEMORY_BYTES)  # noqa: SIM115 (it outlives this function)
    n_bytes = 0
    try:
        while block := read(_BLOCK_BYTES):
            n_bytes += len(block)
            if n_bytes > MAX_PIPE_BYTES:
                raise AudioError(f"{label}: gave more than {MAX_PIPE_BYTES >> 30} GiB; save it to a file and name that")
            copy.write(block)
        copy.seek(0)
    except (OSError, TypeError) as failure:
        copy.close()
        raise AudioError(_cannot_copy(label, failure)) from failure
    except BaseException:
        copy.close()
        raise
    return copy


def _cannot_copy(label: str, failure: OSError | TypeError) -> str:
    if isinstance(failure, TypeError):
        return f"{label}: its read() does not return bytes ({failure}); open it in binary mode"
    if failure.errno in _NO_ROOM:
        import tempfile  # noqa: PLC0415 (as above)

        return f"{label}: no room in {tempfile.gettempdir()} to copy the pipe; free some, or set TMPDIR"
    return f"{label}: reading failed: {failure}"
