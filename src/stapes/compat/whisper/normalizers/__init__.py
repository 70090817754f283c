"""Text normalisers for word error rates: the names of openai-whisper's `whisper.normalizers`."""

from __future__ import annotations

from stapes.compat.whisper.normalizers.basic import BasicTextNormalizer
from stapes.compat.whisper.normalizers.english import EnglishTextNormalizer

__all__ = ["BasicTextNormalizer", "EnglishTextNormalizer"]
