"""stapes as its users call it, and its network through the contract of its backends."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import stapes
from benchmarks.adapters import FIRST_STEP, LAST_STEP, SHORT_TRANSCRIPT, Loaded, Timed
from stapes.audio.load import load_audio
from stapes.audio.mel import N_SAMPLES, LogMel
from stapes.audio.pcm import SAMPLE_RATE, Samples, recording_of_array
from stapes.backends.base import Best, Constraint, FloatArray, IdRanges, RowId, WindowId
from stapes.backends.rowwise import RowStep, step_rows

#: what every engine here is asked to do
GREEDY: dict[str, Any] = {"temperature": 0.0, "beam_size": None, "condition_on_previous_text": True}
#: the row that keeps a window's prompt, and the one that grows
_GREEDY_ROWS = 2


def load(*, model: str, checkpoint: str | None, precision: str, threads: int) -> Loaded:
    """Load a model; `checkpoint` is whatever stapes reads."""
    engine = stapes.load(checkpoint or model, precision=precision, threads=threads)

    def transcribe(path: str, language: str | None) -> str:
        return engine.transcribe(path, language=language, **GREEDY).text

    return Loaded(transcribe, facts_of(engine))


def open_steps(*, model: str, checkpoint: str | None, precision: str, threads: int) -> StapesSteps:
    """Load a model for single steps."""
    return StapesSteps(stapes.load(checkpoint or model, precision=precision, threads=threads))


def open_throughput(*, model: str, checkpoint: str | None, precision: str, threads: int) -> StapesThroughput:
    """Load a model for many recordings at once."""
    return StapesThroughput(stapes.load(checkpoint or model, precision=precision, threads=threads))


def facts_of(engine: stapes.Engine) -> dict[str, str]:
    """Return what computes, and how."""
    info = engine.info
    # A backend that states no instruction set leaves the choice to its libraries.
    return {
        "backend": info.backend,
        "precision": info.precision,
        "isa": str(getattr(info, "isa", None) or ""),
    }


class StapesSteps:
    """Steps of whichever backend the engine has chosen."""

    def __init__(self, engine: stapes.Engine) -> None:
        self.facts = facts_of(engine)
        self._backend = engine._backend
        self._tokenizer = engine._tokenizer
        self._samples: list[Samples] = []
        self._windows: list[WindowId] = []
        self._mel: FloatArray | None = None
        self._start: tuple[int, ...] = ()
        self._tokens: tuple[int, ...] = ()

    def prepare(self, *, windows: Sequence[tuple[str, float]], tokens: Sequence[int]) -> float:
        """Read the windows; each is encoded once, when first needed."""
        for path, start_s in windows:
            with load_audio(path) as recording:
                start = int(start_s * SAMPLE_RATE)
                self._samples.append(recording.read(start, min(start + N_SAMPLES, recording.n_samples)))
        self._mel = self._window_mel(0)[None]
        self._start = self._tokenizer.start_sequence("en", "transcribe")
        self._tokens = (*self._start, *tokens)
        return 0.0

    def continuation(self, *, n_tokens: int) -> list[int]:
        """Go on after the given tokens."""
        found, *_ = self._decode(1, self._tokens, n_tokens - 1)
        return found

    def encode(self) -> float:
        """Encode the first window, its cross-attention keys and values included."""
        assert self._mel is not None
        started = time.perf_counter()
        (window,) = self._backend.encode(self._mel)
        seconds = time.perf_counter() - started
        self._backend.release(window)
        return seconds

    def step(self, *, rows: int) -> float:
        """Go on after the given tokens."""
        _, _, seconds = self._decode(rows, self._tokens, LAST_STEP - FIRST_STEP)
        return seconds / (LAST_STEP - FIRST_STEP)

    def short_transcript(self, *, rows: int) -> float:
        """Divide a transcript's time by its tokens; its windows were made whole by the encoder."""
        _, first_s, seconds = self._decode(rows, self._start, SHORT_TRANSCRIPT - 1)
        return (first_s + seconds) / SHORT_TRANSCRIPT

    def log_mel(self) -> float:
        """Compute the spectrogram, the search for its maximum and the scaling included."""
        started = time.perf_counter()
        self._window_mel(0)
        return time.perf_counter() - started

    def _decode(self, rows: int, tokens: tuple[int, ...], n_steps: int) -> tuple[list[int], float, float]:
        """Return the first row's tokens, the seconds of the step that takes `tokens`, and of the `n_steps` after it.

        Each row follows its own best tokens under the rules that hold inside a text, where nothing is forced: no end,
        so that every row goes on, and the whole vocabulary counts.
        """
        while len(self._windows) < rows:
            self._windows += self._backend.encode(self._window_mel(len(self._windows))[None])
        special = self._tokenizer.special
        never = IdRanges((*self._tokenizer.never_sampled((-1,)), special.eot, *self._tokenizer.without_timestamps))
        constraint = Constraint(never, vote_from=special.timestamp_begin)
        opened = [self._backend.open(window) for window in self._windows[:rows]]
        try:
            started = time.perf_counter()
            best = self._advance(opened, [tokens] * rows, constraint)
            taken = time.perf_counter()
            found = [*best[0]]
            for _ in range(n_steps):
                best = self._advance(opened, best, constraint)
                found += best[0]
            return found, taken - started, time.perf_counter() - taken
        finally:
            for row in opened:
                self._backend.close(row)

    def _advance(
        self, rows: list[RowId], tokens: list[tuple[int, ...]], constraint: Constraint
    ) -> list[tuple[int, ...]]:
        steps = [
            RowStep(row=row, tokens=given, choice=Best(), constraint=constraint)
            for row, given in zip(rows, tokens, strict=True)
        ]
        return [result.ids for result in step_rows(self._backend, steps)]

    def _window_mel(self, place: int) -> FloatArray:
        recording = recording_of_array("window", self._samples[place])
        mel = LogMel(recording, self._backend.spec.n_mels, kernel=self._backend.log10_mel)
        return np.ascontiguousarray(mel.opening())


class TimedCall:
    """A function that adds up the seconds of its calls."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call
        self.seconds = 0.0

    def __call__(self, *values: Any) -> Any:
        """Make the call."""
        started = time.perf_counter()
        try:
            return self._call(*values)
        finally:
            self.seconds += time.perf_counter() - started


class BackendTimer:
    """Measures how long an engine's backend encodes and steps."""

    def __init__(self, engine: stapes.Engine) -> None:
        backend: Any = engine._backend
        self._encode, self._step = TimedCall(backend.encode), TimedCall(backend.step)
        backend.encode, backend.step = self._encode, self._step

    @property
    def encode_s(self) -> float:
        """Seconds in the encoder so far."""
        return self._encode.seconds

    @property
    def step_s(self) -> float:
        """Seconds in the decoder's steps so far."""
        return self._step.seconds


class StapesThroughput:
    """Many recordings, one after another and all at once."""

    def __init__(self, engine: stapes.Engine) -> None:
        self.facts = facts_of(engine)
        self._engine = engine
        self._timer = BackendTimer(engine)

    def hold(self, *, most_windows: int) -> int:
        """Bound the number of windows in memory; return the bound in bytes."""
        info = self._engine.info
        max_memory = most_windows * (info.window_bytes + _GREEDY_ROWS * info.row_bytes)
        self._engine = stapes.Engine(self._engine._checkpoint, self._engine._backend, max_memory=max_memory)
        return max_memory

    def one_after_another(self, *, paths: Sequence[str]) -> Timed:
        """Wait for each before the next is given."""
        return self._timed(lambda: [self._engine.transcribe(path, language="en", **GREEDY).text for path in paths])

    def together(self, *, paths: Sequence[str]) -> Timed:
        """Submit all, then wait."""

        def texts() -> list[str]:
            jobs = [self._engine.submit(path, language="en", **GREEDY) for path in paths]
            return [job.result().text for job in jobs]

        return self._timed(texts)

    def _timed(self, texts: Callable[[], list[str]]) -> Timed:
        encode_s, step_s, started = self._timer.encode_s, self._timer.step_s, time.perf_counter()
        found = texts()
        return {
            "texts": found,
            "seconds": time.perf_counter() - started,
            "encode_s": self._timer.encode_s - encode_s,
            "step_s": self._timer.step_s - step_s,
        }
