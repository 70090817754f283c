"""Engines without a model for tests of batches: they take a fixed time, and some recordings end their process."""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
import wave
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from stapes.batch.rows import Work
from stapes.errors import AudioError, CancelledError
from stapes.options import TranscribeOptions
from stapes.results import Segment, Transcript

#: seconds that a second of audio takes
SLEEP_S = float(os.environ.get("STAPES_TEST_SLEEP", "0.0"))
#: a WAV of this rate ends the process that transcribes it
KILLING_RATE = 4001


class SleepingJob:
    def __init__(self, duration_s: float, text: str) -> None:
        self.progress = SimpleNamespace(total_s=duration_s)
        self.text = text
        self.ended = threading.Event()
        self.error: BaseException | None = None
        self.calls: list[Callable[[Any], None]] = []

    def cancel(self) -> None:
        self.end(CancelledError("cancelled"))

    def end(self, error: BaseException | None = None) -> None:
        if not self.ended.is_set():
            self.error = error
            self.ended.set()
            for call in self.calls:
                call(self)

    def when_ended(self, call: Callable[[Any], None]) -> None:
        self.calls.append(call)
        if self.ended.is_set():
            call(self)

    def result(self) -> Transcript:
        if self.error is not None:
            raise self.error
        segment = Segment(
            id=0, seek=0, start_s=0.0, end_s=self.progress.total_s, text=self.text, tokens=(), temperature=0.0,
            avg_logprob=0.0, compression_ratio=1.0, no_speech_prob=0.0,
        )  # fmt: skip
        return Transcript(text=self.text, segments=(segment,), language="en", duration_s=self.progress.total_s)


class SleepingEngine:
    """Says how long each recording is, one at a time, in `SLEEP_S` for each of its seconds."""

    info = SimpleNamespace(
        device="cpu", isa="sleeping", backend="sleeping", threads=1, window_bytes=1, row_bytes=1, precision="float32"
    )

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[SleepingJob | None] = queue.SimpleQueue()
        threading.Thread(target=self._work, daemon=True).start()

    def model_sha256(self) -> str:
        return "0" * 64

    def submit(self, audio: Any, *, options: TranscribeOptions, **_: Any) -> SleepingJob:
        assert isinstance(options, TranscribeOptions)
        try:
            with wave.open(str(audio), "rb") as file:
                rate, duration_s = file.getframerate(), file.getnframes() / file.getframerate()
        except (wave.Error, EOFError) as error:
            raise AudioError(f"{audio}: is no recording ({error})") from error
        if rate == KILLING_RATE:
            time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGKILL)
        job = SleepingJob(duration_s, f" {duration_s:.3f} seconds.")
        self._jobs.put(job)
        return job

    def close(self) -> None:
        self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            time.sleep(SLEEP_S * job.progress.total_s)
            job.end()


def load(work: Work) -> SleepingEngine:
    """Make the engine; for `Work.load`."""
    assert work.model
    return SleepingEngine()
