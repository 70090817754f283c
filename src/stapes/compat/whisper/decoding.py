"""Decoding of single windows, as `whisper.decoding` of openai-whisper 20250625 has it.

Source of the options and results: openai/whisper decoding.py at c0d2f62.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from stapes.compat.loading import absent_class, argument_errors
from stapes.compat.tensors import float32_of, tensor_of
from stapes.compat.whisper.tokenizer import Tokenizer

if TYPE_CHECKING:
    from stapes import Engine, LanguageGuess

#: parts of the search that the engine has inside
_INSIDE: Final = (
    "ApplyTimestampRules", "BeamSearchDecoder", "DecodingTask", "GreedyDecoder", "Inference", "LogitFilter",
    "MaximumLikelihoodRanker", "PyTorchInference", "SequenceRanker", "SuppressBlank", "SuppressTokens", "TokenDecoder",
)  # fmt: skip
_ENCODED: Final = "stapes keeps the encoder's output inside its backends; give a log-mel (n_mels, 3000)"


@dataclass(frozen=True)
class DecodingOptions:
    """How a window is decoded."""

    task: str = "transcribe"
    language: str | None = None
    temperature: float = 0.0
    sample_len: int | None = None
    best_of: int | None = None
    beam_size: int | None = None
    patience: float | None = None
    length_penalty: float | None = None
    prompt: str | list[int] | None = None
    prefix: str | list[int] | None = None
    suppress_tokens: str | Iterable[int] | None = "-1"
    suppress_blank: bool = True
    without_timestamps: bool = False
    max_initial_timestamp: float | None = 1.0
    fp16: bool = True


@dataclass(frozen=True)
class DecodingResult:
    """What decoding a window gave."""

    audio_features: Any
    language: str
    language_probs: dict[str, float] | None = None
    tokens: list[int] = field(default_factory=list)
    text: str = ""
    avg_logprob: float = np.nan
    no_speech_prob: float = np.nan
    temperature: float = np.nan
    compression_ratio: float = np.nan


def detect_language(model: Any, mel: Any, tokenizer: Tokenizer | None = None) -> tuple[Any, Any]:
    """Return the ids of the languages of windows, and the probability of each language; of one window, one of each.

    mel: (n_mels, 3000) or (windows, n_mels, 3000).   tokenizer: without effect.
    Raises ValueError for a model that knows English only.
    """
    if not model.is_multilingual or (tokenizer is not None and tokenizer.language is None):
        raise ValueError("this model has no language tokens: it knows English only")
    windows, is_single = _windows(model, mel)
    with argument_errors():
        guesses = [model.engine.detect_window_language(one) for one in windows]
    ids = tensor_of(np.array([model.engine.tokenizer.special.languages[one.language] for one in guesses]))
    shares = [dict(one.probabilities) for one in guesses]
    return (ids[0], shares[0]) if is_single else (ids, shares)


def decode(
    model: Any,
    mel: Any,
    options: DecodingOptions = DecodingOptions(),
    **kwargs: Any,
) -> DecodingResult | list[DecodingResult]:
    """Decode windows of 30 s, each once; a list for several.

    mel: (n_mels, 3000) or (windows, n_mels, 3000).   kwargs: fields of DecodingOptions, in place of those in `options`.
    `audio_features` of the results is None. Raises ValueError for options that do not go together.
    """
    wanted = replace(options, **kwargs) if kwargs else options
    _check(wanted)
    windows, is_single = _windows(model, mel)
    engine, only_language = model.engine, wanted.task == "lang_id"
    if only_language:
        with argument_errors():
            found = [_of_language(engine.detect_window_language(one)) for one in windows]
    else:
        with argument_errors():
            decoded = engine.decode_windows(
                windows,
                task=wanted.task,
                language=wanted.language,
                temperature=wanted.temperature,
                sample_len=wanted.sample_len,
                best_of=wanted.best_of,
                beam_size=wanted.beam_size,
                patience=wanted.patience,
                length_penalty=wanted.length_penalty,
                prompt=_ids(engine, wanted.prompt),
                prefix=_ids(engine, wanted.prefix),
                suppress_tokens=wanted.suppress_tokens,
                suppress_blank=wanted.suppress_blank,
                without_timestamps=wanted.without_timestamps,
                max_initial_timestamp=wanted.max_initial_timestamp,
            )
        found = [
            DecodingResult(
                audio_features=None,
                language=one.language,
                tokens=list(one.result.tokens),
                text=one.result.text,
                avg_logprob=one.result.avg_logprob,
                no_speech_prob=one.result.no_speech_prob,
                temperature=wanted.temperature,
                compression_ratio=one.result.compression_ratio,
            )
            for one in decoded
        ]
    return found[0] if is_single else found


def _of_language(guess: LanguageGuess) -> DecodingResult:
    return DecodingResult(None, guess.language, dict(guess.probabilities))


def _check(options: DecodingOptions) -> None:
    if options.beam_size is not None and options.best_of is not None:
        raise ValueError("beam_size and best_of do not go together; give one of them")
    if options.temperature == 0 and options.best_of is not None:
        raise ValueError("best_of needs a temperature above 0")
    if options.patience is not None and options.beam_size is None:
        raise ValueError("patience needs beam_size")


def _ids(engine: Engine, given: str | Sequence[int] | None) -> Sequence[int]:
    if isinstance(given, str):
        return engine.tokenizer.encode(" " + given.strip()) if given else []
    return given or []


def _windows(model: Any, mel: Any) -> tuple[list[Any], bool]:
    """Return log-mels as float32 arrays (n_mels, 3000), and whether there was one without a batch."""
    array = float32_of(mel)
    if array.shape[-2:] == (model.dims.n_audio_ctx, model.dims.n_audio_state):
        raise NotImplementedError(_ENCODED)
    return ([array], True) if array.ndim == 2 else (list(array), False)


def __getattr__(name: str) -> Any:
    """Return a class for a name of the original that has no counterpart."""
    if name not in _INSIDE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    made = globals()[name] = absent_class(name, __name__, "the search is inside the engine; decode() runs it")
    return made
