"""Tests of the place of a batch's outputs: whole files, fresh reads, errors without secrets."""

from __future__ import annotations

import errno
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from stapes.batch.place import Place, why_refused
from stapes.errors import OptionError, OutputError


class ShareFileSystem(LocalFileSystem):  # type: ignore[misc]
    """A share such as SMB: a file that is being written is visible, and none is renamed onto another."""

    protocol = "share"
    seen: set[str]
    full = False

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.removeprefix("share://")))

    def pipe_file(self, path: str, value: bytes, **_: Any) -> None:
        ShareFileSystem.seen.add(path)
        with open(path, "wb") as file:  # noqa: PTH123 (as fsspec does)
            file.write(value[: len(value) // 2])
            if ShareFileSystem.full:
                raise OSError(errno.ENOSPC, "full")
            file.write(value[len(value) // 2 :])

    def mv(self, path1: str, path2: str, **_: Any) -> None:
        if os.path.exists(path2):  # noqa: PTH110
            raise OSError(errno.EEXIST, "is there")
        os.rename(path1, path2)  # noqa: PTH104


@pytest.fixture(params=["disk", "memory", "share", "s3"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "s3":
        return f"s3://{request.getfixturevalue('bucket')}/some/out"
    if request.param == "share":
        fsspec.register_implementation("share", ShareFileSystem, clobber=True)
        ShareFileSystem.seen, ShareFileSystem.full = set(), False
        return f"share://{tmp_path}/out"
    return str(tmp_path / "out") if request.param == "disk" else f"memory://{uuid.uuid4().hex}/out"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    pytest.importorskip("s3fs")
    moto = pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "AKIAtest",
        "AWS_SECRET_ACCESS_KEY": "very-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    name = f"b{uuid.uuid4().hex}"
    s3().create_bucket(Bucket=name)
    return name


def s3() -> Any:
    import boto3  # noqa: PLC0415 (comes with moto)

    return boto3.client("s3")


def test_files_are_written_read_listed_and_removed(uri: str) -> None:
    place = Place(uri)
    assert place.is_free()
    assert place.names("ledger") == []
    assert place.read("ledger/a.parquet") is None
    place.prepare()
    assert place.is_free(), "the probe leaves nothing"
    place.write("ledger/b[1]*.parquet", b"one")
    place.write("ledger/a.parquet", b"")
    place.write("ledger/attempts/3f-00001.parquet", b"try")
    place.write("ledger/b[1]*.parquet", b"another")
    assert not place.is_free()
    assert place.names("ledger") == ["a.parquet", "b[1]*.parquet"]
    assert place.names("ledger/attempts") == ["3f-00001.parquet"]
    assert (place.read("ledger/b[1]*.parquet"), place.read("ledger/a.parquet")) == (b"another", b"")
    place.write("ledger/b12.parquet", b"no pattern may remove it")
    place.delete(["ledger/b[1]*.parquet", "ledger/a.parquet", "ledger/none.parquet"])
    place.delete([])
    assert place.names("ledger") == ["b12.parquet"]


def test_another_process_has_its_own_place(uri: str) -> None:
    one = Place(uri)
    two = pickle.loads(pickle.dumps(one))
    assert one.read("a") is None
    assert two.names("") == one.names("") == []
    two.write("a", b"1")
    assert (one.read("a"), one.names("")) == (b"1", ["a"])
    two.write("a", b"22")
    assert one.read("a") == b"22"
    two.delete(["a"])
    assert (one.read("a"), one.names("")) == (None, [])


def test_many_threads_write_at_once(uri: str) -> None:
    place = Place(uri)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda n: place.write(f"t/{n % 20}", b"%d" % (n % 20) * 1000), range(60)))
        found = list(threads.map(lambda n: place.read(f"t/{n}"), range(20)))
    assert found == [b"%d" % n * 1000 for n in range(20)]
    assert len(place.names("t")) == 20


def test_a_share_never_shows_half_a_file(tmp_path: Path) -> None:
    fsspec.register_implementation("share", ShareFileSystem, clobber=True)
    ShareFileSystem.seen, ShareFileSystem.full = set(), False
    place = Place(f"share://{tmp_path}/out")
    place.write("a", b"old")
    ShareFileSystem.full = True
    with pytest.raises(OutputError, match="a: cannot be written: the disk is full"):
        place.write("a", b"newer")
    assert place.read("a") == b"old"
    assert [one.name for one in (tmp_path / "out").iterdir()] == ["a"]
    assert not {Path(one).name for one in ShareFileSystem.seen} & {"a"}


WRITER = """
import sys
from stapes.batch.place import Place
place, data = Place(sys.argv[1]), bytes(1 << 25)
while True:
    place.write("a", data)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no kill -9")
def test_a_killed_writer_leaves_no_half_file(tmp_path: Path) -> None:
    halves = 0
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)]) as writer:
            until = time.monotonic() + 30
            while not any(tmp_path.glob(".tmp-*/*")) and time.monotonic() < until:
                time.sleep(0.001)
            writer.send_signal(signal.SIGKILL)
        left = [one.stat().st_size for one in tmp_path.glob(".tmp-*/*")]
        halves += sum(size < 1 << 25 for size in left)
        assert Place(str(tmp_path)).abort_uploads() == len(left)
        assert [one.stat().st_size for one in tmp_path.iterdir()] in ([], [1 << 25])
    assert halves, "no writer was stopped in the middle"


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(str(tmp_path))
    place.write("ledger/a", b"old")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError, match=r"ledger/a: the disk is full; free some space"):
        place.write("ledger/a", b"new")
    assert [one.name for one in (tmp_path / "ledger").iterdir()] == ["a"]
    assert place.read("ledger/a") == b"old"


def test_what_is_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match=r"file/out: its folder is not a folder but a file"):
        Place(str(tmp_path / "file" / "out")).prepare()
    (tmp_path / "out" / "a").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"out/a: a folder of this name is in the way"):
        Place(str(tmp_path / "out")).write("a", b"")
    with pytest.raises(OutputError, match="cannot be read"):
        Place(str(tmp_path / "out")).read("a")
    with pytest.raises(OutputError, match="null"):
        Place("/\0").prepare()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="no permission to write here"):
        Place(str(tmp_path / "out")).prepare()


def test_uris_that_are_no_place(tmp_path: Path) -> None:
    for uri, what in {
        "nosuch://a/b": "no storage 'nosuch' is known",
        "simplecache::memory://a": "'::'",
        "memory://a?token=very-secret": "takes no query",
        "zip://a": "renames no files",
    }.items():
        with pytest.raises((OptionError, OutputError)) as caught:
            Place(uri)
        assert what in str(caught.value) or uri.startswith("zip"), uri
        assert "secret" not in str(caught.value)
    assert Place(f"file://{tmp_path}/a").uri == str(tmp_path / "a")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"].__dict__["_registry"], "s3", raising=False)
    with pytest.raises(OptionError, match=r"s3://bucket/out: a package is missing on this machine: Install s3fs"):
        Place("s3://bucket/out")


def test_what_stores_raise_is_said_without_secrets() -> None:
    class HttpResponseError(Exception):
        status_code = 403

    said = why_refused(HttpResponseError("https://host/key?sig=very-secret"))
    assert said.startswith("no permission")
    assert "secret" not in said
    said = why_refused(RuntimeError("odd: https://user:very-secret@host/?a=b AccountKey=very-secret; end"))
    assert said == "RuntimeError: odd: ... ... end"


def calls_of(place: Place, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    files: Any = place._files
    calls: list[str] = []
    original = files._files._call_s3

    async def counted(method: str, *args: Any, **kwargs: Any) -> Any:
        calls.append(method)
        return await original(method, *args, **kwargs)

    monkeypatch.setattr(files._files, "_call_s3", counted)
    return calls


def test_s3_needs_one_request_to_write_or_read(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(f"s3://{bucket}/out")
    place.write("warm", b"")
    calls = calls_of(place, monkeypatch)
    place.write("a", bytes(8 << 20))
    place.read("a")
    place.read("none")
    assert calls == ["put_object", "get_object", "get_object"]


def test_s3_deletes_a_thousand_at_once(bucket: str) -> None:
    place = Place(f"s3://{bucket}/out")
    place.write("a/999", b"")
    place.delete([f"a/{n}" for n in range(1001)])
    assert place.is_free()


def test_a_multipart_upload_is_not_visible_before_its_end(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place, begun, go = Place(f"s3://{bucket}/out"), threading.Event(), threading.Event()
    files: Any = place._files
    original = files._files._call_s3

    async def held(method: str, *args: Any, **kwargs: Any) -> Any:
        if method == "complete_multipart_upload":
            import asyncio  # noqa: PLC0415

            begun.set()
            await asyncio.to_thread(go.wait)
        return await original(method, *args, **kwargs)

    monkeypatch.setattr(files._files, "_call_s3", held)
    writer = threading.Thread(target=place.write, args=("a", bytes(101 << 20)))
    writer.start()
    assert begun.wait(60)
    other = Place(f"s3://{bucket}/out")
    assert (other.read("a"), other.names("")) == (None, [])
    go.set()
    writer.join(60)
    assert other.names("") == ["a"]


def test_a_bucket_itself_and_the_marks_of_folders(bucket: str) -> None:
    place = Place(f"s3://{bucket}")
    assert place.is_free()
    place.prepare()
    s3().put_object(Bucket=bucket, Key="ledger/")  # as consoles of S3 make a folder
    s3().put_object(Bucket=bucket, Key="ledger/a")
    assert place.names("ledger") == ["a"]
    assert place.names("") == []
    assert not place.is_free()
    s3().create_multipart_upload(Bucket=bucket, Key="any")
    assert place.abort_uploads() == 1


def test_only_uploads_into_the_own_folder_are_aborted(bucket: str) -> None:
    for key in ("out/a", "out/b/c", "out2/a", "a", "out"):
        s3().create_multipart_upload(Bucket=bucket, Key=key)
    assert Place(f"s3://{bucket}/out/").abort_uploads() == 2
    left = s3().list_multipart_uploads(Bucket=bucket)["Uploads"]
    assert sorted(one["Key"] for one in left) == ["a", "out", "out2/a"]
    assert Place(f"s3://{bucket}/out").abort_uploads() == 0
    assert Place("memory://a").abort_uploads() == 0


def test_what_s3_refuses_is_said(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OutputError, match=r"s3://nosuchbucket/out: cannot be written: there is no such bucket"):
        Place("s3://nosuchbucket/out").prepare()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("HOME", "/nonexistent")
    with pytest.raises(OutputError, match=r"out: cannot be written: no credentials were found; set those"):
        Place(f"s3://{bucket}/out").prepare()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAtest")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    for code, what in {
        "AccessDenied": "no permission",
        "ExpiredToken": "have expired",
        "InvalidAccessKeyId": "refuses the credentials",
        "PermanentRedirect": "another region",
        "SlowDown": "too busy",
    }.items():
        place = Place(f"s3://{bucket}/out")
        refuse(place, code, monkeypatch)
        with pytest.raises(OutputError) as caught:
            place.write("a", b"")
        assert what in str(caught.value)
        assert f"({code})" in str(caught.value)
        assert "secret" not in str(caught.value)
        assert caught.value.__suppress_context__


def refuse(place: Place, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore.exceptions import ClientError  # noqa: PLC0415
    from s3fs.errors import translate_boto_error  # noqa: PLC0415

    async def refused(method: str, *args: Any, **kwargs: Any) -> Any:
        response: Any = {"Error": {"Code": code, "Message": "very-secret"}}
        raise translate_boto_error(ClientError(response, method))

    files: Any = place._files
    monkeypatch.setattr(files._files, "_call_s3", refused)
