"""The interface of faster-whisper 1.2.1."""

from __future__ import annotations

from stapes.compat.faster_whisper.audio import decode_audio
from stapes.compat.faster_whisper.transcribe import BatchedInferencePipeline, WhisperModel
from stapes.compat.faster_whisper.utils import available_models, download_model, format_timestamp
from stapes.compat.faster_whisper.version import __version__

__all__ = [
    "BatchedInferencePipeline",
    "WhisperModel",
    "__version__",
    "available_models",
    "decode_audio",
    "download_model",
    "format_timestamp",
]
