"""faster-whisper, on CTranslate2."""

from __future__ import annotations

from typing import Any

from faster_whisper import WhisperModel

from benchmarks.adapters import Transcribe


def load(*, model: str, checkpoint: str | None, precision: str, threads: int) -> Transcribe:
    """Load a model by name or from a CTranslate2 folder; `precision` is its compute type."""
    network: Any = WhisperModel(checkpoint or model, device="cpu", compute_type=precision, cpu_threads=threads)

    def transcribe(path: str, language: str | None) -> str:
        segments, _ = network.transcribe(
            path,
            language=language,
            temperature=0.0,
            beam_size=1,
            condition_on_previous_text=True,
            vad_filter=False,
        )
        return "".join(segment.text for segment in segments)  # decoding happens here

    return transcribe
