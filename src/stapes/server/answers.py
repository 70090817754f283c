"""Transcript -> the body of an answer, in each response format. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec
from msgspec import UNSET

from stapes import output, results
from stapes.languages import LANGUAGES
from stapes.results import Transcript
from stapes.server import schema
from stapes.server.fields import AudioRequest

_JSON: Final = "application/json"
#: response format -> content type. OpenAI's clients take a body for text unless its type is JSON.
CONTENT_TYPES: Final[Mapping[str, str]] = {
    "json": _JSON,
    "verbose_json": _JSON,
    "text": "text/plain; charset=utf-8",
    "srt": "application/x-subrip; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
}


def answer(transcript: Transcript, request: AudioRequest) -> tuple[bytes, str]:
    """Return the body of an answer, and its content type."""
    content_type = CONTENT_TYPES[request.response_format]
    match request.response_format:
        case "json":
            return msgspec.json.encode(transcription(transcript, request)), content_type
        case "verbose_json":
            return msgspec.json.encode(verbose(transcript, request)), content_type
        case "srt":
            text = output.to_srt(transcript)
        case "vtt":
            text = output.to_vtt(transcript)
        case _:
            text = text_of(transcript)
    return text.encode("utf-8", "replace"), content_type


def text_of(transcript: Transcript) -> str:
    """Return the server's text of a recording: its segments' texts, joined and stripped."""
    return "".join(segment.text for segment in transcript.segments).strip()


def transcription(transcript: Transcript, request: AudioRequest) -> schema.Transcription:
    """Return the answer of `json`."""
    if request.endpoint == "translations":
        return schema.Transcription(text_of(transcript))
    return schema.Transcription(
        text=text_of(transcript),
        languages=languages_of(transcript),
        logprobs=logprobs_of(transcript.segments) if request.logprobs else UNSET,
        usage=_usage(transcript),
    )


def verbose(transcript: Transcript, request: AudioRequest) -> schema.VerboseTranscription:
    """Return the answer of `verbose_json`."""
    translates = request.options.speech.task == "translate"
    language = "en" if translates else transcript.language
    return schema.VerboseTranscription(
        task=request.options.speech.task,
        language=LANGUAGES.get(language, language),
        duration=transcript.duration_s,
        text=text_of(transcript),
        words=[_word(one) for segment in transcript.segments for one in segment.words or ()]
        if request.words
        else UNSET,
        segments=[_segment(one) for one in transcript.segments] if request.segments else UNSET,
        usage=UNSET if request.endpoint == "translations" else _usage(transcript),
    )


def languages_of(transcript: Transcript) -> list[schema.Language] | msgspec.UnsetType:
    """Return the languages that were detected, each once; UNSET where the language was given."""
    codes = dict.fromkeys(one.language for one in transcript.segments if one.language is not None)
    if codes:
        return [schema.Language(code) for code in codes]
    return UNSET if transcript.language_guess is None else [schema.Language(transcript.language_guess.language)]


def logprobs_of(segments: Iterable[results.Segment]) -> list[schema.Logprob]:
    """Return the log-probabilities of the tokens of text."""
    return [
        schema.Logprob(one.bytes.decode("utf-8", "replace"), one.logprob, list(one.bytes))
        for segment in segments
        for one in segment.token_logprobs or ()
    ]


def _usage(transcript: Transcript) -> schema.Duration:
    return schema.Duration(math.ceil(transcript.duration_s))


def _word(word: results.Word) -> schema.Word:
    return schema.Word(word.text.strip(), word.start_s, word.end_s)


def _segment(one: results.Segment) -> schema.Segment:
    return schema.Segment(
        id=one.id,
        seek=one.seek,
        start=one.start_s,
        end=one.end_s,
        text=one.text,
        tokens=list(one.tokens),
        temperature=one.temperature,
        avg_logprob=one.avg_logprob,
        compression_ratio=one.compression_ratio,
        no_speech_prob=one.no_speech_prob,
    )
