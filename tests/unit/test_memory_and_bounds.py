"""Memory does not grow with the recording: windows and log-mel are released."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from stapes.audio.load import load_audio
from stapes.audio.mel import N_FRAMES, LogMel
from stapes.backends.base import BackendInfo, FloatArray, LogMelKernel, RowId, SchedulingPolicy, WindowId
from stapes.backends.batch import step_one
from stapes.backends.numpy.backend import NumpyBackend
from stapes.engine.engine import Engine
from stapes.engine.host import Host
from stapes.engine.job import Job, SegmentStream
from stapes.engine.scheduled_job import Progress
from stapes.errors import CancelledError
from stapes.options import TranscribeOptions
from stapes.recording.words.alignment import AlignmentSetting, WindowAligner, alignment_bytes
from stapes.testing import ScriptedBackend, random_checkpoint, reciting, tiny_spec
from stapes.tokenizer import Tokenizer
from tests.quick_backend import quick_mel

CHECKPOINT = random_checkpoint()
TOKENIZER = Tokenizer(tiny_spec(), CHECKPOINT.vocabulary)
OPTIONS = TranscribeOptions.from_keywords({"language": "en", "temperature": 0.0, "mode": "reference"})


class CountingBackend(ScriptedBackend):
    """Counts what is open at most, and is quick."""

    def __init__(self) -> None:
        super().__init__(tiny_spec(), reciting(TOKENIZER, [" Word."]))
        self.most_windows = self.most_rows = 0

    @property
    def log10_mel(self) -> LogMelKernel:
        return quick_mel

    def encode(self, mel: FloatArray) -> list[WindowId]:
        ids = super().encode(mel)
        self.most_windows = max(self.most_windows, self.handles.n_windows)
        return ids

    def open(self, window: WindowId) -> RowId:
        row = super().open(window)
        self.most_rows = max(self.most_rows, self.handles.n_rows)
        return row

    def fork(self, row: RowId) -> RowId:
        new = super().fork(row)
        self.most_rows = max(self.most_rows, self.handles.n_rows)
        return new


def hours(n_hours: float) -> FloatArray:
    """Return a ramp that differs from window to window; no noise, to be quick."""
    n_samples = round(n_hours * 3600 * 16000)
    return (np.arange(n_samples, dtype=np.int32) % 48017).astype(np.int16)


def test_a_recording_of_an_hour_and_a_half_holds_one_window_and_two_rows() -> None:
    backend = CountingBackend()
    engine = Engine(CHECKPOINT, backend)
    # 172 MB of int16 samples: above the bound of the memory they wait in a temporary file
    recording = load_audio(hours(1.5), memory_limit_bytes=1 << 20)
    job = engine.submit_recording(recording, OPTIONS)
    assert len(job.result().windows) == 180
    assert (backend.most_windows, backend.most_rows) == (1, 2)  # the prompt's row, and the one that grows
    assert backend.n_open == 0


def test_many_long_recordings_hold_no_more_windows_than_the_bound() -> None:
    backend = CountingBackend()
    engine = Engine(CHECKPOINT, backend)
    audio = hours(0.03)  # 108 s: four windows
    jobs = [engine.submit(audio, options=OPTIONS) for _ in range(SchedulingPolicy().windows_in_flight + 9)]
    engine.run()
    assert all(len(job.result().windows) == 4 for job in jobs)
    assert 2 < backend.most_windows <= SchedulingPolicy().windows_in_flight
    assert backend.most_rows <= 2 * SchedulingPolicy().windows_in_flight
    assert backend.n_open == 0


def test_an_hour_takes_no_more_memory_than_some_minutes() -> None:
    # benchmarks/memory.py does the same with whole processes, and with twelve hours
    peaks = []
    for n_hours in (0.1, 0.8):
        engine = Engine(CHECKPOINT, CountingBackend())
        recording = load_audio(hours(n_hours), memory_limit_bytes=1 << 20)
        tracemalloc.start()
        try:
            job = engine.submit_recording(recording, OPTIONS)
            n_segments = sum(1 for _ in SegmentStream(job))
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
        assert n_segments == 120 * n_hours
        engine.close()
    # what grows is the transcript: some 3 KB for each window, of which there are 84 more
    assert peaks[1] - peaks[0] < 1 << 20


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_recording_that_is_cancelled_is_not_worked_on_any_more(share: float) -> None:
    backend = CountingBackend()
    engine = Engine(CHECKPOINT, backend)
    jobs: list[Job] = []

    def measure(progress: Progress) -> None:
        if progress.done_s >= share * progress.total_s:
            jobs[0].cancel()  # in the middle of a step: it ends before the next one
            at_cancel.append((backend.n_encoded, backend.n_steps))

    at_cancel: list[tuple[int, int]] = []
    jobs.append(engine.submit(hours(0.5), options=OPTIONS, on_progress=measure))
    jobs[0].start()
    with pytest.raises(CancelledError):
        jobs[0].result(timeout_s=60)
    assert at_cancel == [(backend.n_encoded, backend.n_steps)]
    assert backend.n_open == 0


@pytest.mark.parametrize("n_hours", [0.1, 0.5])
def test_the_log_mel_of_a_recording_is_never_held_as_a_whole(n_hours: float) -> None:
    recording = load_audio(hours(n_hours))
    mel = LogMel(recording, 80, kernel=quick_mel)
    tracemalloc.start()
    try:
        for start in range(0, mel.content_frames - N_FRAMES, 60 * N_FRAMES // 10):
            mel.window(start, N_FRAMES)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # 30 s of samples are 1.9 MB in float32, 3,000 frames of 80 bins 1 MB; a whole half hour of them would be 58 MB
    assert peak < 16 << 20
    recording.close()


def test_an_alignment_takes_what_is_counted_for_it() -> None:
    checkpoint = random_checkpoint("multilingual")
    backend = NumpyBackend(checkpoint, threads=1)
    tokenizer = Tokenizer(checkpoint.spec, checkpoint.vocabulary)
    heads = ((0, 1), (1, 0), (1, 1))
    setting = AlignmentSetting.make(checkpoint.spec, tokenizer, heads, "en", "transcribe", N_FRAMES)
    (window,) = backend.encode(np.zeros((1, 80, N_FRAMES), np.float32))
    aligner = WindowAligner(backend, window, setting, [*range(200, 300)], N_FRAMES)
    counted = aligner.load().answer_bytes
    assert counted == alignment_bytes(checkpoint.spec, setting.heads, 100) - 4 * 5 * checkpoint.spec.n_vocab
    tracemalloc.start()
    try:
        aligner.accept(step_one(backend, aligner))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert counted < peak < 1.25 * counted
    backend.shut_down()


def test_segments_that_were_taken_are_not_queued() -> None:
    engine = Engine(CHECKPOINT, CountingBackend())
    job = engine.submit(hours(0.1), options=OPTIONS)
    n_taken = 0
    while engine.step():
        n_taken += sum(1 for _ in job.take_segments())
        assert not job.has_segments
    assert n_taken == 12


class DeviceBackend(ScriptedBackend):
    """Has a device whose memory it knows."""

    @property
    def info(self) -> BackendInfo:
        return replace(super().info, device="cuda:0", max_memory=123_456_789)


def test_a_backend_with_a_device_says_what_windows_may_take() -> None:
    backend = DeviceBackend(tiny_spec(), reciting(TOKENIZER, [" Word."]))
    with Engine(CHECKPOINT, backend) as engine:
        assert (engine.info.device, engine.status().free_bytes) == ("cuda:0", 123_456_789)
    with Engine(CHECKPOINT, backend, max_memory=100_000_000) as engine:
        assert engine.status().free_bytes == 100_000_000
    with Host(max_memory=110_000_000) as host:
        assert Engine(CHECKPOINT, backend, host=host).status().free_bytes == 110_000_000
