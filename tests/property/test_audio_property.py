"""Damaged files of every usual kind: a recording or an AudioError, and no warning but StapesWarning."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stapes.audio.load import load_audio
from stapes.errors import AudioError, StapesWarning
from tests.audio_files import EVERYDAY, encoded, wav_bytes
from tests.corpus import corpus_folder, needs_corpus
from tests.random_cases import cases


def load_or_refuse(data: bytes, **options: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", StapesWarning)
        try:
            recording = load_audio(data, max_duration_s=30, **options)
        except AudioError as refusal:
            sentence = str(refusal)
        else:
            sentence = ""
            samples = recording.read(0, recording.n_samples)
            assert len(samples) == recording.n_samples
            assert np.isfinite(samples).all()
            assert sum(end - start for start, end in recording.spans) in (0, recording.n_samples)
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


#: of all layouts together: some in the fast tests, 5,000 under `make random`
DAMAGED = cases(47, 5000)


def layouts() -> list[Path]:
    folder = corpus_folder()
    return [] if folder is None else sorted((folder / "audio" / "formats").iterdir())


def damages(data: bytes, other: bytes, random: np.random.Generator) -> Iterator[bytes]:
    """Yield one file damaged in every way that we know, most of them where headers are."""
    n_bytes = len(data)

    def place(most: int = n_bytes) -> int:
        return int(random.integers(0, min(most, 2000 if random.random() < 0.5 else most)))

    flipped = bytearray(data)
    for _ in range(random.integers(1, 40)):
        flipped[place()] = int(random.integers(0, 256))
    yield bytes(flipped)
    yield data[: place()]
    at, length = place(), int(random.integers(1, 5000))
    yield data[:at] + bytes(length) + data[at + length :]
    yield data[:at] + random.bytes(length) + data[at:]
    yield data[:at] + data[at + length :]
    yield data[:at] + other[place(len(other)) :]
    first, second = sorted((place(), place()))
    yield data[:first] + data[second:] + data[first:second]


@needs_corpus
@pytest.mark.random
@pytest.mark.parametrize("number", range(len(layouts())), ids=[path.name.split(".", 1)[1] for path in layouts()])
def test_a_damaged_file_of_any_layout_loads_or_is_refused(number: int) -> None:
    paths = layouts()
    assert len(paths) == 47
    random = np.random.default_rng([number, DAMAGED])
    tried = 0
    while tried < -(-DAMAGED // len(paths)):
        other = paths[random.integers(0, len(paths))].read_bytes()
        found = list(damages(paths[number].read_bytes(), other, random))
        random.shuffle(found)
        for data in found[: -(-DAMAGED // len(paths)) - tried]:
            load_or_refuse(data, clock="container" if random.random() < 0.5 else "samples")
            tried += 1
