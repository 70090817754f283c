"""Windows that are shorter than 30 s: their bytes in the bound, one length per call, timestamps, alignment."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stapes.audio.mel import N_FRAMES, LogMel
from stapes.audio.pcm import recording_of_array
from stapes.backends.base import BackendInfo, FloatArray, IdRange, SchedulingPolicy, WindowId
from stapes.backends.batch import step_one
from stapes.backends.numpy.backend import NumpyBackend
from stapes.decoding.rules import DecodingRules
from stapes.engine.scheduled_job import ScheduledJob
from stapes.engine.scheduler import EncodeBatch, MemoryBound, Scheduler
from stapes.options import Rules
from stapes.recording.base import TaskInputs, WindowCost, WindowStream
from stapes.recording.events import JobEvent
from stapes.recording.forced_alignment import ShareFinder
from stapes.recording.language.question import LanguageQuestion
from stapes.recording.words.alignment import AlignmentSetting, WindowAligner
from stapes.results import LanguageGuess
from stapes.testing import noise, random_checkpoint, reciting, tiny_spec
from stapes.tokenizer import Tokenizer
from tests.quick_backend import QuickBackend

CHECKPOINT = random_checkpoint()
TOKENIZER = Tokenizer(tiny_spec(), CHECKPOINT.vocabulary)
BEGIN, N_VOCAB = TOKENIZER.special.timestamp_begin, TOKENIZER.n_vocab
WINDOW_BYTES, ROW_BYTES = 1_500_000, 1000


class LengthsBackend(QuickBackend):
    """Takes up to four windows in a call, and notes their number and length."""

    def __init__(self) -> None:
        super().__init__(reciting(TOKENIZER, [" One."]), window_bytes=WINDOW_BYTES, row_bytes=ROW_BYTES)
        self.encoded: list[tuple[int, int]] = []

    @property
    def info(self) -> BackendInfo:
        return replace(super().info, policy=SchedulingPolicy(windows_per_encode=4))

    def encode(self, mel: FloatArray) -> list[WindowId]:
        self.encoded.append((len(mel), mel.shape[2]))
        return super().encode(mel)


class LengthsTask(WindowStream):
    """Asks for the language of windows of these lengths, one after the other."""

    def __init__(self, backend: QuickBackend, lengths: list[int]) -> None:
        recording = recording_of_array("noise", noise(1.0))
        mel = LogMel(recording, 80, kernel=backend.log10_mel)
        inputs = TaskInputs(recording=recording, mel=mel, backend=backend, tokenizer=TOKENIZER)
        super().__init__(inputs, WindowCost(rows=1))
        self._lengths = lengths

    @property
    def _frames_done(self) -> int:
        return 0

    @property
    def done(self) -> bool:
        return not self._lengths

    @property
    def window_frames(self) -> int:
        return self._lengths[0]

    def mel(self) -> FloatArray:
        return np.full((80, self._lengths[0]), 0.5, np.float32)

    def _begin(self) -> None:
        self._slot.begin(LanguageQuestion(self._backend, self._slot.window, TOKENIZER, ("en", "de")))

    def _accept(self, _answer: LanguageGuess) -> list[JobEvent]:
        self._slot.release()
        del self._lengths[0]
        return []

    def result(self) -> None:
        return None


def run(*tasks: list[int], max_bytes: int | None = None) -> LengthsBackend:
    backend = LengthsBackend()
    scheduler = Scheduler(backend, MemoryBound.of(backend, max_bytes))
    jobs = [ScheduledJob(LengthsTask(backend, list(lengths))) for lengths in tasks]
    for job in jobs:
        scheduler.submit(job)
    while (batch := scheduler.next_batch()) is not None:
        before = backend.n_open
        answer = batch.run(backend)
        assert not isinstance(batch, EncodeBatch) or backend.n_open == before + len(batch.owners)
        scheduler.account(batch, answer)
    assert [job.error for job in jobs] == [None] * len(jobs)
    assert backend.n_open == 0
    return backend


def test_a_call_encodes_windows_of_one_length() -> None:
    backend = run([832], [832, 3000], [3000], [3000], [832])
    assert backend.encoded == [(2, 832), (2, 3000), (1, 3000), (1, 832)]


@pytest.mark.parametrize(("length", "most"), [(832, 4), (1472, 2), (3000, 1)])
def test_the_bound_counts_what_a_window_of_that_length_takes(length: int, most: int) -> None:
    limit = WINDOW_BYTES + 300_000  # a full window, or four of 416 kB, or two of 736 kB
    backend = run(*[[length]] * 5, max_bytes=limit)
    assert backend.most_windows == most
    assert backend.most_bytes <= limit


def test_a_short_window_leaves_room_and_a_full_one_waits_for_it() -> None:
    backend = run([832, 3000, 832], [832, 3000], max_bytes=WINDOW_BYTES + 10_000)
    assert sorted(length for n, length in backend.encoded for _ in range(n)) == [832, 832, 832, 3000, 3000]
    assert backend.most_windows == 2
    assert backend.most_bytes <= WINDOW_BYTES + 10_000


# Timestamps.


def forbidden(ranges: tuple[IdRange, ...]) -> set[int]:
    return {one for first, end in ranges for one in range(first, end)}


sampled_ids = st.lists(st.integers(0, TOKENIZER.special.eot - 1) | st.integers(BEGIN, BEGIN + 1500), max_size=6)


@given(sampled_ids, st.integers(1, 46), st.booleans())
def test_no_timestamp_is_after_a_short_window(sampled: list[int], n_blocks: int, without: bool) -> None:
    rules = DecodingRules.make(TOKENIZER, Rules(without_timestamps=without), 0.02)
    whole, positions = rules.constraint(sampled), 32 * n_blocks
    short = rules.up_to(positions)
    found = short.constraint(sampled)
    assert (found.permanent, found.vote_from) == (whole.permanent, whole.vote_from)
    assert forbidden(found.now) == forbidden(whole.now) | set(range(BEGIN + positions + 1, N_VOCAB))
    assert rules.up_to(positions) is short
    assert rules.constraint(sampled) is whole


# Passes over a short window.


def test_words_of_a_short_window_are_aligned_in_it() -> None:
    backend = NumpyBackend(CHECKPOINT, threads=1)
    heads = ((0, 1), (1, 0))
    setting = AlignmentSetting.make(CHECKPOINT.spec, TOKENIZER, heads, "en", "transcribe", N_FRAMES)
    tokens = TOKENIZER.encode(" and then to the hell")
    ends = {}
    for length in (832, 3000):
        (window,) = backend.encode(np.ones((1, 80, length), np.float32))
        aligner = WindowAligner(backend, window, setting, tokens, 400)
        n_read = len(setting.start) + len(tokens) + 1
        spare = 4 * (len(tokens) - 1) * CHECKPOINT.spec.n_vocab
        assert aligner.load().answer_bytes == 4 * len(heads) * n_read * length // 2 + spare
        aligner.accept(step_one(backend, aligner))
        assert aligner.result is not None
        ends[length] = [word.end_s for word in aligner.result.words]
        assert max(ends[length]) <= 4.0
        finder = ShareFinder(backend, window, setting, [(one,) for one in tokens])
        finder.accept(step_one(backend, finder))
        assert finder.result is not None
        assert 0 <= finder.result <= len(tokens)
    assert ends[832] != ends[3000]  # another window
    backend.shut_down()


def test_a_mel_may_be_shorter_than_30_s() -> None:
    recording = recording_of_array("noise", noise(6.0))
    mel: Any = LogMel(recording, 80, kernel=NumpyBackend(CHECKPOINT, threads=1).log10_mel)
    whole, quiet = mel.joined([(0, 500)]), mel.with_quiet_gain([(0, 500)], [(100, 300)])
    assert whole.shape == (80, 3000)
    assert mel.joined([(0, 500)], 832).tobytes() == whole[:, :832].tobytes()
    assert mel.with_quiet_gain([(0, 500)], [(100, 300)], 832).tobytes() == quiet[:, :832].tobytes()
