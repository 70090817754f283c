"""Models, results and options of faster-whisper 1.2.1.

Decoding follows faster-whisper's rules where they differ from openai/whisper's (`rules_of`, docs/decoding.md), in
float32 unless `compute_type` asks for another precision. All guards of stapes are off.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, BinaryIO, NoReturn

import numpy as np
import numpy.typing as npt

import stapes
from stapes.compat.faster_whisper.audio import decode_audio, pad_or_trim
from stapes.compat.faster_whisper.decoding import (
    SAMPLE_RATE,
    WINDOW_FRAMES,
    Listener,
    clipped,
    decoded_chunks,
    elected,
    engine_options,
    split_at_timestamps,
    vad_of,
    vad_of_chunks,
    voted,
    with_words,
)
from stapes.compat.faster_whisper.feature_extractor import FeatureExtractor
from stapes.compat.faster_whisper.model import open_model
from stapes.compat.faster_whisper.results import Segment, TranscriptionInfo, TranscriptionOptions, Word
from stapes.compat.faster_whisper.text import get_compression_ratio, get_suppressed_tokens, merge_punctuations
from stapes.compat.faster_whisper.tokenizer import _LANGUAGE_CODES, HfTokenizer, Tokenizer
from stapes.compat.faster_whisper.utils import download_model, format_timestamp, get_end, get_logger
from stapes.compat.faster_whisper.vad import (
    Chunk,
    SpeechTimestampsMap,
    VadOptions,
    collect_chunks,
    get_speech_timestamps,
)
from stapes.compat.loading import argument_errors

__all__ = [
    "BatchedInferencePipeline", "FeatureExtractor", "Segment", "SpeechTimestampsMap", "Tokenizer", "TranscriptionInfo",
    "TranscriptionOptions", "VadOptions", "WhisperModel", "Word", "collect_chunks", "decode_audio", "download_model",
    "format_timestamp", "get_compression_ratio", "get_ctranslate2_storage", "get_end", "get_logger",
    "get_speech_timestamps", "get_suppressed_tokens", "merge_punctuations", "pad_or_trim",
    "restore_speech_timestamps", "tqdm",
]  # fmt: skip


tqdm: Any  # of __getattr__


def __getattr__(name: str) -> Any:
    """Import tqdm, which takes a tenth of a second, when it is first asked for. Programs may replace it here."""
    if name != "tqdm":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tqdm import tqdm  # type: ignore[import-untyped]  # noqa: PLC0415

    return globals().setdefault(name, tqdm)


class BatchedInferencePipeline:
    """Decodes chunks of a recording side by side: stretches of speech that VAD finds, or clips."""

    def __init__(self, model: Any) -> None:
        self.model: WhisperModel = model
        self.last_speech_timestamp = 0.0

    def forward(
        self,
        features: Any,
        tokenizer: Tokenizer,
        chunks_metadata: Sequence[Mapping[str, Any]],
        options: TranscriptionOptions,
    ) -> list[list[dict[str, Any]]]:
        """Decode chunks; return the segments of each, as dicts.

        features: log-mels (chunks, n_mels, 3000).   chunks_metadata: their "offset" and "duration" in seconds.
        """
        sizes = [math.ceil(one["duration"]) * self.model.frames_per_second for one in chunks_metadata]
        found = []
        for chunk, output, n_frames in zip(
            chunks_metadata, self._decode(features, tokenizer, options, sizes), sizes, strict=True
        ):
            offset_s, seek = chunk["offset"], int(chunk["offset"] * self.model.frames_per_second)
            pieces = split_at_timestamps(output["tokens"], tokenizer.timestamp_begin, offset_s, chunk["duration"])
            if options.word_timestamps:
                pieces, self.last_speech_timestamp = with_words(
                    pieces,
                    output["timings"] if n_frames else (),
                    punctuations=(options.prepend_punctuations, options.append_punctuations),
                    offset_s=seek / self.model.frames_per_second,
                    last_speech_s=self.last_speech_timestamp,
                    eot=tokenizer.eot,
                )
            texts = [tokenizer.decode(list(piece.tokens)) for piece in pieces]
            found.append([
                {
                    "text": text,
                    "avg_logprob": output["avg_logprob"],
                    "no_speech_prob": output["no_speech_prob"],
                    "tokens": list(piece.tokens),
                    "start": piece.start_s,
                    "end": piece.end_s,
                    "compression_ratio": get_compression_ratio(text),
                    "seek": seek,
                    **({"words": [one.to_dict() for one in piece.words]} if options.word_timestamps else {}),
                }
                for piece, text in zip(pieces, texts, strict=True)
            ])  # fmt: skip
        return found

    def generate_segment_batched(
        self, features: Any, tokenizer: Tokenizer, options: TranscriptionOptions
    ) -> tuple[None, list[dict[str, Any]]]:
        """Return None (there is no encoder output of CTranslate2) and each chunk's tokens and scores.

        features: log-mels (chunks, n_mels, 3000).
        """
        return None, self._decode(features, tokenizer, options, [WINDOW_FRAMES] * len(features))

    def _decode(
        self, features: Any, tokenizer: Tokenizer, options: TranscriptionOptions, n_frames: Sequence[int]
    ) -> list[dict[str, Any]]:
        given = options.initial_prompt
        if not isinstance(given, str | None):
            raise TypeError(f"initial_prompt of chunks must be a text, got {type(given).__name__}")
        previous = [] if given is None else tokenizer.encode(given)
        prompt = self.model.get_prompt(
            tokenizer, previous, without_timestamps=options.without_timestamps, hotwords=options.hotwords
        )
        _check_length(len(prompt), options.max_new_tokens, self.model.max_length)
        return decoded_chunks(self.model.model.engine, features, tokenizer, options, prompt, n_frames)

    def _batched_segments_generator(
        self,
        features: Any,
        tokenizer: Tokenizer,
        chunks_metadata: Sequence[Mapping[str, Any]],
        batch_size: int,
        options: TranscriptionOptions,
        log_progress: bool,
    ) -> Iterator[Segment]:
        bar = sys.modules[__name__].tqdm(total=len(features), disable=not log_progress, position=0)
        n_given = 0
        for first in range(0, len(features), batch_size):
            end = first + batch_size
            for chunk in self.forward(features[first:end], tokenizer, chunks_metadata[first:end], options):
                for one in chunk:
                    n_given += 1
                    words = [Word(**word) for word in one["words"]] if options.word_timestamps else None
                    times = {"start": round(one["start"], 3), "end": round(one["end"], 3), "words": words}
                    yield Segment(**{**one, **times}, id=n_given, temperature=options.temperatures[0])
                bar.update(1)
        bar.close()
        self.last_speech_timestamp = 0.0

    def transcribe(
        self,
        audio: str | BinaryIO | npt.NDArray[Any],
        language: str | None = None,
        task: str = "transcribe",
        log_progress: bool = False,
        beam_size: int = 5,
        best_of: int = 5,
        patience: float = 1,
        length_penalty: float = 1,
        repetition_penalty: float = 1,
        no_repeat_ngram_size: int = 0,
        temperature: float | list[float] | tuple[float, ...] = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0],  # noqa: B006
        compression_ratio_threshold: float | None = 2.4,
        log_prob_threshold: float | None = -1.0,
        no_speech_threshold: float | None = 0.6,
        condition_on_previous_text: bool = True,
        prompt_reset_on_temperature: float = 0.5,
        initial_prompt: str | Iterable[int] | None = None,
        prefix: str | None = None,
        suppress_blank: bool = True,
        suppress_tokens: list[int] | None = [-1],  # noqa: B006
        without_timestamps: bool = True,
        max_initial_timestamp: float = 1.0,
        word_timestamps: bool = False,
        prepend_punctuations: str = "\"'“¿([{-",
        append_punctuations: str = "\"'.。,，!！?？:：”)]}、",
        multilingual: bool = False,
        vad_filter: bool = True,
        vad_parameters: dict[str, Any] | VadOptions | None = None,
        max_new_tokens: int | None = None,
        chunk_length: int | None = None,
        clip_timestamps: list[dict[str, float]] | None = None,
        hallucination_silence_threshold: float | None = None,
        batch_size: int = 8,
        hotwords: str | None = None,
        language_detection_threshold: float | None = 0.5,
        language_detection_segments: int = 1,
    ) -> tuple[Iterable[Segment], TranscriptionInfo]:
        """Return an iterator over segments, which decodes as it goes, and what is known of the recording.

        Each chunk is decoded once, at temperature 0, without the text before it. Raises RuntimeError for a recording
        of 30 s or more with neither VAD nor clips, ValueError for a language or a task that cannot be.
        """
        given = dict(locals())
        return _batched(given.pop("self"), given.pop("audio"), given)


class WhisperModel:
    """A Whisper model in any format that stapes reads."""

    def __init__(
        self,
        model_size_or_path: str,
        device: str = "auto",
        device_index: int | list[int] = 0,
        compute_type: str = "default",
        cpu_threads: int = 0,
        num_workers: int = 1,
        download_root: str | None = None,
        local_files_only: bool = False,
        files: dict[str, Any] | None = None,
        revision: str | None = None,
        use_auth_token: str | bool | None = None,
        **model_kwargs: Any,
    ) -> None:
        """Load a model: a name, an id on the hub, or the path of a folder or a file in any of the four formats.

        device: "cpu" or "auto".   compute_type: "default", "auto" and "float32": exact; "int8", "int8_float32",
        "bfloat16": faster.   cpu_threads: 0 takes all cores.   num_workers: without effect, as calls from several
        threads share one batch.   model_kwargs: `backend`, `max_memory` and `host` of `stapes.load`.
        Raises ValueError for an unknown name, device or compute type, RuntimeError for a folder that is no model.
        """
        given = dict(locals())
        del given["self"]
        self.logger = get_logger()
        self.model = open_model(given)
        self.hf_tokenizer = HfTokenizer(self.model.engine.tokenizer)
        self.feat_kwargs = {"feature_size": self.model.n_mels}
        self.feature_extractor = FeatureExtractor(**self.feat_kwargs)
        self.input_stride = 2
        self.num_samples_per_token = self.feature_extractor.hop_length * self.input_stride
        self.frames_per_second = self.feature_extractor.sampling_rate // self.feature_extractor.hop_length
        self.tokens_per_second = self.feature_extractor.sampling_rate // self.num_samples_per_token
        self.time_precision = 0.02
        self.max_length = 448

    @property
    def supported_languages(self) -> list[str]:
        """The codes of the languages that the model knows."""
        return list(_LANGUAGE_CODES) if self.model.is_multilingual else ["en"]

    def transcribe(
        self,
        audio: str | BinaryIO | npt.NDArray[Any],
        language: str | None = None,
        task: str = "transcribe",
        log_progress: bool = False,
        beam_size: int = 5,
        best_of: int = 5,
        patience: float = 1,
        length_penalty: float = 1,
        repetition_penalty: float = 1,
        no_repeat_ngram_size: int = 0,
        temperature: float | list[float] | tuple[float, ...] = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0],  # noqa: B006
        compression_ratio_threshold: float | None = 2.4,
        log_prob_threshold: float | None = -1.0,
        no_speech_threshold: float | None = 0.6,
        condition_on_previous_text: bool = True,
        prompt_reset_on_temperature: float = 0.5,
        initial_prompt: str | Iterable[int] | None = None,
        prefix: str | None = None,
        suppress_blank: bool = True,
        suppress_tokens: list[int] | None = [-1],  # noqa: B006
        without_timestamps: bool = False,
        max_initial_timestamp: float = 1.0,
        word_timestamps: bool = False,
        prepend_punctuations: str = "\"'“¿([{-",
        append_punctuations: str = "\"'.。,，!！?？:：”)]}、",
        multilingual: bool = False,
        vad_filter: bool = False,
        vad_parameters: dict[str, Any] | VadOptions | None = None,
        max_new_tokens: int | None = None,
        chunk_length: int | None = None,
        clip_timestamps: str | list[float] = "0",
        hallucination_silence_threshold: float | None = None,
        hotwords: str | None = None,
        language_detection_threshold: float | None = 0.5,
        language_detection_segments: int = 1,
    ) -> tuple[Iterable[Segment], TranscriptionInfo]:
        """Return an iterator over segments, which decodes as it goes, and what is known of the recording.

        audio: a path, a binary file object, or samples at 16 kHz. The language is detected before this returns.
        Raises ValueError for a language, a task or an option that cannot be.
        """
        given = dict(locals())
        return _sequential(given.pop("self"), given.pop("audio"), given)

    def detect_language(
        self,
        audio: npt.NDArray[Any] | None = None,
        features: npt.NDArray[Any] | None = None,
        vad_filter: bool = False,
        vad_parameters: dict[str, Any] | VadOptions | None = None,
        language_detection_segments: int = 1,
        language_detection_threshold: float = 0.5,
    ) -> tuple[str, float, list[tuple[str, float]]]:
        """Return a recording's language, its probability, and all languages with theirs.

        audio: samples at 16 kHz; or features: a log-mel (n_mels, frames). Raises RuntimeError for English-only models.
        """
        assert audio is not None or features is not None, "give audio, or features"
        self.model.check_multilingual()
        if audio is not None:
            if vad_filter:
                audio = np.concatenate(collect_chunks(audio, get_speech_timestamps(audio, vad_of(vad_parameters)))[0])
            features = self.feature_extractor(audio[: language_detection_segments * self.feature_extractor.n_samples])
        assert features is not None
        size, guesses = self.feature_extractor.nb_max_frames, []
        for first in range(0, min(features.shape[-1], language_detection_segments * size), size):
            window = pad_or_trim(features[..., first : first + size])
            guesses.append(self.model.engine.detect_window_language(window))
            if guesses[-1].probability > language_detection_threshold:
                break
        return elected(guesses, voted(guesses, language_detection_threshold))

    def get_prompt(
        self,
        tokenizer: Tokenizer,
        previous_tokens: list[int],
        without_timestamps: bool = False,
        prefix: str | None = None,
        hotwords: str | None = None,
    ) -> list[int]:
        """Return the ids before a window's own: hotwords, earlier text, start of transcript, and the prefix."""
        most = self.max_length // 2 - 1
        wanted = tokenizer.encode(" " + hotwords.strip())[:most] if hotwords and not prefix else []
        before = [*wanted, *previous_tokens[-most:]]
        prompt = [*([tokenizer.sot_prev, *before] if before else []), *tokenizer.sot_sequence]
        if without_timestamps:
            prompt.append(tokenizer.no_timestamps)
        if prefix:
            opening = [] if without_timestamps else [tokenizer.timestamp_begin]
            prompt += [*opening, *tokenizer.encode(" " + prefix.strip())[:most]]
        return prompt

    def encode(self, features: npt.NDArray[Any]) -> NoReturn:
        """Raise NotImplementedError."""
        self.model.encode(features)

    def generate_segments(
        self,
        features: npt.NDArray[Any],
        tokenizer: Tokenizer,
        options: TranscriptionOptions,
        log_progress: bool,
        encoder_output: Any = None,
    ) -> NoReturn:
        """Raise NotImplementedError."""
        raise NotImplementedError("generate_segments: give the audio to transcribe()")

    def generate_with_fallback(
        self, encoder_output: Any, prompt: list[int], tokenizer: Tokenizer, options: TranscriptionOptions
    ) -> NoReturn:
        """Raise NotImplementedError."""
        self.model.generate(encoder_output, [prompt], tokenizer, options)

    def add_word_timestamps(
        self,
        segments: list[dict[str, Any]],
        tokenizer: Tokenizer,
        encoder_output: Any,
        num_frames: int,
        prepend_punctuations: str,
        append_punctuations: str,
        last_speech_timestamp: float,
    ) -> NoReturn:
        """Raise NotImplementedError."""
        raise NotImplementedError("add_word_timestamps: transcribe() takes word_timestamps=True")

    def find_alignment(
        self,
        tokenizer: Tokenizer,
        text_tokens: list[int],
        encoder_output: Any,
        num_frames: int,
        median_filter_width: int = 7,
    ) -> NoReturn:
        """Raise NotImplementedError."""
        self.model.align(encoder_output, tokenizer.sot_sequence, text_tokens, num_frames, median_filter_width)


# What both ways to transcribe share.


def _samples_of(model: WhisperModel, audio: str | BinaryIO | npt.NDArray[Any]) -> tuple[npt.NDArray[Any], float]:
    """Return samples at 16 kHz, and how many seconds they last."""
    samples: Any = audio if isinstance(audio, np.ndarray) else decode_audio(audio, sampling_rate=SAMPLE_RATE)
    duration_s = samples.shape[0] / SAMPLE_RATE
    model.logger.info("Processing audio with duration %s", format_timestamp(duration_s))
    return samples.astype(np.float32, copy=False), duration_s


def _log_speech(model: WhisperModel, duration_s: float, speech_s: float) -> None:
    model.logger.info("VAD filter removed %s of audio", format_timestamp(max(0.0, duration_s - speech_s)))


def _checked(model: WhisperModel, given: dict[str, Any]) -> str | None:
    """Return the language to decode in, None if it is to be detected; raise ValueError for what cannot be."""
    language: str | None = given["language"]
    if not model.model.is_multilingual:
        if given["multilingual"]:
            model.logger.warning("this model knows English only: multilingual=True has no effect")
            given["multilingual"] = False
        if language not in (None, "en"):
            model.logger.warning("this model knows English only: language %r has no effect", language)
        return "en"
    found = Tokenizer(model.hf_tokenizer, True, task=given["task"], language="en" if language is None else language)
    _check_length(len(found.sot_sequence), given["max_new_tokens"], model.max_length)
    return language


def _check_length(n_prompt: int, max_new_tokens: int | None, most: int) -> None:
    if max_new_tokens is not None and n_prompt + max_new_tokens > most:
        raise ValueError(
            f"the prompt has {n_prompt} tokens and max_new_tokens is {max_new_tokens}, more than {most} together; make "
            "one of them less"
        )


def _options(model: WhisperModel, given: Mapping[str, Any], **changed: Any) -> TranscriptionOptions:
    """Return the options as `info.transcription_options` states them."""
    values = {**given, **changed}
    temperature, suppress = values["temperature"], values["suppress_tokens"]
    values["temperatures"] = temperature if isinstance(temperature, (list, tuple)) else [temperature]
    values["suppress_tokens"] = model.model.engine.tokenizer.never_sampled(suppress) if suppress else suppress
    return TranscriptionOptions(**{item.name: values[item.name] for item in fields(TranscriptionOptions)})


# One window after the other.


def _sequential(
    model: WhisperModel, audio: str | BinaryIO | npt.NDArray[Any], given: dict[str, Any]
) -> tuple[Iterable[Segment], TranscriptionInfo]:
    language, listener = _checked(model, given), Listener()
    samples, duration_s = _samples_of(model, audio)
    vad_options, speech = given["vad_parameters"], None
    if given["vad_filter"] and given["clip_timestamps"] == "0":
        vad_options = vad_of(vad_options)
        speech = get_speech_timestamps(samples, vad_options)
        samples = np.concatenate(collect_chunks(samples, speech)[0])
        _log_speech(model, duration_s, samples.shape[0] / SAMPLE_RATE)
    with argument_errors():
        stream = model.model.engine.stream(samples, on_event=listener, **engine_options(given, language))
    if given["language"] is None and model.model.is_multilingual:
        found, probability, shares = listener.wait_for_language(stream.job)
        model.logger.info("Detected language '%s' with probability %.2f", found, probability)
    else:
        found, probability, shares = language or "en", 1, None
    info = TranscriptionInfo(
        language=found,
        language_probability=probability,
        duration=duration_s,
        duration_after_vad=samples.shape[0] / SAMPLE_RATE,
        all_language_probs=shares,
        transcription_options=_options(model, given),
        vad_options=vad_options,
    )
    segments = _segments(stream, listener, samples.shape[0] // 160 / 100, log_progress=given["log_progress"])
    return (restore_speech_timestamps(segments, speech, SAMPLE_RATE) if speech else segments), info


def _segments(
    stream: Iterable[stapes.Segment], listener: Listener, content_s: float, *, log_progress: bool
) -> Iterator[Segment]:
    """Yield segments with text and length, numbered from 1. Dropping this iterator cancels the job."""
    bar = sys.modules[__name__].tqdm(total=content_s, unit="seconds", disable=not log_progress)
    n_given = 0
    for one in stream:
        _advance(bar, listener, content_s)
        if not one.text:  # the engine empties what has no text or no length
            continue
        n_given += 1
        words = None
        if one.words is not None:
            words = [Word(word.start_s, word.end_s, word.text, word.probability) for word in one.words]
        yield Segment(
            id=n_given,
            seek=one.seek,
            start=one.start_s,
            end=one.end_s,
            text=one.text,
            tokens=list(one.tokens),
            avg_logprob=one.avg_logprob,
            compression_ratio=one.compression_ratio,
            no_speech_prob=one.no_speech_prob,
            words=words,
            temperature=one.temperature,
        )
    _advance(bar, listener, content_s)
    bar.close()


def _advance(bar: Any, listener: Listener, content_s: float) -> None:
    """Move a bar on by the windows that have ended."""
    while listener.windows:
        window = listener.windows.popleft().window
        bar.update(min(content_s, window.next_seek / 100) - window.seek / 100)


def restore_speech_timestamps(
    segments: Iterable[Segment], speech_chunks: list[Chunk], sampling_rate: int
) -> Iterator[Segment]:
    """Yield segments with the times of the recording that stretches of speech were cut out of.

    speech_chunks: the "start" and "end" of the stretches, in samples.
    """
    times = SpeechTimestampsMap(speech_chunks, sampling_rate)
    for segment in segments:
        if segment.words:
            for word in segment.words:
                chunk = times.get_chunk_index((word.start + word.end) / 2)
                word.start = times.get_original_time(word.start, chunk)
                word.end = times.get_original_time(word.end, chunk)
            segment.start, segment.end = segment.words[0].start, segment.words[-1].end
        else:
            segment.start = times.get_original_time(segment.start)
            segment.end = times.get_original_time(segment.end, is_end=True)
        yield segment


# Chunks side by side.


def _batched(
    pipeline: BatchedInferencePipeline, audio: str | BinaryIO | npt.NDArray[Any], given: dict[str, Any]
) -> tuple[Iterable[Segment], TranscriptionInfo]:
    model = pipeline.model
    language = _checked(model, given)
    samples, duration_s = _samples_of(model, audio)
    chunk_s = given["chunk_length"] or model.feature_extractor.chunk_length
    clips, vad_options = given["clip_timestamps"], given["vad_parameters"]
    if clips:
        spans = [Chunk(start=int(one["start"] * SAMPLE_RATE), end=int(one["end"] * SAMPLE_RATE)) for one in clips]
        chunks, metadata = clipped(samples, spans, model.logger)
    else:
        if given["vad_filter"]:
            vad_options = vad_of_chunks(vad_options, chunk_s)
            spans = get_speech_timestamps(samples, vad_options)
        elif duration_s < chunk_s:
            spans = [{"start": 0, "end": samples.shape[0]}]
        else:
            raise RuntimeError("there are no chunks: set vad_filter to True, or give clip_timestamps")
        chunks, metadata = collect_chunks(samples, spans, max_duration=chunk_s)
    speech_s = sum(one["end"] - one["start"] for one in spans) / SAMPLE_RATE
    _log_speech(model, duration_s, speech_s)
    features = [model.feature_extractor(chunk)[..., :-1] for chunk in chunks] if speech_s else []
    probability: float = 1
    shares = None
    if language is None:
        silence = np.full((model.model.n_mels, 1), -1.5, np.float32)  # where no chunk has sound
        language, probability, shares = model.detect_language(
            features=np.concatenate([*features, silence], axis=1),
            language_detection_segments=given["language_detection_segments"],
            language_detection_threshold=given["language_detection_threshold"],
        )
    tokenizer = Tokenizer(model.hf_tokenizer, model.model.is_multilingual, task=given["task"], language=language)
    given["temperature"] = (
        given["temperature"][:1] if isinstance(given["temperature"], (list, tuple)) else given["temperature"]
    )
    options = _options(
        model,
        given,
        condition_on_previous_text=False,
        prompt_reset_on_temperature=0.5,
        max_initial_timestamp=0.0,
        hallucination_silence_threshold=None,
        clip_timestamps=spans,
    )
    info = TranscriptionInfo(
        language=language, language_probability=probability, duration=duration_s, duration_after_vad=speech_s,
        all_language_probs=shares, transcription_options=options, vad_options=vad_options,
    )  # fmt: skip
    mels: Any = np.stack([pad_or_trim(one) for one in features]) if features else []
    segments = pipeline._batched_segments_generator(
        mels, tokenizer, metadata, given["batch_size"], options, given["log_progress"]
    )
    return (segments if clips else restore_speech_timestamps(segments, spans, SAMPLE_RATE)), info


def get_ctranslate2_storage(segment: npt.NDArray[Any]) -> NoReturn:
    """Raise NotImplementedError."""
    raise NotImplementedError("stapes has no CTranslate2 tensors: give log-mels to stapes.Engine.decode_window")
