"""Forced alignment: window by window, each with its part of the text; no word is lost, all are in order."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stapes
from stapes.audio.load import load_audio
from stapes.backends.base import FloatArray
from stapes.engine.engine import Engine
from stapes.errors import CancelledError, OptionError
from stapes.recording.forced_alignment import most_probable_end, sentences_of
from stapes.results import Transcript, Word, WordTiming
from stapes.testing import (
    LoudnessVad,
    ScriptedBackend,
    noise,
    random_checkpoint,
    random_engine,
    scripted_engine,
    silence,
    tiny_spec,
)
from stapes.tokenizer import Tokenizer
from tests.corpus import corpus_folder

CHECKPOINT = random_checkpoint()
TOKENIZER = Tokenizer(tiny_spec(), CHECKPOINT.vocabulary)


def engine_that_ends_after(n_tokens: int) -> tuple[Engine, ScriptedBackend]:
    """Return an engine whose model thinks that every window holds `n_tokens` of text."""
    special = TOKENIZER.special

    def script(sound: int, tokens: tuple[int, ...]) -> FloatArray:
        logits = np.zeros(TOKENIZER.n_vocab, np.float32)
        n_read = len(tokens) - tokens.index(special.no_timestamps) - 1 if special.no_timestamps in tokens else 0
        logits[special.eot] = 15.0 if n_read == n_tokens else -5.0
        logits[special.languages["ja"]] = 9.0
        return logits

    backend = ScriptedBackend(tiny_spec(), script)
    return Engine(CHECKPOINT, backend), backend


def words_of(transcript: Transcript) -> list[Word]:
    return [word for segment in transcript.segments for word in segment.words or ()]


def check_order(transcript: Transcript) -> None:
    words = words_of(transcript)
    assert all(word.start_s <= word.end_s for word in words)
    assert all(one.end_s <= other.start_s for one, other in itertools.pairwise(words))
    assert all(one.end_s <= other.start_s for one, other in itertools.pairwise(transcript.segments))


def test_a_short_recording_takes_the_whole_text_a_segment_for_each_sentence() -> None:
    engine, backend = engine_that_ends_after(3)
    found = engine.align(noise(9.0), "  Hello,\n the  world! It is he. ", language="en")
    assert found.text == " Hello, the world! It is he."
    assert [segment.text for segment in found.segments] == [" Hello, the world!", " It is he."]
    assert [word.text for word in words_of(found)] == [" Hello,", " the", " world!", " It", " is", " he."]
    assert found.language == "en"
    assert found.segments[-1].end_s <= 9.0
    check_order(found)
    assert backend.n_open == 0


def test_a_windows_first_word_begins_where_speech_does() -> None:
    _, backend = engine_that_ends_after(3)
    audio = np.concatenate([silence(3.5), noise(5.5)])
    theirs, ours = (
        words_of(Engine(CHECKPOINT, backend, open_vad=open_vad).align(audio, "Hello, the world!", language="en"))
        for open_vad in (None, LoudnessVad)
    )
    assert theirs[0].start_s < 3.3 < 3.5 < theirs[0].end_s
    assert ours[0].start_s == pytest.approx(3.45, abs=0.04)
    assert (ours[0].end_s, ours[1:]) == (theirs[0].end_s, theirs[1:])


def test_a_long_recording_is_aligned_window_by_window_and_no_word_is_lost() -> None:
    engine, backend = engine_that_ends_after(6)
    text = " the he and to" * 12
    found = engine.align(noise(100.0), text, language="en")
    assert "".join(word.text for word in words_of(found)) == text
    assert len(found.windows) > 3
    assert [window.seek for window in found.windows[1:]] == [window.next_seek for window in found.windows[:-1]]
    assert all(window.next_seek > window.seek for window in found.windows)
    check_order(found)
    assert backend.n_open == 0


def test_windows_that_hold_nothing_are_passed_over() -> None:
    engine, _ = engine_that_ends_after(0)
    found = engine.align(noise(70.0), " the and", language="en")
    assert [(window.seek, window.skipped) for window in found.windows] == [(0, True), (3000, True), (6000, False)]
    assert [word.text for word in words_of(found)] == [" the", " and"]
    assert found.segments[0].start_s >= 60.0


def test_an_unknown_language_is_detected_and_decides_what_a_word_is() -> None:
    engine, backend = engine_that_ends_after(3)
    found = engine.align(noise(9.0), "語学")
    assert found.language == "ja"
    assert found.language_guess is not None
    assert [word.text for word in words_of(found)] == ["語", "学"]
    assert backend.n_open == 0


def test_what_cannot_be_aligned_is_refused_and_nothing_is_left_open() -> None:
    engine, backend = engine_that_ends_after(3)
    odd: tuple[Any, ...] = (None, ["Hello."], b"Hello.")
    for text in odd:
        with pytest.raises(OptionError, match="text must be a text, got"):
            engine.align(noise(1.0), text)
    with pytest.raises(OptionError, match="text is empty"):
        engine.align(noise(1.0), " \n ")
    with pytest.raises(OptionError, match="klingon"):
        engine.align(noise(1.0), "the", language="klingon")
    with pytest.raises(OptionError, match=r"the recording is over, and 600 words of the text are left"):
        engine.align(noise(1.0), " the" * 600, language="en")
    assert engine.align(noise(0.0), "the", language="en").segments == ()
    assert backend.n_open == 0
    assert not engine.status().running


def test_an_interruption_cancels_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, backend = engine_that_ends_after(3)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(backend, "step", interrupted)
    with pytest.raises((KeyboardInterrupt, CancelledError)):
        engine.align(noise(9.0), "the", language="en")
    assert backend.n_open == 0


def test_the_real_path_gives_words_in_order() -> None:
    found = random_engine(seed=3).align(noise(65.0), " the he and." * 5, language="en")
    assert "".join(word.text for word in words_of(found)) == " the he and." * 5
    check_order(found)
    with scripted_engine() as engine:
        assert engine.align(noise(2.0), "Hello.", language="en").text == " Hello."


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.integers(0, 3))
def test_the_most_probable_end_is_where_it_was_not_before(endings: list[float], n_words: int) -> None:
    n_words = min(n_words, len(endings) - 1)
    lengths = [1] * n_words
    lengths += [len(endings) - 1 - n_words] if len(endings) - 1 > n_words else []
    found = most_probable_end(endings, lengths)
    assert 0 <= found <= len(lengths)


def test_a_sure_end_is_found_among_doubts() -> None:
    assert most_probable_end([0.0, 0.01, 0.3, 0.02, 0.95, 0.9, 0.99], [1, 1, 1, 1, 1, 1]) == 4
    assert most_probable_end([0.0, 0.01, 0.0, 0.02, 0.95, 0.9, 0.99], [3, 3]) == 1  # it ends inside the second word
    assert most_probable_end([1.0, 1.0], [1]) == 0
    assert most_probable_end([0.0, 0.0], [1]) == 0


def test_sentences_end_after_their_marks_and_what_belongs_to_them() -> None:
    words = [
        WordTiming(text=text, tokens=(1,), start_s=0.0, end_s=0.0, probability=1.0)
        for text in (" \"", "Hi", "!", "\"", " he", " said", ".", ".", " So")
    ]  # fmt: skip
    assert ["".join(word.text for word in one) for one in sentences_of(words)] == [' "Hi!"', " he said..", " So"]
    assert sentences_of([]) == []


@pytest.mark.weights
@pytest.mark.corpus
def test_the_words_of_a_transcript_lie_where_the_transcript_has_them() -> None:
    folder = corpus_folder()
    if folder is None:
        pytest.skip("no recordings")
    path = folder / "audio" / "longform-libri-chapter" / "libri_test-other_2033_10utts.flac"
    with load_audio(path) as recording:
        samples = recording.read(0, 38 * 16000)  # two windows
    with stapes.load("base", precision="float32", download=False) as engine:
        words = words_of(engine.transcribe(samples, language="en", temperature=0.0, word_timestamps=True))
        placed = words_of(engine.align(samples, "".join(word.text for word in words), language="en"))
    assert [word.text for word in placed] == [word.text for word in words]
    away = sorted(abs(one.start_s - other.start_s) for one, other in zip(placed, words, strict=True))
    assert away[len(away) // 2] <= 0.02
    assert away[-1] <= 0.2
