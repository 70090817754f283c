"""Guards and `vad=True` through the whole engine, with a VAD that takes loud samples for speech."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest

import stapes
from stapes.backends.base import FloatArray
from stapes.engine.scheduled_job import JobState
from stapes.errors import CheckpointError, OptionError, StapesWarning
from stapes.recording.events import JobEvent, WindowDone
from stapes.testing import LoudnessVad, noise, scripted_engine, silence
from stapes.vad.open import vad_models
from stapes.vad.silero_weights import INSTALL
from tests.random_cases import THOROUGH

FLUENT = " " + "as many words as a person says who speaks on and on " * 2
#: 30 s of speech, then 4 s of nothing
WITH_TAIL = np.concatenate([noise(30.0), silence(4.0)])


@pytest.mark.parametrize("mode", ["sequential", "chunked"])
def test_silence_gives_no_text(mode: str) -> None:
    transcript = scripted_engine(" Thank you.", LoudnessVad).transcribe(silence(70.0), mode=mode)
    assert (transcript.text, transcript.segments) == ("", ())
    assert transcript.flags
    assert transcript.to_dict()["flags"][0]["text"] == "Thank you."


def test_the_reference_invents_and_says_nothing_of_it() -> None:
    transcript = scripted_engine(" Thank you.", LoudnessVad).transcribe(silence(70.0), mode="reference")
    assert transcript.text.count("Thank you.") == 3
    assert "flags" not in transcript.to_dict()


def test_a_tail_without_speech_is_left_out_flagged_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    events: list[JobEvent] = []
    with caplog.at_level(logging.INFO, logger="stapes"):
        transcript = scripted_engine(FLUENT, LoudnessVad).transcribe(WITH_TAIL, on_event=events.append)
    assert [(one.guard, one.start_s, one.end_s) for one in transcript.flags] == [("tail", 30.0, 34.0)]
    done = [event for event in events if isinstance(event, WindowDone)]
    assert [flag for event in done for flag in event.flags] == list(transcript.flags)
    assert "tail guard" in caplog.text


def test_without_ears_the_guards_that_need_them_rest() -> None:
    assert scripted_engine(" Thank you.").transcribe(silence(5.0)).text == " Thank you."


def test_a_resumed_run_finds_the_same_speech() -> None:
    audio = np.concatenate([noise(29.0), silence(40.0), noise(20.0, seed=3)])
    events: list[JobEvent] = []
    whole = scripted_engine(FLUENT, LoudnessVad).transcribe(audio, on_event=events.append)
    answers = [one.window.result if isinstance(one, WindowDone) else one.guess for one in events]
    for known in range(len(answers) + 1):
        engine = scripted_engine(FLUENT, LoudnessVad)
        assert engine.transcribe(audio, resume=answers[:known]) == whole


@pytest.mark.parametrize("mode", ["sequential", "chunked"])
def test_speech_alone_has_the_times_of_the_whole(mode: str) -> None:
    audio = np.concatenate([silence(40.0), noise(20.0), silence(30.0), noise(15.0, seed=2), silence(5.0)])
    engine = scripted_engine([" One.", " Two."], LoudnessVad)
    progress: list[float] = []
    transcript = engine.transcribe(audio, vad=True, mode=mode, on_progress=lambda one: progress.append(one.done_s))
    assert transcript.duration_s == 110.0
    assert [segment.text for segment in transcript.segments] == [" One.", " Two."]
    first, last = transcript.segments
    assert first.start_s == pytest.approx(39.6, abs=0.04)
    assert last.end_s <= 105.5
    assert transcript.windows[0].seek == first.seek
    assert progress[-1] == pytest.approx(105.4, abs=0.1)


@pytest.mark.parametrize("mode", ["sequential", "reference"])
def test_no_segment_ends_after_a_pause_that_was_cut_out(mode: str) -> None:
    """The scripted segment lasts up to 29.98 s, into what is kept of the pause before the next speech."""
    audio = np.concatenate([noise(29.3), silence(20.0), noise(15.0, seed=2)])
    engine = scripted_engine([" One.", " Two."], LoudnessVad)
    first, last = engine.transcribe(audio, vad=True, mode=mode).segments
    assert 29.6 < first.end_s < 29.8
    assert 49.1 < last.start_s < 49.3


def test_speech_alone_in_clips() -> None:
    audio = np.concatenate([noise(10.0), silence(10.0), noise(10.0)])
    transcript = scripted_engine(" Here.", LoudnessVad).transcribe(audio, vad=True, clip_timestamps="22,25")
    assert [(segment.start_s, segment.end_s) for segment in transcript.segments] == [(22.0, 25.0)]


def test_no_speech_at_all_is_an_empty_transcript() -> None:
    transcript = scripted_engine(" Here.", LoudnessVad).transcribe(silence(12.0), vad=True)
    assert (transcript.text, transcript.duration_s, transcript.windows) == ("", 12.0, ())


@pytest.mark.parametrize(
    "keywords",
    [{"vad_threshold": 0}, {"vad_threshold": 2}, {"vad_neg_threshold": 0.9}, {"vad_max_speech_duration_s": 0.1},
     {"vad_min_silence_duration_ms": -1}, {"vad_speech_pad_ms": "much"}, {"vad_threshold": None}, {"vad": 1}],
)  # fmt: skip
def test_settings_that_cannot_be(keywords: dict[str, Any]) -> None:
    engine = scripted_engine(" Here.", LoudnessVad)
    with pytest.raises(OptionError):
        engine.transcribe(noise(1.0), **{"vad": True, **keywords})


def test_where_the_weights_are_missing_the_engine_says_so_and_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stapes.vad.silero_weights.package_folder", lambda _: None)
    with pytest.warns(StapesWarning, match=INSTALL):
        assert vad_models("auto") is None
    with pytest.raises(CheckpointError, match=INSTALL):
        scripted_engine(" Here.").transcribe(noise(1.0), vad=True)


def test_vad_models_share_their_weights() -> None:
    open_vad = vad_models("auto")
    if open_vad is None:
        pytest.skip("the package with the weights is not here")
    first, second = open_vad(), open_vad()
    found = first.probabilities(noise(1.0))
    assert np.array_equal(second.probabilities(noise(1.0)), found)
    assert stapes.find_speech(silence(2.0)) == ()


# A long silence is listened to bit by bit.


class CountingVad(LoudnessVad):
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.n_asked = 0

    def probabilities(self, samples: FloatArray) -> FloatArray:
        self.n_asked += 1
        return super().probabilities(samples)

    def afresh(self) -> CountingVad:
        return self


def long_silence(before_s: float) -> FloatArray:
    """Half an hour without speech, between speech."""
    return np.concatenate([noise(before_s), silence(1800.0), noise(20.0, seed=2)])


#: where each guard has to look on: the silence guard after a whole window, the pause guard inside one
each_guard = pytest.mark.parametrize(
    ("audio", "texts"), [(long_silence(30.0), [FLUENT, " Hello."]), (long_silence(20.0), [" Hello."])]
)


@each_guard
def test_others_have_their_turn_while_a_recording_is_silent(audio: FloatArray, texts: list[str]) -> None:
    vad = CountingVad()
    engine = scripted_engine(texts, lambda: vad)
    silent = engine.submit(audio)
    while not vad.n_asked:
        engine.step()
    before, other = vad.n_asked, engine.submit(noise(5.0, seed=3))
    assert before < 10
    while not other.state.ended:
        engine.step()
    assert vad.n_asked < before + 100
    assert not silent.state.ended
    silent.cancel()
    assert silent.state is JobState.CANCELLED


@each_guard
def test_a_long_silence_is_reported_with_the_window_before_it(audio: FloatArray, texts: list[str]) -> None:
    events: list[JobEvent] = []
    transcript = scripted_engine(texts, LoudnessVad).transcribe(audio, on_event=events.append)
    done = [event for event in events if isinstance(event, WindowDone)]
    assert [flag for event in done for flag in event.flags] == list(transcript.flags)
    assert max(flag.end_s - flag.start_s for flag in transcript.flags) > 1700
    assert transcript.segments[-1].end_s > 1820
    answers = [one.window.result if isinstance(one, WindowDone) else one.guess for one in events]
    # A script starts again with its first text.
    places = (0, 1, len(answers) // 2, len(answers)) if THOROUGH else (len(answers) // 2,)
    for known in places if len(texts) == 1 else ():
        assert scripted_engine(texts, LoudnessVad).transcribe(audio, resume=answers[:known]) == transcript
