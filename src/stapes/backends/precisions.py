"""Which precision `auto` takes: word errors say which may be taken, and this processor's speed which of them is.

`precisions.json` holds what was measured: for each official model and each arithmetic (`native.peak.arithmetic`: a
precision, and what a set of instructions makes of it) whether its word errors are float32's.
`python -m benchmarks.precision_evidence` makes it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from stapes.backends.speed import Speed, key
from stapes.checkpoint.base import ModelSpec

EXACT = "float32"
#: faithful by what it is, a rounding of float32, where nothing was measured
_ROUNDING = "bfloat16"
#: of float32's time, or of a more exact precision's, that another one must save
_WORTH_IT = 0.1
_STEPS = 40  # of a window: 1,200 tokens in 29 windows of the benchmark's recordings
_DEPTH = 60  # of a row in a step, on average

#: bytes of a weight as the native library holds it: float32 arithmetic on weights stored as float16
WEIGHT_BYTES = {"float32": 2, "bfloat16": 2, "int8": 1}
VALUE_BYTES = {"float32": 4, "bfloat16": 2, "int8": 2}  # of a row's keys and values
WINDOW_VALUE_BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}  # of a window's; at least: some sets take 2 in int8


@dataclass(frozen=True, slots=True)
class Choice:
    """A precision and the set of instructions to compute it with.

    reason: a clause; None: it was asked for.   measured: whether word errors of the model decided what may be taken.
    """

    precision: str
    isa: str | None  # None: of a backend that has none
    reason: str | None = None
    measured: bool = True


@dataclass(frozen=True, slots=True)
class _Candidate:
    precision: str
    isa: str
    window_s: float  # by one thread


@cache
def measured() -> Mapping[str, Mapping[str, bool]]:
    """Return for each official model and arithmetic whether it passed."""
    table = json.loads((Path(__file__).with_name("precisions.json")).read_text(encoding="utf-8"))
    return {
        model: {arithmetic: bool(row["passes"]) for arithmetic, row in rows.items()}
        for model, rows in table["models"].items()
    }


def choose(
    model: str | None, spec: ModelSpec, isas: Sequence[str], arithmetic: Callable[[str, str], str], speed: Speed
) -> Choice:
    """Choose for a model.

    model: the official model that the weights are, or None.   isas: usable sets, the best first.
    arithmetic: (set, precision) -> its name in the table.   speed: of this processor, for these sets.
    """
    known = measured().get(model or "", {})

    def allowed(isa: str, precision: str) -> bool:
        return known.get(arithmetic(isa, precision), precision == _ROUNDING)

    exact = _Candidate(EXACT, isas[0], window_s(spec, EXACT, isas[0], speed))
    candidates = [
        _Candidate(precision, isa, window_s(spec, precision, isa, speed))
        for precision in WEIGHT_BYTES  # the nearest first
        for isa in isas
        if precision != EXACT and allowed(isa, precision)
    ]
    best = exact
    for one in candidates:
        least = best.window_s * (1 - _WORTH_IT) if one.precision != best.precision else best.window_s
        if one.window_s < least:
            best = one
    decided = bool(known) and (best is exact or arithmetic(best.isa, best.precision) in known)
    reason = _reason(best.precision, model if decided else None, bool(candidates))
    return Choice(best.precision, best.isa, reason, decided)


def _reason(precision: str, model: str | None, compared: bool) -> str:
    if model is None and precision == EXACT:
        return "word errors of others were not measured for this model"
    if model is None:
        return "faster here and only rounded; word errors were not measured for this model"
    if precision == EXACT:
        return "no other is much faster here" if compared else f"no other was measured to be as good for {model}"
    return "the fastest here of those measured to be as good as float32"


def window_s(spec: ModelSpec, precision: str, isa: str, speed: Speed) -> float:
    """Estimate what a window with the tokens of 30 s of speech takes one thread."""
    return (
        _products(spec) / speed.products[key(isa, precision)] + _STEPS * _step_bytes(spec, precision) / speed.read_bytes
    )


def _products(spec: ModelSpec) -> float:
    """Count the multiplications for a window: convolutions, layers, their attention, the decoder's keys and values."""
    n, d = spec.n_audio_ctx, spec.n_audio_state
    convolutions = 3 * d * n * (2 * spec.n_mels + d)
    layers = spec.n_audio_layer * (12 * d * d * n + 2 * n * n * d)
    return float(convolutions + layers + spec.n_text_layer * 2 * d * spec.n_text_state * n)


def _step_bytes(spec: ModelSpec, precision: str) -> float:
    """Count what a step of one row reads."""
    d = spec.n_text_state
    weights = (spec.n_text_layer * 14 * d + spec.n_vocab) * d * WEIGHT_BYTES[precision]
    values = spec.n_audio_ctx * WINDOW_VALUE_BYTES[precision] + _DEPTH * VALUE_BYTES[precision]
    return float(weights + spec.n_text_layer * 2 * d * values)
