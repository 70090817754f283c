"""The answers of the HTTP API as structures; what is UNSET is not there. Their shapes are OpenAI's (docs/server.md)."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Struct, UnsetType


class ErrorBody(Struct, frozen=True):
    """Why a request was refused, or failed."""

    message: str
    type: str
    param: str | None
    code: str | None


class Error(Struct, frozen=True):
    """The answer of every request that was refused, or failed."""

    error: ErrorBody


class Duration(Struct, frozen=True, tag_field="type", tag="duration"):
    """How much audio a request had, in whole seconds, rounded up."""

    seconds: int


class Language(Struct, frozen=True):
    """A language that was detected."""

    code: str


class Logprob(Struct, frozen=True):
    """A token of text. `token`: its text, where its bytes are whole characters."""

    token: str
    logprob: float
    bytes: list[int]


class Transcription(Struct, frozen=True):
    """`response_format=json`. `languages`: what was detected; not there where the request named the language."""

    text: str
    languages: list[Language] | UnsetType = UNSET
    logprobs: list[Logprob] | UnsetType = UNSET
    usage: Duration | UnsetType = UNSET


class Word(Struct, frozen=True):
    """A word with its time, in seconds."""

    word: str
    start: float
    end: float


class Segment(Struct, frozen=True):
    """A piece of a transcript, as openai-whisper has it. `tokens` has those of timestamps too."""

    id: int
    seek: int
    start: float
    end: float
    text: str
    tokens: list[int]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float


class VerboseTranscription(Struct, frozen=True):
    """`response_format=verbose_json`. `language`: its English name, in lower case."""

    task: Literal["transcribe", "translate"]
    language: str
    duration: float
    text: str
    words: list[Word] | UnsetType = UNSET
    segments: list[Segment] | UnsetType = UNSET
    usage: Duration | UnsetType = UNSET


class Delta(Struct, frozen=True, tag_field="type", tag="transcript.text.delta"):
    """An event of a stream: more text."""

    delta: str
    logprobs: list[Logprob] | UnsetType = UNSET


class Done(Struct, frozen=True, tag_field="type", tag="transcript.text.done"):
    """The last event of a stream: the whole text, which is that of all deltas, joined."""

    text: str
    languages: list[Language] | UnsetType = UNSET
    logprobs: list[Logprob] | UnsetType = UNSET


class Model(Struct, frozen=True):
    """A model that requests can name. `created`: seconds since 1970."""

    id: str
    created: int
    owned_by: str
    object: Literal["model"] = "model"
    shutdown_date: str | None = None


class ModelList(Struct, frozen=True):
    """All models that requests can name."""

    data: list[Model]
    object: Literal["list"] = "list"


class Job(Struct, frozen=True):
    """A job. Times in seconds since 1970; `done_s` of `duration_s` seconds are done; warnings: of damaged audio."""

    id: str
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    created: float
    filename: str
    size: int
    done_s: float
    started: float | None = None
    ended: float | None = None
    duration_s: float | None = None
    error: ErrorBody | None = None
    model: str = ""
    warnings: list[str] = []
    object: Literal["job"] = "job"


class JobList(Struct, frozen=True):
    """Jobs of the key that asks, the newest first."""

    data: list[Job]
    object: Literal["list"] = "list"
