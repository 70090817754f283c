"""A step of rows with one token each: a captured graph on a GPU, plain calls elsewhere, by the same code.

A large model's step is a thousand small kernels; a graph replays them without Python. Each bucket (windows, length,
rows a window) has a graph of its own, captured when it was needed before; all share one pool of memory.
Source of the pitfalls: docs.pytorch.org, "CUDA semantics: CUDA graphs".
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import Any, Final

import torch

from stapes.backends.base import FloatArray, IntArray
from stapes.backends.torch.arithmetic import exact
from stapes.backends.torch.choices import ForbiddenIds, best, constrain
from stapes.backends.torch.decoder import FORBIDDEN, NOW, TOKENS, VOTE, Block, Decoder
from stapes.backends.torch.device import Device, Replay, is_out_of_memory
from stapes.backends.torch.memory import DeviceMemory, bucket_of
from stapes.backends.torch.weights import Weights
from stapes.runtime.warn import warn

#: positions of self-attention that a graph reads
LENGTHS: Final = (64, 128, 256)
#: rows of a window; a window with more takes plain calls
ROWS: Final = (1, 5)
_MOST_GRAPHS: Final = 32
_CAPTURE_AFTER: Final = 2  # plain calls of a bucket
_COLUMNS: Final = TOKENS + 1

#: windows, length, rows of a window
Bucket = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Capture:
    """A captured graph: for which bucket, how long that took, and what it took of the device's memory."""

    bucket: Bucket
    seconds: float
    bytes: int


def bucket_for(n_windows: int, n_positions: int, n_rows: int, n_text_ctx: int) -> Bucket | None:
    """Return the bucket for the first n_windows slots; None above the largest."""
    windows, rows = bucket_of(n_windows), bucket_of(n_rows, ROWS)
    length = min(bucket_of(n_positions, LENGTHS) or n_text_ctx, n_text_ctx)
    return None if windows is None or rows is None else (windows, length, rows)


class OneTokenSteps:
    """Runs such steps. `capture_graphs` may be set: False makes all of them plain calls."""

    def __init__(
        self, decoder: Decoder, weights: Weights, memory: DeviceMemory, forbidden: ForbiddenIds, device: Device
    ) -> None:
        self._decoder, self._weights, self._memory, self._forbidden = decoder, weights, memory, forbidden
        self._device = device
        self.capture_graphs = device.captures_graphs
        self.captures: list[Capture] = []
        self._version: tuple[int, int] | None = None  # of what the graphs read
        self._graphs: OrderedDict[Bucket, tuple[Replay, Any]] = OrderedDict()  # and where it leaves its answers
        self._seen: Counter[Bucket] = Counter()
        self._pool: Any = None
        self._patience = _CAPTURE_AFTER  # longer after each capture that fails
        self._numbers = torch.empty((0, _COLUMNS), dtype=torch.int32, device=device.torch)  # the graphs' input
        self._logits = torch.empty((0, memory.n_vocab), dtype=torch.float32, device=device.torch)  # and their logits

    def run(self, numbers: IntArray, bucket: Bucket) -> tuple[FloatArray, Any]:
        """Step the cells of a bucket.

        numbers: (windows * rows, TOKENS + 1), as `Block` has them.
        Returns each cell's best id and its log-probability, float32 (2, cells), and the raw logits (cells, n_vocab) on
        the device, which the next call overwrites.
        """
        self._make_room(len(numbers))
        self._device.upload(numbers, self._numbers[: len(numbers)])
        if bucket not in self._graphs and self.capture_graphs and self._seen[bucket] >= self._patience:
            self._capture(bucket)
        if bucket in self._graphs and self.capture_graphs:
            self._graphs.move_to_end(bucket)
            replay, answers = self._graphs[bucket]
            replay()
        else:
            self._seen[bucket] += 1
            answers = self._compute(bucket)
        return self._device.download(answers), self._logits[: len(numbers)]

    def _compute(self, bucket: Bucket) -> Any:
        n_windows, length, n_rows = bucket
        numbers = self._numbers[: n_windows * n_rows]
        block = Block(
            numbers=numbers, slots=slice(0, n_windows), n_rows=n_rows, length=length,
            n_positions=self._memory.n_positions, in_place=n_rows == 1,
        )  # fmt: skip
        with exact(self._device.torch):
            hidden, _ = self._decoder.run(block)
            logits = self._weights.logits(hidden[:, 0], self._logits[: len(numbers)])
            forbidden = self._forbidden.table[numbers[:, FORBIDDEN].long()]
            ranges = numbers[:, NOW:TOKENS].unflatten(1, (-1, 2))
            return best(*constrain(logits, forbidden, ranges, numbers[:, VOTE]))

    # Graphs.

    def _capture(self, bucket: Bucket) -> None:
        while len(self._graphs) >= _MOST_GRAPHS:
            self._graphs.popitem(last=False)
        self._device.free_spare()  # as a capture does: what is taken after it is the graph's
        started, before = time.perf_counter(), self._device.memory()
        try:
            replay, answers, self._pool = self._device.capture(lambda: self._compute(bucket), self._pool)
        except RuntimeError as error:
            self.drop()
            self._patience *= 2
            if is_out_of_memory(error):  # now; later there may be more
                return
            self.capture_graphs = False
            warn(f"steps on {self._device.torch} are slower: they could not be captured as graphs: {error}")
            return
        self._graphs[bucket] = replay, answers
        after = self._device.memory()
        taken = 0 if before is None or after is None else after[2] - before[2]
        self.captures.append(Capture(bucket, time.perf_counter() - started, taken))

    def _make_room(self, n: int) -> None:
        """Have room for n cells, and forget graphs whose tensors were replaced."""
        version = self._memory.version, self._forbidden.version
        if version != self._version:
            self.drop()
            self._version = version
        if len(self._numbers) < n:
            self.drop()
            n = max(n, self._memory.capacity if self._device.captures_graphs else n)  # once
            self._numbers = self._numbers.new_empty((n, _COLUMNS))
            self._logits = self._logits.new_empty((n, self._logits.shape[1]))

    def drop(self) -> None:
        """Give the graphs' memory back; they are captured again when they are needed."""
        self._graphs.clear()
        self._seen.clear()
        self._pool = None
