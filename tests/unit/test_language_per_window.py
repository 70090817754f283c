"""Language per window: what is asked when, what follows from it, and that a resumed run equals the whole run."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stapes.backends.base import FloatArray, WindowId
from stapes.engine.engine import Engine
from stapes.errors import OptionError
from stapes.options import Speech
from stapes.recording.events import JobEvent, LanguageDetected
from stapes.recording.language.per_window import (
    LanguagePerWindow,
    first_run,
    most_likely,
    most_spoken,
    pieces_of,
    together,
    with_pauses,
)
from stapes.recording.language.question import mean_guess, positions_of
from stapes.recording.requests import Asking, Detect, DetectSpeech
from stapes.recording.segments import WindowSpan
from stapes.results import LanguageGuess, Segment, Transcript
from stapes.testing import babbling, noise, random_checkpoint, random_engine, tiny_spec
from stapes.tokenizer import Tokenizer
from stapes.vad.spans import SpeechMap
from tests.quick_backend import QuickBackend
from tests.random_cases import cases

CHECKPOINT = random_checkpoint()
TOKENIZER = Tokenizer(tiny_spec(), CHECKPOINT.vocabulary)
BABBLE = babbling(3, TOKENIZER)
CODES = ("en", "de", "es")
Asked = TypeVar("Asked")


def guess(**shares: float) -> LanguageGuess:
    rest = (1 - sum(shares.values())) / (len(CODES) - len(shares)) if len(shares) < len(CODES) else 0.0
    return mean_guess(
        [LanguageGuess(language="en", probabilities={code: shares.get(code, rest) for code in CODES})] * 2
    )


def spoken(*, has_vad: bool = True, content: int = 100_000, **keywords: Any) -> LanguagePerWindow:
    return LanguagePerWindow(Speech(**keywords), content_frames=content, has_vad=has_vad)


def questions(state: LanguagePerWindow, seek: int, size: int) -> Asking[Detect | DetectSpeech, None]:
    return state.detect(WindowSpan(seek, size), ((seek, seek + size),), ())


def answered(asking: Asking[Asked, None], *answers: LanguageGuess | SpeechMap) -> list[Asked]:
    """Answer questions, each once; return them. There must be as many as there are answers."""
    asked = list[Asked]()
    try:
        asked.append(next(asking))
        for answer in answers:
            asked.append(asking.send(answer))
    except StopIteration:
        pass
    assert len(asked) == len(answers)
    return asked


# One language for the whole recording.


def test_the_first_30_s_are_asked_and_believed_as_the_reference_does() -> None:
    state = spoken()
    assert answered(state.detect_once(), guess(de=0.4)) == [Detect()]
    assert (state.language, state.of_segments) == ("de", None)
    assert answered(questions(state, 0, 3000)) == []


def test_stretches_are_asked_until_one_reaches_the_threshold() -> None:
    state = spoken(language_detection_segments=4, language_detection_threshold=0.8, content=7000)
    asked = answered(state.detect_once(), guess(de=0.7), guess(es=0.81))
    assert asked == [Detect(), Detect(3000, 3000, frames=((3000, 6000),))]
    assert state.guess == guess(es=0.81)
    assert state.language == "es"


@pytest.mark.parametrize("threshold", [None, 0.9])
def test_where_none_reaches_it_the_mean_decides(threshold: float | None) -> None:
    state = spoken(language_detection_segments=9, language_detection_threshold=threshold, content=7000)
    asked = answered(state.detect_once(), guess(de=0.6, en=0.4), guess(es=0.5), guess(en=0.6))
    assert [one.seek for one in asked] == [0, 3000, 6000]
    assert asked[-1] == Detect(6000, 1000, frames=((6000, 7000),))
    assert state.language == "en"
    assert state.guess is not None
    assert state.guess.probability == pytest.approx((0.4 + 0.25 + 0.6) / 3)


def test_a_network_that_is_not_exact_is_asked_about_a_short_recording_as_it_is_decoded() -> None:
    for content, expected in ((900, Detect(0, 900, frames=((0, 900),))), (0, Detect())):
        state = LanguagePerWindow(Speech(), content_frames=content, is_exact=False)
        assert answered(state.detect_once(), guess(de=0.9)) == [expected]
        assert state.language == "de"
        assert next(LanguagePerWindow(Speech(), content_frames=content).detect_once()) == Detect()


def test_where_that_is_in_doubt_it_is_asked_about_as_the_reference_does() -> None:
    state = LanguagePerWindow(Speech(), content_frames=900, is_exact=False)
    asked = answered(state.detect_once(), guess(de=0.45, es=0.3), guess(es=0.4, de=0.35))
    assert asked == [Detect(0, 900, frames=((0, 900),)), Detect()]
    assert state.language == "es"


def test_a_language_that_is_given_is_not_asked_for() -> None:
    assert spoken(language="German").language == "de"
    only = LanguagePerWindow(Speech(), content_frames=9, only="en")
    assert only.language == "en"
    assert answered(questions(only, 0, 9)) == []


# One for each window.


def ask(
    state: LanguagePerWindow, seek: int, size: int, speech: tuple[tuple[int, int], ...], *answers: LanguageGuess
) -> int:
    """Answer all that is asked before a window; return how much of it is to be decoded."""
    first, *others = answered(questions(state, seek, size), SpeechMap(speech), *answers)
    assert first == DetectSpeech(seek, size, ((seek, seek + size),))
    assert all(isinstance(one, Detect) for one in others)
    return state.size(seek, size)


def test_a_window_ends_in_the_pause_where_its_language_does() -> None:
    state = spoken(multilingual=True)
    assert ask(state, 0, 3000, ((20, 900), (1000, 2000), (2100, 2990)), guess(en=0.9), *[guess(de=0.9)] * 2) == 950
    assert (state.language, state.of_segments) == ("en", "en")
    state.end_window(with_text=True)
    # Back inside its language nothing is asked, and what is left of a pause is skipped.
    assert answered(questions(state, 700, 3000)) == []
    assert (state.size(700, 3000), state.start(700)) == (250, 700)
    assert state.start(900) == 950
    assert ask(state, 950, 3000, ((1000, 2000),), guess(de=0.9)) == 3000
    assert (state.language, state.changed) == ("de", True)


def test_speech_is_counted_from_a_requests_first_frame() -> None:
    state = spoken(multilingual=True)
    ask(state, 500, 3000, ((520, 900), (1000, 2000)), guess(en=0.9), guess(de=0.9))
    assert state.voices(500, 3500) == ((20, 400), (500, 1500))
    assert state.voices(500, 950) == ((20, 400),)
    assert state.voices(600, 950) == ((0, 300),)
    assert spoken(language="de").voices(0, 3000) == ()
    assert spoken(multilingual=True, has_vad=False).voices(0, 3000) == ()


def test_a_clip_before_the_last_one_is_asked_anew() -> None:
    state = spoken(multilingual=True)
    assert ask(state, 9000, 3000, ((9000, 9900), (10000, 12000)), guess(en=0.9), guess(de=0.9)) == 950
    state.end_window(with_text=True)
    assert ask(state, 0, 3000, ((0, 3000),), guess(de=0.9)) == 3000
    assert (state.language, state.start(2000)) == ("de", 2000)


def test_silence_changes_no_language() -> None:
    state = spoken(multilingual=True)
    ask(state, 0, 3000, ((0, 2900),), guess(de=0.9))
    state.end_window(with_text=True)
    assert ask(state, 3000, 3000, ()) == 3000
    assert state.language == "de"
    state.end_window(with_text=False)
    assert ask(state, 6000, 3000, ((6000, 9000),), guess(es=0.45)) == 3000
    assert state.language == "de"  # too unsure to take its place


def test_a_threshold_says_how_sure_a_window_must_be() -> None:
    for threshold, language in ((0.3, "es"), (0.96, "de"), (None, "es")):
        state = spoken(multilingual=True, language_detection_threshold=threshold)
        ask(state, 0, 3000, ((0, 2900),), guess(de=0.99))
        state.end_window(with_text=True)
        ask(state, 3000, 3000, ((3000, 5900),), guess(es=0.95))
        assert state.language == language


def test_without_vad_a_window_is_one_piece() -> None:
    state = spoken(multilingual=True, has_vad=False)
    assert answered(questions(state, 0, 3000), guess(es=0.6)) == [Detect(0, 3000, frames=((0, 3000),))]
    assert (state.language, state.size(0, 3000)) == ("es", 3000)


def test_a_first_window_without_speech_is_asked_as_a_whole() -> None:
    state = spoken(multilingual=True)
    assert ask(state, 0, 3000, (), guess(es=0.6)) == 3000
    assert state.language == "es"


# What is made of the answers.


def test_an_unsure_piece_goes_with_its_neighbours() -> None:
    pieces = [(0, 400), (430, 600), (640, 1000)]
    assert most_likely(pieces, [guess(en=0.9), guess(de=0.5, en=0.3), guess(en=0.9)], None) == ["en"] * 3
    assert most_likely(pieces, [guess(en=0.9), guess(de=0.99), guess(de=0.9)], None) == ["en", "de", "de"]


def test_a_change_is_likelier_after_a_long_pause() -> None:
    answers = [guess(en=0.9), guess(de=0.7, en=0.25)]
    assert most_likely([(0, 400), (420, 800)], answers, None) == ["en", "en"]
    assert most_likely([(0, 400), (700, 1080)], answers, None) == ["en", "de"]


def test_a_run_ends_in_the_middle_of_the_pause() -> None:
    pieces = ((0, 400), (500, 900))
    run = first_run(pieces, [guess(en=0.9), guess(de=0.9)], None, (0, 3000))
    assert (run.language, run.speech_end, run.end) == ("en", 400, 450)
    assert run.share == pytest.approx(0.9)
    assert first_run(pieces, [guess(en=0.9), guess(en=0.9)], None, (0, 3000)).end == 3000


def test_earlier_windows_count_where_they_found_the_same_language() -> None:
    known = [((100, 500), guess(de=0.98)), ((600, 900), guess(es=0.99))]
    found = together((100, 500), guess(en=0.4), known)
    assert found.language == "de"
    assert together((1000, 1400), guess(en=0.4), known) == guess(en=0.4)


@given(st.lists(st.integers(1, 400), max_size=20).map(lambda steps: np.cumsum(steps).tolist()))
def test_pieces_hold_all_speech_and_none_is_short_unless_alone(edges: list[int]) -> None:
    spans = list(zip(edges[::2], edges[1::2], strict=False))
    pieces = pieces_of(spans)
    assert all(sum(piece[0] <= first and end <= piece[1] for piece in pieces) == 1 for first, end in spans)
    assert all(one[1] <= other[0] for one, other in pairwise(pieces))
    assert len(pieces) < 2 or all(piece[1] - piece[0] >= 100 for piece in pieces)
    for i, piece in enumerate(pieces):
        first, end = with_pauses(pieces, i, 0, 9000)
        assert piece[0] - 100 <= first <= piece[0] < piece[1] <= end <= piece[1] + 100


@given(st.integers(0, 2998), st.integers(1, 3000))
def test_every_part_of_a_window_is_one_of_the_encoder(first: int, length: int) -> None:
    end = min(3000, first + length)
    begin, stop = positions_of(first, end)
    assert 0 <= begin < stop <= 1500
    assert begin % 32 == 0


def test_the_language_most_spoken_is_the_one_with_most_seconds() -> None:
    def segment(start_s: float, end_s: float, language: str | None, text: str = " a") -> Segment:
        return Segment(id=0, seek=0, start_s=start_s, end_s=end_s, text=text, tokens=(), temperature=0.0,
                       avg_logprob=0.0, compression_ratio=1.0, no_speech_prob=0.0, language=language)  # fmt: skip

    said = [segment(0, 4, "de"), segment(4, 7, "en"), segment(7, 9, "en"), segment(9, 99, "es", "")]
    assert most_spoken(said) == "en"
    assert most_spoken([segment(0, 9, None)]) is None


# Through the engine, with a network that babbles in many languages.


class LoudIsSpeech:
    """Takes loud samples for speech."""

    def probabilities(self, samples: FloatArray) -> FloatArray:
        chunks = np.pad(samples, (0, -len(samples) % 512)).reshape(-1, 512)
        loud: FloatArray = (np.abs(chunks).mean(axis=1) > 0.02).astype(np.float32)
        return loud

    def afresh(self) -> LoudIsSpeech:
        return self


@cache
def talk(seed: int = 1) -> FloatArray:
    audio = noise(80.0, seed)
    for start_s in (4, 9, 17, 26, 33, 47, 52, 66):
        audio[start_s * 16000 : round((start_s + 0.9) * 16000)] *= 1e-3
    return audio


OPTIONS: dict[str, Any] = {"multilingual": True, "temperature": 0.0, "sample_len": 8, "no_speech_threshold": None,
                           "languages": ("en", "de", "es", "fr"), "logprob_threshold": None}  # fmt: skip


def run(resume: list[Any] | None = None, **keywords: Any) -> tuple[Transcript, list[JobEvent], QuickBackend]:
    backend = QuickBackend(BABBLE)
    events: list[JobEvent] = []
    with Engine(CHECKPOINT, backend, open_vad=LoudIsSpeech) as engine:
        job = engine.submit(talk(), on_event=events.append, resume=resume or [], **{**OPTIONS, **keywords})
        return job.result(), events, backend


def answers_of(events: list[JobEvent]) -> list[Any]:
    return [event.guess if isinstance(event, LanguageDetected) else event.window.result for event in events]


@pytest.mark.random
@pytest.mark.parametrize("mode", ["sequential", "chunked"])
@pytest.mark.parametrize("words", [False, True])
def test_a_multilingual_run_that_was_broken_equals_an_unbroken_one(mode: str, words: bool) -> None:
    keywords: dict[str, Any] = {"mode": mode, "word_timestamps": words}
    whole, events, backend = run(**keywords)
    assert len({segment.language for segment in whole.segments}) > 1
    assert whole.language == most_spoken(whole.segments)
    assert backend.n_open == 0
    answers = answers_of(events)
    for n_known in sorted({*range(0, len(answers), cases(4, 1)), len(answers) - 1, len(answers)}):
        again, events, its = run(answers[:n_known], **keywords)
        assert again == whole
        assert answers_of(events) == answers
        assert [event.resumed for event in events] == [i < n_known for i in range(len(events))]
        assert its.n_open == 0
        assert (its.n_encoded == 0) == (n_known == len(answers))


class Encodings(QuickBackend):
    """Keeps what it was given."""

    def __init__(self) -> None:
        super().__init__(BABBLE)
        self.mels: list[FloatArray] = []

    def encode(self, mel: FloatArray) -> list[WindowId]:
        self.mels.append(mel[0].copy())
        return super().encode(mel)


def encodings(audio: FloatArray, **keywords: Any) -> list[FloatArray]:
    backend = Encodings()
    with Engine(CHECKPOINT, backend, open_vad=LoudIsSpeech) as engine:
        engine.transcribe(audio, **{**OPTIONS, **keywords})
    return backend.mels


def test_quiet_gain_acts_only_where_languages_are_asked() -> None:
    # The numbers of this network are its samples, and its floor is 8 below the loudest of them.
    quiet = 4 * noise(30.0, 1)
    both = np.concatenate([quiet, 400 * noise(30.0, 2)])
    alone, beside = encodings(quiet)[0], encodings(both)[0]
    np.testing.assert_array_equal(alone[:, :2990], beside[:, :2990])
    alone, beside = (encodings(one, multilingual=False, language="en")[0] for one in (quiet, both))
    assert np.abs(alone - beside)[:, :2990].max() > 1


def test_segments_name_their_language_only_where_several_are_spoken() -> None:
    whole, events, _ = run()
    assert all("language" in one for one in whole.to_dict()["segments"])
    assert whole.language_guess is None
    assert all(event.language is None for event in events if isinstance(event, LanguageDetected))
    one, events, _ = run(multilingual=False)
    assert not any("language" in segment for segment in one.to_dict()["segments"])
    assert one.language_guess is not None
    assert set(one.language_guess.probabilities) == {"en", "de", "es", "fr"}
    assert [event.language for event in events if isinstance(event, LanguageDetected)] == [one.language]


def test_a_window_is_encoded_once_where_its_language_does_not_change() -> None:
    whole, _, backend = run(languages=("en",))
    assert {segment.language for segment in whole.segments} == {"en"}
    assert backend.n_encoded == len(whole.windows)


def test_detection_takes_candidates_and_several_stretches() -> None:
    with Engine(CHECKPOINT, QuickBackend(BABBLE)) as engine:
        plain = engine.detect_language(talk())
        assert len(plain.probabilities) == 99
        assert engine.detect_language(talk(), languages="de,es").language in ("de", "es")
        several = engine.detect_language(talk(), language_detection_segments=3)
        assert several.probabilities["de"] != plain.probabilities["de"]
        assert engine.detect_language(talk(), language_detection_segments=3, language_detection_threshold=0.0) == plain
        with pytest.raises(OptionError, match="detect_language does not take language; it takes languages"):
            engine.detect_language(talk(), language="de")


@pytest.mark.parametrize("keywords", [{"multilingual": True}, {"languages": ("en", "de")}])
def test_a_model_of_english_only_refuses_a_choice_of_languages(keywords: dict[str, Any]) -> None:
    with random_engine("english") as engine, pytest.raises(OptionError, match="this model knows English only"):
        engine.transcribe(noise(1.0), **keywords)


def test_a_candidate_that_the_model_does_not_know_is_refused() -> None:
    with (
        Engine(CHECKPOINT, QuickBackend(BABBLE)) as engine,
        pytest.raises(OptionError, match="does not know Cantonese"),
    ):
        engine.transcribe(noise(1.0), languages=("en", "yue"))
