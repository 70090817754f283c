"""The reference, on PyTorch."""

from __future__ import annotations

import warnings
from typing import Any

import torch
import whisper

from benchmarks.adapters import Loaded


def load(*, model: str, checkpoint: str | None, precision: str, threads: int) -> Loaded:
    """Load a model by name or from a `.pt`; the reference computes in float32 on a CPU."""
    if precision != "float32":
        raise ValueError(f"openai-whisper has no {precision} on a CPU; give openai-whisper@float32")
    torch.set_num_threads(threads)
    network: Any = whisper.load_model(checkpoint or model, device="cpu")

    def transcribe(path: str, language: str | None) -> str:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = network.transcribe(
                path, language=language, temperature=0.0, fp16=False, condition_on_previous_text=True
            )
        return str(result["text"])

    return Loaded(transcribe, {"backend": "torch", "precision": precision, "isa": ""})
