"""Results: the dict that openai/whisper returns, key for key and type for type."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stapes.results import LanguageGuess, Segment, Transcript, Window, WindowResult, Word

#: Source: openai/whisper 20250625 transcribe.py (new_segment, the returned dict), timing.py (words).
SEGMENT_KEYS: dict[str, type] = {
    "id": int,
    "seek": int,
    "start": float,
    "end": float,
    "text": str,
    "tokens": list,
    "temperature": float,
    "avg_logprob": float,
    "compression_ratio": float,
    "no_speech_prob": float,
}
WORD_KEYS: dict[str, type] = {"word": str, "start": float, "end": float, "probability": float}

seconds = st.floats(0, 1e5)
words = st.builds(Word, text=st.text(), start_s=seconds, end_s=seconds, probability=st.floats(0, 1))
segments = st.builds(
    Segment,
    id=st.integers(0, 999),
    seek=st.integers(0, 10**7),
    start_s=seconds,
    end_s=seconds,
    text=st.text(),
    tokens=st.lists(st.integers(0, 51865)).map(tuple),
    temperature=st.floats(0, 1),
    avg_logprob=st.floats(-100, 0),
    compression_ratio=st.floats(0, 100),
    no_speech_prob=st.floats(0, 1),
    words=st.none() | st.lists(words).map(tuple),
)
transcripts = st.builds(
    Transcript,
    text=st.text(),
    segments=st.lists(segments, max_size=4).map(tuple),
    language=st.sampled_from(["en", "de"]),
    duration_s=seconds,
    language_as_given=st.none() | st.sampled_from(["English", "de"]),
)


def keys_and_types(values: dict[str, Any]) -> dict[str, type]:
    return {key: type(value) for key, value in values.items()}


@given(transcripts)
def test_to_dict_has_the_references_keys_order_and_types(transcript: Transcript) -> None:
    values = transcript.to_dict()
    assert list(keys_and_types(values).items()) == [("text", str), ("segments", list), ("language", str)]
    for segment, ours in zip(values["segments"], transcript.segments, strict=True):
        wanted = SEGMENT_KEYS if ours.words is None else {**SEGMENT_KEYS, "words": list}
        assert list(keys_and_types(segment).items()) == list(wanted.items())
        assert all(type(token) is int for token in segment["tokens"])
        for word in segment.get("words", []):
            assert list(keys_and_types(word).items()) == list(WORD_KEYS.items())


@given(transcripts)
def test_to_dict_survives_json(transcript: Transcript) -> None:
    assert json.loads(json.dumps(transcript.to_dict())) == transcript.to_dict()


@given(transcripts)
def test_the_language_echoes_what_was_given_or_what_was_found(transcript: Transcript) -> None:
    assert transcript.to_dict()["language"] == (transcript.language_as_given or transcript.language)


@given(segments)
def test_a_callers_change_to_the_dict_leaves_the_result_alone(segment: Segment) -> None:
    before = segment.to_dict()
    changed = segment.to_dict()
    changed["tokens"].append(1)
    changed["text"] = "?"
    assert segment.to_dict() == before


def test_results_are_frozen() -> None:
    word = Word(text=" a", start_s=0.0, end_s=0.1, probability=0.5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        word.text = "b"  # type: ignore[misc]


def test_a_guess_knows_the_probability_of_what_it_took() -> None:
    assert LanguageGuess(language="de", probabilities={"de": 0.75, "en": 0.25}).probability == 0.75


@given(transcripts)
def test_a_representation_is_short_and_has_the_beginning_the_language_and_counts(transcript: Transcript) -> None:
    shown = repr(transcript)
    assert shown.startswith("Transcript(text=")
    assert repr(transcript.text[:20])[1:-1] in shown or len(transcript.text) < 20 or "'" in transcript.text
    assert f"language={transcript.language!r}, duration_s=" in shown
    assert ("segments: " in shown) == bool(transcript.segments)
    assert "\n" not in shown
    assert len(ascii(transcript.text[:63])) + 400 > len(shown)
    for segment in transcript.segments:
        assert repr(segment).startswith(f"Segment(id={segment.id}, ")
        assert segment.words is None or not segment.words or f"words: {len(segment.words)}" in repr(segment)
    assert pickle.loads(pickle.dumps(transcript)) == copy.deepcopy(transcript) == transcript


def test_what_holds_much_is_represented_in_a_line() -> None:
    result = WindowResult(
        tokens=tuple(range(200)), text="word " * 40, avg_logprob=-0.25, no_speech_prob=1e-9, temperature=0.0,
        compression_ratio=1.5,
    )  # fmt: skip
    window = Window(seek=0, n_frames=3000, next_seek=2800, skipped=False, result=result)
    guess = LanguageGuess(language="de", probabilities={"de": 0.75, **{f"x{n}": 0.0 for n in range(98)}})
    assert repr(guess) == "LanguageGuess(language='de', probability=0.75 of 99)"
    assert repr(window).startswith(
        "Window(seek=0, n_frames=3000, next_seek=2800, skipped=False, result=WindowResult(tok"
    )
    assert "tokens: 200, text='word word" in repr(window)
    assert "no_speech_prob=0.0" in repr(window)
    assert len(repr(window)) < 300
    assert window != dataclasses.replace(window, seek=1)
