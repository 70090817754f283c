"""Times in a container's clock: moved afterwards, everywhere, with the same text; options that reach every reader."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import re
import warnings
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stapes
from stapes.audio.load import load_audio
from stapes.errors import AudioError, AudioTooLongError, OptionError, StapesWarning
from stapes.journal.keys import settings_key
from stapes.options import Audio, TranscribeOptions
from stapes.recording.events import JobEvent, WindowDone
from stapes.recording.time_map import TimeMap
from stapes.report import window_attention, write_plot, write_report
from stapes.testing import LoudnessVad, noise, random_engine, scripted_engine, silence
from stapes.vad.silero_weights import has_speech_weights
from tests.audio_files import muxed, wav_bytes

#: 25 s of sound that begin at 5 s, then 10 s more that begin at 45 s: a gap of 15 s
FIRST, SECOND = noise(25.0), noise(10.0, seed=1)
FILE = muxed([(5.0, FIRST), (45.0, SECOND)], video_s=6.0)
SPANS = ((80_000, 480_000), (720_000, 880_000))
#: for a random network, which finds no end by itself
QUICK: dict[str, Any] = {"language": "en", "temperature": 0, "sample_len": 12}
MODES = ["sequential", "reference", "chunked"]

pytestmark = pytest.mark.filterwarnings("ignore:.*(later than the file|have a gap):stapes.StapesWarning")


def timed(transcript: stapes.Transcript) -> list[tuple[str, float, float]]:
    return [(one.text, one.start_s, one.end_s) for one in transcript.segments]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("words", [False, True])
def test_the_text_is_the_same_and_every_time_is_moved(mode: str, words: bool) -> None:
    options: dict[str, Any] = {**QUICK, "mode": mode, "word_timestamps": words}
    events: list[JobEvent] = []
    progress: list[tuple[float, float]] = []
    plain = random_engine().transcribe(FILE, **options)
    moved = random_engine().transcribe(
        FILE, clock="container", **options, on_event=events.append,
        on_progress=lambda one: progress.append((one.done_s, one.total_s)),
    )  # fmt: skip
    assert plain.duration_s == 35.0
    assert moved.duration_s == 55.0
    assert [one.result for one in moved.windows] == [one.result for one in plain.windows]
    assert [one.tokens for one in moved.segments] == [one.tokens for one in plain.segments]
    assert moved.text == plain.text
    time_map = TimeMap.of_container(SPANS)
    assert time_map is not None
    expected = time_map.transcript(plain)
    assert moved.segments == expected.segments
    assert moved.windows == expected.windows
    assert moved.windows[0].seek == 500
    done = [one for one in events if isinstance(one, WindowDone)]
    assert [segment for one in done for segment in one.segments] == list(moved.segments)
    assert [one.window for one in done] == list(moved.windows)
    assert {total_s for _, total_s in progress} == {55.0}
    assert progress == sorted(progress)
    assert moved.warnings == ()
    assert len(plain.warnings) == 2


@pytest.mark.parametrize("mode", MODES)
def test_segments_lie_where_their_sound_is(mode: str) -> None:
    engine = scripted_engine([" One.", " Two.", " Three."])
    found = timed(engine.transcribe(FILE, clock="container", mode=mode))
    assert found[0][:2] == (" One.", 5.0)
    assert all(5.0 <= start_s <= end_s <= 55.0 for _, start_s, end_s in found)
    streamed = tuple(engine.stream(FILE, clock="container", mode=mode))
    assert streamed == engine.transcribe(FILE, clock="container", mode=mode).segments
    alone = asyncio.run(engine.atranscribe(FILE, clock="container", mode=mode))
    assert timed(alone) == found


def test_a_window_over_a_gap_says_what_is_not_in_it() -> None:
    (window, *_) = scripted_engine(" One.").transcribe(FILE, clock="container").windows
    assert window.left_out == ((3000, 4500),)
    assert window.frames[0] == (500, 3000)
    assert sum(end - first for first, end in window.frames) == window.n_frames


def test_a_broken_run_goes_on_under_the_same_clock() -> None:
    events: list[JobEvent] = []
    whole = scripted_engine(" One.").transcribe(FILE, clock="container", on_event=events.append)
    answers = [one.window.result if isinstance(one, WindowDone) else one.guess for one in events]
    for known in range(len(answers) + 1):
        engine = scripted_engine(" One.")
        assert engine.transcribe(FILE, clock="container", resume=answers[:known]) == whole


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("clips", "expected"),
    [
        ("46,51", [(46.0, 51.0)]),
        ("20,25,46,51", [(20.0, 25.0), (46.0, 51.0)]),
        ("0,10", [(5.0, 10.0)]),  # begins before the sound
        ("35,50", [(45.0, 50.0)]),  # begins in the gap
        ("25,35", [(25.0, 30.0)]),  # ends in it
        ("48", [(48.0, 55.0)]),
        ("31,32", []),
    ],
)
def test_clips_are_given_in_the_same_clock(mode: str, clips: str, expected: list[tuple[float, float]]) -> None:
    transcript = scripted_engine(" Here.").transcribe(FILE, clock="container", clip_timestamps=clips, mode=mode)
    found = [(one.seek / 100, one.end / 100) for one in transcript.windows]
    assert found == expected


@pytest.mark.parametrize("mode", ["sequential", "chunked"])
def test_speech_alone_in_the_containers_clock(mode: str) -> None:
    sound = np.concatenate([noise(8.0), silence(12.0), noise(10.0)])
    data = muxed([(5.0, sound), (60.0, np.concatenate([silence(5.0), SECOND]))], video_s=6.0)
    plain = scripted_engine([" One.", " Two."], LoudnessVad).transcribe(data, vad=True, mode=mode)
    moved = scripted_engine([" One.", " Two."], LoudnessVad).transcribe(data, vad=True, mode=mode, clock="container")
    time_map = TimeMap.of_container(load_audio(data, clock="container").spans)
    assert time_map is not None
    assert [one.tokens for one in moved.segments] == [one.tokens for one in plain.segments]
    assert timed(moved)[0][1] == 5.0
    assert moved.duration_s == 75.0
    for one, other in zip(plain.segments, moved.segments, strict=True):
        assert other.start_s == pytest.approx(time_map.start(one.start_s), abs=0.011)
        assert other.end_s == pytest.approx(time_map.end(one.end_s), abs=0.011)


def test_texts_are_aligned_in_the_containers_clock() -> None:
    text = "one two three. four five six."
    plain = random_engine().align(FILE, text, language="en")
    moved = random_engine().align(FILE, text, language="en", clock="container")
    time_map = TimeMap.of_container(SPANS)
    assert time_map is not None
    assert moved.segments == time_map.transcript(plain).segments
    assert moved.duration_s == 55.0
    assert moved.segments[0].start_s >= 5.0


@pytest.mark.skipif(not has_speech_weights(), reason="needs the weights of the VAD network")
def test_speech_is_found_in_the_containers_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stapes.engine.find_speech.open_vad_model", lambda _: LoudnessVad())
    plain = stapes.find_speech(FILE)
    moved = stapes.find_speech(FILE, clock="container")
    assert len(plain) == len(moved) == 1
    assert (moved[0].start_s, moved[0].end_s) == (5.0, 55.0)
    assert (plain[0].start_s, plain[0].end_s) == (0.0, 35.0)


# The options reach every reader.

LEFT_AND_RIGHT = wav_bytes(
    np.rint(np.column_stack([noise(3.0, seed=5), noise(3.0, seed=6)]) * 32768).astype(np.int16).ravel(), n_channels=2
)
TRACKS = muxed([(0.0, noise(3.0, seed=5))], [(0.0, noise(3.0, seed=6))])


def mono(seed: int) -> bytes:
    return wav_bytes(np.rint(noise(3.0, seed=seed) * 32768).astype(np.int16))


CHOICES: list[tuple[bytes, dict[str, Any], int]] = [
    (LEFT_AND_RIGHT, {"channel": "left"}, 5),
    (LEFT_AND_RIGHT, {"channel": "right"}, 6),
    (TRACKS, {"audio_track": 1}, 5),
    (TRACKS, {"audio_track": 2}, 6),
]


@pytest.mark.parametrize(("data", "choice", "seed"), CHOICES, ids=["left", "right", "first", "second"])
def test_every_call_reads_the_sound_that_was_chosen(data: bytes, choice: dict[str, Any], seed: int) -> None:
    with random_engine() as engine:
        assert engine.transcribe(data, **QUICK, **choice) == engine.transcribe(mono(seed), **QUICK)
        options = TranscribeOptions.from_keywords({**QUICK, **choice})
        assert engine.submit(data, options=options).result() == engine.submit(mono(seed), **QUICK).result()
        assert engine.detect_language(data, **choice) == engine.detect_language(mono(seed))
        assert engine.align(data, "one two.", **choice) == engine.align(mono(seed), "one two.")


@pytest.mark.skipif(not has_speech_weights(), reason="needs the weights of the VAD network")
def test_speech_is_found_in_the_sound_that_was_chosen() -> None:
    quiet = np.column_stack([noise(3.0), silence(3.0)])
    data = wav_bytes(np.rint(quiet * 32768).astype(np.int16).ravel(), n_channels=2)
    assert stapes.find_speech(data, channel="right") == ()
    with pytest.raises(AudioError, match="no sound track 2"):
        stapes.find_speech(data, audio_track=2)


@pytest.mark.parametrize("call", ["transcribe", "stream", "submit", "detect_language", "align"])
def test_every_call_checks_them_before_it_reads(call: str) -> None:
    text = ("text",) if call == "align" else ()
    with random_engine() as engine, pytest.raises(OptionError, match="channel must be one of"):
        getattr(engine, call)("no such file", *text, channel="middle")
    with random_engine() as engine, pytest.raises(AudioError, match="there is no right one"):
        getattr(engine, call)(mono(5), *text, channel="right")


def test_runs_with_different_choices_share_no_key() -> None:
    with random_engine() as engine:
        keys = {
            settings_key(engine.info, TranscribeOptions(audio=Audio(**choice)))
            for choice in ({}, {"channel": "left"}, {"channel": "right"}, {"audio_track": 1}, {"clock": "container"})
        }
    assert len(keys) == 5


# Pages and pictures.


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    path = tmp_path / "talk.mkv"
    path.write_bytes(FILE)
    return path


def test_a_page_plays_and_shows_the_containers_time(talk: Path, tmp_path: Path) -> None:
    transcript = random_engine().transcribe(talk, clock="container", word_timestamps=True, **QUICK)
    page = write_report(transcript, talk, tmp_path / "page.html", clock="container").read_text(encoding="utf-8")
    found = re.search(r'<script[^>]*type="application/json"[^>]*>(.*?)</script>', page, re.DOTALL)
    assert found is not None
    assert json.loads(found.group(1))["duration_s"] == 55.0
    with load_audio(talk, clock="container") as recording:
        again = write_report(transcript, recording, tmp_path / "again.html", title="talk.mkv")
    assert again.read_bytes() == (tmp_path / "page.html").read_bytes()


def test_a_window_is_drawn_with_the_sound_that_was_decoded(talk: Path, tmp_path: Path) -> None:
    engine = random_engine()
    options: dict[str, Any] = {**QUICK, "word_timestamps": True}
    plain, moved = engine.transcribe(talk, **options), engine.transcribe(talk, clock="container", **options)
    numbers = [number for number, one in enumerate(moved.windows, 1) if one.result.timings]
    assert any(moved.windows[number - 1].left_out for number in numbers)
    for number in numbers:
        ours = window_attention(engine, talk, moved, number, clock="container")
        theirs = window_attention(engine, talk, plain, number)
        assert (ours is None) == (theirs is None)
        if ours is not None and theirs is not None:
            np.testing.assert_array_equal(ours.matrix, theirs.matrix)
    pytest.importorskip("matplotlib")
    assert write_plot(moved, talk, tmp_path / "talk.png", clock="container").is_file()


@pytest.mark.parametrize("choice", [{"audio_track": 1}, {"channel": "left"}, {"clock": "container"}])
def test_a_loaded_recording_is_what_it_was_loaded_as(choice: dict[str, Any], talk: Path, tmp_path: Path) -> None:
    engine = random_engine()
    transcript = engine.transcribe(talk, word_timestamps=True, **QUICK)
    with load_audio(talk) as recording:
        for call in (
            lambda: write_report(transcript, recording, tmp_path / "page.html", **choice),
            lambda: write_plot(transcript, recording, tmp_path / "page.svg", **choice),
            lambda: window_attention(engine, recording, transcript, 1, **choice),
            lambda: engine.transcribe(recording, **choice),
            lambda: engine.transcribe(recording, sample_rate=8000),
        ):
            with pytest.raises(OptionError, match="a loaded recording was loaded with its own"):
                call()
        with pytest.raises(AudioError, match=r"talk\.mkv: a recording that is loaded already; pass what"):
            load_audio(cast(Any, recording))


def test_a_loaded_recording_can_be_transcribed_again_and_again(talk: Path) -> None:
    engine = random_engine()
    with load_audio(talk) as recording:
        first, second = (engine.transcribe(recording, **QUICK) for _ in range(2))
        with pytest.raises(AudioTooLongError):
            engine.transcribe(recording, max_duration_s=0.1)
    assert first == second
    assert (first.text, first.segments) == ((whole := engine.transcribe(talk, **QUICK)).text, whole.segments)


# The map.

WHOLE = st.integers(0, 300)


@st.composite
def spans_of_a_container(draw: st.DrawFn) -> tuple[tuple[int, int], ...]:
    """Spans of whole frames, that may overlap as timestamps do, but never begin before the one before them."""
    found: list[tuple[int, int]] = []
    for length, step in draw(st.lists(st.tuples(st.integers(1, 300), st.integers(-100, 300)), min_size=1, max_size=6)):
        begin = max(0, (found[-1][1] if found else 0) + step * 160)
        begin = max(begin, found[-1][0] if found else 0)
        found.append((begin, begin + length * 160))
    return tuple(found)


@settings(deadline=None)
@given(spans_of_a_container(), st.lists(st.floats(0, 30), min_size=2, max_size=20))
def test_times_never_go_back_and_stay_inside(spans: tuple[tuple[int, int], ...], times: list[float]) -> None:
    time_map = TimeMap.of_container(spans)
    assert time_map is not None
    for mapped in (list(map(time_map.start, sorted(times))), list(map(time_map.end, sorted(times)))):
        assert mapped == sorted(mapped)
        assert all(spans[0][0] / 16_000 - 1e-3 <= one <= time_map.duration_s for one in mapped)


@settings(deadline=None)
@given(spans_of_a_container(), WHOLE)
def test_there_and_back_is_the_same_frame(spans: tuple[tuple[int, int], ...], frame: int) -> None:
    time_map = TimeMap.of_container(spans)
    assert time_map is not None
    length = sum(end - start for start, end in spans) // 160
    is_apart = all(before[1] <= after[0] for before, after in itertools.pairwise(spans))
    if is_apart and frame < length:
        assert round(time_map.back(time_map.start(frame / 100)) * 100) == frame
    assert time_map.back(time_map.duration_s + 5.0) == pytest.approx(length / 100 + 5.0, abs=300)
    times = [time_map.back(one / 10) for one in range(100)]
    assert times == sorted(times) or not is_apart


def test_maps_follow_each_other() -> None:
    speech = TimeMap([(16_000, 32_000), (64_000, 96_000)], 160_000)
    container = TimeMap.of_container(((16_000, 96_000), (176_000, 256_000)))  # 1 s late; from 5 s on 5 s more
    assert container is not None
    both = speech.then(container)
    for time_s in (0.0, 0.5, 0.99, 1.01, 1.5, 1.99, 2.01, 2.5):
        assert both.start(time_s) == pytest.approx(container.start(speech.start(time_s)))
        assert both.end(time_s) == pytest.approx(container.end(speech.end(time_s)))
    assert both.duration_s == 16.0


def test_there_is_no_map_where_there_is_one_clock() -> None:
    assert TimeMap.of_container(()) is None


def test_a_default_decodes_without_a_map_and_says_what_it_hides() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        transcript = scripted_engine(" One.").transcribe(FILE)
    notes = [str(one.message) for one in caught if issubclass(one.category, StapesWarning)]
    assert tuple(notes) == transcript.warnings
    assert transcript.windows[0].seek == 0
    assert dataclasses.asdict(Audio()) == {"audio_track": None, "channel": "mix", "clock": "samples"}
