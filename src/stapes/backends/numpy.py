"""The network in NumPy, float32: plain, exact, and runs anywhere.

Every row is computed by itself, and every window too: numbers cannot depend on company. With NumPy's BLAS this costs
nothing: one matrix-vector product per row is as fast as one thin matrix product for five rows (docs/experiments.md).
Work is shared out by a pool of our own over fixed stretches of positions, heads, layers or rows, so that the number
of threads changes no sum either.

Source of the network: openai/whisper model.py at c0d2f62.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from stapes.audio.mel import log10_mel
from stapes.backends.base import BackendInfo, FloatArray, LogMelKernel, RowId, RowResult, RowStep, WindowId
from stapes.backends.choosing import choose, constrain, probe
from stapes.backends.numpy_encoder import encode
from stapes.backends.numpy_kernels import softmax
from stapes.backends.numpy_weights import Weights
from stapes.checkpoint.base import Checkpoint, ModelSpec
from stapes.errors import BackendError

T = TypeVar("T")
#: ids whose logits one thread computes at a time: the same cut on every machine
_VOCABULARY_PART = 8192


@dataclass(slots=True)
class _Row:
    """The self-attention keys and values of one decoder row."""

    window: WindowId
    length: int
    keys: FloatArray  # (layers, heads, n_text_ctx, width)
    values: FloatArray


@dataclass(slots=True)
class _Memory:
    """The cross-attention keys and values of one window."""

    keys: FloatArray  # (layers, heads, width, n_audio_ctx)
    values: FloatArray  # (layers, heads, n_audio_ctx, width)


class NumpyBackend:
    """Satisfies `stapes.backends.base.Backend`."""

    def __init__(self, checkpoint: Checkpoint, threads: int | None = None) -> None:
        """Take the weights as float32; threads: None uses every core that the process may use."""
        self.spec: ModelSpec = checkpoint.spec
        self._weights = Weights(checkpoint.tensors, self.spec)
        self._rows: dict[RowId, _Row] = {}
        self._windows: dict[WindowId, _Memory] = {}
        self._ids = itertools.count()
        self._threads = threads or _usable_cores()
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="stapes-numpy")
        self._blas = _blas_controller()

    @property
    def log10_mel(self) -> LogMelKernel:
        """NumPy's own log-mel: the twin itself."""
        return log10_mel

    @property
    def info(self) -> BackendInfo:
        """What runs the network, and what it costs."""
        spec = self.spec
        row = 2 * spec.n_text_layer * spec.n_text_ctx * spec.n_text_state * 4
        return BackendInfo(
            name="numpy",
            device="cpu",
            precision="float32",
            threads=self._threads,
            weight_bytes=self._weights.n_bytes,
            window_bytes=2 * spec.n_text_layer * spec.n_audio_ctx * spec.n_text_state * 4,
            row_bytes=row,
        )

    # Windows.

    def encode(self, mel: FloatArray) -> list[WindowId]:
        """Encode windows one after another: (windows, n_mels, 2 * n_audio_ctx)."""
        expected = (self.spec.n_mels, 2 * self.spec.n_audio_ctx)
        if mel.ndim != 3 or mel.shape[1:] != expected:
            raise BackendError(f"mel has shape {mel.shape}; expected (windows, {expected[0]}, {expected[1]})")
        ids = []
        with self._one_blas_thread():
            for one in mel:
                ids.append(WindowId(next(self._ids)))
                self._windows[ids[-1]] = self._cross_memory(encode(one, self._weights, self.spec, self._share))
        return ids

    def release(self, window: WindowId) -> None:
        """Give back a window's memory."""
        if any(row.window == window for row in self._rows.values()):
            raise BackendError(f"window {window} still has open rows")
        del self._windows[window]

    def _cross_memory(self, encoded: FloatArray) -> _Memory:
        """Project an encoded window (n_audio_ctx, d) to every decoder layer's keys and values."""
        w, spec = self._weights, self.spec
        width = spec.n_text_state // spec.n_text_head
        shape = (spec.n_text_layer, spec.n_text_head)
        memory = _Memory(
            keys=np.empty((*shape, width, spec.n_audio_ctx), dtype=np.float32),
            values=np.empty((*shape, spec.n_audio_ctx, width), dtype=np.float32),
        )

        def project(layer: int) -> None:
            block = f"decoder.blocks.{layer}.cross_attn"
            key, value = w.linear(encoded, f"{block}.key"), w.linear(encoded, f"{block}.value")
            memory.keys[layer] = key.reshape(-1, spec.n_text_head, width).transpose(1, 2, 0)
            memory.values[layer] = value.reshape(-1, spec.n_text_head, width).transpose(1, 0, 2)

        self._share(project, range(spec.n_text_layer))
        return memory

    def _share(self, work: Callable[[T], object], parts: Iterable[T]) -> None:
        """Let the pool's threads share a piece of work."""
        for _ in self._pool.map(work, parts):
            pass

    # Rows.

    def open(self, window: WindowId) -> RowId:
        """Open an empty row over a window."""
        if window not in self._windows:
            raise BackendError(f"window {window} is not here")
        spec = self.spec
        shape = (spec.n_text_layer, spec.n_text_head, spec.n_text_ctx, spec.n_text_state // spec.n_text_head)
        row = RowId(next(self._ids))
        # Memory that is never written is never taken: a short row costs what it holds.
        self._rows[row] = _Row(window, 0, np.empty(shape, np.float32), np.empty(shape, np.float32))
        return row

    def fork(self, row: RowId) -> RowId:
        """Open a row that holds the same tokens as another."""
        source = self._rows[row]
        new = self.open(source.window)
        target = self._rows[new]
        target.length = source.length
        target.keys[:, :, : source.length] = source.keys[:, :, : source.length]
        target.values[:, :, : source.length] = source.values[:, :, : source.length]
        return new

    def truncate(self, row: RowId, length: int) -> None:
        """Forget a row's tokens from position `length` on."""
        if not 0 <= length <= self._rows[row].length:
            raise BackendError(f"row {row} holds {self._rows[row].length} tokens; cannot cut it to {length}")
        self._rows[row].length = length

    def length(self, row: RowId) -> int:
        """How many tokens a row holds."""
        return self._rows[row].length

    def close(self, row: RowId) -> None:
        """Give back a row's memory."""
        del self._rows[row]

    def shut_down(self) -> None:
        """End the pool's threads and forget everything."""
        self._pool.shutdown()
        self._rows.clear()
        self._windows.clear()
        self._weights.clear()

    def step(self, steps: Sequence[RowStep]) -> list[RowResult]:
        """Advance each row by its new tokens."""
        self._check(steps)
        with self._one_blas_thread():
            # A lone row stays on this thread: handing it over costs more than it gains.
            advanced = list((self._pool.map if len(steps) > 1 else map)(self._advance, steps))
            logits = self._all_logits(steps, [x for x, _ in advanced])
        attention = (one for _, one in advanced)
        return [_answer(*parts) for parts in zip(steps, logits, attention, strict=True)]

    def _check(self, steps: Sequence[RowStep]) -> None:
        if len({one.row for one in steps}) != len(steps):
            raise BackendError("a row stands twice in one step")
        for one in steps:
            if one.row not in self._rows:
                raise BackendError(f"row {one.row} is not here")
            if not one.tokens:
                raise BackendError(f"row {one.row} brings no token")
            if self._rows[one.row].length + len(one.tokens) > self.spec.n_text_ctx:
                raise BackendError(f"row {one.row} would exceed {self.spec.n_text_ctx} tokens")
            if not 0 <= min(one.tokens) <= max(one.tokens) < self.spec.n_vocab:
                raise BackendError(f"row {one.row} brings an id outside 0 to {self.spec.n_vocab - 1}")

    def _advance(self, step: RowStep) -> tuple[FloatArray, FloatArray | None]:
        """Run a row's new tokens through all layers.

        Returns the last layer's output (n, d), and the attention scores (pairs, n, n_audio_ctx) if they are wanted.
        """
        row, w = self._rows[step.row], self._weights
        start, stop = row.length, row.length + len(step.tokens)
        x = w["decoder.token_embedding.weight"][list(step.tokens)]
        x += w["decoder.positional_embedding"][start:stop]
        scores: dict[int, FloatArray] = {}
        for layer in range(self.spec.n_text_layer):
            block = f"decoder.blocks.{layer}"
            x += self._attend_self(x, block, row, layer)
            wanted = any(layer == one for one, _ in step.attention)
            mix, seen = self._attend_cross(x, block, self._windows[row.window], layer, wanted)
            x += mix
            if seen is not None:
                scores[layer] = seen
            x += w.mlp(x, block)
        row.length = stop
        return x, np.stack([scores[layer][head] for layer, head in step.attention]) if step.attention else None

    def _attend_self(self, x: FloatArray, block: str, row: _Row, layer: int) -> FloatArray:
        w = self._weights
        n, start, stop = len(x), row.length, row.length + len(x)
        query, key, value = self._heads(w.linear(w.norm(x, f"{block}.attn_ln"), f"{block}.qkv"), 3)
        row.keys[layer, :, start:stop] = key
        row.values[layer, :, start:stop] = value
        scores = query @ row.keys[layer, :, :stop].transpose(0, 2, 1)
        scores *= np.float32(query.shape[-1] ** -0.5)
        if n > 1:  # a new token does not see those after it
            scores[:, np.triu(np.ones((n, stop), dtype=bool), k=start + 1)] = -np.inf
        mix = softmax(scores) @ row.values[layer, :, :stop]
        return w.linear(self._joined(mix), f"{block}.attn.out")

    def _attend_cross(
        self, x: FloatArray, block: str, memory: _Memory, layer: int, wanted: bool
    ) -> tuple[FloatArray, FloatArray | None]:
        """Attend to the window; also give the scores (heads, n, n_audio_ctx) before the softmax if wanted."""
        w = self._weights
        (query,) = self._heads(w.linear(w.norm(x, f"{block}.cross_attn_ln"), f"{block}.cross_attn.query"), 1)
        scores = query @ memory.keys[layer]
        scores *= np.float32(query.shape[-1] ** -0.5)
        kept = scores.copy() if wanted else None
        mix = softmax(scores) @ memory.values[layer]
        return w.linear(self._joined(mix), f"{block}.cross_attn.out"), kept

    def _heads(self, x: FloatArray, n_parts: int) -> FloatArray:
        """(n, parts * d) -> (parts, heads, n, width)."""
        return x.reshape(len(x), n_parts, self.spec.n_text_head, -1).transpose(1, 2, 0, 3)

    @staticmethod
    def _joined(x: FloatArray) -> FloatArray:
        """(heads, n, width) -> (n, d)."""
        return x.transpose(1, 0, 2).reshape(x.shape[1], -1)

    def _all_logits(self, steps: Sequence[RowStep], outputs: Sequence[FloatArray]) -> list[dict[int, FloatArray]]:
        """Multiply with the vocabulary at the positions that are asked for, and only there.

        outputs: a row's last layer (n, d).   Returns position -> logits (n_vocab,) for each row.
        """
        w = self._weights
        embedding = w["decoder.token_embedding.weight"]
        found: list[dict[int, FloatArray]] = [{} for _ in steps]
        products = []
        for logits, step, x in zip(found, steps, outputs, strict=True):
            for position in sorted(_wanted_positions(step)):
                logits[position] = np.empty(self.spec.n_vocab, np.float32)
                h = w.norm(x[position : position + 1], "decoder.ln")[0]
                products += [(logits[position], h, part) for part in range(0, self.spec.n_vocab, _VOCABULARY_PART)]

        def multiply(product: tuple[FloatArray, FloatArray, int]) -> None:
            logits, h, start = product
            rows = slice(start, start + _VOCABULARY_PART)
            np.matmul(embedding[rows], h, out=logits[rows])

        self._share(multiply, products)
        return found

    def _one_blas_thread(self) -> AbstractContextManager[Any]:
        """Keep BLAS on the calling thread: our pool shares out the work, and its threads do not spin."""
        limit: AbstractContextManager[Any] = self._blas.limit(limits=1, user_api="blas")
        return limit


def _wanted_positions(step: RowStep) -> set[int]:
    """Tell after which of a row's new tokens logits are needed."""
    last = {len(step.tokens) - 1} if step.choice is not None else set()
    return last | {one.position for one in step.probes} | set(step.logits_at)


def _answer(step: RowStep, logits: dict[int, FloatArray], attention: FloatArray | None) -> RowResult:
    """Turn logits by position into what the step asked for."""
    probes = tuple(probe(logits[one.position], one) for one in step.probes)
    whole = np.stack([logits[position] for position in step.logits_at]) if step.logits_at else None
    ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    if step.choice is not None:
        allowed = logits[len(step.tokens) - 1]
        ids, logprobs = choose(constrain(allowed, step.constraint), allowed, step.choice)
    return RowResult(ids=ids, logprobs=logprobs, probes=probes, logits=whole, attention=attention)


def _usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _blas_controller() -> Any:
    from threadpoolctl import ThreadpoolController  # noqa: PLC0415 (it looks through the loaded libraries: slow)

    return ThreadpoolController()
