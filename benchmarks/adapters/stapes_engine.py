"""stapes as its users call it."""

from __future__ import annotations

import stapes
from benchmarks.adapters import Transcribe


def load(*, model: str, checkpoint: str | None, precision: str, threads: int) -> Transcribe:
    """Load a model; `checkpoint` is whatever stapes reads."""
    engine = stapes.load(checkpoint or model, precision=precision, threads=threads)

    def transcribe(path: str, language: str | None) -> str:
        result = engine.transcribe(
            path, language=language, temperature=0.0, beam_size=None, condition_on_previous_text=True
        )
        return result.text

    return transcribe
