"""From a model's name to an engine: `load` finds the checkpoint, chooses the backend and the VAD network."""

from __future__ import annotations

import os
from typing import Any

from stapes.backends.select import choose_devices, open_backend, shut_down_on_failure
from stapes.engine.engine import Engine
from stapes.engine.host import Host
from stapes.engine.tasks import tokenizer_of
from stapes.errors import CheckpointError, OptionError
from stapes.options import unknown_option
from stapes.options.checks import is_number, number, plain, require, whole
from stapes.vad.open import vad_models

#: more than any device has
_MOST_BYTES = 1 << 60


def load(
    model: str | os.PathLike[str] = "base",
    *,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    download: bool = True,
    backend: str = "auto",
    max_memory: int | None = None,
    device_memory: int | None = None,
    model_dir: str | os.PathLike[str] | None = None,
    host: Host | None = None,
    **unknown: Any,
) -> Engine:
    """Load a model.

    model: a name ("base", "large-v3", "turbo"), a hub id ("openai/whisper-small"), or a path to a Hugging Face or
    CTranslate2 folder, an OpenAI .pt or a ggml .bin.
    device: "cpu"; "cuda", a GPU of NVIDIA or, with PyTorch for ROCm, of AMD; "cuda:1", the second one; "cuda:0,cuda:1",
    both as one; "mps", a GPU of Apple, not tested by us; "auto", a GPU if `check_device` finds one, else the CPU. GPUs
    need the extra `torch` (docs/gpu.md).
    precision: "float32", exact; "float16", for GPUs, "bfloat16", and "int8", for CPUs, faster and near; "auto" takes
    float16 on a GPU, and on a CPU the fastest whose word errors were measured to be float32's for this model, or
    bfloat16 where it is faster for a model that was not measured, else float32 (docs/native.md);
    `info.precision_reason` says why. With "int8", device "auto" is the CPU; "mps" computes in float32 alone.
    threads: cores to use; None uses those that the process may use.
    download: whether a model that is not here may be fetched from the hub.
    backend: "native", "numpy", "torch", or "auto": PyTorch on a GPU; on a CPU, where PyTorch is slower, the native
    library where it was built, else NumPy.
    max_memory: most bytes that windows and rows of the recordings at work may take, beside the weights; None: 256 MB,
    or five windows of a large model, and one window for interactive jobs; on a GPU half of what the weights leave free.
    device_memory: most bytes of each GPU's memory that are used, the weights included; without effect on a CPU.
    model_dir: a folder of models, as openai-whisper (small.pt), faster-whisper or the hub keep them: looked through
    before openai-whisper's own and the hub's cache; what is fetched goes there. None: fetched into the hub's cache.
    host: engines that are loaded on one `stapes.Host` share its thread, its cores and its bound on memory, so that
    `threads` and `max_memory` are given to it instead. None: the engine has all of these to itself.
    Raises ModelNotFoundError, CheckpointError, OptionError, or BackendError if memory does not suffice, or if the
    device cannot be used, with what is missing.
    """
    from stapes.checkpoint.sources.find import find_checkpoint  # noqa: PLC0415 (not needed by engines made in memory)

    if unknown:
        raise OptionError(unknown_option(next(iter(unknown)), "load"))
    threads, max_memory, device_memory = plain(threads), plain(max_memory), plain(device_memory)
    _check(model, model_dir, host, threads=threads, max_memory=max_memory, device_memory=device_memory)
    threads = threads if host is None else host.threads
    device = check_device(device, precision=precision, backend=backend)
    checkpoint = find_checkpoint(model, download=download, model_dir=model_dir)
    try:
        tokenizer = tokenizer_of(checkpoint)  # first: packing the weights takes seconds
    except CheckpointError:
        checkpoint.verify()  # names the cause if the package is damaged
        raise
    open_vad = vad_models("auto" if backend == "torch" else backend)  # VAD is for CPUs
    opened = open_backend(
        checkpoint, name=backend, precision=precision, threads=threads, device=device, device_memory=device_memory
    )
    with shut_down_on_failure(opened):
        return Engine(checkpoint, opened, max_memory=max_memory, open_vad=open_vad, tokenizer=tokenizer, host=host)


def _check(model: Any, model_dir: Any, host: Any, *, threads: Any, max_memory: Any, device_memory: Any) -> None:
    """Raise OptionError for values that `load` does not take; a host has threads and memory of its own."""
    if not isinstance(model, (str, os.PathLike)):
        raise OptionError(f"model must be a name or a path, got {model!r}")
    if not isinstance(model_dir, (str, os.PathLike, type(None))):
        raise OptionError(f"model_dir must be a path or None, got {model_dir!r}")
    whole("threads", threads)
    number("max_memory", max_memory, low=0)
    is_size = device_memory is None or (is_number(device_memory) and 1 <= device_memory <= _MOST_BYTES)
    require(is_size, f"device_memory must be a number of bytes, such as 8_000_000_000, got {device_memory!r}")
    require(isinstance(host, (Host, type(None))), f"host must be a stapes.Host or None, got {host!r}")
    for name, value in (("threads", threads), ("max_memory", max_memory)):
        alone = host is None or value is None
        require(alone, f"{name} belongs to the host: give it to stapes.Host({name}=...), not to load")


def check_device(device: str = "auto", *, precision: str = "auto", backend: str = "auto") -> str:
    """Return the device that `load` would use: "cpu", "cuda:0", "cuda:0,cuda:1" or "mps". No model is needed.

    device, precision, backend: as for `load`. A GPU that "auto" finds and that cannot be used is a warning.
    Raises OptionError for names that are not in this version or do not go together, and BackendError, with what is
    missing and how to install it, where the device cannot be used: no PyTorch, one without CUDA, an old driver, no GPU.
    """
    return ",".join(choose_devices(device, precision=precision, backend=backend))
