"""Damaged files of every everyday kind: a recording or an AudioError, and no warning but StapesWarning."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stapes.audio.load import load_audio
from stapes.errors import AudioError, StapesWarning
from tests.audio_files import EVERYDAY, encoded, wav_bytes


def load_or_refuse(data: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", StapesWarning)
        try:
            recording = load_audio(data, max_duration_s=30)
        except AudioError as refusal:
            sentence = str(refusal)
        else:
            sentence = ""
            samples = recording.read(0, recording.n_samples)
            assert len(samples) == recording.n_samples
            assert np.isfinite(samples).all()
    assert "\n" not in sentence


@pytest.mark.parametrize("kind", EVERYDAY)
@settings(max_examples=25, deadline=None)
@given(draw=st.data())
def test_a_truncated_file_loads_or_is_refused(kind, draw):
    data = encoded(kind)
    load_or_refuse(data[: draw.draw(st.integers(0, len(data) - 1))])


@pytest.mark.parametrize("kind", EVERYDAY)
@settings(max_examples=25, deadline=None)
@given(draw=st.data())
def test_a_file_with_flipped_bytes_loads_or_is_refused(kind, draw):
    data = bytearray(encoded(kind))
    # Half of the flips in the first 200 bytes, where the headers are.
    place = st.integers(0, 200) | st.integers(0, len(data) - 1)
    for at, value in draw.draw(st.lists(st.tuples(place, st.integers(0, 255)), min_size=1, max_size=8)):
        data[at] = value
    load_or_refuse(bytes(data))


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=3000))
def test_any_bytes_load_or_are_refused(data):
    load_or_refuse(data)


@settings(max_examples=60, deadline=None)
@given(
    samples=st.lists(st.integers(-32768, 32767), max_size=2000),
    cuts=st.lists(st.integers(0, 2000), max_size=5),
    limit=st.sampled_from([0, 100, 10**6]),
)
def test_any_split_of_reads_gives_the_samples_as_written(samples, cuts, limit):
    recording = load_audio(wav_bytes(np.array(samples, np.int16)), memory_limit_bytes=limit)
    edges = sorted({0, len(samples), *(cut for cut in cuts if cut <= len(samples))})
    parts = [recording.read(start, stop) for start, stop in itertools.pairwise(edges)]
    together = np.concatenate([*parts, np.zeros(0, np.float32)])
    np.testing.assert_array_equal(together * 32768, np.array(samples, np.float64))
