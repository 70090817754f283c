"""The reference's log-mel numbers, at every edge of the recording."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

import stapes
from stapes.audio.mel import N_FRAMES, LogMel, mel_filters, quiet_gain, window_mel
from stapes.audio.pcm import recording_of_array
from stapes.backends.numerics import log10_mel
from stapes.errors import OptionError
from tests.audio_files import tone

REFERENCE = np.load(Path(__file__).parents[1] / "data" / "mel_reference.npz")
CASES = [name for name in REFERENCE.files if "_" in name and name[0].isdigit()]
# The reference's float32 transform is itself this inexact: a float64 one differs from it by as much (docs/audio.md).
TOLERANCE = 5e-5


class CountingReader:
    """A recording that notes how much of it is read at once."""

    def __init__(self, samples: np.ndarray) -> None:
        self.samples = samples
        self.n_samples = samples.size
        self.n_read = 0
        self.largest_read = 0

    def read(self, start: int, stop: int) -> np.ndarray:
        self.n_read += stop - start
        self.largest_read = max(self.largest_read, stop - start)
        return self.samples[start:stop]


def log_mel(samples: np.ndarray, n_mels: int = 80) -> LogMel:
    return LogMel(recording_of_array("test", samples), n_mels, kernel=log10_mel)


def signal(n_samples: int) -> np.ndarray:
    """As in tools/make_mel_fixture.py."""
    time_s = np.arange(n_samples) / 16_000
    chirp = 0.3 * np.sin(2 * np.pi * (150 + 1200 * time_s) * time_s)
    hum = 0.2 * np.cos(2 * np.pi * 97 * time_s) * np.exp(-3 * time_s)
    return (chirp + hum).astype(np.float32)


@pytest.mark.parametrize("case", CASES)
def test_opening_and_windows_have_the_reference_s_numbers(case):
    n_samples, n_mels = map(int, case.split("_"))
    frames, step = REFERENCE["frames"], int(REFERENCE["bin_step"])
    mel = log_mel(signal(n_samples), n_mels)
    np.testing.assert_allclose(mel.opening()[::step, frames], REFERENCE[case], atol=TOLERANCE, rtol=0)
    assert mel.content_frames == n_samples // 160
    inside = frames < mel.content_frames
    window = mel.window(0, mel.content_frames)[::step, frames]
    np.testing.assert_allclose(window[:, inside], REFERENCE[case][:, inside], atol=TOLERANCE, rtol=0)
    assert not window[:, ~inside].any()


@pytest.mark.parametrize("n_mels", [80, 128])
def test_filters_are_triangles_of_unit_area_from_0_to_8000_hertz(n_mels):
    filters = mel_filters(n_mels)
    assert filters.shape == (n_mels, 201)
    assert filters.dtype == np.float32
    assert (filters >= 0).all()
    assert (filters > 0).any(axis=1).all()
    peaks = filters.argmax(axis=1) * 40.0  # Hz
    assert (np.diff(peaks) >= 0).all()
    wide = filters[-10:].astype(np.float64)  # sampled well enough for the sum to be the area
    np.testing.assert_allclose(wide.sum(axis=1) * 40.0, 1.0, atol=0.02)


def test_a_tone_sounds_in_its_own_bin():
    mel = log_mel(tone(32_000, hertz=1000.0))
    expected = mel_filters(80)[:, 25].argmax()  # 25 x 40 Hz
    assert (mel.window(0, 200)[:, 10:190].argmax(axis=0) == expected).all()


def test_the_floor_comes_from_the_whole_recording():
    samples = np.concatenate([1e-4 * tone(480_000), tone(480_000)])
    mel = log_mel(samples)
    floor = (mel.maximum - 8 + 4) / 4
    np.testing.assert_allclose(mel.window(0, 2990)[:, :2990], floor, atol=1e-6)
    assert log_mel(samples[:480_000]).window(0, 2990)[:, :2990].max() > floor - 0.5


def test_frames_with_quiet_gain_equal_a_separate_recording():
    quiet, loud = 1e-3 * signal(32_000), 0.9 * tone(32_000)
    mel = log_mel(np.concatenate([loud, quiet]))
    alone = log_mel(quiet).window(0, 200)[:, 2:198]  # the frames at its edges depend on their neighbours
    np.testing.assert_allclose(mel.with_quiet_gain([(202, 398)], [(10, 190)])[:, :196], alone, atol=2e-5)
    assert not mel.with_quiet_gain([(202, 398)], [(10, 190)])[:, 196:].any()
    assert np.abs(mel.window(202, 196)[:, :196] - alone).max() > 0.3  # cut off 80 dB below the tone


def test_quiet_gain_lifts_speech_to_10_db_below_the_loudest_by_60_db_at_most():
    power = np.full((2, 60), -9.0, np.float32)
    power[:, 10:20], power[:, 30:40], power[1, 50:60] = 1.0, -3.0, -8.0
    found = quiet_gain(power, [(10, 20), (30, 40), (50, 60)])
    np.testing.assert_array_equal(found[:, :20], power[:, :20])
    np.testing.assert_allclose(found[:, 30:40], 0.0)
    np.testing.assert_allclose(found[1, 50:60], -2.0)
    np.testing.assert_allclose(np.diff(found[0, 19:31] - power[0, 19:31]), 3 / 11, atol=1e-5)  # evenly, between two
    np.testing.assert_array_equal(quiet_gain(power[:, :35], [(10, 20), (30, 40), (50, 60)]), found[:, :35])
    np.testing.assert_array_equal(quiet_gain(power[:, :9], [(10, 20)]), power[:, :9])


def test_sound_beside_quiet_speech_is_not_lifted_above_the_speech():
    """Music would otherwise be as far above all speech as it is above the quiet speech, and the floor with it."""
    power = np.full((2, 60), -9.0, np.float32)
    power[:, 10:20], power[:, 20:30], power[:, 30:40], power[:, 40:50] = 1.0, -1.0, -5.0, 3.0
    found = quiet_gain(power, [(10, 20), (30, 40)])
    np.testing.assert_allclose(found[:, 22:40], 0.0)
    assert found[:, 20:22].max() < 0.0
    np.testing.assert_array_equal(found[:, 40:50], 3.0)
    np.testing.assert_allclose(found[:, 50:], -4.0)


def test_frames_after_the_content_count_for_the_maximum():
    samples = np.zeros(16_000, np.float32)
    samples[-30:] = 0.9  # frame 100, the first after the content, is the loudest
    by_hand = np.concatenate([samples, np.zeros(16_000, np.float32)])[9400 : 9400 + 100 * 160 + 400]
    expected = log10_mel(by_hand, mel_filters(80)).max()
    assert log_mel(samples).maximum == pytest.approx(float(expected), abs=1e-6)


def test_silence_and_nothing_are_flat():
    for n_samples in (0, 5000):
        mel = log_mel(np.zeros(n_samples, np.float32))
        assert mel.maximum == -10.0
        np.testing.assert_array_equal(mel.opening(), np.full((80, N_FRAMES), -1.5, np.float32))


@pytest.mark.parametrize("n_windows", [1, 2, 3.5])
def test_windows_cut_anywhere_are_columns_of_one_spectrogram(n_windows):
    samples = signal(int(n_windows * 480_000) + 77)
    mel = log_mel(samples)
    opening = mel.opening()
    for start, n_frames in [(0, 3000), (1, 100), (7, 2993), (2990, 10), (123, 0)]:
        window = mel.window(start, n_frames)
        np.testing.assert_allclose(window[:, :n_frames], opening[:, start : start + n_frames], atol=1e-6)
        assert not window[:, n_frames:].any()


def test_a_long_recording_is_read_in_blocks_and_a_short_one_once():
    long = CountingReader(signal(2_000_000))
    assert LogMel(long, 80, kernel=log10_mel).maximum > -10
    assert long.largest_read <= 500_000
    short = CountingReader(signal(900_000))
    mel = LogMel(short, 80, kernel=log10_mel)
    mel.opening(), mel.window(0, 3000), mel.window(3000, 2000)
    assert short.n_read < 910_000


def test_a_backend_s_kernel_takes_the_place_of_numpy():
    calls = []

    def kernel(samples: np.ndarray, filters: np.ndarray) -> np.ndarray:
        calls.append(samples.size)
        return log10_mel(samples, filters)

    samples = signal(48_000)
    ours = LogMel(recording_of_array("test", samples), 80, kernel=kernel).opening()
    np.testing.assert_array_equal(ours, log_mel(samples).opening())
    assert all((size - 400) % 160 == 0 for size in calls)


def test_threads_share_one_pass():
    reader = CountingReader(signal(300_000))
    mel = LogMel(reader, 80, kernel=log10_mel)
    maxima: list[float] = []
    threads = [threading.Thread(target=lambda: maxima.append(mel.maximum)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(maxima)) == 1
    assert reader.n_read < 310_000


def test_a_log_mel_without_a_model_has_the_numbers_of_a_window() -> None:
    sound = np.random.default_rng(1).normal(0, 0.1, 16_000).astype(np.float32)
    whole = stapes.log_mel_spectrogram(sound, padding=480_000 - sound.size)
    np.testing.assert_allclose(whole, window_mel(sound, 80, log10_mel), atol=1e-5)  # of another kernel
    alone = stapes.log_mel_spectrogram(sound)
    assert alone.shape == (80, 100)
    np.testing.assert_allclose(alone[:, :98], whole[:, :98], atol=1e-6)  # the last two see the end
    assert stapes.log_mel_spectrogram(sound[:159]).shape == (80, 0)
    for wrong in ({"n_mels": 81}, {"padding": -1}):
        with pytest.raises(OptionError):
            stapes.log_mel_spectrogram(sound, **wrong)
    with pytest.raises(OptionError, match="one channel"):
        stapes.log_mel_spectrogram(sound.reshape(2, -1))
