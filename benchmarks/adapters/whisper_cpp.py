"""whisper.cpp, through pywhispercpp."""

from __future__ import annotations

from typing import Any

from pywhispercpp.model import Model

from benchmarks.adapters import Loaded


def load(*, model: str, checkpoint: str | None, precision: str, threads: int) -> Loaded:
    """Load a ggml file, or a model by name; the file decides the precision, f16 or q8_0."""
    if precision not in ("f16", "q8_0"):
        raise ValueError(f"whisper.cpp has no {precision} here; give whisper.cpp@f16 or whisper.cpp@q8_0")
    name = model if precision == "f16" else f"{model}-{precision}"
    network: Any = Model(
        checkpoint or name,
        redirect_whispercpp_logs_to=None,
        n_threads=threads,
        print_progress=False,
        print_realtime=False,
        temperature=0.0,
        temperature_inc=0.0,  # no second try
        greedy={"best_of": 1},
        suppress_nst=True,  # signs for silence, as in the reference
        no_context=True,  # nothing of the file before; a file's own text is its prompt all the same
    )

    def transcribe(path: str, language: str | None) -> str:
        segments = network.transcribe(path, language=language or "auto")
        return " ".join(segment.text for segment in segments)  # pywhispercpp strips each

    return Loaded(transcribe, {"backend": "ggml", "precision": precision, "isa": ""})
