"""From a model's name to an engine: `load` finds the checkpoint, chooses the backend and the VAD network."""

from __future__ import annotations

import os
from typing import Any

from stapes.backends.select import check_names, open_backend
from stapes.engine.engine import Engine
from stapes.engine.host import Host
from stapes.engine.tasks import tokenizer_of
from stapes.errors import CheckpointError, OptionError
from stapes.options import unknown_option
from stapes.options.checks import number, plain, require, whole
from stapes.vad.open import vad_models


def load(
    model: str | os.PathLike[str] = "base",
    *,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    download: bool = True,
    backend: str = "auto",
    max_memory: int | None = None,
    model_dir: str | os.PathLike[str] | None = None,
    host: Host | None = None,
    **unknown: Any,
) -> Engine:
    """Load a model.

    model: a name ("base", "large-v3", "turbo"), a hub id ("openai/whisper-small"), or a path to a Hugging Face or
    CTranslate2 folder, an OpenAI .pt or a ggml .bin.
    device: "cpu", or "auto", which is the same in this version.
    precision: "float32", exact; "bfloat16" and "int8", faster and near; "auto" takes the fastest on this processor
    whose word errors were measured to be float32's for this model, or bfloat16 where it is faster for a model that was
    not measured, else float32 (docs/native.md); `info.precision_reason` says why.
    threads: cores to use; None uses those that the process may use.
    download: whether a model that is not here may be fetched from the hub.
    backend: "native", "numpy", or "auto": the native library where it was built, else NumPy.
    max_memory: most bytes that windows and rows of the recordings at work may take, beside the weights; None: 256 MB,
    or five windows of a large model, and one window for interactive jobs.
    model_dir: a folder of models, as openai-whisper (small.pt), faster-whisper or the hub keep them: looked through
    before openai-whisper's own and the hub's cache; what is fetched goes there. None: fetched into the hub's cache.
    host: engines that are loaded on one `stapes.Host` share its thread, its cores and its bound on memory, so that
    `threads` and `max_memory` are given to it instead. None: the engine has all of these to itself.
    Raises ModelNotFoundError, CheckpointError, OptionError, or BackendError if memory does not suffice.
    """
    from stapes.checkpoint.sources.find import find_checkpoint  # noqa: PLC0415 (not needed by engines made in memory)

    if unknown:
        raise OptionError(unknown_option(next(iter(unknown)), "load"))
    if not isinstance(model, (str, os.PathLike)):
        raise OptionError(f"model must be a name or a path, got {model!r}")
    if not isinstance(model_dir, (str, os.PathLike, type(None))):
        raise OptionError(f"model_dir must be a path or None, got {model_dir!r}")
    check_names(device=device, precision=precision, backend=backend)
    threads, max_memory = plain(threads), plain(max_memory)
    whole("threads", threads)
    number("max_memory", max_memory, low=0)
    require(isinstance(host, (Host, type(None))), f"host must be a stapes.Host or None, got {host!r}")
    if host is not None:
        for name, value in (("threads", threads), ("max_memory", max_memory)):
            require(value is None, f"{name} belongs to the host: give it to stapes.Host({name}=...), not to load")
        threads = host.threads
    checkpoint = find_checkpoint(model, download=download, model_dir=model_dir)
    try:
        tokenizer = tokenizer_of(checkpoint)  # first: packing the weights takes seconds
    except CheckpointError:
        checkpoint.verify()  # names the cause if the package is damaged
        raise
    opened = open_backend(checkpoint, name=backend, precision=precision, threads=threads)
    return Engine(
        checkpoint, opened, max_memory=max_memory, open_vad=vad_models(backend), tokenizer=tokenizer, host=host
    )
