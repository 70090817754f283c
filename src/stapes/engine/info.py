"""Descriptions of an engine: frozen, made from the checkpoint and the backend."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from stapes.backends.base import Backend
from stapes.checkpoint.base import Checkpoint, ModelSpec
from stapes.engine.costs import MeasuredCosts
from stapes.languages import LANGUAGES
from stapes.options import Task, TranscribeOptions
from stapes.recording.prompts import Hotwords
from stapes.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """The model, where it came from, and what runs it. Memory in bytes."""

    model: str
    path: Path | None
    format: str  # "huggingface", "openai", "ctranslate2", "ggml", "memory"
    storage: str  # how the checkpoint stores its weights
    spec: ModelSpec
    n_parameters: int
    n_vocab: int
    multilingual: bool
    languages: tuple[str, ...]  # codes
    backend: str
    device: str  # "cpu", "cuda:0", "cuda:0,cuda:1", "mps"
    precision: str
    precision_reason: str | None  # why "auto" took it; None: it was asked for
    precision_measured: bool  # whether word errors of this model decided that
    isa: str | None  # the instruction set of the backend's kernels, where it has its own
    threads: int
    weight_bytes: int
    window_bytes: int  # for each full window being decoded
    row_bytes: int  # for each decoder row at full length


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a model can be asked for."""

    tasks: tuple[Task, ...]
    languages: tuple[str, ...]  # codes
    language_detection: bool
    word_times: bool
    precisions: tuple[str, ...]

    @property
    def translates(self) -> bool:
        """Whether the model was trained to translate into English."""
        return "translate" in self.tasks

    @classmethod
    def of(cls, spec: ModelSpec, tokenizer: Tokenizer, precisions: tuple[str, ...]) -> Capabilities:
        """Return what sizes and vocabulary say. A decoder cut down to fewer layers than the encoder has (turbo, distil)
        was trained further on transcription alone.
        """
        has_token = tokenizer.multilingual and tokenizer.special.translate is not None
        translates = has_token and spec.n_text_layer >= spec.n_audio_layer
        return cls(
            tasks=("transcribe", "translate") if translates else ("transcribe",),
            languages=known_languages(tokenizer),
            language_detection=tokenizer.multilingual,
            word_times=True,
            precisions=precisions,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStatus:
    """How many jobs there are, what work costs, and what is free."""

    queued: int  # waiting for their first window
    running: int
    submitted: int  # since the engine was loaded
    costs: MeasuredCosts = field(default_factory=MeasuredCosts, compare=False)
    free_bytes: int = field(default=0, compare=False)  # of the memory bound, what no window with its rows takes
    oldest_wait_s: float = field(default=0.0, compare=False)  # of the jobs with work, since one was served


def known_languages(tokenizer: Tokenizer) -> tuple[str, ...]:
    """Codes of the languages that a model knows."""
    return tuple(tokenizer.special.languages) if tokenizer.multilingual else ("en",)


def describe(checkpoint: Checkpoint, backend: Backend, tokenizer: Tokenizer) -> EngineInfo:
    """Describe a model and the backend that runs it."""
    info = backend.info
    return EngineInfo(
        model=checkpoint.name,
        path=checkpoint.path,
        format=checkpoint.format,
        storage=checkpoint.storage,
        spec=checkpoint.spec,
        n_parameters=checkpoint.spec.n_parameters,
        n_vocab=checkpoint.spec.n_vocab,
        multilingual=tokenizer.multilingual,
        languages=known_languages(tokenizer),
        backend=info.name,
        device=info.device,
        precision=info.precision,
        precision_reason=info.precision_reason,
        precision_measured=info.precision_measured,
        isa=info.isa,
        threads=info.threads,
        weight_bytes=info.weight_bytes,
        window_bytes=backend.window_bytes(checkpoint.spec.n_audio_ctx),
        row_bytes=info.row_bytes,
    )


def mismatches(
    checkpoint: Checkpoint, capabilities: Capabilities, tokenizer: Tokenizer, options: TranscribeOptions
) -> Iterator[str]:
    """Yield a sentence for each option that a model cannot follow, or that has no effect."""
    name, speech, words = checkpoint.name, options.speech, options.words
    if speech.task == "translate" and not capabilities.translates:
        why = "knows English only" if not tokenizer.multilingual else "was not trained to translate"
        yield f"{name} {why}: the text will be in the spoken language"
    elif speech.task == "translate" and words.word_timestamps:
        yield "word times of a translation may not be reliable"
    if words.hallucination_silence_threshold is not None and not words.word_timestamps:
        yield "hallucination_silence_threshold has no effect without word_timestamps"
    if not tokenizer.multilingual and speech.language_code not in (None, next(iter(LANGUAGES))):
        yield f"{name} knows English only; language {speech.language!r} has no effect"
    if not tokenizer.has_timestamps and not options.rules.without_timestamps:
        yield f"{name} has no timestamps: each window of up to 30 s becomes one segment"
    as_faster_whisper = options.method.as_faster_whisper
    hotwords = Hotwords.of(
        options.context.hotwords, tokenizer, checkpoint.spec.n_text_ctx, as_faster_whisper=as_faster_whisper
    )
    if hotwords.left_out:
        yield (
            f"hotwords: {len(hotwords.left_out)} of {hotwords.n_words} words have no room in a prompt, "
            f"from {hotwords.left_out[0]!r} on"
        )
