"""One small adapter per engine: what loads it, what transcribes a file, which versions matter.

An adapter is a module with `load`, which returns a function `transcribe(path, language) -> text`. All decode
alike: greedily, at temperature 0, without beams, previous text as prompt, with timestamps.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import NamedTuple, Protocol, cast

Transcribe = Callable[[str, str | None], str]


class Load(Protocol):
    """How every adapter is opened."""

    def __call__(self, *, model: str, checkpoint: str | None, precision: str, threads: int) -> Transcribe:
        """Load a model by name, or from `checkpoint`; `precision` is the engine's own word for it."""


class Adapter(NamedTuple):
    """Where an adapter lives, and the packages whose versions belong into its results."""

    module: str
    packages: tuple[str, ...]


ADAPTERS: dict[str, Adapter] = {
    "stapes": Adapter("stapes_engine", ("stapes", "numpy", "av")),
    "openai-whisper": Adapter("openai_whisper", ("openai-whisper", "torch")),
    "faster-whisper": Adapter("faster_whisper_engine", ("faster-whisper", "ctranslate2", "av")),
}


def loader(engine: str) -> Load:
    """Import one adapter and with it its engine; raises ImportError where the engine is not installed."""
    module = importlib.import_module(f"benchmarks.adapters.{ADAPTERS[engine].module}")
    return cast("Load", module.load)
