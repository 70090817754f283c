"""What `precision="auto"` picks: for models and instruction sets that were measured, the fastest precision whose
transcripts are as good as float32's within the bounds of docs/native.md; for all others, float32.

The figures behind each line stand in docs/benchmarks.md and docs/experiments.md.
"""

from __future__ import annotations

DEFAULT_PRECISION = "float32"

#: (official model, instruction set) -> precision
BEST: dict[tuple[str, str], str] = {
    ("base", "avx512_amx"): "bfloat16",
    ("base", "avx512_bf16"): "bfloat16",
    ("base", "avx2"): "int8",
}


def best_precision(model: str | None, isa: str) -> str:
    """Pick a precision. model: the official model that the weights are, or None."""
    return DEFAULT_PRECISION if model is None else BEST.get((model, isa), DEFAULT_PRECISION)
