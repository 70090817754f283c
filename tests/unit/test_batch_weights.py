"""Tests of the weights of a batch: fetched once per machine, whole, and checked for room and names."""

from __future__ import annotations

import functools
import http.server
import shutil
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pytest

from stapes.batch import weights
from stapes.batch.weights import local_model
from stapes.errors import ModelNotFoundError, OptionError, OutputError


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "stapes" / "weights"


@pytest.fixture
def store() -> Iterator[Any]:
    yield fsspec.filesystem("memory")
    fsspec.filesystem("memory").store.clear()


def left_in(cache: Path) -> list[Path]:
    return [one for one in cache.iterdir() if one.suffix != ".lock"]


def test_names_and_paths_stay_as_they_are(cache: Path) -> None:
    for model in ("large-v3", "openai/whisper-base", "/models/base.pt", "C:\\models\\base.pt"):
        assert local_model(model) == model
    assert local_model("file:///models/base.pt") == "/models/base.pt"
    assert not cache.exists()


def test_a_folder_is_fetched_once(cache: Path, store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"memory://{uuid.uuid4().hex}/large"
    for name in ("model.safetensors", "config.json", "pytorch_model.bin", "tf_model.h5", ".gitattributes", "deep/er"):
        store.pipe_file(f"{uri}/{name}", name.encode())
    fetched: list[str] = []
    original = type(store).get_file

    def get_file(self: Any, path: str, to: str) -> None:
        fetched.append(path)
        original(self, path, to)

    monkeypatch.setattr(type(store), "get_file", get_file)
    with ThreadPoolExecutor(4) as threads:
        folders = set(threads.map(local_model, [uri, uri, uri + "/", uri]))
    folder = Path(folders.pop())
    assert not folders
    assert folder.parent == cache
    assert {one.name: one.read_bytes() for one in folder.iterdir()} == {
        "model.safetensors": b"model.safetensors",
        "config.json": b"config.json",
    }
    assert len(fetched) == 2
    store.store.clear()
    assert local_model(uri) == str(folder), "nothing is asked for again"


def test_an_interrupted_fetch_is_begun_anew(cache: Path, store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"memory://{uuid.uuid4().hex}"
    store.pipe_file(f"{uri}/model.bin", b"weights")
    path = Path(local_model(uri))
    path.rename(path.with_suffix(".part"))
    (path.with_suffix(".part") / "half").write_bytes(b"h")
    assert local_model(uri) == str(path)
    assert [one.name for one in path.iterdir()] == ["model.bin"]
    assert left_in(cache) == [path]


def test_a_fetch_that_fails_leaves_nothing(cache: Path, store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"memory://{uuid.uuid4().hex}"
    with pytest.raises(ModelNotFoundError, match=r"cannot be fetched: there is no such bucket, folder or file"):
        local_model(uri + "/none")
    store.pipe_file(f"{uri}/model.bin", b"weights")
    monkeypatch.setattr(type(store), "get_file", lambda _, __, to: Path(to).write_bytes(b"half"))
    with pytest.raises(ModelNotFoundError, match=r"model.bin has 4 bytes of 7; it was cut off"):
        local_model(uri)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 9 << 20))
    with pytest.raises(OutputError, match=r"9 MB are free, and the model memory://\w+ needs 64"):
        local_model(uri)
    assert left_in(cache) == []


@pytest.mark.parametrize("name", ["a\\..\\evil", "a:b", "nul\0"])
def test_names_that_lead_elsewhere_are_refused(cache: Path, store: Any, name: str) -> None:
    uri = f"memory://{uuid.uuid4().hex}"
    store.pipe_file(f"{uri}/{name}", b"")
    with pytest.raises(ModelNotFoundError, match="is not the name of a file"):
        local_model(uri)
    assert left_in(cache) == []


def test_too_many_files_are_no_model(cache: Path, store: Any) -> None:
    uri = f"memory://{uuid.uuid4().hex}"
    for n in range(weights._MOST_FILES + 1):
        store.pipe_file(f"{uri}/{n}", b"")
    with pytest.raises(ModelNotFoundError, match="holds 101 files"):
        local_model(uri)
    with pytest.raises(OptionError, match="no storage 'nosuch' is known"):
        local_model("nosuch://a")


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(OutputError, match="not a folder but a file"):
        local_model("memory://a")


def test_a_signed_url_is_fetched_and_never_shown(cache: Path, tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    (tmp_path / "small model.pt").write_bytes(b"weights" * 1000)
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            asked.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    host = f"http://127.0.0.1:{server.server_port}"
    try:
        path = Path(local_model(f"{host}/small%20model.pt?X-Amz-Credential=a%2Fb&X-Amz-Signature=very-secret"))
        assert (path.name, path.read_bytes()) == ("small model.pt", b"weights" * 1000)
        assert all(one.endswith("?X-Amz-Credential=a%2Fb&X-Amz-Signature=very-secret") for one in asked)
        count = len(asked)
        assert local_model(f"{host}/small%20model.pt?X-Amz-Signature=another") == str(path)
        assert len(asked) == count
        with pytest.raises(ModelNotFoundError) as caught:
            local_model(f"{host}/none.pt?X-Amz-Signature=very-secret")
        assert f"{host}/none.pt: the model cannot be fetched: there is no such" in str(caught.value)
        assert "secret" not in str(caught.value)
    finally:
        server.shutdown()
        server.server_close()
