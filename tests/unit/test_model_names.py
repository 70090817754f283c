"""Model names as users type them: understood, or refused with suggestions; and the order of places."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

import stapes
from stapes.checkpoint.heads import OFFICIAL
from stapes.checkpoint.sources import find, hub, model_folders, packages
from stapes.checkpoint.sources.find import find_checkpoint, find_here, how_to_remove, installed_models, pull
from stapes.checkpoint.sources.packages import WeightsPackage
from stapes.checkpoint.sources.registry import model_named, name_in
from stapes.errors import CheckpointError, ModelNotFoundError, StapesWarning
from stapes.testing import random_checkpoint
from tests import writers_of_checkpoints as write

TENSORS = write.random_tensors()
another_hash = pytest.mark.filterwarnings("ignore:.*as OpenAI published it:stapes.errors.StapesWarning")


@pytest.fixture(autouse=True)
def nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No package, no cache, an empty home, and a hub that must not be asked."""

    def asked(*_: object, **__: object) -> Path:
        raise AssertionError("the hub was asked")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(packages, "PACKAGES", ())
    monkeypatch.setattr(find, "PACKAGES", ())
    monkeypatch.setattr(find, "download_folder", asked)
    monkeypatch.setattr(find, "cached_folder", lambda hub_id: None)
    monkeypatch.setattr(find, "cached_repositories", list)


@contextmanager
def without_a_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# Names


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Base", "base"),
        (" base\n", "base"),
        ("base/", "base"),
        ("LARGE", "large-v3"),
        ("Large-V3", "large-v3"),
        ("TURBO", "turbo"),
        ("whisper-base", "base"),
        ("whisper-large-v3", "large-v3"),
        ("whisper-large-v3-turbo", "turbo"),
        ("whisper-turbo", "turbo"),
        ("whisper-small.en", "small.en"),
        ("faster-whisper-large-v2", "large-v2"),
        ("faster-whisper-large-v3-turbo", "turbo"),
        ("distil-large-v3", "distil-large-v3"),
        ("Distil-Whisper/Distil-Large-V3", "distil-large-v3"),
        ("Systran/faster-distil-whisper-large-v3", "distil-large-v3"),
        ("openai/whisper-base", "base"),
        ("OpenAI/Whisper-Base/", "base"),
        ("openai/whisper-large", "large-v1"),
        ("openai/whisper-large-v3-turbo", "turbo"),
        ("Systran/faster-whisper-base", "base"),
        ("guillaumekln/faster-whisper-base", "base"),
        ("hf:openai/whisper-base", "base"),
        ("hf://openai/whisper-base", "base"),
        ("hf:base", "base"),
        ("HF:Base", "base"),
        ("https://huggingface.co/openai/whisper-base", "base"),
        ("https://huggingface.co/openai/whisper-base/", "base"),
        ("http://huggingface.co/openai/whisper-base", "base"),
        ("huggingface.co/openai/whisper-base", "base"),
        ("https://www.huggingface.co/openai/whisper-base", "base"),
        ("https://hf.co/openai/whisper-base", "base"),
        ("https://huggingface.co/models/openai/whisper-base", "base"),
        ("https://huggingface.co/openai/whisper-base?library=transformers", "base"),
        ("https://huggingface.co/openai/whisper-base#usage", "base"),
        ("https://huggingface.co/openai/whisper-base/tree/main", "base"),
        ("https://huggingface.co/openai/whisper-base/tree/main/", "base"),
        ("https://huggingface.co/openai/whisper-base/blob/main/config.json", "base"),
        ("https://huggingface.co/openai/whisper-base/resolve/main/model.safetensors?download=true", "base"),
        ("models--openai--whisper-base", "base"),
    ],
)
def test_spellings_of_known_models_are_understood(text: str, name: str) -> None:
    model = model_named(name_in(text))
    assert model is not None
    assert model.name == name


@pytest.mark.parametrize(
    ("text", "hub_id"),
    [
        ("https://huggingface.co/me/Mine-v2/tree/main", "me/Mine-v2"),
        ("hf:me/Mine-v2", "me/Mine-v2"),
        ("me/Mine-v2/", "me/Mine-v2"),
        ("models--me--Mine-v2", "me/Mine-v2"),
    ],
)
def test_addresses_of_any_model_become_its_hub_id(text: str, hub_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(find, "download_folder", lambda hub_id, **_: asked.append(hub_id))
    pull(text)
    assert asked == [hub_id]
    with pytest.raises(ModelNotFoundError, match=f"stapes models pull {hub_id}"):
        find_checkpoint(text, download=False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ggml-base.bin", "no such file.*Did you mean base\\?"),
        ("ggml-large-v3-turbo-q5_0.bin", "Did you mean large-v3-turbo\\?"),
        ("ggml-base.en-q8_0.bin", "Did you mean base.en\\?"),
        ("base.pt", "no such file.*Did you mean base\\?"),
        ("whisper-base.gguf", "Did you mean base\\?"),
        ("whisper-1", "OpenAI's service.*large-v2"),
        ("whisper-large", "Did you mean large\\?"),
        ("large_v3", "Did you mean large-v3"),
        ("larg-v3", "Did you mean large-v3"),
        ("medum", "Did you mean medium"),
        ("tiny.eng", "Did you mean tiny.en"),
        ("distil-whisper-large-v3", "Did you mean distil-large-v3"),
        ("gpt-4o-transcribe", "Known names: tiny, "),
        ("models/ggml-base.bin", "no such file or folder; check the path"),
        ("./base", "no such file or folder; check the path"),
        ("~no-such-user/base", "check the path"),
        ("https://huggingface.co/openai/whisper-base/tree/refs-pr-1", "main only.*refs-pr-1.*openai/whisper-base"),
        (
            "https://huggingface.co/ggerganov/whisper.cpp/resolve/main/ggml-base.bin",
            "one file on the hub.*download it and give its path.*Did you mean base\\?",
        ),
        ("https://huggingface.co/me/mine/blob/main/model.fp16.safetensors", "one file on the hub.*me/mine"),
        ("https://openaipublic.azureedge.net/main/whisper/models/ed3a/base.pt", "download the file.*Did you mean base"),
        ("https://example.org/models", "not a model's page on the Hugging Face hub"),
        ("https://huggingface.co/openai/whisper-base/discussions/12", "not a model's page.*give openai/whisper-base"),
        ("https://huggingface.co/openai/whisper-base/blob/v2/config.json", "revision main only, not 'v2'"),
        ("https://huggingface.co/datasets/me/mine", "not a model's page on the Hugging Face hub, and"),
        ("hf:", "no model of this name"),
        ("https://huggingface.co/openai", "not a model's page"),
    ],
)
def test_what_is_no_model_gets_the_reason_and_what_is_close(text: str, said: str) -> None:
    for ask in (find_checkpoint, pull):
        with pytest.raises(ModelNotFoundError, match=f"(?s){said}") as caught:
            ask(text)
        assert text in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["hf:" + "/" * 200_000 + "a", "https://hf.co/" + "a/" * 100_000, "-" * 200_000],
    ids=["slashes", "folders", "dashes"],
)
def test_long_texts_are_refused_at_once(text: str) -> None:
    began_s = time.monotonic()
    with pytest.raises(ModelNotFoundError) as caught:
        find_checkpoint(text)
    assert len(str(caught.value)) < 800
    assert time.monotonic() - began_s < 2


def test_a_missing_file_is_never_replaced_by_a_model_of_its_name(tmp_path: Path) -> None:
    write.write_openai(tmp_path / "home" / "whisper" / "small.pt", TENSORS)
    for text in ("small.pt", "models/small.pt", "ggml-small.bin"):
        with pytest.raises(ModelNotFoundError):
            find_checkpoint(text)
    with pytest.raises(ModelNotFoundError):
        find_checkpoint(Path("small"))


# Places, in their order


@pytest.fixture
def base_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = write.write_ctranslate2(tmp_path / "site" / "weights_of_base", TENSORS)
    monkeypatch.syspath_prepend(tmp_path / "site")
    sha256 = hashlib.sha256((folder / "model.bin").read_bytes()).hexdigest()
    package = WeightsPackage("base", (("weights_of_base", "model.bin"),), sha256, "weights-a==1.0 weights-b==2.0")
    monkeypatch.setattr(find, "PACKAGES", (package,))
    return folder


@pytest.mark.parametrize(
    "text",
    [
        "base",
        "Base",
        "openai/whisper-base",
        "Systran/faster-whisper-base",
        "https://huggingface.co/openai/whisper-base",
    ],
)
def test_an_installed_model_is_found_by_each_of_its_names_without_the_hub(base_package: Path, text: str) -> None:
    checkpoint = find_checkpoint(text)
    checkpoint.verify()
    assert checkpoint.path == base_package
    assert find_here(text) == base_package


def test_places_are_looked_at_in_their_order(
    tmp_path: Path, base_package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each place that is emptied gives way to the next one."""
    cached = write.write_huggingface(tmp_path / "cached", TENSORS)
    fetched = write.write_huggingface(tmp_path / "fetched", TENSORS)
    whisper = write.write_openai(tmp_path / "home" / "whisper" / "base.pt", TENSORS)
    converted = write.write_ctranslate2(tmp_path / "kept" / "base", TENSORS)
    kept_file = write.write_openai(tmp_path / "kept" / "base.pt", TENSORS)
    here = write.write_huggingface(tmp_path / "base", TENSORS)
    monkeypatch.setattr(find, "cached_folder", {"openai/whisper-base": cached}.get)
    monkeypatch.setattr(find, "download_folder", lambda *_, **where: (fetched, where)[0])

    def found() -> Path | None:
        return find_checkpoint("base", model_dir=tmp_path / "kept").path

    assert found() == Path("base")
    here.rename(tmp_path / "elsewhere")
    assert found() == base_package
    monkeypatch.setattr(find, "PACKAGES", ())
    assert found() == kept_file
    kept_file.unlink()
    assert found() == converted
    converted.rename(tmp_path / "moved")
    assert found() == whisper
    whisper.unlink()
    assert found() == cached
    monkeypatch.setattr(find, "cached_folder", lambda hub_id: None)
    assert found() == fetched


@another_hash
@pytest.mark.parametrize(
    ("text", "place", "writer"),
    [
        ("small", "small.pt", write.write_openai),
        ("openai/whisper-small", "small.pt", write.write_openai),
        ("large", "large-v3.pt", write.write_openai),
        ("turbo", "large-v3-turbo.pt", write.write_openai),
        ("large-v3-turbo", "turbo.pt", write.write_openai),
        ("small", "small", write.write_ctranslate2),
        ("small", "faster-whisper-small", write.write_ctranslate2),
        ("small", "Systran/faster-whisper-small", write.write_ctranslate2),
        ("small", "openai/whisper-small", write.write_huggingface),
        ("distil-large-v3", "faster-distil-whisper-large-v3", write.write_ctranslate2),
        ("small", "ggml-small.bin", write.write_ggml),
        ("ggml-small.bin", "ggml-small.bin", write.write_ggml),
        ("small.pt", "small.pt", write.write_openai),
        ("my-own", "my-own.pt", write.write_openai),
        ("my-own", "my-own", write.write_ctranslate2),
        ("me/mine", "me/mine", write.write_huggingface),
        ("me/mine", "mine", write.write_huggingface),
    ],
)
def test_a_folder_of_models_is_read_in_the_layouts_of_others(
    tmp_path: Path, text: str, place: str, writer: Callable[..., Path]
) -> None:
    path = writer(tmp_path / "kept" / place, TENSORS)
    checkpoint = find_checkpoint(text, model_dir=tmp_path / "kept", download=False)
    assert (checkpoint.path, checkpoint.name) == (path, text)
    assert find_here(text, model_dir=str(tmp_path / "kept")) == path
    with pytest.raises(ModelNotFoundError):
        find_checkpoint(text, download=False)


@pytest.mark.parametrize("folder", ["small", "faster-whisper-small", "whisper-small"])
def test_the_models_own_folder_may_be_given(tmp_path: Path, folder: str) -> None:
    path = write.write_ctranslate2(tmp_path / "kept" / folder, TENSORS)
    assert find_checkpoint("small", model_dir=path, download=False).path == path
    with pytest.raises(ModelNotFoundError, match=r"a model itself.*give it as the model"):
        find_checkpoint("medium", model_dir=path)


@pytest.mark.parametrize(
    "text",
    ["..", ".", "../small", "/etc", "a\\..\\b", pytest.param("x" * 5000, id="long"), "a\0b", "owner/.."],
)
def test_a_name_cannot_lead_out_of_the_folder(tmp_path: Path, text: str) -> None:
    write.write_openai(tmp_path / "small.pt", TENSORS)
    (tmp_path / "kept").mkdir()
    assert not list(model_folders._places(Path("kept"), text, None, ())) or ".." not in text
    with pytest.raises(CheckpointError):
        find_checkpoint(text, model_dir=tmp_path / "kept", download=False)


def test_load_takes_the_folder_of_models(tmp_path: Path) -> None:
    model = random_checkpoint("multilingual")
    write.write_openai(tmp_path / "kept" / "my-own.pt", model.tensors, model.spec)
    with stapes.load("my-own", model_dir=tmp_path / "kept", backend="numpy") as engine:
        assert (engine.info.model, engine.info.path) == ("my-own", tmp_path / "kept" / "my-own.pt")


# Trust


def test_a_file_of_a_published_name_is_held_against_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write.write_openai(tmp_path / "kept" / "small.pt", TENSORS)
    checkpoint = find_checkpoint("small", model_dir=tmp_path / "kept")
    with pytest.warns(StapesWarning, match="not small as OpenAI published it"):
        checkpoint.verify()
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    known = tuple(replace(one, sha256=sha256) if one.name == "small" else one for one in OFFICIAL)
    monkeypatch.setattr(model_folders, "OFFICIAL", known)
    with without_a_warning():
        find_checkpoint("small", model_dir=tmp_path / "kept").verify()
    path.rename(tmp_path / "kept" / "large.pt")  # the first release of openai-whisper kept large-v1 under this name
    known = tuple(replace(one, sha256=sha256) if one.name == "large-v1" else one for one in OFFICIAL)
    monkeypatch.setattr(model_folders, "OFFICIAL", known)
    with pytest.warns(StapesWarning, match="not large-v3 as OpenAI published it but large-v1; it is used as it is"):
        find_checkpoint("large-v3", model_dir=tmp_path / "kept").verify()


@pytest.mark.parametrize("damage", [lambda whole: whole[:5000], lambda whole: b"", lambda whole: b"<html>" + whole])
def test_a_download_that_broke_off_is_passed_over(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = write.write_openai(tmp_path / "home" / "whisper" / "small.pt", TENSORS)
    path.write_bytes(damage(path.read_bytes()))
    with (
        pytest.warns(StapesWarning, match="skipped while looking for small.*small.pt"),
        pytest.raises(ModelNotFoundError, match="stapes models pull small"),
    ):
        find_checkpoint("small", download=False)


def test_nothing_in_a_hostile_file_of_that_name_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "canary.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    value = {**write.openai_value(TENSORS), "more": write.Call(write.Global("canary", "run"), ("true",))}
    (tmp_path / "kept").mkdir()
    write.write_archive(tmp_path / "kept" / "small.pt", write.pickled(value), [])
    with pytest.warns(StapesWarning, match="canary.run"), pytest.raises(ModelNotFoundError):
        find_checkpoint("small", model_dir=tmp_path / "kept", download=False)
    assert "canary" not in sys.modules


def test_a_machine_without_a_home_has_no_folder_of_whisper(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(_: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "expanduser", homeless)
    with pytest.raises(ModelNotFoundError, match="models pull small"):
        find_checkpoint("small", download=False)


# Lists, and removing


@another_hash
def test_models_in_folders_are_listed_by_the_names_that_find_them(tmp_path: Path, base_package: Path) -> None:
    write.write_openai(tmp_path / "home" / "whisper" / "tiny.pt", TENSORS)
    (tmp_path / "home" / "whisper" / "broken.pt").write_bytes(b"")
    write.write_ctranslate2(tmp_path / "kept" / "small", TENSORS)
    write.write_ggml(tmp_path / "kept" / "ggml-medium.bin", TENSORS)
    (tmp_path / "kept" / "other").mkdir()
    listed = installed_models(tmp_path / "kept")
    assert [(model.name, model.source) for model in listed] == [
        ("base", "package"),
        ("ggml-medium.bin", "model_dir"),
        ("small", "model_dir"),
        ("tiny", "whisper"),
    ]
    for model in listed:
        assert find_here(model.name, model_dir=tmp_path / "kept") == model.path
        assert model.size_bytes > 1000
    assert [model.name for model in installed_models()] == ["base", "tiny"]


@another_hash
def test_how_a_model_is_removed_is_said(tmp_path: Path, base_package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert how_to_remove("base") == "it is a package: 'pip uninstall weights-a weights-b'"
    path = write.write_openai(tmp_path / "home" / "whisper" / "tiny.pt", TENSORS)
    assert how_to_remove("tiny") == f"delete {path}"
    root = tmp_path / "models--openai--whisper-small"
    snapshot = write.write_huggingface(root / "snapshots" / ("a" * 40), TENSORS)
    monkeypatch.setattr(find, "cached_folder", {"openai/whisper-small": snapshot}.get)
    assert how_to_remove("small") == f"delete {root}"
    assert how_to_remove("medium") is None


# The hub's own library


def run_command(*words: str, **environment: str) -> tuple[subprocess.CompletedProcess[str], float]:
    source = str(Path(find.__file__).parents[2])
    began_s = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "stapes", *words],
        env=os.environ | {"PYTHONPATH": source, "HF_HUB_OFFLINE": "0", "HF_TOKEN": ""} | environment,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done, time.monotonic() - began_s


@pytest.mark.parametrize("accepts", [True, False])
def test_a_pull_where_nothing_answers_says_so_within_seconds(tmp_path: Path, accepts: bool) -> None:
    """huggingface_hub itself tries again for half a minute."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if accepts:
            server.listen()
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        done, elapsed_s = run_command(
            "models", "pull", "me/mine", HF_ENDPOINT=address, HF_HOME=str(tmp_path), NO_PROXY="127.0.0.1"
        )
    assert done.returncode == 2
    assert f"nothing answers at {address}" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert elapsed_s < 10  # 5 on an idle machine


def test_the_limit_is_the_hubs_own_where_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(hub.ANSWER_VARIABLE, "0.05")
    assert hub._answer_s() == 0.05
    monkeypatch.setenv(hub.ANSWER_VARIABLE, "soon")
    assert hub._answer_s() == hub.ANSWER_S
    stop = threading.Event()
    with pytest.raises(hub._NothingAnswersError):
        hub._within(0.05, lambda: [str(stop.wait(5))])
    stop.set()
    with pytest.raises(ZeroDivisionError):
        hub._within(5, lambda: ["x"] * (1 // 0))


@pytest.mark.parametrize("where", ["model_dir", "default"])
def test_the_hubs_layout_is_read_in_both_places(tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is copied from another machine may lack refs; what broke off is not taken."""
    root = tmp_path / "kept" / "models--Systran--faster-whisper-small"
    write.write_ctranslate2(root / "snapshots" / ("b" * 40), TENSORS)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("b" * 40)
    (root / "blobs").mkdir()
    broken = tmp_path / "kept" / "models--openai--whisper-small" / "snapshots" / ("c" * 40)
    (write.write_huggingface(broken, TENSORS) / "model.safetensors").unlink()
    if where == "model_dir":
        (root / "refs" / "main").unlink()
    program = (
        "import sys; from stapes.checkpoint.sources.find import *\n"
        "kept = sys.argv[1] or None\n"
        "print(find_checkpoint('small', model_dir=kept, download=False).path)\n"
        "print([(m.name, m.source) for m in installed_models(kept) if m.source != 'package'])\n"
    )
    source = str(Path(find.__file__).parents[2])
    cache = {"HF_HUB_CACHE": str(tmp_path / ("kept" if where == "default" else "none"))}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, str(tmp_path / "kept") if where == "model_dir" else ""],
        env=os.environ | {"PYTHONPATH": source, "HF_HUB_OFFLINE": "1"} | cache,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    listed = "hub cache" if where == "default" else "model_dir"
    assert done.stdout.splitlines() == [str(root / "snapshots" / ("b" * 40)), f"[('small', '{listed}')]"], done.stderr
