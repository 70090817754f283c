"""For every length and every cut: the padded signal and its frames are those of the plain definition."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stapes.audio.mel import LogMel, mel_filters, quiet_gain, read_padded
from stapes.audio.pcm import recording_of_array
from stapes.backends.numerics import log10_mel


def noise(n_samples: int) -> np.ndarray:
    return (0.1 * np.random.default_rng(n_samples).standard_normal(n_samples)).astype(np.float32)


def padded(samples: np.ndarray, n_after: int) -> np.ndarray:
    """200 reflected samples, the recording, zeros: NumPy's reflection as the reference."""
    followed = np.concatenate([samples, np.zeros(n_after, np.float32)])
    return np.pad(followed, (200, 0), mode="reflect")


@settings(max_examples=80, deadline=None)
@given(n_samples=st.integers(0, 1000), start=st.integers(-200, 1500), length=st.integers(0, 900))
def test_any_stretch_of_the_padded_signal_is_that_of_the_whole(n_samples, start, length):
    samples = noise(n_samples)
    stretch = read_padded(recording_of_array("test", samples), start, start + length)
    np.testing.assert_array_equal(stretch, padded(samples, 2600)[start + 200 : start + 200 + length])


@settings(max_examples=40, deadline=None)
@given(n_samples=st.integers(0, 9000))
def test_opening_is_the_plain_spectrogram_at_any_length(n_samples):
    samples = noise(n_samples)
    opening = LogMel(recording_of_array("test", samples), 80, kernel=log10_mel).opening()
    power = log10_mel(padded(samples, 490_000)[: 2999 * 160 + 400], mel_filters(80))
    plain = (np.maximum(power, power.max() - 8) + 4) / 4
    # The last bit may differ: a frame sits elsewhere in the matrix product.
    np.testing.assert_allclose(opening, plain, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(n_samples=st.integers(0, 60_000), cut=st.data())
def test_any_window_equals_the_columns_of_the_whole(n_samples, cut):
    mel = LogMel(recording_of_array("test", noise(n_samples)), 80, kernel=log10_mel)
    start = cut.draw(st.integers(0, mel.content_frames))
    n_frames = cut.draw(st.integers(0, mel.content_frames - start))
    whole = mel.window(0, mel.content_frames)
    window = mel.window(start, n_frames)
    np.testing.assert_array_equal(window[:, :n_frames], whole[:, start : start + n_frames])
    assert window.shape == (80, 3000)
    assert not window[:, n_frames:].any()


@settings(max_examples=100, deadline=None)
@given(
    steps=st.lists(st.integers(1, 60), min_size=2, max_size=12),
    loudness=st.lists(st.floats(-9.0, 2.0), min_size=6, max_size=6),
    seed=st.integers(0, 99),
)
def test_speech_keeps_its_shape_and_comes_near_the_loudest(steps, loudness, seed):
    edges = np.cumsum(steps).tolist()
    speech = list(zip(edges[::2], edges[1::2], strict=False))
    power = np.random.default_rng(seed).uniform(-10.0, -9.5, (8, edges[-1] + 7)).astype(np.float32)
    for (first, end), level in zip(speech, loudness, strict=False):
        power[:, first:end] += np.float32(level + 10)
    found = quiet_gain(power, speech)
    gains = found - power
    assert found.dtype == np.float32
    assert found.shape == power.shape
    assert gains.min() > -1e-5
    assert gains.max() < 6 + 1e-5
    top = max(power[:, first:end].max() for first, end in speech)
    for first, end in speech:
        assert np.ptp(gains[:, first:end]) < 1e-5
        assert found[:, first:end].max() > min(top - 1, power[:, first:end].max() + 6) - 1e-5
        assert found[:, first:end].max() < top + 1e-5
    np.testing.assert_allclose(quiet_gain(power + 3, speech) - found, 3, atol=1e-5)  # however loud all of it is
