"""The folder of a batch's outputs and ledger, on a disk or in a store. Files are written whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import re
import threading
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Final

from stapes.batch.sources import shown_uri
from stapes.errors import OptionError, OutputError, StapesError
from stapes.output.files import sync_folder, why_not_written

#: An upload is not visible before it is complete. Other filesystems write a temporary file and rename it.
_OBJECT_STORES: Final = frozenset(("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "hf", "oss", "oci", "memory"))
#: Listings are never cached: other processes write too. s3fs asks for an object's size before it reads it in parts.
_S3_OPTIONS: Final = {"use_listings_cache": False, "max_concurrency": 1}
_OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "s3": _S3_OPTIONS,
    "s3a": _S3_OPTIONS,
    "gs": {"use_listings_cache": False},
    "gcs": {"use_listings_cache": False},
    "http": {"encoded": True},  # a signed URL is sent as it is
    "https": {"encoded": True},
}
#: Temporary files have random names. Containers that share a disk have equal process numbers.
_TEMPORARY: Final = ".tmp-"
#: On a disk they are in one folder, where those that a killed process has left are found.
_BEGUN: Final = f"{_TEMPORARY}files"
_MOST_DELETED: Final = 1000  # in one request to S3
#: What the names and codes of errors mean: the first that matches.
_MEANINGS: Final = {
    "Expired|TokenRefresh|RefreshError|TokenRetrieval|SSOToken": "the credentials have expired; renew them",
    "NoCredentials|PartialCredentials|DefaultCredentials|CredentialUnavailable|LocalTokenNotFound|ProfileNotFound": (
        "no credentials were found; set those of this store in the environment of every machine"
    ),
    r"InvalidAccessKeyId|SignatureDoesNot|InvalidToken|Authentication|\b401\b|TimeTooSkewed": (
        "the store refuses the credentials; correct those in the environment, or this machine's clock"
    ),
    r"PermanentRedirect|HeaderMalformed|IllegalLocation|\b30[17]\b": (
        "the bucket is in another region; set the region in the environment"
    ),
    "NoSuchBucket|InvalidBucketName|ParamValidation|ContainerNotFound": (
        "there is no such bucket; make it, or correct its name"
    ),
    r"AccessDenied|PermissionError|Forbidden|\b403\b": (
        "no permission for this; allow these credentials to read, write, list and delete here, or choose another place"
    ),
    r"NotFound|NoSuchKey|\b404\b": "there is no such bucket, folder or file; make it, or correct the name",
    r"SlowDown|ServiceUnavailable|TooManyRequests|\b429\b|\b503\b": "the store is too busy; run again later",
    "Connect|Timeout|gaierror|DNS|Endpoint|HTTPClient|ServiceRequest|Network|SSL": (
        "the store cannot be reached; check the network and the store's address"
    ),
    "NotImplemented": "this kind of storage cannot do this; choose another",
}


class Place:
    """A folder for outputs and ledger. Thread-safe, and picklable: another process opens its own."""

    def __init__(self, uri: str) -> None:
        """uri: a path, or a URI that fsspec knows. Credentials come from the environment.

        Raises OptionError where no such storage is known or its package is missing.
        """
        scheme, separator, rest = uri.partition("://")
        self._is_local = not separator or scheme in ("file", "local")
        self.uri = os.path.abspath(rest if separator else uri) if self._is_local else uri  # noqa: PTH100 (no NUL check)
        self.shown = self.uri if self._is_local else shown_uri(uri).rstrip("/")
        if not self._is_local and "?" in uri:
            raise OptionError(f"{self.shown}: an output folder takes no query; put credentials into the environment")
        with self._explained("", "opened"):
            self._files: _Disk | _Remote = _Disk(Path(self.uri)) if self._is_local else _Remote(uri, self.shown)

    def __reduce__(self) -> tuple[type[Place], tuple[str]]:
        return Place, (self.uri,)

    def read(self, name: str) -> bytes | None:
        """Return a file's bytes, as they are now; None where it is not there. name: such as "ledger/3f.parquet"."""
        with self._explained(name, "read"):
            return self._files.read(_checked(name))

    def read_object(self, name: str) -> dict[str, Any] | None:
        """Return a JSON object; None where it is not there. Raises OutputError where the file holds none."""
        data = self.read(name)
        if data is None:
            return None
        try:
            values = json.loads(data)
        except ValueError:
            values = None
        if not isinstance(values, dict):
            raise OutputError(f"{self.shown}/{name}: is damaged; restore it, or use another output folder")
        return values

    def write(self, name: str, data: bytes) -> None:
        """Write a file whole or not at all, in place of an earlier one. Folders are made as needed."""
        with self._explained(name, "written"):
            self._files.write(_checked(name), data)

    def delete(self, names: Iterable[str]) -> None:
        """Remove those files that are there."""
        with self._explained("", "cleaned"):
            self._files.delete([_checked(name) for name in names])

    def names(self, folder: str) -> list[str]:
        """Return the sorted names of the files directly in a folder, as it is now, without temporary files."""
        with self._explained(folder, "listed"):
            return sorted(name for name, is_file in self._files.entries(folder) if is_file)

    def is_free(self) -> bool:
        """Return whether nothing is there yet."""
        with self._explained("", "listed"):
            return next(iter(self._files.entries("")), None) is None

    def prepare(self) -> None:
        """Make the folder, and try that files can be written, read, listed and removed: raise OutputError if not."""
        probe, data = f"{_TEMPORARY}{uuid.uuid4().hex}", b"stapes"
        with self._explained("", "written"):
            self._files.write(probe, data)
            try:
                is_same = self._files.read(probe) == data
                self.names("ledger")
            finally:
                self._files.delete([probe])
        if not is_same:
            raise OutputError(f"{self.shown}: a file that was written is not read back; choose another folder")

    def abort_uploads(self) -> int:
        """Remove what killed processes have left: begun files on a disk, and S3's unfinished multipart uploads, which
        cost money. Return their number.

        Call it while no worker of the batch writes.
        """
        with self._explained("", "cleaned"):
            return self._files.abort_uploads()

    @contextmanager
    def _explained(self, name: str, what: str) -> Iterator[None]:
        """Turn what disks and stores raise into an OutputError without secrets. what: could not be done."""
        shown = f"{self.shown}/{name}".rstrip("/")
        try:
            yield
        except StapesError:
            raise
        except Exception as error:
            if not self._is_local:  # the texts of stores' errors may hold secrets: no cause is kept
                raise OutputError(f"{shown}: cannot be {what}: {why_refused(error)}") from None
            if not isinstance(error, OSError | ValueError):
                raise
            why = f"cannot be {what} ({error})"
            if isinstance(error, OSError) and what in ("written", "cleaned"):
                why = why_not_written(error)
            raise OutputError(f"{shown}: {why}") from error


class _Disk:
    """Files of a folder on a disk of this machine, or one that is mounted here."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._begun = folder / _BEGUN

    def read(self, name: str) -> bytes | None:
        with suppress(FileNotFoundError):
            return (self._folder / name).read_bytes()
        return None

    def write(self, name: str, data: bytes) -> None:
        # Not `write_whole`: it takes temporary files of other machines for left over ones, and lists the folder.
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self._begun.mkdir(exist_ok=True)
        temporary = self._begun / uuid.uuid4().hex
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        sync_folder(path.parent)

    def delete(self, names: list[str]) -> None:
        for name in names:
            (self._folder / name).unlink(missing_ok=True)

    def entries(self, folder: str) -> Iterator[tuple[str, bool]]:
        with suppress(FileNotFoundError), os.scandir(self._folder / folder) as found:
            yield from ((one.name, one.is_file()) for one in found if not one.name.startswith(_TEMPORARY))

    def abort_uploads(self) -> int:
        removed = 0
        with suppress(FileNotFoundError):
            for path in self._begun.iterdir():
                path.unlink(missing_ok=True)
                removed += 1
            with suppress(OSError):  # one has begun again
                self._begun.rmdir()
        return removed


class _Remote:
    """Files of a folder that fsspec reaches."""

    def __init__(self, uri: str, shown: str) -> None:
        from fsspec import AbstractFileSystem  # noqa: PLC0415 (not needed on a disk)

        self._files, root = open_filesystem(uri, shown)
        self._root = root.rstrip("/")
        self._is_store = uri.partition("://")[0] in _OBJECT_STORES
        if not self._is_store and type(self._files).mv is AbstractFileSystem.mv:  # which copies
            raise OptionError(f"{shown}: this kind of storage renames no files; choose a disk or an object store")
        self._made: set[str] = set()
        # Filesystems without an event loop have one connection, or share their files' positions.
        self._turn = nullcontext() if self._files.async_impl else threading.Lock()

    def read(self, name: str) -> bytes | None:
        found: list[bytes] = []
        with self._turn, _missing_allowed():
            self._files.invalidate_cache()
            found.append(self._files.cat_file(f"{self._root}/{name}"))
        return found[0] if found else None

    def write(self, name: str, data: bytes) -> None:
        path = f"{self._root}/{name}"
        with self._turn:
            if self._is_store:
                self._files.pipe_file(path, data)
                return
            folder = path.rpartition("/")[0]
            if folder not in self._made:
                self._files.makedirs(folder, exist_ok=True)
                self._made.add(folder)
            temporary = f"{folder}/{_TEMPORARY}{uuid.uuid4().hex}"
            try:
                self._files.pipe_file(temporary, data)
                self._rename(temporary, path)
            except BaseException:
                with suppress(Exception):
                    self._files.rm_file(temporary)
                raise

    def _rename(self, temporary: str, path: str) -> None:
        try:
            self._files.mv(temporary, path)
        except Exception:
            if not self._files.exists(path):
                raise
            self._files.rm_file(path)  # SMB and HDFS rename onto no file: for a moment there is none
            self._files.mv(temporary, path)

    def delete(self, names: list[str]) -> None:
        paths = [f"{self._root}/{name}" for name in names]
        if not hasattr(self._files, "call_s3"):
            for path in paths:
                with self._turn, _missing_allowed():
                    self._files.rm_file(path)
            return
        for first in range(0, len(paths), _MOST_DELETED):  # not `rm`: it takes names for patterns, and hides refusals
            split = [self._files.split_path(path) for path in paths[first : first + _MOST_DELETED]]
            said = self._files.call_s3(
                "delete_objects", Bucket=split[0][0], Delete={"Objects": [{"Key": one[1]} for one in split]}
            )
            for refused in said.get("Errors", []):
                raise PermissionError(refused.get("Code"))

    def entries(self, folder: str) -> Iterator[tuple[str, bool]]:
        found: list[dict[str, Any]] = []
        with self._turn, _missing_allowed():
            self._files.invalidate_cache()
            path = f"{self._root}/{folder}".rstrip("/")
            self._files.info(path)  # where there is no such folder, s3fs lists the one around it to the end
            found = self._files.ls(path, detail=True)
        for one in found:
            name, is_file = one["name"].removesuffix("/"), one["type"] == "file"
            if name != path and not (last := name.rpartition("/")[2]).startswith(_TEMPORARY):  # S3: it marks a folder
                yield last, is_file

    def abort_uploads(self) -> int:
        if not hasattr(self._files, "call_s3"):
            return 0
        bucket, key = self._files.split_path(self._root)[:2]
        where = {"Bucket": bucket, "Prefix": f"{key}/" if key else ""}  # "out/" is no beginning of "out2/..."
        aborted = 0
        after: dict[str, str] = {}
        while True:
            said = self._files.call_s3("list_multipart_uploads", **where, **after)
            for upload in said.get("Uploads", []):
                with suppress(FileNotFoundError):  # it has ended since
                    self._files.call_s3(
                        "abort_multipart_upload", Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                    )
                    aborted += 1
            if not said.get("IsTruncated"):
                return aborted
            after = {"KeyMarker": said["NextKeyMarker"], "UploadIdMarker": said["NextUploadIdMarker"]}


def open_filesystem(uri: str, shown: str) -> tuple[Any, str]:
    """Return the fsspec filesystem of a URI, which caches no listings, and the path in it.

    shown: the URI without secrets.   Raises OptionError where no such storage is known or its package is missing.
    """
    from fsspec import get_filesystem_class  # noqa: PLC0415 (50 ms, not needed on a disk)
    from fsspec.core import url_to_fs  # noqa: PLC0415 (as above)

    scheme = uri.partition("://")[0]
    if "::" in uri:
        raise OptionError(f"{shown}: a chain of filesystems ('::') cannot be used here; give the last URI alone")
    try:
        get_filesystem_class(scheme)
    except ValueError:
        raise OptionError(
            f"{shown}: no storage {scheme!r} is known; give a folder, or a URI of s3, gs, az, hf, sftp or another "
            "that fsspec knows"
        ) from None
    except ImportError as error:
        raise OptionError(f"{shown}: a package is missing on this machine: {error}") from error
    files, path = url_to_fs(uri, skip_instance_cache=True, **_OPTIONS.get(scheme, {}))
    return files, path


def why_refused(error: BaseException) -> str:
    """Return in words why a store did not do what it was asked, and what to do. Nothing secret is in it."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
        return why_not_written(error)
    names = _names(error)
    for pattern, sentence in _MEANINGS.items():
        if re.search(pattern, " ".join(names)):
            return f"{sentence} ({names[-1]})"
    text = re.sub(r"\S*(?:://|[?@=&])\S*", "...", str(error).partition("\n")[0])  # URLs, queries, users
    return f"{' '.join(names)}: {text:.200}"


def _names(error: BaseException) -> list[str]:
    """Return the names of an error and its causes, and the codes that the store answered with."""
    names: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(names) < 10:
        answer = getattr(cause, "response", None)
        codes = [  # the first that is there: aiohttp warns where `code` is looked at
            next((getattr(one, name) for name in ("status", "status_code", "code") if hasattr(one, name)), None)
            for one in (cause, answer)
        ]
        codes += [answer.get("Error", {}).get("Code")] if isinstance(answer, dict) else []
        names += [type(cause).__name__, *(str(one) for one in codes if re.fullmatch(r"[\w.]{1,60}", str(one or "")))]
        cause = cause.__cause__
    return names


@contextmanager
def _missing_allowed() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if not isinstance(error, FileNotFoundError) and error.errno != errno.ENOENT:  # smbclient has its own class
            raise


def _checked(name: str) -> str:
    assert all(part not in ("", ".", "..") for part in name.split("/")), name
    return name
