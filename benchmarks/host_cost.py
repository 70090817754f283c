"""What Python costs beside the network: microseconds per step and row, on a backend that answers at once.

    python -m benchmarks.host_cost [--repeat 3] [--precision float32 --checkpoint FOLDER AUDIO...]

Recordings of one window are decoded side by side, greedily and with five beams. Counted is the time of a step of all
rows, less the time inside the backend. With recordings: the share of a real run that is not spent in the native
library's calls.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from statistics import median

import numpy as np

from stapes.backends.base import (
    BackendInfo,
    ExtraAnswers,
    FloatArray,
    LogMelKernel,
    ProbeResult,
    RowId,
    StepAnswers,
    StepBatch,
    WindowId,
)
from stapes.backends.handles import Handles, HandlesBackend
from stapes.checkpoint.base import Checkpoint
from stapes.engine.engine import Engine
from stapes.engine.scheduler import MemoryBound, Scheduler
from stapes.testing import small_vocabulary, tiny_spec, tone
from stapes.tokenizer import Tokenizer

_N_TEXT = 200  # tokens of a window
_TEXT = 300  # an id of text
_MOST_WINDOWS = 130


class SilentBackend(HandlesBackend[int, None]):
    """Return each row a timestamp, text and an end, without looking at anything."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.spec = tiny_spec()
        self.handles: Handles[int, None] = Handles(self.spec)
        self._special = tokenizer.special
        self.n_rows = 0  # of the last step, if each brought one token
        self.inside_s = 0.0  # the last step

    @property
    def info(self) -> BackendInfo:
        """Next to nothing."""
        return BackendInfo(name="silent", device="cpu", precision="float32", threads=1, weight_bytes=0, row_bytes=0)

    @property
    def log10_mel(self) -> LogMelKernel:
        """Return a kernel that takes samples for mel bins."""
        return _quick_mel

    def window_bytes(self, _positions: int) -> int:
        """Next to nothing."""
        return 0

    def encode(self, mel: FloatArray) -> list[WindowId]:
        """Take windows."""
        positions = self.handles.check_mel(mel)
        return [self.handles.add_window(0, positions) for _ in mel]

    def open(self, window: WindowId) -> RowId:
        """Open an empty row."""
        return self.handles.add_row(window, None)

    def fork(self, row: RowId) -> RowId:
        """Copy a row."""
        source = self.handles.row(row)
        return self.handles.add_row(source.window, None, source.length)

    def shut_down(self) -> None:
        """Nothing runs."""

    def step(self, batch: StepBatch) -> StepAnswers:
        """Answer."""
        rows, _, _ = self.handles.check(batch)
        started = time.perf_counter()
        self.n_rows = len(rows) if len(batch.tokens) == len(rows) else 0
        ids: list[int] = []
        ends = batch.token_ends.tolist()
        for i, row in enumerate(rows):
            row.length += ends[i] - (ends[i - 1] if i else 0)
            ids += self._ids(row.length, int(batch.tokens[ends[i] - 1]), int(batch.n_chosen[i]))
        extras = {
            index: ExtraAnswers(probes=tuple(ProbeResult(np.full(len(p.ids), -9, np.float32), 0.0) for p in one.probes))
            for index, one in batch.extras.items()
        }
        answers = StepAnswers(np.array(ids, np.int32), np.full(len(ids), -0.1, np.float32), extras)
        self.inside_s = time.perf_counter() - started
        return answers

    def _ids(self, length: int, last: int, n: int) -> list[int]:
        begin = self._special.timestamp_begin
        if length < 4:
            first = begin
        elif length < _N_TEXT:
            first = _TEXT
        else:
            first = self._special.eot if last >= begin else begin + 1000
        return [first, *range(_TEXT + 1, _TEXT + n)]


def _quick_mel(samples: FloatArray, filters: FloatArray) -> FloatArray:
    frames = np.lib.stride_tricks.sliding_window_view(samples, 400)[::160]
    return np.ascontiguousarray(frames[:, : len(filters)].T)


def scripted_step_us(n_windows: int, beams: int) -> float:
    """Return the microseconds of a step of all rows, less the backend's, in the median."""
    spec = tiny_spec()
    checkpoint = Checkpoint(
        name="silent", path=None, format="memory", storage="float32", spec=spec, tensors={},
        vocabulary=small_vocabulary(), stated_alignment_heads=((1, 0),),
    )  # fmt: skip
    backend = SilentBackend(Tokenizer(spec, checkpoint.vocabulary))
    engine = Engine(checkpoint, backend)
    engine.scheduler = Scheduler(backend, MemoryBound.of(backend, None, max_windows=_MOST_WINDOWS))
    for i in range(n_windows):
        engine.submit(tone(29.0, 200 + i), language="en", beam_size=beams if beams > 1 else None)
    seconds: list[float] = []
    working = True
    while working:
        backend.n_rows, backend.inside_s = 0, 0.0
        started = time.perf_counter()
        working = engine.step()
        taken = time.perf_counter() - started
        if backend.n_rows == n_windows * beams:
            seconds.append(taken - backend.inside_s)
    engine.close()
    return 1e6 * median(seconds)


def main() -> int:
    """Measure and print."""
    arguments = _arguments()
    sys.stdout.write("beams  rows   us a step   us a row   us a row beyond 100 a step\n")
    for beams, windows in ((1, (1, 2, 4, 8, 16, 32, 64, 128)), (5, (1, 4, 16, 25))):
        for n in windows:
            taken = min(scripted_step_us(n, beams) for _ in range(arguments.repeat))
            rows = n * beams
            beyond = max(0.0, taken - 100) / rows
            sys.stdout.write(f"{beams:5} {rows:5} {taken:11.0f} {taken / rows:10.1f} {beyond:10.1f}\n")
    if arguments.audio:
        _real(arguments.audio, arguments.checkpoint, arguments.precision)
    return 0


def _real(paths: Sequence[str], checkpoint: str, precision: str) -> None:
    """Print the shares of a run of all recordings together."""
    import stapes  # noqa: PLC0415 (the native library is not needed above)

    with stapes.load(checkpoint, precision=precision) as engine:
        native = [0.0]
        model = engine._backend._model  # type: ignore[attr-defined]

        class Timed:
            """The library's model, whose calls are timed."""

            def __getattr__(self, name: str) -> object:
                call = getattr(model, name)

                def timed(*values: object) -> object:
                    started = time.perf_counter()
                    try:
                        return call(*values)
                    finally:
                        native[0] += time.perf_counter() - started

                return timed

        engine._backend._model = Timed()  # type: ignore[attr-defined]
        for path in paths:
            engine.submit(path, temperature=0.0)
        started = time.perf_counter()
        engine.run()
        whole = time.perf_counter() - started
        engine._backend._model = model  # type: ignore[attr-defined]
    sys.stdout.write(
        f"{len(paths)} recordings: {whole:.2f} s, of them {native[0]:.2f} s in the library, "
        f"{1 - native[0] / whole:.1%} beside it\n"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("audio", nargs="*", help="recordings to decode together")
    parser.add_argument("--repeat", type=int, default=3, help="the best of so many medians is printed (default: 3)")
    parser.add_argument("--checkpoint", default="base", help="model of the real run")
    parser.add_argument("--precision", default="float32")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
