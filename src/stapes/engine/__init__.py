"""One model, ready to transcribe. Start with engine.py."""

from __future__ import annotations

from stapes.engine.engine import Engine

__all__ = ["Engine"]
