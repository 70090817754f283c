"""The network in NumPy, float32: plain, exact, and runs anywhere.

Every row and every window is computed separately, so the batch cannot change its numbers. With NumPy's BLAS this costs
nothing: one matrix-vector product (GEMV) per row is as fast as one thin GEMM for five rows
(docs/experiments/2026-11-23-numpy-rows-together.md).
The encoder's work is shared by a thread pool; the decoder's products are too small for that, and BLAS's own
threads share them while that helps (blas_threads.py). Source of the network: openai/whisper model.py at c0d2f62.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, TypeVar

import numpy as np

from stapes.backends.base import BackendInfo, FloatArray, RowId, StepAnswers, StepBatch, WindowId
from stapes.backends.handles import Handles, HandlesBackend, Row
from stapes.backends.numpy.blas_threads import AdaptiveThreads
from stapes.backends.numpy.encoder import encode
from stapes.backends.numpy.kernels import gelu, softmax
from stapes.backends.numpy.weights import ID_BLOCK, Weights
from stapes.backends.resources import usable_cores
from stapes.backends.rowwise import RowResult, RowStep, answers_of, steps_of
from stapes.backends.sampling import choose, constrain, probe
from stapes.checkpoint.base import Checkpoint
from stapes.runtime.processes import ForkGate, register

T = TypeVar("T")


@dataclass(slots=True)
class _Cache:
    """The self-attention keys and values of one decoder row."""

    keys: FloatArray  # (layers, heads, n_text_ctx, width)
    values: FloatArray


@dataclass(slots=True)
class _Memory:
    """The cross-attention keys and values of one window."""

    keys: FloatArray  # (layers, heads, width, positions)
    values: FloatArray  # (layers, heads, positions, width)

    def part(self, within: tuple[int, int] | None) -> _Memory:
        """Return a view of some positions; None: of all."""
        chosen = slice(*within) if within else slice(None)
        return _Memory(self.keys[..., chosen], self.values[:, :, chosen])


class _Pools:
    """For each number of threads one pool, which all NumPy backends of the process share."""

    def __init__(self) -> None:
        self.after_fork()
        register(self)

    def after_fork(self) -> None:
        """Have no threads yet; a forked child has none of the parent's."""
        self._pools: dict[int, ThreadPoolExecutor] = {}

    def of(self, n_threads: int) -> ThreadPoolExecutor:
        """Return the pool of so many threads, which start when they are needed."""
        found = self._pools.get(n_threads)
        return found or self._pools.setdefault(n_threads, ThreadPoolExecutor(n_threads, "stapes-numpy"))


_pools: Final = _Pools()


class NumpyBackend(HandlesBackend[_Memory, _Cache]):
    """Satisfies `stapes.backends.base.Backend`."""

    def __init__(self, checkpoint: Checkpoint, threads: int | None = None) -> None:
        """Take the weights as float32; threads: None uses every core that the process may use."""
        self.spec = checkpoint.spec
        self._weights = Weights(checkpoint.tensors, self.spec)
        self.handles = Handles(self.spec)
        self._threads = threads or usable_cores()
        self._adaptive = AdaptiveThreads(self._threads)
        self._blas = _blas_controller()
        self._gate = ForkGate()  # OpenBLAS sometimes holds a lock, which would stay locked in the child

    @property
    def info(self) -> BackendInfo:
        return BackendInfo(
            name="numpy",
            device="cpu",
            precision="float32",
            threads=self._threads,
            weight_bytes=self._weights.n_bytes,
            row_bytes=self.spec.n_text_ctx * self._position_bytes,
        )

    @property
    def _position_bytes(self) -> int:
        return 2 * self.spec.n_text_layer * self.spec.n_text_state * 4  # of keys and values, float32

    # Windows.

    def window_bytes(self, positions: int) -> int:
        return positions * self._position_bytes

    def encode(self, mel: FloatArray) -> list[WindowId]:
        positions = self.handles.check_mel(mel)
        with self._blas_threads(1):
            memories = [self._cross_memory(encode(one, self._weights, self.spec, self._share)) for one in mel]
        return [self.handles.add_window(memory, positions) for memory in memories]

    def _cross_memory(self, encoded: FloatArray) -> _Memory:
        w, spec = self._weights, self.spec
        width = spec.n_text_state // spec.n_text_head
        shape = (spec.n_text_layer, spec.n_text_head)
        memory = _Memory(
            keys=np.empty((*shape, width, len(encoded)), dtype=np.float32),
            values=np.empty((*shape, len(encoded), width), dtype=np.float32),
        )

        def project(layer: int) -> None:
            block = f"decoder.blocks.{layer}.cross_attn"
            key, value = w.linear(encoded, f"{block}.key"), w.linear(encoded, f"{block}.value")
            memory.keys[layer] = key.reshape(-1, spec.n_text_head, width).transpose(1, 2, 0)
            memory.values[layer] = value.reshape(-1, spec.n_text_head, width).transpose(1, 0, 2)

        self._share(project, range(spec.n_text_layer))
        return memory

    def _share(self, work: Callable[[T], object], parts: Sequence[T]) -> None:
        """Run a piece of work on the calling thread and the pool's. It does not nest."""
        left = iter(parts)  # threads take from one iterator: each part is taken once

        def take() -> None:
            for part in left:
                work(part)

        helpers = [_pools.of(self._threads).submit(take) for _ in range(min(self._threads, len(parts)) - 1)]
        try:
            take()
        finally:
            for helper in helpers:
                helper.result()

    # Rows.

    def open(self, window: WindowId) -> RowId:
        return self.handles.add_row(window, self._empty_cache())

    def _empty_cache(self) -> _Cache:
        spec = self.spec
        shape = (spec.n_text_layer, spec.n_text_head, spec.n_text_ctx, spec.n_text_state // spec.n_text_head)
        # Memory that is never written is never taken: a short row costs what it holds.
        return _Cache(np.empty(shape, np.float32), np.empty(shape, np.float32))

    def fork(self, row: RowId) -> RowId:
        source, cache = self.handles.row(row), self._empty_cache()
        cache.keys[:, :, : source.length] = source.cache.keys[:, :, : source.length]
        cache.values[:, :, : source.length] = source.cache.values[:, :, : source.length]
        return self.handles.add_row(source.window, cache, source.length)

    def shut_down(self) -> None:
        self.handles.clear()
        self._weights.clear()

    def step(self, batch: StepBatch) -> StepAnswers:
        self.handles.check(batch)
        turns = [one.turns for one in steps_of(batch)]
        steps = [one for row in turns for one in row]
        # A prompt is one large product for each layer: steps with one do not measure thin products.
        thin = all(len(one.tokens) == 1 for one in steps)
        started = time.perf_counter()
        with self._blas_threads(self._adaptive.n_threads if thin else 1):
            results = [self._advance(one) for one in steps]
            logits = [self._logits(one, x) for one, (x, _) in zip(steps, results, strict=True)]
        if thin and steps:
            self._adaptive.note((time.perf_counter() - started) / len(steps))
        attention = (one for _, one in results)
        answers = iter([_answer(*parts) for parts in zip(steps, logits, attention, strict=True)])
        return answers_of([RowResult.joined(list(islice(answers, len(row)))) for row in turns])

    def _advance(self, step: RowStep) -> tuple[FloatArray, FloatArray | None]:
        """Run a row's new tokens through all layers.
        Returns the last layer's output (n, d), and the attention scores (pairs, n, positions) if they are wanted.
        """
        row, w = self.handles.row(step.row), self._weights
        start, stop = row.length, row.length + len(step.tokens)
        x = w["decoder.token_embedding.weight"][list(step.tokens)]
        x += w["decoder.positional_embedding"][start:stop]
        window = self.handles.window(row.window)
        part = window.memory.part(step.within)
        seen = np.empty((len(step.attention), len(step.tokens), window.positions), np.float32)
        for layer in range(self.spec.n_text_layer):
            block = f"decoder.blocks.{layer}"
            x += self._attend_self(x, block, row, layer)
            wanted = [(head, seen[i]) for i, (its_layer, head) in enumerate(step.attention) if its_layer == layer]
            x += self._attend_cross(x, block, part, layer, wanted)
            h = gelu(w.linear(w.norm(x, f"{block}.mlp_ln"), f"{block}.mlp.0"))
            x += w.linear(h, f"{block}.mlp.2")
        row.length = stop
        return x, seen if step.attention else None

    def _attend_self(self, x: FloatArray, block: str, row: Row[_Cache], layer: int) -> FloatArray:
        w = self._weights
        n, start, stop = len(x), row.length, row.length + len(x)
        query, key, value = self._heads(w.linear(w.norm(x, f"{block}.attn_ln"), f"{block}.qkv"), 3)
        row.cache.keys[layer, :, start:stop] = key
        row.cache.values[layer, :, start:stop] = value
        scores = query @ row.cache.keys[layer, :, :stop].transpose(0, 2, 1)
        scores *= np.float32(query.shape[-1] ** -0.5)
        if n > 1:  # a new token does not see those after it
            scores[:, np.triu(np.ones((n, stop), dtype=bool), k=start + 1)] = -np.inf
        mix = softmax(scores) @ row.cache.values[layer, :, :stop]
        return w.linear(self._joined(mix), f"{block}.attn.out")

    def _attend_cross(
        self, x: FloatArray, block: str, memory: _Memory, layer: int, wanted: Sequence[tuple[int, FloatArray]]
    ) -> FloatArray:
        """Attend to the window. wanted: heads, and where their scores before the softmax go: (n, positions) each."""
        w = self._weights
        (query,) = self._heads(w.linear(w.norm(x, f"{block}.cross_attn_ln"), f"{block}.cross_attn.query"), 1)
        scores = query @ memory.keys[layer]
        scores *= np.float32(query.shape[-1] ** -0.5)
        for head, kept in wanted:
            kept[:] = scores[head]
        mix = softmax(scores) @ memory.values[layer]
        return w.linear(self._joined(mix), f"{block}.cross_attn.out")

    def _heads(self, x: FloatArray, n_parts: int) -> FloatArray:
        """(n, parts * d) -> (parts, heads, n, width)."""
        return x.reshape(len(x), n_parts, self.spec.n_text_head, -1).transpose(1, 2, 0, 3)

    @staticmethod
    def _joined(x: FloatArray) -> FloatArray:
        """(heads, n, width) -> (n, d)."""
        return x.transpose(1, 0, 2).reshape(x.shape[1], -1)

    def _logits(self, step: RowStep, x: FloatArray) -> dict[int, FloatArray]:
        """Return position -> logits (n_vocab,), only for positions that are asked for; -inf where only a choice is
        wanted and its constraint forbids the id. x: the last layer's output (n, d).
        """
        embedding = self._weights["decoder.token_embedding.weight"]
        found: dict[int, FloatArray] = {}
        for position in sorted(_wanted_positions(step)):
            h = self._weights.norm(x[position : position + 1], "decoder.ln")[0]
            allowed = _allowed_span(step, position, self.spec.n_vocab)
            logits = np.full(len(embedding), -np.inf, np.float32)
            np.matmul(embedding[allowed], h, out=logits[allowed])
            found[position] = logits[: self.spec.n_vocab]
        return found

    @contextmanager
    def _blas_threads(self, n: int) -> Iterator[None]:
        """Let BLAS use n threads for a while: one where the pool shares the work, all where it does not."""
        with self._gate.held(), self._blas.limit(limits=n, user_api="blas"):
            yield


def _wanted_positions(step: RowStep) -> set[int]:
    last = {len(step.tokens) - 1} if step.choice is not None else set()
    return last | {one.position for one in step.probes} | set(step.logits_at)


def _allowed_span(step: RowStep, position: int, n_vocab: int) -> slice:
    """Cut off the lower and upper ids that the constraint forbids: a timestamp is often all that may come."""
    if position in step.logits_at or any(position == one.position for one in step.probes):
        return slice(0, -(-n_vocab // ID_BLOCK) * ID_BLOCK)
    start = max((stop for first, stop in step.constraint.now if first == 0), default=0)
    end = min((first for first, stop in step.constraint.now if stop >= n_vocab), default=n_vocab)
    # Whole blocks of ids, so that each id's sum runs as it does in the whole product.
    return slice(start // ID_BLOCK * ID_BLOCK, -(-end // ID_BLOCK) * ID_BLOCK) if start < end else slice(0, 0)


def _answer(step: RowStep, logits: dict[int, FloatArray], attention: FloatArray | None) -> RowResult:
    probes = tuple(probe(logits[one.position], one) for one in step.probes)
    whole = np.stack([logits[position] for position in step.logits_at]) if step.logits_at else None
    ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    if step.choice is not None:
        allowed = logits[len(step.tokens) - 1]
        ids, logprobs = choose(constrain(allowed, step.constraint), allowed, step.choice)
    return RowResult(ids=ids, logprobs=logprobs, probes=probes, logits=whole, attention=attention)


def _blas_controller() -> Any:
    from threadpoolctl import ThreadpoolController  # noqa: PLC0415 (it looks through the loaded libraries: slow)

    return ThreadpoolController()
