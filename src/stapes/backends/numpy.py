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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from stapes.audio.mel import log10_mel
from stapes.backends.base import BackendInfo, FloatArray, LogMelKernel, RowId, RowResult, RowStep, WindowId
from stapes.backends.choosing import choose, constrain, probe
from stapes.backends.numpy_kernels import attend_all, gelu, layer_norm, linear, softmax
from stapes.checkpoint.base import Checkpoint, ModelSpec
from stapes.errors import BackendError

T = TypeVar("T")
#: positions that one thread takes at a time: the same cut on every machine, so that sums are the same too
_PART = 250


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
        self._weights = _Weights(checkpoint.tensors, self.spec)
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
                self._windows[ids[-1]] = self._cross_memory(self._encode_one(one))
        return ids

    def release(self, window: WindowId) -> None:
        """Give back a window's memory."""
        if any(row.window == window for row in self._rows.values()):
            raise BackendError(f"window {window} still has open rows")
        del self._windows[window]

    def _encode_one(self, mel: FloatArray) -> FloatArray:
        w, spec = self._weights, self.spec
        x = self._convolve(np.ascontiguousarray(mel.T), "conv1", stride=1)
        x = self._convolve(x, "conv2", stride=2)
        x += w["encoder.positional_embedding"]
        scale = np.float32((spec.n_audio_state // spec.n_audio_head) ** -0.5)
        qkv = np.empty((len(x), 3 * spec.n_audio_state), np.float32)
        heads = qkv.reshape(len(x), 3 * spec.n_audio_head, -1)
        mixed = np.empty_like(x)
        for layer in range(spec.n_audio_layer):
            block = f"encoder.blocks.{layer}"

            def before(rows: slice, block: str = block) -> None:
                h = layer_norm(x[rows], w[f"{block}.attn_ln.weight"], w[f"{block}.attn_ln.bias"])
                qkv[rows] = linear(h, w[f"{block}.qkv"], w[f"{block}.qkv_bias"])
                qkv[rows, : spec.n_audio_state] *= scale

            def attend(head: int) -> None:
                query, key, value = (part[:, head] for part in np.split(heads, 3, axis=1))
                mixed.reshape(len(x), spec.n_audio_head, -1)[:, head] = attend_all(query, key, value)

            def after(rows: slice, block: str = block) -> None:
                x[rows] += linear(mixed[rows], w[f"{block}.attn.out.weight"], w[f"{block}.attn.out.bias"])
                x[rows] += self._mlp(x[rows], block)

            self._share(before, _parts(len(x)))
            self._share(attend, range(spec.n_audio_head))
            self._share(after, _parts(len(x)))
        return layer_norm(x, w["encoder.ln_post.weight"], w["encoder.ln_post.bias"])

    def _convolve(self, x: FloatArray, name: str, stride: int) -> FloatArray:
        """Convolve (time, in) with three taps, one zero on either side, then GELU -> (time / stride, out)."""
        weight, bias = self._weights[name], self._weights[f"encoder.{name}.bias"]
        padded = np.zeros((len(x) + 2, x.shape[1]), dtype=np.float32)
        padded[1:-1] = x
        out = np.empty((len(x) // stride, len(weight)), dtype=np.float32)

        def part(rows: slice) -> None:
            taps = [padded[tap + stride * rows.start : tap + stride * rows.stop : stride] for tap in range(3)]
            out[rows] = gelu(linear(np.concatenate(taps, axis=1), weight, bias))

        self._share(part, _parts(len(out)))
        return out

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
            key = linear(encoded, w[f"{block}.key.weight"], None)
            value = linear(encoded, w[f"{block}.value.weight"], w[f"{block}.value.bias"])
            memory.keys[layer] = key.reshape(-1, spec.n_text_head, width).transpose(1, 2, 0)
            memory.values[layer] = value.reshape(-1, spec.n_text_head, width).transpose(1, 0, 2)

        self._share(project, range(spec.n_text_layer))
        return memory

    def _share(self, work: Callable[[T], object], parts: Iterable[T]) -> None:
        """Let the pool's threads share a piece of work."""
        for _ in self._pool.map(work, parts):
            pass

    def _mlp(self, x: FloatArray, block: str) -> FloatArray:
        w = self._weights
        h = layer_norm(x, w[f"{block}.mlp_ln.weight"], w[f"{block}.mlp_ln.bias"])
        h = gelu(linear(h, w[f"{block}.mlp.0.weight"], w[f"{block}.mlp.0.bias"]))
        return linear(h, w[f"{block}.mlp.2.weight"], w[f"{block}.mlp.2.bias"])

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
            if len(steps) == 1:
                return [self._step_row(steps[0])]
            return list(self._pool.map(self._step_row, steps))

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

    def _step_row(self, step: RowStep) -> RowResult:
        row, w, spec = self._rows[step.row], self._weights, self.spec
        start, stop = row.length, row.length + len(step.tokens)
        x = w["decoder.token_embedding.weight"][list(step.tokens)]
        x += w["decoder.positional_embedding"][start:stop]
        scores: dict[int, FloatArray] = {}
        wanted_layers = {layer for layer, _ in step.attention}
        for layer in range(spec.n_text_layer):
            block = f"decoder.blocks.{layer}"
            x += self._attend_self(x, block, row, layer)
            mix, cross_scores = self._attend_cross(x, block, self._windows[row.window], layer, layer in wanted_layers)
            x += mix
            if cross_scores is not None:
                scores[layer] = cross_scores
            x += self._mlp(x, block)
        row.length = stop
        attention = np.stack([scores[layer][head] for layer, head in step.attention]) if step.attention else None
        return self._answer(step, x, attention)

    def _attend_self(self, x: FloatArray, block: str, row: _Row, layer: int) -> FloatArray:
        w = self._weights
        n, start, stop = len(x), row.length, row.length + len(x)
        h = layer_norm(x, w[f"{block}.attn_ln.weight"], w[f"{block}.attn_ln.bias"])
        query, key, value = self._heads(linear(h, w[f"{block}.qkv"], w[f"{block}.qkv_bias"]), 3)
        row.keys[layer, :, start:stop] = key
        row.values[layer, :, start:stop] = value
        scores = query @ row.keys[layer, :, :stop].transpose(0, 2, 1)
        scores *= np.float32(query.shape[-1] ** -0.5)
        if n > 1:  # a new token does not see those after it
            scores[:, np.triu(np.ones((n, stop), dtype=bool), k=start + 1)] = -np.inf
        h = self._joined(softmax(scores) @ row.values[layer, :, :stop])
        return linear(h, w[f"{block}.attn.out.weight"], w[f"{block}.attn.out.bias"])

    def _attend_cross(
        self, x: FloatArray, block: str, memory: _Memory, layer: int, wanted: bool
    ) -> tuple[FloatArray, FloatArray | None]:
        """Attend to the window; also give the scores (heads, n, n_audio_ctx) before the softmax if wanted."""
        w = self._weights
        h = layer_norm(x, w[f"{block}.cross_attn_ln.weight"], w[f"{block}.cross_attn_ln.bias"])
        (query,) = self._heads(linear(h, w[f"{block}.cross_attn.query.weight"], w[f"{block}.cross_attn.query.bias"]), 1)
        scores = query @ memory.keys[layer]
        scores *= np.float32(query.shape[-1] ** -0.5)
        kept = scores.copy() if wanted else None
        h = self._joined(softmax(scores) @ memory.values[layer])
        return linear(h, w[f"{block}.cross_attn.out.weight"], w[f"{block}.cross_attn.out.bias"]), kept

    def _heads(self, x: FloatArray, n_parts: int) -> FloatArray:
        """(n, parts * d) -> (parts, heads, n, width)."""
        return x.reshape(len(x), n_parts, self.spec.n_text_head, -1).transpose(1, 2, 0, 3)

    @staticmethod
    def _joined(x: FloatArray) -> FloatArray:
        """(heads, n, width) -> (n, d)."""
        return x.transpose(1, 0, 2).reshape(x.shape[1], -1)

    def _answer(self, step: RowStep, x: FloatArray, attention: FloatArray | None) -> RowResult:
        """Turn the last layer's output (n, d) into what the step asked for; logits only where they are needed."""
        w, last = self._weights, len(step.tokens) - 1
        positions = {one.position for one in step.probes} | set(step.logits_at) | ({last} if step.choice else set())
        logits: dict[int, FloatArray] = {}
        for position in sorted(positions):
            h = layer_norm(x[position : position + 1], w["decoder.ln.weight"], w["decoder.ln.bias"])
            logits[position] = (h @ w["decoder.token_embedding.weight"].T)[0]
        probes = tuple(probe(logits[one.position], one) for one in step.probes)
        whole = np.stack([logits[position] for position in step.logits_at]) if step.logits_at else None
        ids: tuple[int, ...] = ()
        logprobs: tuple[float, ...] = ()
        if step.choice is not None:
            allowed = logits[last]
            ids, logprobs = choose(constrain(allowed, step.constraint), allowed, step.choice)
        return RowResult(ids=ids, logprobs=logprobs, probes=probes, logits=whole, attention=attention)

    def _one_blas_thread(self) -> AbstractContextManager[Any]:
        """Keep BLAS on the calling thread: our pool shares out the work, and its threads do not spin."""
        limit: AbstractContextManager[Any] = self._blas.limit(limits=1, user_api="blas")
        return limit


class _Weights(dict[str, FloatArray]):
    """The tensors as float32, those that are multiplied together joined into one."""

    def __init__(self, tensors: Mapping[str, Any], spec: ModelSpec) -> None:
        super().__init__()
        for name in tensors:
            if not name.endswith(("query.weight", "query.bias", "conv1.weight", "conv2.weight")):
                self[name] = np.ascontiguousarray(tensors[name], dtype=np.float32)
        for name in ("conv1", "conv2"):  # (out, in, 3) -> (out, 3 * in)
            weight = np.asarray(tensors[f"encoder.{name}.weight"], dtype=np.float32)
            self[name] = np.ascontiguousarray(weight.transpose(0, 2, 1)).reshape(len(weight), -1)
        for side, n_layer in (("encoder", spec.n_audio_layer), ("decoder", spec.n_text_layer)):
            for layer in range(n_layer):
                self._join(f"{side}.blocks.{layer}", tensors)
        self.n_bytes = sum(array.nbytes for array in self.values())

    def _join(self, block: str, tensors: Mapping[str, Any]) -> None:
        attn = f"{block}.attn"
        query = np.asarray(tensors[f"{attn}.query.weight"], dtype=np.float32)
        self[f"{block}.qkv"] = np.concatenate((query, self.pop(f"{attn}.key.weight"), self.pop(f"{attn}.value.weight")))
        bias = np.asarray(tensors[f"{attn}.query.bias"], dtype=np.float32)
        self[f"{block}.qkv_bias"] = np.concatenate((bias, np.zeros_like(bias), self.pop(f"{attn}.value.bias")))
        cross = f"{block}.cross_attn.query"
        if f"{cross}.weight" in tensors:
            for part in ("weight", "bias"):
                self[f"{cross}.{part}"] = np.ascontiguousarray(tensors[f"{cross}.{part}"], dtype=np.float32)


def _parts(n: int) -> Iterator[slice]:
    """Cut n positions into stretches for the pool."""
    return (slice(start, min(start + _PART, n)) for start in range(0, n, _PART))


def _usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _blas_controller() -> Any:
    from threadpoolctl import ThreadpoolController  # noqa: PLC0415 (it looks through the loaded libraries: slow)

    return ThreadpoolController()
