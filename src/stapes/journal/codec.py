"""Answers of a seek loop as bytes, and back, bit for bit. What is read is checked before use.

Does not depend on where the bytes are kept.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Final

from stapes.results import LanguageGuess, Try, WindowResult, WordTiming

#: A window's result has its words' timings, where they are asked for.
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

    @classmethod
    def of(cls, info: Any) -> AnswerBounds:
        """Return the bounds of a model. info: the engine's `EngineInfo`."""
        return cls(n_vocab=info.n_vocab, n_text_ctx=info.spec.n_text_ctx, languages=frozenset(info.languages))


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
        if answer.token_logprobs is not None:  # only where they were asked for: others read the answer as before
            values["token_logprobs"] = [float(one) for one in answer.token_logprobs]
    return json.dumps(values, separators=(",", ":")).encode("ascii")


def _timing_values(one: WordTiming) -> list[object]:
    return [one.text, [int(token) for token in one.tokens], *(float(getattr(one, name)) for name in _TIMING_FLOATS)]


def answer_from_bytes(body: bytes, bounds: AnswerBounds) -> Answer:
    """Read an answer. Raises ValueError for bytes that cannot be an answer of this model."""
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
        _float(share, 0.0, 1.0)
    return LanguageGuess(language=language, probabilities=shares)


def _result(values: dict[str, Any], bounds: AnswerBounds) -> WindowResult:
    known = {"tokens", "text", "tries", "timings", *_RESULT_FLOATS}
    _require(values.keys() in (known, known | {"token_logprobs"}), "a window has other fields")
    floats = _floats(_RESULT_FLOATS, [values[name] for name in _RESULT_FLOATS])
    tokens = _tokens(values["tokens"], bounds)
    return WindowResult(
        tokens=tokens,
        text=_text(values["text"]),
        tries=tuple(map(_try, _listed(values["tries"], 0, _MOST_TRIES, "a window has too many tries"))),
        timings=_timings(values["timings"], bounds),
        token_logprobs=_logprobs(values["token_logprobs"], len(tokens)) if "token_logprobs" in values else None,
        **floats,
    )


def _logprobs(values: object, n_tokens: int) -> tuple[float, ...]:
    found = _listed(values, n_tokens, n_tokens, "a token has no log-probability, or several")
    return tuple(_float(one, -math.inf, 0.0) for one in found)


def _tokens(values: object, bounds: AnswerBounds) -> tuple[int, ...]:
    tokens = _listed(values, 0, bounds.n_text_ctx, "there are too many tokens")
    _require(all(type(one) is int and 0 <= one < bounds.n_vocab for one in tokens), "a token is not in the vocabulary")
    return tuple(tokens)


def _timings(values: object, bounds: AnswerBounds) -> tuple[WordTiming, ...] | None:
    if values is None:
        return None
    return tuple(_timing(one, bounds) for one in _listed(values, 0, _MOST_WORDS, "a window has too many words"))


def _timing(values: object, bounds: AnswerBounds) -> WordTiming:
    n_fields = len(_TIMING_FLOATS) + 2
    text, tokens, *floats = _listed(values, n_fields, n_fields, "a word has other fields")
    return WordTiming(text=_text(text), tokens=_tokens(tokens, bounds), **_floats(_TIMING_FLOATS, floats))


def _try(values: object) -> Try:
    n_fields = len(_TRY_FLOATS) + 1
    *floats, refused = _listed(values, n_fields, n_fields, "a try has other fields")
    return Try(refused=None if refused is None else _text(refused), **_floats(_TRY_FLOATS, floats))


def _listed(value: object, least: int, most: int, message: str) -> list[Any]:
    """Return a list of `least` to `most` values. Raises ValueError for anything else."""
    if not isinstance(value, list) or not least <= len(value) <= most:
        raise ValueError(message)
    return value


def _floats(bounds: dict[str, tuple[float, float]], values: list[object]) -> dict[str, float]:
    return {name: _float(value, *bounds[name]) for name, value in zip(bounds, values, strict=True)}


def _float(value: object, low: float, high: float) -> float:
    """Return a number within its range; NaN is in none. Raises ValueError for anything else."""
    if not isinstance(value, float) or not low <= value <= high + _ROUNDING:
        raise ValueError(f"{value!r:.40} is out of range")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > _MOST_CHARACTERS:
        raise ValueError("a text is too long, or none")
    return value


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
