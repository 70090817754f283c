"""The release of faster-whisper whose interface this is."""

from __future__ import annotations

__version__ = "1.2.1"
