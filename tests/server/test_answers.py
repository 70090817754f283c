"""Transcripts as answers and as events, held against the types of OpenAI's own client."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.audio import (
    Transcription,
    TranscriptionTextDeltaEvent,
    TranscriptionTextDoneEvent,
    TranscriptionVerbose,
    TranslationVerbose,
)

from stapes.results import LanguageGuess, Segment, TokenLogprob, Transcript, Word
from stapes.server.answers import answer, text_of
from stapes.server.events import Deltas
from stapes.server.fields import AudioRequest
from stapes.testing import scripted_engine, tone

JSON = AudioRequest(endpoint="transcriptions", model="base")
VERBOSE = replace(JSON, response_format="verbose_json")


def segment(text: str, number: int = 0, **values: Any) -> Segment:
    return Segment(
        id=number, seek=0, start_s=number * 1.0, end_s=number + 1.0, text=text, tokens=(1, 2), temperature=0.0,
        avg_logprob=-0.1, compression_ratio=1.0, no_speech_prob=0.0, **values,
    )  # fmt: skip


def transcript(*texts: str, **values: Any) -> Transcript:
    segments = tuple(segment(text, number) for number, text in enumerate(texts))
    return Transcript(**{"text": "".join(texts), "segments": segments, "language": "en", "duration_s": 8.47, **values})


def answered(given: Transcript, request: AudioRequest) -> dict[str, Any]:
    body, content_type = answer(given, request)
    assert content_type == "application/json"
    values: dict[str, Any] = json.loads(body)
    return values


def test_json_has_the_text_and_whole_seconds() -> None:
    values = answered(transcript(" One.", " Two."), JSON)
    assert values == {"text": "One. Two.", "usage": {"type": "duration", "seconds": 9}}
    assert Transcription.model_validate(values, strict=True).text == "One. Two."


def test_a_detected_language_is_named_and_a_given_one_is_not() -> None:
    detected = transcript(" Ja.", language="de", language_guess=LanguageGuess(language="de", probabilities={"de": 1.0}))
    assert answered(detected, JSON)["languages"] == [{"code": "de"}]
    assert "languages" not in answered(transcript(" Ja.", language="de"), JSON)
    several = replace(detected, segments=(segment(" Ja.", language="de"), segment(" Yes.", 1, language="en")))
    assert answered(several, JSON)["languages"] == [{"code": "de"}, {"code": "en"}]


@pytest.mark.parametrize("words", [False, True])
@pytest.mark.parametrize("segments", [False, True])
def test_verbose_json_has_what_the_granularities_say(words: bool, segments: bool) -> None:
    word = Word(text=" One.", start_s=0.0, end_s=0.5, probability=0.9)
    given = replace(transcript(" One."), segments=(segment(" One.", words=(word,)),))
    values = answered(given, replace(VERBOSE, words=words, segments=segments))
    assert ("words" in values, "segments" in values) == (words, segments)
    parsed = TranscriptionVerbose.model_validate(values, strict=True)
    assert (parsed.language, parsed.duration) == ("english", 8.47)
    if words:
        assert values["words"] == [{"word": "One.", "start": 0.0, "end": 0.5}]
    if segments:
        assert values["segments"][0]["text"] == " One."
        assert "words" not in values["segments"][0]


def test_a_translation_is_english() -> None:
    request = replace(VERBOSE, endpoint="translations", options=replace_task("translate"))
    values = answered(transcript(" Hello.", language="de"), request)
    assert (values["task"], values["language"]) == ("translate", "english")
    TranslationVerbose.model_validate(values, strict=True)
    assert values.keys() == {"task", "language", "duration", "text", "segments"}
    assert answered(transcript(" Hello."), replace(request, response_format="json")) == {"text": "Hello."}


def replace_task(task: Any) -> Any:
    return replace(JSON.options, speech=replace(JSON.options.speech, task=task))


def test_logprobs_have_bytes_also_for_parts_of_characters() -> None:
    parts = tuple(TokenLogprob(id=n, logprob=-0.5, bytes=bytes([one])) for n, one in enumerate("é".encode()))
    given = replace(transcript("é"), segments=(segment("é", token_logprobs=parts),))
    values = answered(given, replace(JSON, logprobs=True))
    assert [one["bytes"] for one in values["logprobs"]] == [[0xC3], [0xA9]]
    Transcription.model_validate(values, strict=True)


@pytest.mark.parametrize(
    ("response_format", "content_type", "begin"),
    [
        ("text", "text/plain", "One."),
        ("srt", "application/x-subrip", "1\n00:00"),
        ("vtt", "text/vtt", "WEBVTT\n"),
    ],
)
def test_the_other_formats_are_texts(response_format: str, content_type: str, begin: str) -> None:
    body, kind = answer(transcript(" One."), replace(JSON, response_format=response_format))
    assert kind.startswith(content_type)
    assert body.decode().startswith(begin)


def events_of(body: bytes) -> list[Any]:
    lines = body.decode().split("\n\n")
    assert lines.pop() == ""
    return [line.removeprefix("data: ") if line.endswith("[DONE]") else json.loads(line[6:]) for line in lines]


TEXTS = st.lists(st.text(st.sampled_from(" \n\t\u00a0\u3000abé"), max_size=5), max_size=6)


@given(TEXTS)
def test_joined_deltas_are_the_done_text_and_the_plain_answer(texts: list[str]) -> None:
    given = transcript(*texts)
    deltas = Deltas(JSON)
    found = events_of(b"".join(deltas.of(one) for one in given.segments) + deltas.end(given))
    assert found.pop() == "[DONE]"
    done = TranscriptionTextDoneEvent.model_validate(found.pop(), strict=True)
    parsed = [TranscriptionTextDeltaEvent.model_validate(one, strict=True) for one in found]
    assert "".join(one.delta for one in parsed) == done.text == text_of(given)
    assert answer(given, replace(JSON, response_format="text"))[0].decode() == done.text
    assert all(one.delta for one in parsed)


def test_an_engines_transcript_gives_valid_answers() -> None:
    given = scripted_engine([" One.", " Two."]).transcribe(tone(40.0), word_timestamps=True, token_logprobs=True)
    TranscriptionVerbose.model_validate(answered(given, replace(VERBOSE, words=True)), strict=True)
    values = answered(given, replace(JSON, logprobs=True))
    assert b"".join(bytes(one["bytes"]) for one in values["logprobs"]).decode().strip() == values["text"]
