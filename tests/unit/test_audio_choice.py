"""Which sound of a file is read, and the warnings on sound that a file hides: tracks, channels, timestamps."""

from __future__ import annotations

import io
import itertools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stapes.audio import convert, decode
from stapes.audio.load import load_audio
from stapes.audio.pcm import Recording
from stapes.audio.timestamps import Timestamps
from stapes.errors import AudioError, OptionError, StapesWarning
from tests.audio_files import EVERYDAY, Track, encoded, muxed, tone, wav_bytes
from tests.corpus import corpus_folder, needs_corpus

LOW, HIGH = tone(80_000, hertz=300), tone(80_000, hertz=1000)  # 5 s each
#: containers that keep timestamps, with a codec whose encoder ships with PyAV
TIMED = [("matroska", "pcm_s16le"), ("matroska", "libopus"), ("mp4", "aac"), ("mpegts", "mp2"), ("flv", "aac")]


def loaded(data: Any, **options: Any) -> tuple[Recording, tuple[str, ...]]:
    """Return a recording and what was warned, which is what it says of itself."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        recording = load_audio(data, **options)
    assert tuple(str(one.message) for one in caught) == recording.warnings
    assert all("\n" not in note for note in recording.warnings)
    return recording, recording.warnings


def samples_of(data: Any, **options: Any) -> np.ndarray:
    recording, _ = loaded(data, **options)
    samples: np.ndarray = recording.read(0, recording.n_samples) * 32768
    return samples


def whole(samples: np.ndarray) -> np.ndarray:
    rounded: np.ndarray = np.rint(samples * 32768)
    return rounded


# Tracks.

TWO = muxed([(0.0, LOW)], [(0.0, HIGH)], languages=("eng", "deu"))


def test_a_second_track_is_named_and_can_be_taken() -> None:
    recording, notes = loaded(TWO)
    assert notes == (
        "the 321839 bytes: has 2 sound tracks (eng, 1 channel; deu, 1 channel) and track 1 is taken; "
        "--audio_track N takes another".replace("321839", str(len(TWO))),
    )
    np.testing.assert_array_equal(recording.read(0, 80_000) * 32768, whole(LOW))
    for track, samples in ((1, LOW), (2, HIGH), (None, LOW)):
        np.testing.assert_array_equal(samples_of(TWO, audio_track=track), whole(samples))
    assert loaded(TWO, audio_track=1)[1] == ()


def test_the_track_that_is_taken_is_named_by_its_number() -> None:
    stereo = np.stack([HIGH, HIGH], axis=1)
    assert "and track 2 is taken" in loaded(muxed([(0.0, LOW)], [(0.0, stereo)]))[1][0]


@pytest.mark.parametrize("data", [TWO, encoded("wav"), encoded("mp3")])
def test_a_track_that_is_not_there_is_refused_with_those_that_are(data: bytes) -> None:
    with pytest.raises(AudioError, match=r"has no sound track 3; it holds [12] sound tracks? \(.*1 channel\)"):
        load_audio(data, audio_track=3)


def test_a_language_tag_is_no_way_into_a_terminal() -> None:
    evil = muxed([(0.0, LOW)], [(0.0, HIGH)], languages=("\x1b[31m", "und"))
    assert "(1 channel; 1 channel)" in loaded(evil)[1][0]


# Channels.


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100])
def test_one_channel_alone_is_that_of_a_mono_file(rate: int) -> None:
    left, right = ((tone(rate, rate=rate, hertz=hertz) * 20_000).astype(np.int16) for hertz in (300, 1000))
    both = wav_bytes(np.column_stack([left, right]).ravel(), rate=rate, n_channels=2)
    for side, mono in (("left", left), ("right", right)):
        np.testing.assert_array_equal(samples_of(both, channel=side), samples_of(wav_bytes(mono, rate=rate)))


@pytest.mark.parametrize(("layout", "right"), [("5.1", 1), ("stereo", 1), ("downmix", 1), ("3.0", 1), ("5.1(side)", 1)])
def test_channels_are_found_by_their_names(layout: str, right: int) -> None:
    n_channels = av.AudioLayout(layout).nb_channels
    samples = np.stack([whole(tone(4096, hertz=200 * (one + 1))) for one in range(n_channels)], axis=1).astype(np.int16)
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("pcm_s16le", rate=16_000, layout=layout)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.reshape(1, -1)), format="s16", layout=layout)
        frame.sample_rate, frame.pts = 16_000, 0
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    np.testing.assert_array_equal(samples_of(file.getvalue(), channel="left"), samples[:, 0])
    np.testing.assert_array_equal(samples_of(file.getvalue(), channel="right"), samples[:, right])


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_channel_of_a_mono_file_is_refused(side: Any) -> None:
    with pytest.raises(AudioError, match=f"has one channel, so there is no {side} one; leave --channel out"):
        load_audio(encoded("flac"), channel=side)


def stereo(left: np.ndarray, right: np.ndarray) -> bytes:
    return wav_bytes(whole(np.column_stack([left, right])).astype(np.int16).ravel(), n_channels=2)


def late(samples: np.ndarray, n_samples: int) -> np.ndarray:
    return np.concatenate([np.zeros(n_samples, np.float32), samples[:-n_samples]])


NOISE = (np.random.default_rng(0).standard_normal(80_000) * 0.1).astype(np.float32)
OTHER = (np.random.default_rng(1).standard_normal(80_000) * 0.1).astype(np.float32)


@pytest.mark.parametrize(
    ("left", "right", "cancels"),
    [
        (NOISE, -NOISE, True),
        (NOISE, -0.8 * NOISE, True),
        (NOISE * 0.01, -NOISE * 0.01, True),
        (np.where(np.arange(80_000) < 16_000, NOISE, OTHER), np.where(np.arange(80_000) < 16_000, -NOISE, NOISE), True),
        (NOISE, NOISE, False),
        (NOISE, OTHER, False),
        (NOISE, late(NOISE, 8), False),
        (NOISE, NOISE * 0, False),
        (NOISE * 0, NOISE * 0, False),
        (NOISE, -0.4 * NOISE, False),
    ],
)
def test_channels_that_cancel_each_other_are_reported(left: np.ndarray, right: np.ndarray, cancels: bool) -> None:
    data = stereo(left, right)
    notes = loaded(data)[1]
    assert any("channels cancel each other" in note and "--channel left" in note for note in notes) == cancels
    assert len(notes) == cancels
    assert loaded(data, channel="left")[1] == ()
    np.testing.assert_array_equal(samples_of(data, channel="left"), whole(left))


@pytest.mark.parametrize("codec", ["pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le", "flac"])
def test_cancelling_is_found_in_every_sample_format(codec: str) -> None:
    data = muxed([(0.0, np.column_stack([NOISE, -NOISE]))], codec=codec)
    assert "cancel each other" in "".join(loaded(data)[1])
    assert loaded(muxed([(0.0, np.column_stack([NOISE, OTHER]))], codec=codec))[1] == ()


@pytest.mark.parametrize(
    ("container_name", "codec", "layout", "options"),
    [
        ("mp4", "aac", "7.1", {}),
        ("ogg", "libopus", "7.1", {}),
        ("matroska", "flac", "7.1", {}),
        ("ogg", "libopus", "hexadecagonal", {"mapping_family": "255"}),
    ],
)
def test_files_of_eight_channels_and_more_are_read(container_name: str, codec: str, layout: str, options: Any) -> None:
    n_channels = av.AudioLayout(layout).nb_channels
    samples = np.repeat(whole(tone(32_000, rate=48_000)).astype(np.int16), n_channels)
    file = io.BytesIO()
    with av.open(file, "w", format=container_name) as container:
        stream = container.add_stream(codec, rate=48_000, layout=layout, options=options)
        assert isinstance(stream, av.AudioStream)
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout=layout)
        frame.sample_rate, frame.pts = 48_000, 0
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    assert samples_of(file.getvalue()).size == pytest.approx(32_000 / 3, abs=700)
    assert samples_of(file.getvalue(), channel="right").any()


# Timestamps.


@pytest.mark.parametrize(("container", "codec"), TIMED)
def test_sound_that_begins_later_than_the_picture_is_reported(container: str, codec: str) -> None:
    data = muxed([(2.0, LOW)], container_name=container, codec=codec, video_s=4.0)
    recording, notes = loaded(data)
    assert len(notes) == 1
    assert "sound begins" in notes[0]
    assert "later than the file (its picture or another stream)" in notes[0]
    assert "--clock container" in notes[0]
    assert recording.spans == ()
    moved, notes = loaded(data, clock="container")
    assert notes == ()
    assert len(moved.spans) == 1
    assert moved.spans[0][0] == pytest.approx(32_000, abs=1200)  # encoders begin up to 65 ms earlier
    np.testing.assert_array_equal(moved.read(0, 80_000), recording.read(0, 80_000))


@pytest.mark.parametrize(("container", "codec"), TIMED)
def test_a_gap_in_timestamps_is_reported(container: str, codec: str) -> None:
    data = muxed([(0.0, LOW), (8.0, HIGH)], container_name=container, codec=codec, video_s=4.0)
    recording, notes = loaded(data)
    assert len(notes) == 1
    assert "timestamps have a gap of 3.0 s after 5." in notes[0]
    moved, notes = loaded(data, clock="container")
    assert notes == ()
    (start, end), (again, last) = moved.spans
    assert (start, again - end) == (0, 48_000)
    assert last - 48_000 == recording.n_samples == moved.n_samples  # no silence is inserted


@pytest.mark.parametrize(("container", "codec"), TIMED)
def test_sound_without_gaps_beside_a_picture_warns_of_nothing(container: str, codec: str) -> None:
    for start_s in (0.0, 0.1):
        data = muxed([(start_s, LOW)], container_name=container, codec=codec, video_s=4.0)
        assert loaded(data)[1] == ()


@pytest.mark.parametrize("start_s", [2.0, 3600.0])
@pytest.mark.parametrize(("container", "codec"), TIMED)
def test_a_file_of_sound_alone_begins_with_it(container: str, codec: str, start_s: float) -> None:
    recording, notes = loaded(muxed([(start_s, LOW)], container_name=container, codec=codec), clock="container")
    assert notes == ()
    assert recording.spans == ()


def test_a_stream_of_ogg_flac_that_was_joined_late_begins_with_its_first_sound() -> None:
    data = muxed([(3600.0, LOW), (3608.0, HIGH)], container_name="ogg", codec="flac")
    recording, notes = loaded(data, clock="container")
    assert notes == ()
    (start, end), (again, _) = recording.spans
    assert (start, again - end) == (0, 48_000)


@pytest.mark.parametrize("kind", EVERYDAY)
def test_everyday_files_have_one_clock(kind: str) -> None:
    assert loaded(encoded(kind), clock="container")[0].spans == ()


LATE = "sound begins {} s later than the file (its picture or another stream)"
GAP = "timestamps have a gap of 3.0 s after 1.0 s of sound"
OVERLAP = "timestamps go back by 0.5 s, first after 1.0 s of sound"
Frames = list[tuple[float, float]]  # timestamp, duration


def noted(frames: Frames, start_s: float | None = 0.0) -> Timestamps:
    timestamps = Timestamps(start_s)
    for timestamp_s, duration_s in frames:
        timestamps.note(timestamp_s, duration_s)
    return timestamps


def steady(first_s: float, n_frames: int, step_s: float = 0.02) -> Frames:
    return [(first_s + step_s * number, 0.02) for number in range(n_frames)]


@pytest.mark.parametrize(
    ("frames", "spans", "notes"),
    [
        (steady(0, 100), (), []),
        (steady(0.2, 100), ((3200, 35_200),), []),
        (steady(5, 100), ((80_000, 112_000),), [LATE.format(5.0)]),
        (steady(0, 50) + steady(4, 50), ((0, 16_000), (64_000, 80_000)), [GAP]),
        (
            steady(0, 50) + steady(2, 50) + steady(5, 50),
            ((0, 16_000), (32_000, 48_000), (80_000, 96_000)),
            ["timestamps have 2 gaps, 3.0 s in all, the first after 1.0 s"],
        ),
        # One frame alone does not count.
        ([*steady(0, 50), (90_000.0, 0.02), *steady(1.02, 50)], (), []),
        ([*steady(0, 50), (7.0, 0.02), *steady(1.02, 50)], (), []),
        # Half a second of overlap, then on.
        (steady(0, 50) + steady(0.5, 50), ((0, 16_000), (8000, 24_000)), [OVERLAP]),
        # Started again, or forged: the following times go on without a break.
        (steady(100, 50) + steady(0, 50), ((1_600_000, 1_632_000),), [LATE.format(100.0)]),
        (steady(0, 50) + steady(1e12, 50), (), []),
        # Milliseconds, and frames that say nothing.
        ([(round(one * 0.02 + (one % 3 - 1) * 0.03, 3), 0.02) for one in range(100)], (), []),
    ],
)  # fmt: skip
def test_pieces_are_found_from_timestamps(frames: Frames, spans: Any, notes: list[str]) -> None:
    timestamps = noted(frames)
    assert timestamps.spans(round(len(frames) * 0.02 * 16_000)) == spans
    assert list(timestamps.notes()) == notes


def test_a_clock_that_drifts_is_followed() -> None:
    timestamps = noted(steady(0, 100_000, step_s=0.0201))  # 2000 s of samples last 2010 s
    spans = timestamps.spans(32_000_000)
    assert spans[-1][1] == pytest.approx(2010 * 16_000, abs=0.11 * 16_000)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))
    assert "gaps, 9.9 s in all" in "".join(timestamps.notes()) or "gaps, 10.0 s in all" in "".join(timestamps.notes())


def test_timestamps_that_begin_anew_are_reported_with_the_containers_clock() -> None:
    assert noted(steady(100, 50) + steady(0, 50)).restarted_at_s == pytest.approx(1.0)
    joined = muxed([(20.0, LOW)], container_name="mpegts", codec="mp2", video_s=21.0)
    joined += muxed([(0.0, HIGH)], container_name="mpegts", codec="mp2", video_s=1.0)
    moved, notes = loaded(joined, clock="container")
    assert len(notes) == 1
    assert "its timestamps start again after 5.0 s of sound" in notes[0]
    assert len(moved.spans) == 1


def test_a_header_that_counts_a_late_start_or_a_gap_is_not_taken_for_a_cut() -> None:
    for track in ([(7.0, LOW)], [(0.0, LOW), (9.0, HIGH)]):
        data = muxed(track)
        assert "cut short" not in "".join(loaded(data)[1])
        assert "cut short" in "".join(loaded(data[: len(data) * 3 // 4])[1])


def test_frames_without_timestamps_belong_to_those_before_them() -> None:
    timestamps = Timestamps(None)
    for number in range(100):
        timestamps.note(7.0 + number * 0.02 if number % 3 == 0 else None, 0.02)
    assert timestamps.spans(32_000) == ()


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(-1e9, 1e13) | st.none() | st.floats(0, 100), st.floats(1e-4, 1.0)), max_size=60),
    st.none() | st.floats(-1e6, 1e9),
)
def test_any_timestamps_give_pieces_that_hold_every_sample(frames: list[Any], start_s: float | None) -> None:
    timestamps = noted(frames, start_s)
    n_samples = int(sum(duration for _, duration in frames) * 16_000)
    spans = timestamps.spans(n_samples)
    assert sum(end - start for start, end in spans) in (0, n_samples)
    assert all(0 <= start < end <= n_samples + 86_400 * 16_000 for start, end in spans)
    assert all(isinstance(note, str) for note in timestamps.notes())


# A recording laid out in the container's time, for pictures.


def test_a_recording_is_laid_out_with_silence_in_its_gaps() -> None:
    data = muxed([(1.0, LOW), (8.0, HIGH)], video_s=4.0)
    expected = np.concatenate([np.zeros(16_000), whole(LOW), np.zeros(32_000), whole(HIGH)]) / 32768
    for limit in (10**9, 1000):
        with load_audio(data, clock="container", memory_limit_bytes=limit).laid_out() as shown:
            assert shown.spans == ()
            assert shown.laid_out() is shown
            np.testing.assert_array_equal(shown.read(0, shown.n_samples), expected)
            blocks = [shown.read(at, at + 7777) for at in range(0, shown.n_samples, 7777)]
            np.testing.assert_array_equal(np.concatenate(blocks), expected)


# What is chosen is checked.


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"audio_track": 0}, "audio_track must be a whole number of at least 1, got 0"),
        ({"audio_track": True}, "audio_track"),
        ({"audio_track": "2"}, "audio_track"),
        ({"channel": "middle"}, "channel must be one of mix, left, right; got 'middle'"),
        ({"channel": None}, "channel"),
        ({"clock": "wall"}, "clock must be one of samples, container; got 'wall'"),
    ],
)
@pytest.mark.parametrize("source", ["no such file", LOW])
def test_what_cannot_be_is_refused_before_anything_is_opened(options: Any, words: str, source: Any) -> None:
    with pytest.raises(OptionError, match=words):
        load_audio(source, **options)


@pytest.mark.parametrize("options", [{"audio_track": 1}, {"channel": "left"}])
def test_an_array_has_neither_tracks_nor_channels(options: Any) -> None:
    with pytest.raises(OptionError, match="pass the channel that is wanted"):
        load_audio(LOW, **options)
    assert load_audio(LOW, clock="container").spans == ()


# The files of the corpus.


@needs_corpus
def test_no_layout_of_the_corpus_warns_but_for_what_is_true_of_it() -> None:
    folder = corpus_folder()
    assert folder is not None
    reported = {}
    for path in sorted((folder / "audio" / "formats").iterdir()):
        notes = loaded(path)[1]
        if notes:
            reported[path.name.split(".", 1)[1]] = notes[0].removeprefix(f"{path}: ").split(" when")[0].split(" (")[0]
        assert loaded(path, clock="container")[0].spans == (), path
    assert reported == {
        "stereo_antiphase.wav": "its channels cancel each other",
        "two_audio_tracks.mp4": "has 2 sound tracks",
    }


# Whatever the library raises.


def flv_with_a_late_picture() -> bytes:
    """An FLV in which a video stream appears after 20 s, after what libav reads before it counts the streams."""
    track: Track = [(0.0, np.tile(LOW, 8))]
    data = muxed(track, container_name="flv", codec="aac")
    at, tags = 13, []  # a header of 9 bytes, and the size of no tag before
    while at + 11 < len(data):
        tags.append(at)
        at += 11 + int.from_bytes(data[at + 1 : at + 4], "big") + 4
    middle = tags[len(tags) // 2]
    body = b"\x22" + bytes(40)  # an inter frame of Sorenson's H.263
    tag = len(body).to_bytes(3, "big") + data[middle + 4 : middle + 8] + bytes(3) + body
    tags_of_pictures = (bytes([kind]) + tag + (11 + len(body)).to_bytes(4, "big") for kind in (9, 18, 9))
    return data[:middle] + b"".join(tags_of_pictures) + data[middle:]


def test_a_stream_that_appears_on_the_way_is_passed_over() -> None:
    data = flv_with_a_late_picture()
    recording, notes = loaded(data)
    assert notes == ()
    assert recording.duration_s == pytest.approx(40.0, abs=0.2)


def test_sound_that_begins_after_much_picture_is_found() -> None:
    """An FLV names its streams nowhere, and 10 MB of picture come first: more than libav reads to find streams."""
    sound = muxed([(0.0, LOW)], container_name="flv", codec="aac")
    body = b"\x22" + bytes(50_000)
    head = b"\x09" + len(body).to_bytes(3, "big")
    pictures = (
        head + (20 * number).to_bytes(3, "big") + bytes(4) + body + (len(body) + 11).to_bytes(4, "big")
        for number in range(200)
    )
    recording, _ = loaded(sound[:13] + b"".join(pictures) + sound[13:])
    assert recording.n_samples == load_audio(sound).n_samples


FAILURES = [
    IndexError("list index out of range"),
    KeyError("x"),
    ValueError("stream index 3 out of range"),
    RuntimeError("odd\nlines"),
    AssertionError(),
    TypeError("expected bytes"),
    OverflowError("too large"),
    MemoryError("Could not allocate packet"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    av.error.InvalidDataError(1, "Invalid data"),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize(
    "place",
    [(av, "open"), (decode, "_rank"), (decode, "stated_share"), (convert, "_run"), (convert, "_build_graph")],
    ids=lambda place: place[1],
)
def test_whatever_the_audio_library_raises_is_our_sentence(
    place: tuple[Any, str], failure: Exception, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise failure

    path = tmp_path / "talk.mp3"
    path.write_bytes(encoded("mp3"))
    monkeypatch.setattr(*place, fail)
    with pytest.raises(AudioError, match=r"talk\.mp3: ") as caught:
        load_audio(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("failure", FAILURES, ids=lambda one: type(one).__name__)
def test_a_failure_between_packets_keeps_what_was_read(failure: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    whole_file = load_audio(encoded("mp3", 2.0)).n_samples
    real: Callable[..., Any] = av.open

    class Container:
        def __init__(self, container: Any) -> None:
            self._container = container

        def __getattr__(self, name: str) -> Any:
            return getattr(self._container, name)

        def __setattr__(self, name: str, value: Any) -> None:
            if name == "_container":
                object.__setattr__(self, name, value)
            else:
                setattr(self._container, name, value)

        def __enter__(self) -> Container:
            return self

        def __exit__(self, *_: Any) -> None:
            self._container.close()

        def demux(self, stream: Any) -> Any:
            yield from itertools.islice(self._container.demux(stream), 40)
            raise failure

    monkeypatch.setattr(av, "open", lambda *args, **options: Container(real(*args, **options)))
    with pytest.warns(StapesWarning, match="cut short"):
        recording = load_audio(encoded("mp3", 2.0))
    assert 0.3 * whole_file < recording.n_samples < 0.9 * whole_file
