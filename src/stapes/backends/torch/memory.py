"""Keys and values on a device: a window has a slot, a row has a place; both are indices into a few large tensors.

A slot's index is its window's index in a batch: a step reads the first slots as they lie, without a gather. So low
slots are taken first, and windows move down when that makes a step's bucket smaller. The first place of a slot is at
the same index in the rows' tensor, for the one row of the window that is stepped (greedy decoding); further rows
(the prompt's, beams) have extra places after all slots.

A fork copies nothing until the next step: it notes where its tokens lie. Then all copies are one.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

from stapes.backends.torch.device import Device
from stapes.checkpoint.base import ModelSpec
from stapes.errors import OutOfDeviceMemoryError

#: windows of a captured step; above the last one, steps are plain calls
BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64, 128)
_COPIED_BYTES: Final = 256_000_000  # at most, of rows that are copied at once
_MORE_EXTRAS: Final = 4  # at least; where there is room, half as many as there are slots
_ALIGNMENT: Final = 8  # of positions: fused attention takes masks of such lengths


def bucket_of(n: int, buckets: Sequence[int] = BUCKETS) -> int | None:
    """Return the smallest bucket that holds n, or None."""
    return next((one for one in buckets if n <= one), None)


def aligned(positions: int) -> int:
    """Return how many positions are read for so many: the next multiple of what fused attention takes."""
    return -(-positions // _ALIGNMENT) * _ALIGNMENT


@dataclass(slots=True, eq=False)
class Slot:
    """The memory of one encoded window."""

    index: int
    positions: int
    ready: Any = None  # a CUDA event after which it is written; None: it is


@dataclass(slots=True, eq=False)
class RowCache:
    """The memory of one row."""

    slot: Slot
    place: int  # at least 0: the first of that slot; below 0: the extra place of index -1 - place
    source: int  # where its tokens lie until the next step, else equal to `place`
    n_tokens: int = 0  # that may have to be copied


class DeviceMemory:
    """The slots and places of one device. Grows when it has to; `version` counts how often tensors were replaced."""

    def __init__(self, spec: ModelSpec, device: Device, dtype: Any, free: Callable[[], None]) -> None:
        """free: gives back what can be spared where memory does not suffice."""
        self._spec, self._device, self._dtype = spec, device, dtype
        self._free_spare = free
        #: windows and bytes beyond which it grows by no more than is needed
        self.capacity = BUCKETS[-1]
        self.most_bytes: int | None = None
        width = spec.n_text_state // spec.n_text_head
        self._position_bytes: int = 2 * spec.n_text_layer * spec.n_text_state * dtype.itemsize
        self._window_shape = (spec.n_text_head, aligned(spec.n_audio_ctx), width)
        # One position more than a row has: what a cell of a step computes that holds no row is written there.
        self._row_shape = (spec.n_text_head, spec.n_text_ctx + 1, width)
        self._free_slots: list[int] = []
        self._free_extras: list[int] = []
        self._holders: dict[int, RowCache] = {}  # by place
        self._moved: set[RowCache] = set()  # whose tokens lie elsewhere than at their place
        self._slots: list[Slot] = []
        self._may_move = False  # whether a slot was given back since windows were moved
        self.n_slots = self._n_extras = 0
        self._extras_at = 0  # where extra places begin in `rows`
        self.version = 0
        #: of each layer: (keys and values, slots, heads, positions, width)
        self.windows = [self._zeros((2, 0, *self._window_shape))] * spec.n_text_layer
        #: (layers, keys and values, slots and extras, heads, n_text_ctx + 1, width)
        self.rows = self._zeros((spec.n_text_layer, 2, 0, *self._row_shape))

    @property
    def window_bytes(self) -> int:
        """What a slot takes, whatever the length of its window."""
        return self._position_bytes * self._window_shape[1]

    @property
    def row_bytes(self) -> int:
        """What a place takes."""
        return self._position_bytes * self._row_shape[1]

    @property
    def n_vocab(self) -> int:
        """Ids that a row may choose from."""
        return self._spec.n_vocab

    @property
    def n_positions(self) -> int:
        """Positions of a slot: those of a full window, and a few that are never seen."""
        return self._window_shape[1]

    # Windows.

    def take_slots(self, n: int, positions: int) -> list[Slot]:
        """Take the lowest slots for n windows. Raises OutOfDeviceMemoryError."""
        needed = self.n_slots + n - len(self._free_slots)
        if needed > self.n_slots:
            wanted = max(needed, min(bucket_of(needed) or needed, self.capacity))
            self._resize((wanted, max(self._n_extras, wanted)), (needed, max(self._n_extras, 1)))
        taken = [Slot(heapq.heappop(self._free_slots), positions) for _ in range(n)]
        self._slots += taken
        return taken

    def release(self, slot: Slot) -> None:
        """Give a slot back."""
        self._slots.remove(slot)
        self._may_move = True
        heapq.heappush(self._free_slots, slot.index)

    def move_down(self) -> None:
        """Move windows to lower slots where all of them then fit a smaller bucket."""
        if not self._may_move:
            return
        self._may_move = False
        top = max((one.index for one in self._slots), default=-1) + 1
        if (bucket_of(len(self._slots)) or top) >= (bucket_of(top) or top):
            return
        leaving = [one for one in self._slots if one.index >= len(self._slots)]
        if any(one.ready is not None for one in leaving):
            self._may_move = True  # once they are written
            return
        targets = heapq.nsmallest(len(leaving), self._free_slots)
        old, new = self._device.whole_numbers([one.index for one in leaving]), self._device.whole_numbers(targets)
        for layer in self.windows:
            layer[:, new] = layer[:, old]
        for _ in targets:
            heapq.heappop(self._free_slots)
        for slot, index in zip(leaving, targets, strict=True):
            heapq.heappush(self._free_slots, slot.index)
            row = self._holders.pop(slot.index, None)
            slot.index = index
            if row is not None:
                self._put(row, index)

    def wait(self, slots: Iterable[Slot]) -> None:
        """Have what is called next run after windows are encoded."""
        for one in slots:
            if one.ready is not None:
                self._device.wait(one.ready)
                one.ready = None

    def wait_for_all(self) -> None:
        """The same for all windows."""
        self.wait(self._slots)

    # Rows.

    def open(self, slot: Slot) -> RowCache:
        """Return an empty row."""
        place = slot.index if slot.index not in self._holders else self._take_extra()
        row = self._holders[place] = RowCache(slot, place, place)
        return row

    def fork(self, row: RowCache) -> RowCache:
        """Return a row with the same tokens."""
        place = self._take_extra()
        made = self._holders[place] = RowCache(row.slot, place, row.source, row.n_tokens)
        self._moved.add(made)
        return made

    def close(self, row: RowCache) -> None:
        """Give a row's place back."""
        del self._holders[row.place]
        self._moved.discard(row)
        if row.place < 0:
            heapq.heappush(self._free_extras, -1 - row.place)

    def put_first(self, rows: Iterable[RowCache]) -> None:
        """Have rows, one of a window, take the first place of their slots."""
        for row in rows:
            first, left = row.slot.index, row.place
            if left == first:
                continue
            other = self._holders.pop(first, None)
            del self._holders[left]
            self._put(row, first)
            if other is not None:
                self._put(other, left)
            elif left < 0:
                heapq.heappush(self._free_extras, -1 - left)

    def _put(self, row: RowCache, place: int) -> None:
        self._holders[place] = row
        row.place = place
        if row.n_tokens == 0:
            row.source = place
        if row.source == place:
            self._moved.discard(row)
        else:
            self._moved.add(row)

    def settle(self) -> None:
        """Copy tokens to where their rows' places are; to be called before anything is written."""
        if not self._moved:
            return
        rows, length = list(self._moved), max(one.n_tokens for one in self._moved)
        old = self._device.whole_numbers([self.row_index(one.source) for one in rows])
        new = self._device.whole_numbers([self.row_index(one.place) for one in rows])
        at_once = max(1, _COPIED_BYTES * len(self.rows) // (self.row_bytes * len(rows)))
        for layers in self.rows.split(at_once):
            layers[:, :, new, :, :length] = layers[:, :, old, :, :length]  # all are read before any is written
        for one in rows:
            one.source = one.place
        self._moved.clear()

    def row_index(self, place: int) -> int:
        """Return a place's index in `rows`."""
        return place if place >= 0 else self._extras_at - 1 - place

    def _take_extra(self) -> int:
        if not self._free_extras:
            n_extras = self._n_extras + max(_MORE_EXTRAS, self.n_slots // 2)
            held = [*(one.index for one in self._slots), *(one.source for one in self._moved)]
            top = max(held, default=0) + 1  # slots above it hold nothing
            self._resize((self.n_slots, n_extras), (top, self._n_extras + _MORE_EXTRAS))
        return -1 - heapq.heappop(self._free_extras)

    # Size.

    def _resize(self, wanted: tuple[int, int], least: tuple[int, int]) -> None:
        """Have as many slots and extra places as are wanted, or, where that is too much, the least.
        Raises OutOfDeviceMemoryError.
        """
        fits = self.most_bytes is None or self._bytes_of(*wanted) <= self.most_bytes
        try:
            self._allocate(*(wanted if fits else least))
        except torch.OutOfMemoryError:
            self._free_spare()
            try:
                self._allocate(*least)
            except torch.OutOfMemoryError as error:
                raise self.exhausted(self.window_bytes + self.row_bytes) from error

    def _bytes_of(self, n_slots: int, n_extras: int) -> int:
        return n_slots * self.window_bytes + (n_slots + n_extras) * self.row_bytes

    @property
    def held_bytes(self) -> int:
        """What slots and places take."""
        return self._bytes_of(self.n_slots, self._n_extras)

    def exhausted(self, n_bytes: int) -> OutOfDeviceMemoryError:
        """Return the error that says what was needed, what is free, and what is held."""
        figures, free = self._device.memory(), ""
        if figures is not None:
            free_bytes, total, mine = figures
            free = (
                f"; of {total / 1e6:,.0f} MB, {free_bytes / 1e6:,.0f} MB are free, PyTorch holds {mine / 1e6:,.0f} MB "
                f"here, and other programs and the driver {(total - free_bytes - mine) / 1e6:,.0f} MB"
            )
        return OutOfDeviceMemoryError(
            f"the memory of {self._device.torch} does not suffice: {n_bytes / 1e6:,.0f} MB more were needed beside "
            f"{len(self._slots)} windows of {self.window_bytes / 1e6:,.0f} MB{free}; end other programs, or take a "
            "smaller model, half precision or fewer beams"
        )

    def _allocate(self, n_slots: int, n_extras: int) -> None:
        """Replace the tensors by others of these sizes, one by one; what fails in the middle leaves all of it usable.
        What was never written is 0: a number that is masked must still be a number.
        """
        self.version += 1
        self.wait_for_all()  # they may be written elsewhere
        self._set_slots(min(self.n_slots, n_slots))
        for index, layer in enumerate(self.windows):
            if layer.shape[1] != n_slots:
                other = self._zeros((2, n_slots, *self._window_shape))
                other[:, : self.n_slots] = layer[:, : self.n_slots]
                self.windows[index] = other
        rows, extras = self._zeros((self._spec.n_text_layer, 2, n_slots + n_extras, *self._row_shape)), self._n_extras
        rows[:, :, : self.n_slots] = self.rows[:, :, : self.n_slots]
        rows[:, :, n_slots : n_slots + extras] = self.rows[:, :, self._extras_at : self._extras_at + extras]
        self.rows, self._extras_at, self._n_extras = rows, n_slots, n_extras
        self._set_slots(n_slots)
        self._free_extras += range(extras, n_extras)
        heapq.heapify(self._free_extras)

    def _set_slots(self, n: int) -> None:
        """Have n slots; those above hold nothing."""
        self.n_slots = n
        taken = {one.index for one in self._slots}
        self._free_slots = [one for one in range(n) if one not in taken]

    def _zeros(self, shape: tuple[int, ...]) -> Any:
        return torch.zeros(shape, dtype=self._dtype, device=self._device.torch)
