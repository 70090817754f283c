"""From a model's name to an engine: `load` finds the checkpoint, chooses the backend, and puts both together."""

from __future__ import annotations

import os
from typing import Any

from stapes.backends.select import open_backend
from stapes.engine.engine import Engine
from stapes.engine.tasks import tokenizer_of
from stapes.errors import CheckpointError, OptionError
from stapes.options import PRECISIONS, unknown_option
from stapes.options.checks import number, plain, whole
from stapes.vad.open import vad_models

DEVICES = ("cpu",)


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
    **unknown: Any,
) -> Engine:
    """Load a model.

    model: a name ("base", "large-v3", "turbo"), a hub id ("openai/whisper-small"), or a path to a Hugging Face or
    CTranslate2 folder, an OpenAI .pt or a ggml .bin.
    device: "cpu", or "auto", which is the same in this version.
    precision: "float32", exact; "bfloat16" and "int8", faster and nearly the same; "auto" picks the fastest that was
    measured to be as good for this model on this machine, else float32 (docs/native.md).
    threads: cores to use; None uses those that the process may use.
    download: whether a model that is not here may be fetched from the hub.
    backend: "native", "numpy", or "auto": the native library where it was built, else NumPy.
    max_memory: most bytes that windows and rows of the recordings at work may take, beside the weights; None: 256 MB,
    or five windows of a large model.
    model_dir: a folder of models, as openai-whisper (small.pt), faster-whisper or the hub keep them: looked through
    before openai-whisper's own and the hub's cache; what is fetched goes there. None: fetched into the hub's cache.
    Raises ModelNotFoundError, CheckpointError, OptionError, or BackendError if memory does not suffice.
    """
    from stapes.checkpoint.sources.find import find_checkpoint  # noqa: PLC0415 (not needed by engines made in memory)

    if unknown:
        raise OptionError(unknown_option(next(iter(unknown)), "load", _KEYWORDS))
    if not isinstance(model, (str, os.PathLike)):
        raise OptionError(f"model must be a name or a path, got {model!r}")
    if not isinstance(model_dir, (str, os.PathLike, type(None))):
        raise OptionError(f"model_dir must be a path or None, got {model_dir!r}")
    _one_of("device", device, DEVICES)
    _one_of("precision", precision, PRECISIONS)
    threads = plain(threads)
    whole("threads", threads)
    max_memory = plain(max_memory)
    number("max_memory", max_memory, low=0)
    checkpoint = find_checkpoint(model, download=download, model_dir=model_dir)
    try:
        tokenizer = tokenizer_of(checkpoint)  # before the weights are packed, which takes seconds
    except CheckpointError:
        checkpoint.verify()  # of what is wrong, a package's damage is the cause
        raise
    opened = open_backend(checkpoint, name=backend, precision=precision, threads=threads)
    return Engine(checkpoint, opened, max_memory=max_memory, listener=vad_models(backend), tokenizer=tokenizer)


_KEYWORDS = ("device", "precision", "threads", "download", "backend", "max_memory", "model_dir")


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in (*known, "auto"):
        raise OptionError(f"{name} {value!r} is not in this version; there are: {', '.join(known)}, auto")
