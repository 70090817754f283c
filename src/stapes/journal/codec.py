"""Answers of a seek loop as bytes, and back, bit for bit. What comes back is checked before it is believed.

Knows nothing of where the bytes are kept.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Final

from stapes.results import LanguageGuess, Try, WindowResult, WordTiming

#: A window's result comes with its words' timings, where they were asked for: it is told when it has them.
Answer = LanguageGuess | WindowResult

#: far above what a window's text and tries take (a text context of 448 tokens: about 4 kB)
MAX_ANSWER_BYTES: Final = 256 << 10
_MOST_TRIES, _MOST_CHARACTERS, _MOST_WORDS = 1000, 50_000, 1000
#: rounding may lift a sum of log-probabilities, or a probability, that far above its bound
_ROUNDING = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerBounds:
    """What an answer of one model can hold."""

    n_vocab: int
    n_text_ctx: int
    languages: frozenset[str]  # codes


def answer_to_bytes(answer: Answer) -> bytes:
    """Write an answer as JSON, whose floats come back bit for bit."""
    if isinstance(answer, LanguageGuess):
        shares = {code: float(share) for code, share in answer.probabilities.items()}
        values: dict[str, Any] = {"language": answer.language, "probabilities": shares}
    else:
        values = {
            "tokens": [int(token) for token in answer.tokens],
            "text": answer.text,
            **{name: float(getattr(answer, name)) for name in _RESULT_FLOATS},
            "tries": [[*(float(getattr(one, name)) for name in _TRY_FLOATS), one.refused] for one in answer.tries],
            "timings": None if answer.timings is None else [_timing_values(one) for one in answer.timings],
        }
    return json.dumps(values, separators=(",", ":")).encode("ascii")


def _timing_values(one: WordTiming) -> list[object]:
    return [one.text, [int(token) for token in one.tokens], *(float(getattr(one, name)) for name in _TIMING_FLOATS)]


def answer_from_bytes(body: bytes, bounds: AnswerBounds) -> Answer:
    """Read an answer. Raises ValueError for whatever cannot be one of this model."""
    _require(len(body) <= MAX_ANSWER_BYTES, "an answer is too long")
    try:
        values = json.loads(body)
    except RecursionError as error:
        raise ValueError("an answer is nested too deeply") from error
    _require(isinstance(values, dict), "an answer is no object")
    return _guess(values, bounds) if "language" in values else _result(values, bounds)


def _guess(values: dict[str, Any], bounds: AnswerBounds) -> LanguageGuess:
    _require(values.keys() == {"language", "probabilities"}, "a guess has other fields")
    language, shares = values["language"], values["probabilities"]
    _require(isinstance(shares, dict) and shares.keys() <= bounds.languages, "a guess names unknown languages")
    _require(isinstance(language, str) and language in shares, "a guess misses its language")
    for share in shares.values():
        _check_float(share, 0.0, 1.0)
    return LanguageGuess(language=language, probabilities=shares)


def _result(values: dict[str, Any], bounds: AnswerBounds) -> WindowResult:
    _require(values.keys() == {"tokens", "text", "tries", "timings", *_RESULT_FLOATS}, "a window has other fields")
    tries = values["tries"]
    _check_text(values["text"])
    _require(isinstance(tries, list) and len(tries) <= _MOST_TRIES, "a window has too many tries")
    floats = _floats(_RESULT_FLOATS, [values[name] for name in _RESULT_FLOATS])
    return WindowResult(
        tokens=_tokens(values["tokens"], bounds),
        text=values["text"],
        tries=tuple(map(_try, tries)),
        timings=_timings(values["timings"], bounds),
        **floats,
    )


def _tokens(values: object, bounds: AnswerBounds) -> tuple[int, ...]:
    _require(isinstance(values, list) and len(values) <= bounds.n_text_ctx, "there are too many tokens")
    assert isinstance(values, list)
    _require(all(type(one) is int and 0 <= one < bounds.n_vocab for one in values), "a token is not in the vocabulary")
    return tuple(values)


def _timings(values: object, bounds: AnswerBounds) -> tuple[WordTiming, ...] | None:
    if values is None:
        return None
    _require(isinstance(values, list) and len(values) <= _MOST_WORDS, "a window has too many words")
    assert isinstance(values, list)
    return tuple(_timing(one, bounds) for one in values)


def _timing(values: object, bounds: AnswerBounds) -> WordTiming:
    _require(isinstance(values, list) and len(values) == len(_TIMING_FLOATS) + 2, "a word has other fields")
    assert isinstance(values, list)
    _check_text(values[0])
    return WordTiming(text=values[0], tokens=_tokens(values[1], bounds), **_floats(_TIMING_FLOATS, values[2:]))


def _try(values: object) -> Try:
    _require(isinstance(values, list) and len(values) == len(_TRY_FLOATS) + 1, "a try has other fields")
    assert isinstance(values, list)
    if values[-1] is not None:
        _check_text(values[-1])
    return Try(refused=values[-1], **_floats(_TRY_FLOATS, values[:-1]))


def _floats(bounds: dict[str, tuple[float, float]], values: list[object]) -> dict[str, float]:
    found = {}
    for (name, (low, high)), value in zip(bounds.items(), values, strict=True):
        found[name] = _check_float(value, low, high)
    return found


def _check_float(value: object, low: float, high: float) -> float:
    """Pass a number on; NaN is in no range."""
    _require(isinstance(value, float) and low <= value <= high + _ROUNDING, f"{value!r:.40} is out of range")
    assert isinstance(value, float)
    return value


def _check_text(value: object) -> None:
    _require(isinstance(value, str) and len(value) <= _MOST_CHARACTERS, "a text is too long, or none")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


#: field -> its range
_RESULT_FLOATS: Final[dict[str, tuple[float, float]]] = {
    "avg_logprob": (-math.inf, 0.0),
    "no_speech_prob": (0.0, 1.0),
    "temperature": (0.0, 1e6),
    "compression_ratio": (0.0, 1e6),
}
_TRY_FLOATS: Final[dict[str, tuple[float, float]]] = {
    name: _RESULT_FLOATS[name] for name in ("temperature", "avg_logprob", "compression_ratio")
}
_TIMING_FLOATS: Final[dict[str, tuple[float, float]]] = {
    "start_s": (0.0, 30.0),
    "end_s": (0.0, 30.0),
    "probability": (0.0, 1.0),
}
