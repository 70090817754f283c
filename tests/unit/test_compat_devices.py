"""The drop-in interfaces on GPUs: a GPU that can be used is taken, by every name that the originals have for it.

No GPU is needed: what looks for one, and what loads a model on it, are stand-ins.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import stapes
from stapes.backends.base import BackendInfo
from stapes.compat import faster_whisper, whisper
from stapes.compat.loading import RUN_AS_VARIABLE, DeviceError
from stapes.compat.tensors import TensorLike
from stapes.engine.engine import Engine
from stapes.errors import BackendError, StapesWarning
from stapes.options.devices import device_names
from stapes.testing import ScriptedBackend, random_checkpoint, reciting, tiny_spec
from stapes.tokenizer import Tokenizer

MISSING = "device 'cuda:0': the NVIDIA driver is too old"
CHECKPOINT = random_checkpoint()
TOKENIZER = Tokenizer(tiny_spec(), CHECKPOINT.vocabulary)
Loads = list[dict[str, Any]]


class Network(ScriptedBackend):
    """A scripted network that says what it was loaded on."""

    device, precision = "cpu", "float32"

    @property
    def info(self) -> BackendInfo:
        return replace(super().info, device=self.device, precision=self.precision)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the GPUs that can be used, to be changed; "auto" is the first one."""
    found = ["cuda:0", "cuda:1"]

    def check(device: str = "auto", *, precision: str = "auto", backend: str = "auto") -> str:
        names = device_names(device)
        if names == ("auto",):
            return "cpu" if backend in ("native", "numpy") or not found else found[0]
        if not set(names) <= {"cpu", *found}:
            raise BackendError(MISSING)
        return ",".join(names)

    monkeypatch.setattr(stapes, "check_device", check)
    return found


@pytest.fixture
def loads(gpus: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Loads]:
    """Have `stapes.load` make scripted engines, and return what it was asked for."""
    asked: Loads = []
    engines: list[Engine] = []

    def load(_: str, **given: Any) -> Engine:
        asked.append(given)
        network = Network(tiny_spec(), reciting(TOKENIZER, [" One."]))
        network.device, network.precision = given["device"], given["precision"].replace("auto", "float16")
        engines.append(Engine(CHECKPOINT, network))
        return engines[-1]

    monkeypatch.setattr(stapes, "load", load)
    yield asked
    for one in engines:
        one.close()


def torch_device(name: str) -> Any:
    """Return what has the text of a torch.device."""
    kind, _, number = name.partition(":")
    made = SimpleNamespace(type=kind, index=int(number) if number else None)
    return type("device", (), {"__str__": lambda _: name, **vars(made)})()


# faster-whisper.


@pytest.mark.parametrize(
    ("given", "device", "precision", "index"),
    [
        ({}, "cuda:0", "auto", [0]),
        ({"device": "auto"}, "cuda:0", "auto", [0]),
        ({"device": "auto", "device_index": 1}, "cuda:1", "auto", [1]),
        ({"device": "auto", "backend": "native"}, "cpu", "float32", [0]),
        ({"device": "cuda"}, "cuda:0", "auto", [0]),
        ({"device": "cuda", "device_index": 1}, "cuda:1", "auto", [1]),
        ({"device": "cuda", "device_index": [0, 1]}, "cuda:0,cuda:1", "auto", [0, 1]),
        ({"device": "cuda:1"}, "cuda:1", "auto", [1]),
        ({"device": torch_device("cuda:1")}, "cuda:1", "auto", [1]),
        ({"device": "cpu"}, "cpu", "float32", [0]),
        ({"device": "cuda", "compute_type": "float16"}, "cuda:0", "float16", [0]),
        ({"device": "cuda", "compute_type": "bfloat16"}, "cuda:0", "bfloat16", [0]),
        ({"device": "cuda", "compute_type": "float32"}, "cuda:0", "float32", [0]),
    ],
)
def test_faster_whisper_loads_on_gpus(
    loads: Loads, given: dict[str, Any], device: str, precision: str, index: list[int]
) -> None:
    loaded = faster_whisper.WhisperModel("base", **given).model
    assert [(one["device"], one["precision"]) for one in loads] == [(device, precision)]
    assert (loaded.device, loaded.device_index) == (device.partition(":")[0], index)
    assert loaded.compute_type == precision.replace("auto", "float16")


@pytest.mark.parametrize(
    ("compute_type", "precision"),
    [("int8", "float16"), ("int8_float16", "float16"), ("int8_bfloat16", "bfloat16"), ("int8_float32", "float32")],
)
def test_faster_whisper_has_no_int8_on_gpus(loads: Loads, compute_type: str, precision: str) -> None:
    with pytest.warns(StapesWarning, match=f"'{compute_type}': stapes computes in {precision} on GPUs"):
        faster_whisper.WhisperModel("base", device="cuda", compute_type=compute_type)
    assert loads[0]["precision"] == precision


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"device": "cuda", "device_index": 7}, MISSING),
        ({"device": "cuda", "device_index": [0, 0]}, "names cuda:0 twice"),
        ({"device": "cuda:1", "device_index": 1}, "device 'cuda:1' has a number already; leave it out"),
        ({"device": "cpu", "device_index": 1}, "there is one CPU; leave it out"),
        ({"device": "cuda", "device_index": []}, "leave it out"),
        ({"device": "mps"}, "unsupported device 'mps': give 'cpu', or 'cuda' for a GPU"),
        ({"device": "cuda", "compute_type": "int16"}, "compute type 'int16'"),
        ({"device": "cpu", "compute_type": "float16"}, "'float16' is for GPUs, and this is a CPU"),
    ],
)
def test_what_faster_whisper_cannot_load_on(loads: Loads, given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        faster_whisper.WhisperModel("base", **given)
    assert not loads


def test_a_gpu_that_cannot_be_used_is_an_error_or_the_cpu(
    loads: Loads, gpus: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus.clear()
    for face in (faster_whisper.WhisperModel, whisper.load_model):
        with pytest.raises(DeviceError, match=f"{MISSING}; or give 'cpu'; under 'stapes run-as'"):
            face("base", device="cuda")
        assert not loads
    monkeypatch.setenv(RUN_AS_VARIABLE, "both")
    for face in (faster_whisper.WhisperModel, whisper.load_model):
        with pytest.warns(StapesWarning, match=f"{MISSING}; going on with the CPU"):
            face("base", device="cuda")
        assert (loads[-1]["device"], loads[-1]["precision"]) == ("cpu", "float32")


# openai-whisper.


@pytest.mark.parametrize(
    ("device", "used"),
    [
        (None, "cuda:0"), ("cuda", "cuda:0"), ("cuda:1", "cuda:1"), (torch_device("cuda:1"), "cuda:1"), ("cpu", "cpu"),
        (torch_device("cpu"), "cpu"),
    ],
)  # fmt: skip
def test_openai_whisper_loads_on_gpus(loads: Loads, device: Any, used: str) -> None:
    model = whisper.load_model("base", device=device)
    precision = "float32" if used == "cpu" else "auto"
    assert [(one["device"], one["precision"]) for one in loads] == [(used, precision)]
    assert (str(model.device), model.device.type) == (used, used.partition(":")[0])
    for same in ("cpu", used, torch_device(used)):
        assert model.to(same) is model


def test_a_model_on_the_cpu_does_not_move(loads: Loads, gpus: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    model = whisper.load_model("base", device="cpu")
    moves: list[Callable[[], object]] = [model.cuda, lambda: model.to("cuda:1")]
    for move in moves:
        with pytest.raises(DeviceError, match=r"loaded on the CPU and stays there; give load_model device='cuda(:1)?'"):
            move()
    on_gpu = whisper.load_model("base")
    assert on_gpu.cuda() is on_gpu.cuda(1) is on_gpu.cpu() is on_gpu
    gpus.clear()
    monkeypatch.setenv(RUN_AS_VARIABLE, "whisper")
    with pytest.warns(StapesWarning, match="going on with the CPU"):
        assert model.cuda() is model


@pytest.mark.parametrize(
    ("words", "added"),
    [
        ([], []),
        (["--device", "cuda"], []),
        (["--device=cuda:1"], []),
        (["--device", "auto"], []),
        (["--device", "cpu"], ["--device", "cpu", "--precision", "float32"]),
        (["--device", "cuda", "--precision", "float32"], []),
        (["--help"], []),
    ],
)
@pytest.mark.parametrize("run_as", [False, True])
def test_the_command_of_whisper_computes_on_a_gpu(
    gpus: list[str], words: list[str], added: list[str], run_as: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if run_as:
        monkeypatch.setenv(RUN_AS_VARIABLE, "whisper")
    assert command_with(["talk.mp3", *words], monkeypatch) == added


def test_the_command_of_whisper_without_a_gpu(gpus: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    gpus.clear()
    exact = ["--precision", "float32"]
    assert command_with(["talk.mp3"], monkeypatch) == exact
    assert command_with(["talk.mp3", "--device", "cuda"], monkeypatch) == []  # `stapes` says what is missing
    assert command_with(["talk.mp3", "--device", "mps"], monkeypatch) == ["--device", "mps", *exact]
    monkeypatch.setenv(RUN_AS_VARIABLE, "whisper")
    with pytest.warns(StapesWarning, match=MISSING):
        assert command_with(["talk.mp3", "--device", "cuda"], monkeypatch) == ["--device", "cpu", *exact]


def command_with(words: list[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return which flags the command `whisper` adds that say what to compute with."""
    module = import_module("stapes.compat.whisper.transcribe")
    seen: list[str] = []
    monkeypatch.setattr("runpy.run_module", lambda *_, **__: seen.extend(sys.argv[1:]))
    monkeypatch.setattr(sys, "argv", ["whisper", *words])
    module.cli()
    return [one for one in seen[len(words) :] if one in ("--device", "cpu", "mps", "--precision", "float32")]


def test_a_log_mel_goes_to_a_gpu_where_pytorch_is(gpus: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[Any] = []
    sound = np.zeros(16000, np.float32)

    def move(*where: Any, **_: Any) -> str:
        moved.append(where)
        return "moved"

    tensor = SimpleNamespace(to=move)
    fake = SimpleNamespace(Tensor=type("Tensor", (), {}), from_numpy=lambda _: tensor)
    mel: TensorLike = whisper.log_mel_spectrogram(sound)
    looks: Callable[..., str] = stapes.check_device

    def check(device: str, **keywords: Any) -> str:
        monkeypatch.setitem(sys.modules, "torch", fake)  # as looking for a GPU imports PyTorch
        return looks(device, **keywords)

    monkeypatch.setattr(stapes, "check_device", check)
    assert mel.to("cuda:1") == "moved"
    monkeypatch.delitem(sys.modules, "torch")
    assert whisper.log_mel_spectrogram(sound, device="cuda:1") == "moved"
    assert moved == [("cuda:1",), ("cuda:1",)]
