"""From the arguments of faster-whisper's transcribe() to jobs of an engine, and what comes back from these."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from logging import Logger
from typing import TYPE_CHECKING, Any, Final

import numpy.typing as npt

from stapes.compat.faster_whisper.results import TranscriptionOptions
from stapes.compat.faster_whisper.tokenizer import Tokenizer
from stapes.compat.faster_whisper.vad import Chunk, VadOptions
from stapes.compat.loading import argument_errors
from stapes.options import Words
from stapes.results import WordTiming

if TYPE_CHECKING:  # the engine takes a fifth of a second to import
    from stapes import Engine, Job, JobEvent, LanguageGuess, WindowDone
    from stapes.recording import Piece

#: of a window: 30 s
WINDOW_FRAMES: Final = 3000
_WINDOW_S: Final = 30.0
SAMPLE_RATE: Final = 16_000
#: argument -> option of stapes, where the names differ
_RENAMED: Final = {"log_prob_threshold": "logprob_threshold", "max_new_tokens": "sample_len"}
_SAME: Final = (
    "task", "multilingual", "best_of", "repetition_penalty", "no_repeat_ngram_size", "temperature",
    "compression_ratio_threshold", "log_prob_threshold", "no_speech_threshold", "condition_on_previous_text",
    "prompt_reset_on_temperature", "prefix", "suppress_blank", "suppress_tokens", "without_timestamps",
    "word_timestamps", "prepend_punctuations", "append_punctuations", "max_new_tokens",
    "chunk_length", "clip_timestamps", "hallucination_silence_threshold", "hotwords", "language_detection_threshold",
    "language_detection_segments",
)  # fmt: skip


def engine_options(given: Mapping[str, Any], language: str | None) -> dict[str, Any]:
    """Return the options of stapes for the arguments of a sequential transcription.

    language: a code; None: it is detected.
    """
    prompt = given["initial_prompt"]
    is_text = prompt is None or isinstance(prompt, str)
    return {
        **{_RENAMED.get(name, name): given[name] for name in _SAME},
        **search_options(given),
        "max_initial_timestamp": min(given["max_initial_timestamp"], _WINDOW_S),  # later: any
        "language": None if given["multilingual"] else language,
        **({"initial_prompt": prompt} if is_text else {"initial_prompt_ids": tuple(prompt)}),
        "prefix_once": True,
        "mode": "reference",
        "rules_of": "faster-whisper",
    }


def search_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of the search: one beam is a greedy search, and 1 the usual length penalty.
    Raises ValueError for a patience of 0, which is the usual one elsewhere.
    """
    beam_size, penalty = given["beam_size"], given["length_penalty"]
    if given["patience"] <= 0:
        raise ValueError(f"patience must be above 0, got {given['patience']}")
    return {
        "beam_size": None if beam_size == 1 else beam_size,
        "patience": None if beam_size == 1 else given["patience"],
        "length_penalty": None if penalty == 1 else penalty,
    }


def vad_of(given: dict[str, Any] | VadOptions | None, **defaults: Any) -> VadOptions:
    """Return VAD options for what a program gave: options, their fields, or nothing."""
    if isinstance(given, VadOptions):
        return given
    return VadOptions(**(defaults if given is None else given))


def vad_of_chunks(given: dict[str, Any] | VadOptions | None, chunk_s: float) -> VadOptions:
    """Return VAD options by which no stretch of speech is longer than a chunk."""
    if given is None:
        return VadOptions(max_speech_duration_s=chunk_s, min_silence_duration_ms=160)
    return vad_of({**given, "max_speech_duration_s": chunk_s} if isinstance(given, dict) else given)


def clipped(
    samples: npt.NDArray[Any], spans: Sequence[Chunk], logger: Logger
) -> tuple[list[npt.NDArray[Any]], list[dict[str, Any]]]:
    """Return the samples of clips, and where they are; warn of those that are longer than a window."""
    metadata = []
    for i, span in enumerate(spans):
        length_s = (span["end"] - span["start"]) / SAMPLE_RATE
        if length_s > 30:
            logger.warning("clip %d lasts %.1f s: only its first 30 s are transcribed", i, length_s)
        metadata.append({"offset": span["start"] / SAMPLE_RATE, "duration": length_s, "segments": [span]})
    return [samples[span["start"] : span["end"]] for span in spans], metadata


@dataclass(eq=False)
class Listener:
    """Takes a job's events, from the engine's thread."""

    guesses: list[LanguageGuess] = field(default_factory=list)  # until the recording's language is known
    language: str | None = None  # of the recording, once it is detected
    windows: deque[WindowDone] = field(default_factory=deque)

    def __call__(self, event: JobEvent) -> None:
        """Take an event."""
        from stapes import WindowDone  # noqa: PLC0415 (as above)

        if isinstance(event, WindowDone):
            self.windows.append(event)
        elif self.language is None:
            self.guesses.append(event.guess)
            self.language = event.language

    def wait_for_language(self, job: Job) -> tuple[str, float, list[tuple[str, float]]]:
        """Wait until the language is known; return it, its probability, and those of all languages of the last try.

        Raises the job's error.
        """
        changed = threading.Event()
        leave = job.listen(changed.set)
        try:
            job.start()
            while True:
                changed.clear()
                if self.language is not None or job.state.ended:
                    break
                changed.wait()
        finally:
            leave()
        if self.language is None:
            job.raise_error()
        return elected(self.guesses, self.language)


def elected(guesses: Sequence[LanguageGuess], language: str | None) -> tuple[str, float, list[tuple[str, float]]]:
    """Return a language with its highest probability among guesses, and all probabilities of the last guess."""
    probability = max(one.probability for one in guesses if one.language == language)
    return language or "", probability, list(guesses[-1].probabilities.items())


def voted(guesses: Sequence[LanguageGuess], threshold: float) -> str:
    """Return the last guess if it is more probable than the threshold, else the language that was guessed most often.

    guesses: at least one, and only the last may be above the threshold.
    """
    if guesses[-1].probability > threshold:
        return guesses[-1].language
    languages = [one.language for one in guesses]
    return max(dict.fromkeys(languages), key=languages.count)


def decoded_chunks(
    engine: Engine,
    features: Sequence[Any],
    tokenizer: Tokenizer,
    options: TranscriptionOptions,
    prompt: Sequence[int],
    n_frames: Sequence[int],
) -> list[dict[str, Any]]:
    """Decode log-mels (n_mels, 3000) side by side; return each one's tokens, scores and times of words.

    prompt: all ids before the first sampled one.   n_frames: how many frames have sound.
    """
    with argument_errors():
        decoded = engine.decode_windows(
            list(features),
            prompt=prompt[1 : prompt.index(tokenizer.sot)],
            n_frames=[min(one, WINDOW_FRAMES) for one in n_frames],
            language=None if options.multilingual else tokenizer.language_code,
            task="translate" if tokenizer.task == tokenizer.translate else "transcribe",
            **search_options(vars(options)),
            repetition_penalty=options.repetition_penalty,
            no_repeat_ngram_size=options.no_repeat_ngram_size,
            suppress_blank=options.suppress_blank,
            suppress_tokens=options.suppress_tokens,
            without_timestamps=options.without_timestamps,
            sample_len=options.max_new_tokens,
            word_timestamps=options.word_timestamps,
            rules_of="faster-whisper",
        )
    return [
        {
            "avg_logprob": one.result.avg_logprob,
            "no_speech_prob": one.result.no_speech_prob,
            "tokens": list(one.result.tokens),
            "timings": one.result.timings or (),
        }
        for one in decoded
    ]


def split_at_timestamps(tokens: Sequence[int], timestamp_begin: int, offset_s: float, duration_s: float) -> list[Piece]:
    """Return a window's pieces between pairs of timestamps; an unfinished rest is left out.

    offset_s: where the window begins.   duration_s: of its sound.
    """
    from stapes.recording import Piece  # noqa: PLC0415 (as above)

    is_time = [token >= timestamp_begin for token in tokens]
    ends = [i for i in range(1, len(tokens)) if is_time[i] and is_time[i - 1]]
    if not ends:
        times = [token - timestamp_begin for token in tokens if token >= timestamp_begin]
        end_s = times[-1] * 0.02 if times and times[-1] else duration_s
        return [Piece(start_s=offset_s, end_s=offset_s + end_s, tokens=tuple(tokens))]
    if is_time[-2:] == [False, True]:
        ends.append(len(tokens))
    parts = [tuple(tokens[first:end]) for first, end in zip([0, *ends], ends, strict=False)]
    return [
        Piece(
            start_s=offset_s + (part[0] - timestamp_begin) * 0.02,
            end_s=offset_s + (part[-1] - timestamp_begin) * 0.02,
            tokens=part,
        )
        for part in parts
    ]


def with_words(
    pieces: Sequence[Piece],
    timings: Sequence[WordTiming],
    *,
    punctuations: tuple[str, str],
    offset_s: float,
    last_speech_s: float,
    eot: int,
) -> tuple[list[Piece], float]:
    """Return pieces with their words, and when the last word ends.

    punctuations: that join the word after them, and before them.   offset_s, last_speech_s: as for `place_words`.
    """
    from stapes.recording import place_words  # noqa: PLC0415 (as above)

    options = Words(word_timestamps=True, prepend_punctuations=punctuations[0], append_punctuations=punctuations[1])
    placed = place_words(pieces, timings, options, offset_s=offset_s, last_speech_s=last_speech_s, eot=eot)
    ends = [one.end_s for one in placed if one.words]
    return list(placed), ends[-1] if ends else last_speech_s
