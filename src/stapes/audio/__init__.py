"""Any recording -> 16 kHz mono samples in bounded memory -> log-mel windows."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stapes.audio.load import load_audio, load_samples
    from stapes.audio.mel import mel_filters
    from stapes.audio.pcm import SAMPLE_RATE, Recording, SampleWriter

__all__ = ["SAMPLE_RATE", "Recording", "SampleWriter", "load_audio", "load_samples", "mel_filters"]


def __getattr__(name: str) -> Any:
    """Import a name when it is first used: the command's pages need no NumPy (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "load" if name.startswith("load_") else "mel" if name == "mel_filters" else "pcm"
    return getattr(import_module(f"{__name__}.{home}"), name)
