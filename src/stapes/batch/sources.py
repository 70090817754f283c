"""Recordings of a manifest: how a path or an address is shown and named, and how it becomes a local file.

A presigned address is a credential. Only `shown_uri` of it, and texts after `scrub`, may be written or shown.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import shutil
import stat
import tempfile
import threading
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import quote, unquote, unquote_plus

from stapes.errors import AudioError, FetchError, OptionError, OutputError, StapesError

_ADDRESS: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://(.*)", re.DOTALL)  # one letter alone is a drive of Windows
_ADDRESS_IN_TEXT: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://[^\s\"<>]+")
_QUERY_IN_TEXT: Final = re.compile(r"\?[^\s=?&]+=\S*")
#: an address that is shown as it is, as most are: without user, port, query and fragment
_PLAIN: Final = re.compile(r"(?!file:|local:)[a-z][a-z0-9+.-]+://[^?#@:]*")
_HOST: Final = re.compile(r"(\[[^\]]*\]|[^:]*)(:\d*)?")
#: schemes of Azure whose addresses have the container's name where others have the user's
_CONTAINER_BEFORE_HOST: Final = frozenset({"abfs", "abfss", "wasb", "wasbs"})
_LOCAL: Final = frozenset({"file", "local"})
_RESERVED: Final = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)  # by Windows
_MAX_STEM: Final = 200
_HEX_DIGITS: Final = 32
_BLOCK_BYTES: Final = 4 << 20
_CHECK_BYTES: Final = 16 << 20  # received between two looks at the disk's free space
_FREE_BYTES: Final = 256 << 20  # left on the disk of temporary files
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EFBIG, errno.EROFS, getattr(errno, "EDQUOT", errno.ENOSPC)})
_WORTH_ANOTHER_TRY: Final = frozenset({408, 425, 429})
_MAX_REASON: Final = 500
_SHORTEST_SECRET: Final = 6  # shorter values of a query, such as a version, are also ordinary words


def is_address(uri: str) -> bool:
    """Return whether a uri is fetched; a local path and a file:// URI are opened where they are."""
    match = _ADDRESS.match(uri) if "://" in uri else None
    return match is not None and match[1].lower() not in _LOCAL


def shown_uri(uri: str) -> str:
    """Return a uri without user, password, query and fragment; a path as it is, and the path of a file:// URI.

    Raises OptionError for several addresses in one, joined by "::".
    """
    if "://" not in uri or _PLAIN.fullmatch(uri):
        return uri
    shown = _shown(uri)
    if "::" in uri and "://" in shown:
        place = re.split("[?#]", uri, maxsplit=1)[0] if is_address(uri) else shown
        if "::" in re.sub(r"\[[^\]/]*\]", "", place):  # in brackets: an IPv6 host
            raise OptionError("several addresses joined by '::' are not opened; give the recording's own address")
    return shown


def row_id(uri: str) -> str:
    """Return the id of a recording that was given none: a hash of what is shown of its uri."""
    return short_hash(shown_uri(uri))


def row_key(id: str) -> str:
    """Return the key of an id, equal for ids that differ only in case or in how their accents are composed."""
    return short_hash(id.lower() if id.isascii() else unicodedata.normalize("NFC", id).casefold())


def file_stem(id: str) -> str:
    """Return the name of an id's files without suffix: ASCII, valid on every disk, another one for each id."""
    stem = quote(id, safe="", errors="surrogatepass").replace("~", "%7E")
    if stem.startswith(".") or _RESERVED.match(stem):
        stem = f"%{ord(stem[0]):02X}{stem[1:]}"
    if stem.endswith("."):  # Windows would drop it
        stem = f"{stem[:-1]}%2E"
    if len(stem) <= _MAX_STEM:
        return stem
    # Longer by one than any name that was not cut, so that no such name equals it.
    return f"{stem[: _MAX_STEM - _HEX_DIGITS]}-{short_hash(id)}"


def scrub(text: str, uri: str) -> str:
    """Return a message about a uri without credentials: the uri's, and those of other addresses in it."""
    if not is_address(uri):
        return _ADDRESS_IN_TEXT.sub(lambda found: _shown(found[0]), text)
    scheme, user, _, query = _parts(uri)
    shown = _shown(uri)
    for spelling in _spellings(uri):
        text = text.replace(spelling, shown)
    text = _ADDRESS_IN_TEXT.sub(lambda found: _shown(found[0]), text)
    text = _QUERY_IN_TEXT.sub("", text)
    kept = scheme in _CONTAINER_BEFORE_HOST and ":" not in user
    secrets = {query} | {value.partition("=")[2] for value in re.split("[?&#;]", query)}
    secrets |= set() if kept else {user, *user.split(":", 1)[1:]}
    found = {one for secret in secrets if len(secret) >= _SHORTEST_SECRET for one in _spellings(secret)}
    for one in sorted(found, key=len, reverse=True):
        text = text.replace(one, "...")
    return text


@contextmanager
def opened(uri: str, *, timeout_s: float, folder: Path) -> Iterator[Path]:
    """Yield the path of a recording: its own, or that of a temporary copy in `folder`, removed at the end.

    timeout_s: most time without a byte.   Raises AudioError where another try has no use, FetchError where it may have,
    OutputError if the disk of `folder` is full. Credentials come from the environment, as fsspec's packages read them.
    """
    shown = shown_uri(uri)
    if not is_address(uri):
        yield _checked(shown)
        return
    fetch = _Fetch(uri, timeout_s, folder)
    try:
        fetch.wait()
        yield fetch.path
    finally:
        fetch.close()


def _parts(uri: str) -> tuple[str, str, str, str]:
    """Return scheme, user with password, host with path, and query with fragment of an address."""
    scheme, _, rest = uri.partition("://")
    user = ""
    if "@" in rest:
        user, _, host = re.split("[/?#]", rest, maxsplit=1)[0].rpartition("@")
        if not _HOST.fullmatch(host):  # a password that has / or ? or # in it, not encoded
            user = rest.rpartition("@")[0]
        rest = rest.removeprefix(f"{user}@")
    place = rest.partition("?")[0].partition("#")[0]
    return scheme.lower(), user, place, rest[len(place) + 1 :]


def _shown(uri: str) -> str:
    match = _ADDRESS.match(uri)
    if match is None:
        return uri
    if match[1].lower() in _LOCAL:
        return _path_of(match[2])
    _, user, place, _ = _parts(uri)
    scheme = match[1].lower()
    container = f"{user}@" if user and ":" not in user and scheme in _CONTAINER_BEFORE_HOST else ""
    return f"{scheme}://{container}{place}"


def _path_of(rest: str) -> str:
    """Return the path of what stands after file://."""
    path = unquote(re.sub("^localhost/", "/", rest), errors="surrogateescape")
    if not path.startswith("/"):
        return f"//{path}"  # of another host: a share of Windows
    return path[1:] if os.name == "nt" and re.match("/[A-Za-z]:", path) else path


def _spellings(text: str) -> set[str]:
    """Return how libraries may write an address or a part of one: as it is, decoded, encoded again."""
    plain = unquote(text)
    lower = re.sub("%[0-9A-F]{2}", lambda found: found[0].lower(), quote(plain, safe=""))
    coded = {quote(text, safe=""), quote(plain, safe=""), lower}
    return coded | {text, plain, unquote_plus(text), quote(text, safe="/:?#[]@!$&'()*+,;=%")}


def short_hash(text: str) -> str:
    """Return the first 32 hexadecimal digits of a text's SHA-256."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_HEX_DIGITS]


def _checked(name: str) -> Path:
    """Return the path of a local recording. Raises AudioError or FetchError unless it is a file that can be read."""
    path = Path(name)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise AudioError(f"{name}: is a folder; name the files in it one by one")
        if not stat.S_ISREG(mode):  # opening a pipe may wait without end
            raise AudioError(f"{name}: is a pipe, a device or a socket; name a file")
        path.open("rb").close()
    except (FileNotFoundError, NotADirectoryError):
        raise AudioError(f"{name}: no such file on this machine; workers need paths that they all can open") from None
    except PermissionError:
        raise AudioError(f"{name}: no permission to read it; ask its owner") from None
    except OSError as error:
        final = error.errno in (errno.ELOOP, errno.ENAMETOOLONG)
        kind = AudioError if final else FetchError
        raise kind(f"{name}: cannot be opened: {error.strerror or error}") from None
    except ValueError:
        raise AudioError(f"{name!r}: not a file name, because of the NUL in it") from None
    return path


class _Copy(io.FileIO):
    """The temporary copy of a recording, while it is written."""

    def __init__(self, descriptor: int, folder: Path) -> None:
        super().__init__(descriptor, "wb")
        self.abandoned = False
        self.last_s = time.monotonic()  # when bytes came
        self._folder = folder
        self._check_at = 0

    def write(self, data: Any) -> int:
        """Write all of a block. Raises FetchError once the copy is abandoned, OutputError before the disk is full."""
        if self.abandoned:
            raise FetchError("the copy was given up")
        if self.tell() >= self._check_at:
            self._check_at = self.tell() + _CHECK_BYTES
            if shutil.disk_usage(self._folder).free < _FREE_BYTES:
                raise OutputError(
                    f"{self._folder}: less than {_FREE_BYTES >> 20} MiB are free for copies of recordings; free some, "
                    "or set TMPDIR"
                )
        left = memoryview(data)
        if left:
            self.last_s = time.monotonic()
        while left:
            left = left[super().write(left) or 0 :]
        return len(data)


class _Fetch:
    """A recording on its way into a temporary file, in a thread of its own: opening an address may never return."""

    def __init__(self, uri: str, timeout_s: float, folder: Path) -> None:
        self._uri, self._timeout_s, self._folder = uri, timeout_s, folder
        suffix = PurePosixPath(shown_uri(uri)).suffix  # which demuxers read
        try:
            descriptor, name = tempfile.mkstemp(
                prefix="stapes-", suffix=suffix if re.fullmatch(r"\.\w{1,8}", suffix, re.ASCII) else "", dir=folder
            )
        except OSError as error:
            raise OutputError(f"{folder}: no copy of a recording can be made here: {error.strerror}") from error
        self.path = Path(name)
        self._copy = _Copy(descriptor, folder)
        self._failure: BaseException | None = None
        self._ended = threading.Event()
        threading.Thread(target=self._run, name="stapes-fetch", daemon=True).start()

    def wait(self) -> None:
        """Return when the recording is there; raise what went wrong, as an error of stapes."""
        while not self._ended.wait(max(0.0, self._copy.last_s + self._timeout_s - time.monotonic())):
            if time.monotonic() - self._copy.last_s >= self._timeout_s:
                raise FetchError(f"{shown_uri(self._uri)}: sent nothing for {self._timeout_s:g} s")
        if self._failure is not None:
            known = isinstance(self._failure, StapesError)
            raise self._failure if known else _error_of(self._failure, self._uri, self._folder)

    def close(self) -> None:
        """Remove the file; the thread does, when it goes on, where the system keeps open files."""
        self._copy.abandoned = True
        with suppress(OSError):
            self.path.unlink(missing_ok=True)

    def _run(self) -> None:
        try:
            with self._copy as copy:
                _fetch(self._uri, copy, self._timeout_s)
        except BaseException as error:  # wait() raises it
            self._failure = error
        finally:
            if self._copy.abandoned:
                self.close()
            self._ended.set()


def _fetch(uri: str, copy: _Copy, timeout_s: float) -> None:
    """Write what an address holds into a file."""
    import fsspec  # noqa: PLC0415 (not for local paths, and not in the base install)

    scheme = uri.partition("://")[0].lower()
    uri = scheme + uri[len(scheme) :]
    try:
        kind = fsspec.get_filesystem_class(scheme)
    except ValueError:
        raise AudioError(f"{shown_uri(uri)}: fsspec knows no addresses with {scheme}://; check the spelling") from None
    if scheme in ("http", "https"):
        import aiohttp  # noqa: PLC0415 (fsspec's class for http needs it too)

        # The usual bound is 5 minutes for a whole file. What is encoded stays as it is: it may be signed.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=timeout_s, sock_read=timeout_s)
        encoded = uri.isascii() and " " not in uri
        kind(client_kwargs={"timeout": timeout}, encoded=encoded).get_file(uri, copy)
        return
    # Instances that are not asynchronous belong to one thread; fsspec would keep one for every recording.
    place = kind(**kind._get_kwargs_from_urls(uri), skip_instance_cache=not kind.async_impl)
    with place.open(uri, "rb", block_size=_BLOCK_BYTES) as file:
        size = getattr(file, "size", None)
        shutil.copyfileobj(file, copy, _BLOCK_BYTES)
    if isinstance(size, int) and size != copy.tell():
        raise FetchError(f"{shown_uri(uri)}: {copy.tell()} of its {size} bytes came")


def _error_of(failure: BaseException, uri: str, folder: Path) -> StapesError:
    """Return the error of stapes for one of a file system."""
    shown, reason = shown_uri(uri), scrub(str(failure), uri)[:_MAX_REASON] or type(failure).__name__
    if isinstance(failure, ImportError):
        return AudioError(f"{shown}: cannot be fetched without another package: {reason}")
    if isinstance(failure, OSError) and failure.errno in _NO_ROOM:
        return OutputError(f"{folder}: a copy of a recording cannot be written: {failure.strerror}")
    statuses = (getattr(failure, name, None) for name in ("status", "status_code", "code"))
    status = next((one for one in statuses if isinstance(one, int)), 0)
    if isinstance(failure, FileNotFoundError) or status in (404, 410):
        return AudioError(f"{shown}: is not there; check the spelling")
    if isinstance(failure, PermissionError) or status in (401, 403):
        return AudioError(f"{shown}: may not be read; check the credentials, and whether the address has expired")
    is_final = 400 <= status < 500 and status not in _WORTH_ANOTHER_TRY
    if is_final or isinstance(failure, IsADirectoryError | NotADirectoryError):
        return AudioError(f"{shown}: cannot be fetched: {reason}")
    return FetchError(f"{shown}: could not be fetched: {reason}")
