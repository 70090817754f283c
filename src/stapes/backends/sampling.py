"""How the next token is chosen from logits: the NumPy form that every backend's own choice is tested against.
Source: openai/whisper decoding.py at c0d2f62 (ApplyTimestampRules, GreedyDecoder, BeamSearchDecoder).
"""

from __future__ import annotations

import numpy as np

from stapes.backends.base import Best, Choice, Constraint, Draw, FloatArray, Probe, ProbeResult


def constrain(logits: FloatArray, constraint: Constraint) -> FloatArray:
    """Return the log-probabilities under a constraint: (n_vocab,) float32, log-softmax over what is allowed, -inf
    elsewhere.
    logits: (n_vocab,), changed in place.
    """
    logits[constraint.permanent.array] = -np.inf
    for start, stop in constraint.now:
        logits[start:stop] = -np.inf
    logprobs = _log_softmax(logits)
    border = constraint.vote_from
    if border is not None and log_sum_exp(logprobs[border:]) > logprobs[:border].max(initial=-np.inf):
        logits[:border] = -np.inf
        return _log_softmax(logits)
    return logprobs


def log_sum_exp(values: FloatArray) -> np.float32:
    """Return the log of the summed exponentials of (n,); -inf where all are."""
    highest = values.max(initial=-np.inf)
    if np.isneginf(highest):
        return np.float32(-np.inf)
    return np.float32(highest + np.log(np.exp(values - highest).sum(dtype=np.float32)))


def _log_softmax(logits: FloatArray) -> FloatArray:
    """Return the log-softmax of (n,) in float32; all -inf where nothing is allowed."""
    total = log_sum_exp(logits)
    return logits if np.isneginf(total) else logits - total


def choose(logprobs: FloatArray, logits: FloatArray, choice: Choice) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Return the chosen ids and their log-probabilities.
    logprobs, logits: (n_vocab,) as `constrain` returns and leaves them.
    """
    if isinstance(choice, Best):
        # Of the logits: rounding in the log-softmax can make two of them equal.
        ids = [int(logits.argmax())]
    elif isinstance(choice, Draw):
        ids = _draw(logits, choice)
    else:
        ids = _top(logprobs, choice.n)
    return tuple(ids), tuple(float(logprobs[one]) for one in ids)


def _draw(logits: FloatArray, choice: Draw) -> list[int]:
    highest = logits.max()
    if np.isneginf(highest):
        return [0] * len(choice.uniforms)
    weights = np.exp((logits.astype(np.float64) - float(highest)) / choice.temperature)
    cumulated = np.cumsum(weights)
    found = np.searchsorted(cumulated, np.array(choice.uniforms) * cumulated[-1], side="right")
    # Rounding may carry u past the end; the last id with any weight is meant.
    return [int(one) for one in np.minimum(found, int(np.flatnonzero(weights)[-1]))]


def _top(logprobs: FloatArray, n: int) -> list[int]:
    n = min(n, len(logprobs))
    # Everything at least as good as the n-th best, ties included; then best first, lower ids first.
    border = np.partition(logprobs, len(logprobs) - n)[len(logprobs) - n]
    better = np.flatnonzero(logprobs > border)
    equal = np.flatnonzero(logprobs == border)[: n - len(better)]
    ids = np.concatenate((better, equal))
    return [int(one) for one in ids[np.lexsort((ids, -logprobs[ids]))]]


def probe(logits: FloatArray, wanted: Probe) -> ProbeResult:
    """Return single raw logits of (n_vocab,), before any constraint has changed them."""
    ids = np.array(wanted.ids, dtype=np.int64)
    return ProbeResult(logits=logits[ids], log_normaliser=float(log_sum_exp(logits[: wanted.below])))
