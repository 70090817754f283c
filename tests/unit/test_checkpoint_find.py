"""Finding a model: paths, packages, the hub's cache and the hub, with a local fake of the hub."""

from __future__ import annotations

import errno
import hashlib
import importlib
import json
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest

import stapes
from stapes.checkpoint.files import FileBytes
from stapes.checkpoint.heads import FINGERPRINTS, OFFICIAL
from stapes.checkpoint.sources import find, hub, packages
from stapes.checkpoint.sources.find import find_checkpoint, installed_models, known_models, pull
from stapes.checkpoint.sources.packages import WeightsPackage
from stapes.checkpoint.sources.registry import is_hub_id, model_named
from stapes.errors import CheckpointError, ModelNotFoundError
from tests import writers_of_checkpoints as write

TENSORS = write.random_tensors()


class FakeHub:
    """What stapes uses of huggingface_hub, over folders."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.online: dict[str, Path] = {}
        self.failure: Exception | None = None
        self.full: OSError | None = None  # raised where something is to be kept
        self.fetched: list[str] = []
        self.constants = SimpleNamespace(HF_HUB_OFFLINE=False)
        self.errors = SimpleNamespace(CacheNotFound=LookupError)

    def _folder(self, hub_id: str) -> Path:
        return self.root / hub_id.replace("/", "--")

    def try_to_load_from_cache(self, hub_id: str, name: str) -> str | None:
        path = self._folder(hub_id) / name
        return str(path) if path.exists() else None

    def HfApi(self) -> FakeHub:  # noqa: N802 (the hub's name)
        return self

    def list_repo_files(self, hub_id: str) -> list[str]:
        if self.failure:
            raise self.failure
        return [path.name for path in self.online[hub_id].iterdir()]

    def hf_hub_download(self, hub_id: str, name: str) -> str:
        target = self._folder(hub_id) / name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes((self.online[hub_id] / name).read_bytes())
        return str(target)

    def snapshot_download(self, hub_id: str, allow_patterns: list[str], tqdm_class: type | None = None) -> str:
        self.fetched = sorted(allow_patterns)
        if self.full:
            raise self.full
        for name in allow_patterns:
            self.hf_hub_download(hub_id, name)
        if tqdm_class:
            with (
                tqdm_class(total=10, unit="B", desc="x", name="y") as bar,
                tqdm_class(total=1, unit="it") as other,
            ):
                bar.update(4)
                bar.update(6)
                other.update(1)
        return str(self._folder(hub_id))

    def scan_cache_dir(self) -> SimpleNamespace:
        folders = list(self.root.iterdir()) if self.root.exists() else []
        repos = [
            SimpleNamespace(repo_type="model", repo_id=folder.name.replace("--", "/"), size_on_disk=1)
            for folder in folders
        ]
        return SimpleNamespace(repos=repos)


@pytest.fixture
def fake_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    fake = FakeHub(tmp_path / "cache")
    fake.root.mkdir()
    monkeypatch.setattr(hub, "_hub", lambda: fake)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(packages, "PACKAGES", ())
    monkeypatch.setattr(find, "PACKAGES", ())
    return fake


def test_a_path_is_opened_whatever_it_is_called(tmp_path: Path, fake_hub: FakeHub) -> None:
    path = write.write_ggml(tmp_path / "weights.safetensors", TENSORS)
    checkpoint = find_checkpoint(path)
    assert (checkpoint.format, checkpoint.name, checkpoint.path) == ("ggml", "weights.safetensors", path)


def test_a_folder_of_other_things_does_not_hide_a_model_of_its_name(
    tmp_path: Path, fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    write.write_huggingface(fake_hub.root / "openai--whisper-tiny", TENSORS)
    assert find_checkpoint("tiny").format == "huggingface"
    write.write_ctranslate2(tmp_path / "tiny", TENSORS)
    assert find_checkpoint("tiny").format == "ctranslate2"


def test_names_are_found_in_the_cache_in_any_format(fake_hub: FakeHub) -> None:
    write.write_ctranslate2(fake_hub.root / "Systran--faster-whisper-large-v3", TENSORS)
    for name in ("large", "large-v3", "Systran/faster-whisper-large-v3"):
        checkpoint = find_checkpoint(name, download=False)
        assert (checkpoint.name, checkpoint.format) == (name, "ctranslate2")


def test_an_interrupted_download_is_not_taken_for_a_model(fake_hub: FakeHub) -> None:
    folder = write.write_huggingface(fake_hub.root / "me--mine", TENSORS, shards=2)
    assert find_checkpoint("me/mine", download=False).format == "huggingface"
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelNotFoundError, match="stapes models pull me/mine"):
        find_checkpoint("me/mine", download=False)


def test_one_copy_of_the_weights_is_fetched_and_no_pickle(tmp_path: Path, fake_hub: FakeHub) -> None:
    source = fake_hub.online["openai/whisper-base"] = write.write_huggingface(tmp_path / "online", TENSORS)
    unwanted = (
        "pytorch_model.bin", "model.fp32-00001-of-00002.safetensors", "model.safetensors.index.fp32.json",
        "flax_model.msgpack", "tf_model.h5", "model.bin", "README.md",
    )  # fmt: skip
    for name in unwanted:
        (source / name).write_bytes(b"x")
    reported: list[tuple[int, int]] = []
    checkpoint = find_checkpoint("base", progress=lambda done, total: reported.append((done, total)))
    assert checkpoint.name == "base"
    assert fake_hub.fetched == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert reported == [(4, 10), (10, 10)]


def test_shards_are_fetched_by_their_index(tmp_path: Path, fake_hub: FakeHub) -> None:
    fake_hub.online["me/large"] = write.write_huggingface(tmp_path / "online", TENSORS, shards=2)
    (tmp_path / "online" / "model-00001-of-00009.safetensors").write_bytes(b"of something else")
    assert find_checkpoint("me/large").format == "huggingface"
    assert [name for name in fake_hub.fetched if name.startswith("model-")] == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]


def test_ctranslate2_is_fetched_where_there_is_nothing_else(tmp_path: Path, fake_hub: FakeHub) -> None:
    fake_hub.online["me/ct2"] = write.write_ctranslate2(tmp_path / "online", TENSORS)
    assert pull("me/ct2") == fake_hub.root / "me--ct2"
    assert fake_hub.fetched == ["config.json", "model.bin", "vocabulary.txt"]


def test_a_repository_of_pickles_is_refused(tmp_path: Path, fake_hub: FakeHub) -> None:
    (tmp_path / "online").mkdir()
    for name in ("config.json", "pytorch_model.bin"):
        (tmp_path / "online" / name).write_bytes(b"{}")
    fake_hub.online["me/old"] = tmp_path / "online"
    with pytest.raises(ModelNotFoundError, match="reads no pickles"):
        find_checkpoint("me/old")


def test_a_repository_of_another_programs_files_is_named(tmp_path: Path, fake_hub: FakeHub) -> None:
    (tmp_path / "online").mkdir()
    for name in ("config.json", "encoder_model.onnx"):
        (tmp_path / "online" / name).write_bytes(b"{}")
    fake_hub.online["me/web"] = tmp_path / "online"
    with pytest.raises(ModelNotFoundError, match=r"It holds encoder_model\.onnx: a model for ONNX"):
        find_checkpoint("me/web")


@pytest.mark.parametrize(
    ("config", "said"), [({"model_type": "wav2vec2"}, "wav2vec2.*'whisper'"), ({"n_audio_state": 512}, "MLX")]
)
def test_other_networks_are_refused_before_their_weights_are_fetched(
    tmp_path: Path, fake_hub: FakeHub, config: object, said: str
) -> None:
    fake_hub.online["me/other"] = write.write_huggingface(tmp_path / "online", TENSORS)
    (tmp_path / "online" / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=said):
        find_checkpoint("me/other")
    assert fake_hub.fetched == []


def test_a_slip_in_a_hub_id_gets_the_near_one(fake_hub: FakeHub) -> None:
    fake_hub.failure = RepositoryNotFoundError()
    with pytest.raises(ModelNotFoundError, match=r"Did you mean openai/whisper-base"):
        find_checkpoint("openai/whisper-bsae")
    with pytest.raises(ModelNotFoundError) as caught:
        find_checkpoint("me/mine")
    assert "Did you mean" not in str(caught.value)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.ENOTDIR])
def test_a_model_that_cannot_be_kept_says_so(tmp_path: Path, fake_hub: FakeHub, code: int) -> None:
    fake_hub.online["me/mine"] = write.write_huggingface(tmp_path / "online", TENSORS)
    fake_hub.full = OSError(code, os.strerror(code))
    with pytest.raises(ModelNotFoundError, match=f"cannot be kept .*{os.strerror(code)}.*--model_dir"):
        find_checkpoint("me/mine")


def test_a_known_model_that_cannot_be_fetched_is_not_suggested(fake_hub: FakeHub) -> None:
    fake_hub.failure = TimeoutError("slow")
    for text in ("small", "openai/whisper-small", "Systran/faster-whisper-small"):
        with pytest.raises(ModelNotFoundError) as caught:
            find_checkpoint(text)
        assert "Did you mean" not in str(caught.value)


class GatedRepoError(Exception):
    pass


class RepositoryNotFoundError(Exception):
    pass


class OfflineModeIsEnabled(ConnectionError):  # noqa: N818 (the hub's names)
    pass


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (GatedRepoError(), "https://huggingface.co/me/mine and set HF_TOKEN"),
        (RepositoryNotFoundError(), "check the name"),
        (OfflineModeIsEnabled(), "HF_HUB_OFFLINE is set"),
        (TimeoutError("slow"), "could not be reached"),
    ],
)
def test_a_failed_download_says_why_and_what_to_do(fake_hub: FakeHub, failure: Exception, said: str) -> None:
    fake_hub.failure = failure
    with pytest.raises(ModelNotFoundError, match=said):
        find_checkpoint("me/mine")


def test_unknown_names_get_near_ones_and_all_known(fake_hub: FakeHub) -> None:
    with pytest.raises(ModelNotFoundError, match=r"Did you mean base.*distil-large-v3\.5"):
        find_checkpoint("bsae")
    for text in ("/absent/model.pt", "~/absent", "./a/b/c"):
        with pytest.raises(ModelNotFoundError, match="check the path"):
            find_checkpoint(text)
    for text in ("", "a\0b", "x" * 5000, "größe", "a/b/c", "owner/..", "-x/y"):
        with pytest.raises(ModelNotFoundError):
            find_checkpoint(text)
        with pytest.raises(ModelNotFoundError):
            pull(text)
    with pytest.raises(ModelNotFoundError):
        find_checkpoint(Path("owner/name"))  # a Path is never a hub id


def test_the_registry_is_whole() -> None:
    names = [name for model in known_models() for name in (model.name, *model.aliases)]
    assert len(set(names)) == len(names)
    assert {official.name for official in OFFICIAL} <= set(names)
    assert set(FINGERPRINTS.values()) <= set(names)
    for model in known_models():
        assert all(is_hub_id(hub_id) for hub_id in (model.hub_id, *model.other_hub_ids))
    large, turbo, first = model_named("large"), model_named("large-v3-turbo"), model_named("large-v1")
    assert large is not None
    assert turbo is not None
    assert first is not None
    assert (large.name, turbo.name, first.hub_id) == ("large-v3", "turbo", "openai/whisper-large")


def test_heads_of_official_models_lie_inside_them() -> None:
    for official in OFFICIAL:
        _, layers, width, _ = official.sizes
        assert list(official.heads) == sorted(set(official.heads))
        assert all(layer < layers and head < width // 64 for layer, head in official.heads)


def test_installed_models_are_listed(tmp_path: Path, fake_hub: FakeHub) -> None:
    write.write_ctranslate2(fake_hub.root / "Systran--faster-whisper-tiny", TENSORS)
    write.write_huggingface(fake_hub.root / "me--mine", TENSORS)
    (fake_hub.root / "me--other").mkdir()
    (fake_hub.root / "me--other" / "config.json").write_text('{"model_type": "bert"}')
    (fake_hub.root / "me--other" / "model.safetensors").write_bytes(b"x")
    assert [(model.name, model.source) for model in installed_models()] == [
        ("tiny", "hub cache"),
        ("me/mine", "hub cache"),
    ]


def test_a_package_in_parts_is_read_verified_and_never_run(
    tmp_path: Path, fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write.write_ctranslate2(tmp_path / "weights_a", TENSORS)
    content = (folder / "model.bin").read_bytes()
    (tmp_path / "weights_b").mkdir()
    for name in ("weights_a", "weights_b"):
        (tmp_path / name / "__init__.py").write_text("raise AssertionError('a package of weights was run')")
    (folder / "model.bin").unlink()
    (folder / "part1").write_bytes(content[:5001])  # inside a tensor, between two bytes of a number
    (tmp_path / "weights_b" / "part2").write_bytes(content[5001:])
    monkeypatch.syspath_prepend(tmp_path)
    parts = (("weights_a", "part1"), ("weights_b", "part2"))
    package = WeightsPackage("base", parts, hashlib.sha256(content).hexdigest(), "weights")
    monkeypatch.setattr(find, "PACKAGES", (package,))
    checkpoint = find_checkpoint("base")
    checkpoint.verify()
    for name, tensor in TENSORS.items():
        assert (checkpoint.tensors[name] == tensor).all()
    assert [model.name for model in installed_models()] == ["base"]
    with (tmp_path / "weights_b" / "part2").open("ab") as file:
        file.write(b"x")
    damaged = find_checkpoint("base")
    for _ in range(2):  # what was found out stays so
        with pytest.raises(CheckpointError, match="sha256"):
            damaged.verify()
    with pytest.raises(CheckpointError, match="sha256"):
        stapes.load("base", backend="numpy")
    (folder / "part1").write_bytes(b"no weights")  # cannot even be read: the hash says why
    with pytest.raises(CheckpointError, match="sha256"):
        find_checkpoint("base")
    (tmp_path / "weights_b" / "part2").unlink()
    assert installed_models() == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_hash_that_cannot_be_taken_is_a_wrong_one(
    tmp_path: Path, fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write.write_ctranslate2(tmp_path / "weights_c", TENSORS)
    monkeypatch.syspath_prepend(tmp_path)
    digest = hashlib.sha256((folder / "model.bin").read_bytes()).hexdigest()
    package = WeightsPackage("base", (("weights_c", "model.bin"),), digest, "weights")
    monkeypatch.setattr(find, "PACKAGES", (package,))

    def fail(_: FileBytes) -> str:
        raise MemoryError

    monkeypatch.setattr(FileBytes, "sha256", fail)
    with pytest.raises(CheckpointError, match="sha256 unknown"):
        find_checkpoint("base").verify()


class HubServer(BaseHTTPRequestHandler):
    """Enough of the hub's HTTP interface for huggingface_hub to list and fetch one model."""

    files: ClassVar[dict[str, bytes]] = {}
    commit = "0" * 39 + "1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/me/mine/tree/"):
            entries = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in self.files.items()
            ]
            self.answer(json.dumps(entries).encode())
        elif path.startswith("/api/models/me/mine"):
            siblings = [{"rfilename": name} for name in self.files]
            info = {
                "id": "me/mine",
                "modelId": "me/mine",
                "sha": self.commit,
                "siblings": siblings,
                "tags": [],
            }
            self.answer(json.dumps(info).encode())
        elif path.startswith("/me/mine/resolve/") and (name := path.rpartition("/")[2]) in self.files:
            self.answer(self.files[name], {"ETag": f'"{hashlib.sha1(self.files[name]).hexdigest()}"'})
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def answer(self, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(200)
        for name, value in {
            "X-Repo-Commit": self.commit,
            "Content-Length": str(len(body)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def hub_server(tmp_path: Path) -> Iterator[str]:
    folder = write.write_huggingface(tmp_path / "online", TENSORS)
    HubServer.files = {path.name: path.read_bytes() for path in folder.iterdir()} | {"pytorch_model.bin": b"x"}
    server = ThreadingHTTPServer(("127.0.0.1", 0), HubServer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_the_real_hub_library_fetches_caches_and_works_offline(tmp_path: Path, hub_server: str) -> None:
    """In a separate process, since huggingface_hub reads its environment when it is imported."""
    program = (
        "import sys; from stapes.checkpoint.sources.find import *; from stapes.errors import *\n"
        "try:\n"
        "    c = find_checkpoint(sys.argv[1], download=sys.argv[2] == 'yes', progress=lambda done, total: None)\n"
        "    print(c.format, sorted(p.name for p in c.path.iterdir()), [m.name for m in installed_models()][-1])\n"
        "except ModelNotFoundError as error: print(error)\n"
    )
    source = str(Path(find.__file__).parents[2])
    environment = os.environ | {
        "HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": hub_server, "PYTHONPATH": source, "HF_TOKEN": "",
        "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1", "HF_HUB_OFFLINE": "0",
    }  # fmt: skip

    def ask(*arguments: str, **more: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments], env=environment | more, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "HF_HUB_OFFLINE is set" in ask("me/mine", "yes", HF_HUB_OFFLINE="1")
    expected = "huggingface ['config.json', 'generation_config.json', 'model.safetensors', 'tokenizer.json'] me/mine"
    assert ask("me/mine", "yes").strip() == expected
    assert ask("me/mine", "no", HF_HUB_OFFLINE="1").strip() == expected
    assert "no model of this name" in ask("me/absent", "yes")


def test_finding_imports_neither_the_hub_nor_torch() -> None:
    program = (
        "import sys, stapes.checkpoint.sources.find\n"
        "print({'huggingface_hub', 'torch', 'tqdm', 'pickle'} & (sys.modules.keys() - numpy_brings))"
    )
    program = "import numpy, sys; numpy_brings = set(sys.modules)\n" + program
    source = str(Path(find.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": source},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("damage", ["refs/main is no text", "snapshots is a file", "the cache is a file"])
def test_a_damaged_cache_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    real = importlib.import_module("huggingface_hub")
    monkeypatch.setattr(find, "PACKAGES", ())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    cache = tmp_path / "cache"
    (cache / "models--openai--whisper-tiny" / "refs").mkdir(parents=True)
    if damage == "refs/main is no text":
        (cache / "models--openai--whisper-tiny" / "refs" / "main").write_bytes(b"\xff\xfe")
        (cache / "models--openai--whisper-tiny" / "snapshots" / "abc").mkdir(parents=True)
    elif damage == "snapshots is a file":
        (cache / "models--openai--whisper-tiny" / "refs" / "main").write_text("abc")
        (cache / "models--openai--whisper-tiny" / "snapshots").write_text("x")
    else:
        cache = tmp_path / "file"
        cache.write_text("x")
    fake = SimpleNamespace(
        try_to_load_from_cache=lambda hub_id, name: real.try_to_load_from_cache(hub_id, name, cache_dir=cache),
        scan_cache_dir=lambda: real.scan_cache_dir(cache),
        errors=importlib.import_module("huggingface_hub.errors"),
    )
    monkeypatch.setattr(hub, "_hub", lambda: fake)
    assert find.find_here("tiny") is None
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert installed_models() == []
    found = [str(one.message) for one in said if "the hub's cache is damaged" in str(one.message)]
    assert len(found) == len(said) == (damage != "snapshots is a file")  # of that one the hub's library makes nothing
