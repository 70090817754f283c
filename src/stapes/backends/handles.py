"""Which windows and rows a backend holds: handles, checks and lifetimes, the same for every backend.

The backend knows what the memory of a window or a row is; this file checks that a handle is open.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Generic, TypeVar

from stapes.backends.base import (
    BEST,
    PART_POSITIONS,
    TOP,
    FloatArray,
    LogMelKernel,
    RowExtras,
    RowId,
    StepBatch,
    TokenColumnsKernel,
    WindowId,
)
from stapes.backends.numerics import log10_mel, token_columns
from stapes.checkpoint.base import ModelSpec
from stapes.errors import BackendError

Memory = TypeVar("Memory")
Cache = TypeVar("Cache")


@dataclass(slots=True)
class Window(Generic[Memory]):
    """One encoded window."""

    memory: Memory
    positions: int


@dataclass(slots=True)
class Row(Generic[Cache]):
    """One open decoder row."""

    window: WindowId
    length: int  # tokens that it holds
    cache: Cache


class Handles(Generic[Memory, Cache]):
    """Windows and rows by id. Every method raises BackendError for an id that is not here."""

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._ids = itertools.count()
        self._windows: dict[WindowId, Window[Memory]] = {}
        self._rows: dict[RowId, Row[Cache]] = {}

    def __len__(self) -> int:
        """How many windows and rows were not given back."""
        return len(self._windows) + len(self._rows)

    @property
    def n_windows(self) -> int:
        """How many windows are here."""
        return len(self._windows)

    @property
    def n_rows(self) -> int:
        """How many rows are open."""
        return len(self._rows)

    def add_window(self, memory: Memory, positions: int) -> WindowId:
        """Keep a window's memory."""
        window = WindowId(next(self._ids))
        self._windows[window] = Window(memory, positions)
        return window

    def memories(self) -> list[Memory]:
        """Return the memory of every window."""
        return [one.memory for one in self._windows.values()]

    def window(self, window: WindowId) -> Window[Memory]:
        """Return a window."""
        if window not in self._windows:
            raise BackendError(f"window {window} is not here")
        return self._windows[window]

    def release(self, window: WindowId) -> None:
        """Forget a window; its rows must be closed."""
        self.window(window)
        if any(row.window == window for row in self._rows.values()):
            raise BackendError(f"window {window} still has open rows")
        del self._windows[window]

    def add_row(self, window: WindowId, cache: Cache, length: int = 0) -> RowId:
        """Keep a row over a window."""
        self.window(window)
        row = RowId(next(self._ids))
        self._rows[row] = Row(window, length, cache)
        return row

    def row(self, row: RowId) -> Row[Cache]:
        """Return a row."""
        if row not in self._rows:
            raise BackendError(f"row {row} is not here")
        return self._rows[row]

    def truncate(self, row: RowId, length: int) -> None:
        """Shorten a row to `length` tokens."""
        held = self.row(row).length
        if not 0 <= length <= held:
            raise BackendError(f"row {row} holds {held} tokens; cannot cut it to {length}")
        self._rows[row].length = length

    def close(self, row: RowId) -> None:
        """Forget a row."""
        self.row(row)
        del self._rows[row]

    def clear(self) -> None:
        """Forget everything."""
        self._rows.clear()
        self._windows.clear()

    def check_mel(self, mel: FloatArray) -> int:
        """Return how many positions the windows of a log-mel have. Refuses any other shape than `encode` takes."""
        n_mels, most = self._spec.n_mels, self._spec.n_audio_ctx
        if mel.ndim != 3 or mel.shape[1] != n_mels or mel.shape[2] % 2:
            raise BackendError(f"mel has shape {mel.shape}; expected (windows, {n_mels}, 2 * positions)")
        positions: int = mel.shape[2] // 2
        if positions != most and not (0 < positions < most and positions % PART_POSITIONS == 0):
            raise BackendError(
                f"mel has {positions} positions a window; expected {most}, or a multiple of {PART_POSITIONS} below"
            )
        return positions

    def check(self, batch: StepBatch) -> tuple[list[Row[Cache]], list[Memory], list[int]]:
        """Return a step's rows, their windows, and how many tokens each row brings.

        Refuses all of it before any is done: native code checks nothing. Loops over lists: for few rows, as is usual,
        they take a fifth of the time of NumPy's calls, and for 128 no more.
        """
        spec, ids, ends = self._spec, batch.rows.tolist(), batch.token_ends.tolist()
        tokens, rows = batch.tokens.tolist(), [self.row(one) for one in ids]
        if len(ids) != len(ends) or len(tokens) != (ends[-1] if ends else 0):
            raise BackendError("a step's tokens end elsewhere than its rows")
        if len(set(ids)) != len(ids):
            raise BackendError("a row stands twice in one step")
        counts = [end - begin for begin, end in zip([0, *ends[:-1]], ends, strict=False)]
        for one, row, n in zip(ids, rows, counts, strict=True):
            if n < 1:
                raise BackendError(f"row {one} brings no token")
            if row.length + n > spec.n_text_ctx:
                raise BackendError(f"row {one} would exceed {spec.n_text_ctx} tokens")
        if tokens and not 0 <= min(tokens) <= max(tokens) < spec.n_vocab:
            raise BackendError(f"a row brings an id outside 0 to {spec.n_vocab - 1}")
        self._check_choices(batch, counts)
        for index, extras in batch.extras.items():
            positions = self._windows[rows[index].window].positions
            _check_extras(spec, ids[index], counts[index], positions, extras)
        return rows, [self._windows[row.window].memory for row in rows], counts

    def _check_choices(self, batch: StepBatch, counts: Sequence[int]) -> None:
        n_vocab, n_chosen, votes = self._spec.n_vocab, batch.n_chosen.tolist(), batch.vote_from.tolist()
        if n_chosen and not 0 <= min(n_chosen) <= max(n_chosen) <= n_vocab:
            raise BackendError(f"a row chooses more than the {n_vocab} ids that there are")
        for method, n in zip(batch.methods.tolist(), n_chosen, strict=True):
            if not BEST <= method <= TOP or (method == BEST and n != 1):
                raise BackendError("a row chooses in no known way")
        if votes and not -1 <= min(votes) <= max(votes) <= n_vocab:
            raise BackendError(f"a row votes from an id outside 0 to {n_vocab}")
        last, several = (-1, -1), set[int]()
        for one in zip(batch.choice_rows.tolist(), batch.choice_positions.tolist(), strict=True):
            owner, position = one
            if not 0 <= position < counts[owner]:
                raise BackendError("a row chooses after a position outside its new tokens")
            if one <= last:
                raise BackendError("choices must be in the order of their rows and positions")
            if owner == last[0]:
                several.add(owner)
            last = one
        if several:
            _check_several(batch, several)
        for permanent in batch.permanents:
            if len(permanent.array) and not 0 <= permanent.array[0] <= permanent.array[-1] < n_vocab:
                raise BackendError(f"a row forbids an id outside 0 to {n_vocab - 1}")


def _check_several(batch: StepBatch, several: Set[int]) -> None:
    """Refuse rows with several choices that are not all of the best, or beside other answers."""
    methods = zip(batch.choice_rows.tolist(), batch.methods.tolist(), strict=True)
    if any(owner in several and method != BEST for owner, method in methods):
        raise BackendError("a row that chooses after several positions must choose the best each time")
    for extras in (batch.extras.get(index) for index in several):
        if extras is not None and (extras.probes or extras.logits_at or extras.attention):
            raise BackendError("a row that chooses after several positions can be asked for nothing else")


def _check_extras(spec: ModelSpec, row: int, n_tokens: int, window_positions: int, extras: RowExtras) -> None:
    """Refuse positions, ids and heads that do not exist."""
    positions = (*extras.logits_at, *(probe.position for probe in extras.probes))
    if any(not 0 <= position < n_tokens for position in positions):
        raise BackendError(f"row {row} asks for a position outside its {n_tokens} new tokens")
    ids = [one for probe in extras.probes for one in probe.ids]
    if any(probe.below is not None and not 0 < probe.below <= spec.n_vocab for probe in extras.probes):
        raise BackendError(f"row {row} measures against ids below none of 1 to {spec.n_vocab}")
    if ids and not 0 <= min(ids) <= max(ids) < spec.n_vocab:
        raise BackendError(f"row {row} asks for an id outside 0 to {spec.n_vocab - 1}")
    first, end = extras.within or (0, window_positions)
    if not 0 <= first < end <= window_positions or first % PART_POSITIONS or (extras.within and extras.attention):
        raise BackendError(f"row {row} cannot attend to positions {first} to {end} of its window alone")
    if any(not (0 <= layer < spec.n_text_layer and 0 <= head < spec.n_text_head) for layer, head in extras.attention):
        raise BackendError(f"row {row} asks for a head that is not there")


class HandlesBackend(Generic[Memory, Cache]):
    """What backends have in common: lifetimes, lengths, and NumPy's kernels where a backend has none of its own."""

    spec: ModelSpec
    handles: Handles[Memory, Cache]

    @property
    def log10_mel(self) -> LogMelKernel:
        return log10_mel

    @property
    def token_columns(self) -> TokenColumnsKernel:
        return token_columns

    def positions(self, window: WindowId) -> int:
        return self.handles.window(window).positions

    def is_encoded(self, window: WindowId) -> bool:
        self.handles.window(window)
        return True

    def release(self, window: WindowId) -> None:
        self.handles.release(window)

    def truncate(self, row: RowId, length: int) -> None:
        self.handles.truncate(row, length)

    def length(self, row: RowId) -> int:
        return self.handles.row(row).length

    def close(self, row: RowId) -> None:
        self.handles.close(row)
