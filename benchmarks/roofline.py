"""The machine's peaks, measured, and the least time that they allow for the network's work.

A peak of operations comes from the command line, else from the native library, which multiplies what is in registers
(`stapes._native.peak`), else, for float32, from NumPy's matrix product. The rate of reading is the library's too, or
NumPy's, over as many bytes as a step touches.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

#: bytes of a stored weight, and of a key or value
_WEIGHT_BYTES = {"float32": 2, "bfloat16": 2, "int8": 1}  # published weights are float16: float32 may keep them so
_MEMORY_BYTES = {"float32": 4, "bfloat16": 2, "int8": 2}
_WINDOW_BYTES = _MEMORY_BYTES | {"int8": 1}
#: what the encoder may be multiplied in: on some sets one is quicker, on some the other
_ENCODER_TYPES = {"float32": ("float32",), "bfloat16": ("bfloat16",), "int8": ("bfloat16", "int16")}
_OWN, _NUMPYS = "stapes._native.peak", "NumPy"
_ROUNDS = 1_000_000  # of 12 or 24 products of vectors, eight times for each thread: some 20 ms


@dataclass(frozen=True, slots=True)
class Network:
    """The sizes that the work depends on; the defaults are those of `base`."""

    width: int = 512
    layers: int = 6
    vocabulary: int = 51865
    positions: int = 1500
    mels: int = 80

    @property
    def linear_operations(self) -> float:
        """Operations of an encoder window outside attention: convolutions, four projections, the two layers of 4x.

        The cross-attention's keys and values are among them: the decoder reads them as the encoder leaves them.
        """
        convolutions = 2 * 3 * self.width * self.positions * (2 * self.mels + self.width)
        per_layer = 2 * 12 * self.width**2 * self.positions
        cross = 2 * 2 * self.width**2 * self.positions
        return float(convolutions + self.layers * (per_layer + cross))

    @property
    def attention_operations(self) -> float:
        """Operations of the scores and of their sums over the values, in all encoder layers."""
        return float(self.layers * 2 * 2 * self.positions**2 * self.width)

    def step_bytes(self, precision: str, *, depth: int, rows: int) -> float:
        """Bytes that a decoder step must read: the weights once, and each row's keys and values.

        What int8 multiplies in full of the vocabulary is left out: a few thousandths of it, or nothing.
        """
        weights = self.layers * 14 * self.width**2 + self.vocabulary * self.width
        row_bytes = self.positions * _WINDOW_BYTES[precision] + depth * _MEMORY_BYTES[precision]
        memory = self.layers * 2 * self.width * row_bytes
        return float(weights * _WEIGHT_BYTES[precision] + rows * memory)


@dataclass(frozen=True, slots=True)
class Roofline:
    """Peaks of one machine."""

    operations: dict[str, float]  # type -> 10^9 operations a second, all threads together
    read_rates: dict[int, float]  # bytes, in millions -> 10^9 bytes a second
    source: dict[str, str]  # type, or "reading" -> where its peak comes from
    network: Network

    def bounds_s(self, precision: str, *, depth: int, rows: int) -> dict[str, float]:
        """Return the least seconds for a window and for a step; a type without a peak has none for the window."""
        bounds = {}
        peak = max((self.operations.get(name, 0.0) for name in _ENCODER_TYPES.get(precision, ())), default=0.0)
        if peak:
            bounds["encode_s"] = (self.network.linear_operations + self.network.attention_operations) / peak / 1e9
        if precision in _WEIGHT_BYTES:
            for name, n_rows in (("step_s", 1), (f"step_{rows}_rows_s", rows)):
                n_bytes = self.network.step_bytes(precision, depth=depth, rows=n_rows)
                bounds[name] = n_bytes / self.read_rate(n_bytes) / 1e9
        return bounds

    def read_rate(self, n_bytes: float) -> float:
        """Return the rate measured over the nearest size."""
        nearest = min(self.read_rates, key=lambda millions: abs(millions * 1e6 - n_bytes))
        return self.read_rates[nearest]

    def best(self, other: Roofline) -> Roofline:
        """Put two measurements of one machine together: the higher figure of each."""
        return Roofline(
            {name: max(peak, other.operations.get(name, peak)) for name, peak in self.operations.items()},
            {size: max(rate, other.read_rates.get(size, rate)) for size, rate in self.read_rates.items()},
            self.source,
            self.network,
        )

    def as_json(self) -> dict[str, Any]:
        """Return what a result keeps."""
        rates = {str(size): rate for size, rate in self.read_rates.items()}
        return {"gigaoperations_per_s": self.operations, "source": self.source, "read_gb_per_s_by_mb": rates}


def roofline(*, threads: int, given: Mapping[str, float], network: Network | None = None) -> Roofline:
    """Measure what can be measured here; `given` peaks win."""
    operations, source = dict(given), dict.fromkeys(given, "given")
    library = _native_library()
    for name in (*_WEIGHT_BYTES, "int16"):
        if name not in operations and library is not None:
            operations[name], source[name] = round(_register_peak(library, name, threads), 1), _OWN
    if "float32" not in operations:
        operations["float32"], source["float32"] = round(_product_peak(threads), 1), "NumPy's matrix product"
    network = network or Network()
    sizes = {round(network.step_bytes(name, depth=43, rows=rows) / 1e6) for name in _WEIGHT_BYTES for rows in (1, 8)}
    source["reading"] = _NUMPYS if library is None else _OWN
    rates = {size: round(_read_rate(library, size * 10**6, threads), 1) for size in sorted(sizes)}
    return Roofline(operations, rates, source, network)


def _native_library() -> Any | None:
    """Return the native library, where there is one."""
    try:
        return importlib.import_module("stapes._native")
    except ImportError:
        return None


def _register_peak(library: Any, name: str, threads: int) -> float:
    """Time multiply-adds, two operations each, that wait for no memory, on the best instruction set."""
    call = partial(library.peak.multiply_in_registers, library.isa_names()[0], name, threads, _ROUNDS)
    return float(2 * call() / _best_s(call) / 1e9)


def _product_peak(threads: int) -> float:
    """Time square products that fit the caches."""
    a = np.ones((1536, 1536), np.float32)
    with threadpool_limits(threads):
        seconds = _best_s(lambda: a @ a)
    return float(2 * len(a) ** 3 / seconds / 1e9)


def _read_rate(library: Any | None, n_bytes: int, threads: int) -> float:
    """Time reading from end to end; with NumPy dot products, which read two arrays once and write nothing."""
    if library is not None:
        numbers, isa = np.ones(n_bytes // 4, np.float32), library.isa_names()[0]
        return float(numbers.nbytes / _best_s(lambda: library.peak.read_through(isa, numbers, threads)) / 1e9)
    halves = np.ones((threads, 2, n_bytes // (8 * threads)), np.float32)  # 2 arrays of 4 bytes
    pieces = list(halves.reshape(threads, 2, -1))
    with ThreadPoolExecutor(threads) as pool:
        seconds = _best_s(lambda: list(pool.map(_read, pieces)))
    return float(halves.nbytes / seconds / 1e9)


def _read(piece: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    # In pieces that BLAS leaves to one thread: this thread's.
    for start in range(0, piece.shape[1], 8192):
        np.dot(piece[0, start : start + 8192], piece[1, start : start + 8192])


def _best_s(work: Callable[[], object], turns: int = 8) -> float:
    """Return the shortest of several times: a peak is the machine's rate without disturbance."""
    times = []
    for _ in range(turns):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)
