"""What stands for `ctranslate2.models.Whisper`: `WhisperModel.model`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn

import numpy as np
import numpy.typing as npt

import stapes
from stapes.compat.faster_whisper.utils import _MODELS, download_model
from stapes.compat.loading import (
    DeviceError,
    argument_errors,
    refuse_unless_default,
    under_run_as,
    usable_device,
)
from stapes.runtime.warn import warn

#: compute types of CTranslate2 -> precision of stapes on a CPU; those of its GPUs are refused there, as it does
_PRECISIONS: Final = {
    "default": "float32", "auto": "float32", "float32": "float32", "int8": "int8", "int8_float32": "int8",
    "bfloat16": "bfloat16",
}  # fmt: skip
_ON_GPUS: Final = ("float16", "int8_float16", "int8_bfloat16", "int16")
#: the same on a GPU, where stapes has no weights of 8 bits
_GPU_PRECISIONS: Final = {
    "default": "auto", "auto": "auto", "float32": "float32", "float16": "float16", "bfloat16": "bfloat16",
    "int8": "float16", "int8_float32": "float32", "int8_float16": "float16", "int8_bfloat16": "bfloat16",
}  # fmt: skip
#: further arguments of CTranslate2's models, and those of `stapes.load`
_MODEL_DEFAULTS: Final[Mapping[str, Any]] = {
    "max_queued_batches": 0,
    "flash_attention": False,
    "tensor_parallel": False,
}
_OWN_ARGUMENTS: Final = ("backend", "max_memory", "device_memory", "host")
_NO_STORAGE: Final = (
    "stapes has no CTranslate2 tensors: transcribe() decodes audio, and stapes.Engine.decode_window(mel) decodes a "
    "log-mel (n_mels, 3000) with prompt, prefix and word times"
)


class MissingModelError(stapes.ModelNotFoundError, FileNotFoundError, ValueError):
    """A path that is not there, or a model that cannot be fetched: ValueError and FileNotFoundError of the Hub."""


class LoadedModel:
    """An engine that can be unloaded and loaded again."""

    def __init__(self, load: Callable[[], stapes.Engine]) -> None:
        """load: opens the engine; it is called at once, and again by `load_model`."""
        self._load = load
        self._engine: stapes.Engine | None = load()
        info = self._engine.info
        names = info.device.split(",")
        self.device = names[0].partition(":")[0]
        self.device_index = [int(name.partition(":")[2] or 0) for name in names]
        self.compute_type = info.precision
        self.is_multilingual = info.multilingual
        self.n_mels = info.spec.n_mels
        self.num_languages = len(info.languages)
        self.num_workers = 1
        self.num_queued_batches = 0
        self.num_active_batches = 0

    @property
    def engine(self) -> stapes.Engine:
        """The engine. Raises RuntimeError while the model is unloaded."""
        if self._engine is None:
            raise RuntimeError("the model is unloaded; load_model() loads it again")
        return self._engine

    @property
    def model_is_loaded(self) -> bool:
        """Whether the model is in memory."""
        return self._engine is not None

    def unload_model(self, to_cpu: bool = False) -> None:  # noqa: ARG002 (it is on the CPU)
        """Free the model's memory; jobs at work end."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def load_model(self, keep_cache: bool = False) -> None:  # noqa: ARG002 (nothing was cached)
        """Load the model again; nothing where it is loaded."""
        if self._engine is None:
            self._engine = self._load()

    def check_multilingual(self) -> None:
        """Raise RuntimeError for a model that knows English only: there is nothing to detect."""
        if not self.is_multilingual:
            raise RuntimeError("detect_language can only be called on multilingual models")

    def detect_language(self, features: npt.NDArray[np.float32]) -> list[list[tuple[str, float]]]:
        """Return each window's languages, as ("<|en|>", probability), most probable first.

        features: (windows, n_mels, 3000).   Raises RuntimeError for a model that knows English only.
        """
        self.check_multilingual()
        guesses = [self.engine.detect_window_language(mel) for mel in features]
        return [[(f"<|{code}|>", share) for code, share in one.probabilities.items()] for one in guesses]

    def encode(self, *arguments: Any, **keywords: Any) -> NoReturn:
        """Raise NotImplementedError."""
        raise NotImplementedError(f"encode: {_NO_STORAGE}")

    def generate(self, *arguments: Any, **keywords: Any) -> NoReturn:
        """Raise NotImplementedError."""
        raise NotImplementedError(f"generate: {_NO_STORAGE}")

    def align(self, *arguments: Any, **keywords: Any) -> NoReturn:
        """Raise NotImplementedError."""
        raise NotImplementedError(
            f"align: {_NO_STORAGE}; stapes.Engine.align(audio, text) places the words of a known text"
        )


def open_model(given: dict[str, Any]) -> LoadedModel:
    """Open a model. given: the arguments of WhisperModel. Raises what WhisperModel raises."""
    others, size_or_path, folder = given["model_kwargs"], given["model_size_or_path"], given["download_root"]
    refuse_unless_default("WhisperModel", {"files": given["files"]}, {"files": None})
    own = {name: others[name] for name in _OWN_ARGUMENTS if name in others}
    further = {name: value for name, value in others.items() if name not in own}
    for name in further:
        if name not in _MODEL_DEFAULTS:
            raise TypeError(f"WhisperModel() got an unexpected keyword argument {name!r}")
    refuse_unless_default("WhisperModel", further, _MODEL_DEFAULTS)
    device = _device_of(given["device"], given["device_index"], own.get("backend", "auto"))
    precision = _precision_of(given["compute_type"], on_gpu=device != "cpu")
    fetch = (given["revision"], given["use_auth_token"]) != (None, None) and not Path(size_or_path).exists()
    load = partial(
        stapes.load,
        _fetched(given) if fetch else size_or_path,
        device=device,
        precision=precision,
        threads=given["cpu_threads"] or None,
        download=not given["local_files_only"],
        model_dir=folder,
        **own,
    )
    return LoadedModel(lambda: _loaded(load))


def _device_of(device: Any, index: int | list[int], backend: str) -> str:
    """Return the device to load on, of several numbers as "cuda:0,cuda:1". Raises DeviceError."""
    numbers = list(index) if isinstance(index, list | tuple) else [index]
    name = str(device)
    if name == "cuda" and numbers:
        return usable_device(",".join(f"cuda:{number}" for number in numbers), backend=backend)
    found = usable_device(device, backend=backend)
    if numbers == [0]:
        return found
    if name != "auto" or found == "cpu":
        there = "there is one CPU" if found == "cpu" else f"device {name!r} has a number already"
        raise DeviceError(f"device_index={index!r}: {there}; leave it out")
    return _device_of("cuda", index, backend)


def _precision_of(compute_type: str, *, on_gpu: bool) -> str:
    """Return the precision of stapes for a compute type; on a CPU one of GPUs is refused, under `run-as` with a warning
    only.
    """
    if on_gpu and compute_type in _GPU_PRECISIONS:
        precision = _GPU_PRECISIONS[compute_type]
        if compute_type.startswith("int8"):
            warn(f"compute type {compute_type!r}: stapes computes in {precision} on GPUs, which takes more memory")
        return precision
    if compute_type in _PRECISIONS:
        return _PRECISIONS[compute_type]
    if compute_type not in _ON_GPUS:
        raise ValueError(f"unknown compute type {compute_type!r}; give one of {', '.join(_PRECISIONS)}")
    if not under_run_as():
        raise ValueError(
            f"compute type {compute_type!r} is for GPUs, and this is a CPU; give one of {', '.join(_PRECISIONS)}"
        )
    warn(f"compute type {compute_type!r} is for GPUs; stapes goes on in float32 on the CPU")
    return "float32"


def _fetched(given: dict[str, Any]) -> str:
    """Fetch a model by faster-whisper's ids: a revision is one of its repositories."""
    return download_model(
        given["model_size_or_path"],
        local_files_only=given["local_files_only"],
        cache_dir=given["download_root"],
        revision=given["revision"],
        use_auth_token=given["use_auth_token"],
    )


def _loaded(load: partial[stapes.Engine]) -> stapes.Engine:
    """Load a model; errors are of the types that faster-whisper's have."""
    try:
        with argument_errors():
            return load()
    except stapes.ModelNotFoundError as error:
        name = str(load.args[0])
        if "/" in name or name in _MODELS:
            raise MissingModelError(str(error)) from error
        raise ValueError(f"invalid model size {name!r}: {error}") from error
    except stapes.CheckpointError as error:
        raise RuntimeError(str(error)) from error
