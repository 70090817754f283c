"""Samples at 16 kHz mono, in memory up to a bound and in a temporary file above it."""

from __future__ import annotations

import bisect
import itertools
import os
import threading
import weakref
from collections.abc import Sequence
from types import TracebackType
from typing import IO, Any, Protocol

import numpy as np
import numpy.typing as npt

from stapes.errors import AudioError
from stapes.runtime.processes import BoundToProcess

SAMPLE_RATE = 16_000  # Hz, what Whisper was trained on
Samples = npt.NDArray[np.float32]  # (n,), 1.0 is full scale
FULL_SCALE = np.float32(32768.0)  # 2 ** 15: int16 / 32768, as the reference scales


class Recording(BoundToProcess):
    """The samples of one recording: mono, 16 kHz, readable in any order from any thread.

    name: for messages.   warnings: what was odd while decoding, one sentence each.
    spans: where its samples are in its container's time (audio/timestamps.py), piece by piece, in samples; () where
    that was not asked for, or is the same. `close` frees memory and temporary file; so does the garbage collector.
    """

    _cannot_be_pickled = (
        "a recording cannot be pickled or copied: its samples may be in a temporary file of this process. "
        "Send the path, the bytes or the array that it was loaded from"
    )

    def __init__(
        self, name: str, storage: _Storage, *, warnings: tuple[str, ...] = (), spans: tuple[tuple[int, int], ...] = ()
    ) -> None:
        self.name = name
        self.warnings = warnings
        self.spans = spans
        self.n_samples = storage.n_samples
        self._storage: _Storage | None = storage

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.n_samples / SAMPLE_RATE

    @property
    def end_s(self) -> float:
        """When its last sample ends, in the time of its transcript."""
        return max(end for _, end in self.spans) / SAMPLE_RATE if self.spans else self.duration_s

    def read(self, start: int, stop: int) -> Samples:
        """Return samples start..stop as float32, 1.0 full scale; fewer where the recording ends. May be a read-only
        view.
        Raises ValueError after `close`.
        """
        assert 0 <= start <= stop, (start, stop)
        samples = self._opened().read(min(start, self.n_samples), min(stop, self.n_samples))
        if samples.dtype == np.int16:
            return samples.astype(np.float32) / FULL_SCALE
        return samples

    def shared(self) -> Recording:
        """Return the same samples; closing them does not close this recording."""
        return Recording(self.name, _SharedStorage(self._opened()), warnings=self.warnings, spans=self.spans)

    def spliced(self, parts: Sequence[tuple[int, int]]) -> Recording:
        """Return some parts of this recording alone, one after the other; closing it closes this one.
        parts: half-open, in samples; in order, apart from each other, inside the recording.
        """
        return Recording(self.name, _SplicedStorage(self._opened(), parts), warnings=self.warnings)

    def laid_out(self) -> Recording:
        """Return this recording in the time of its spans, with silence in their gaps, for pictures and players; closing
        it closes this one. Without spans, itself.
        """
        if not self.spans:
            return self
        return Recording(self.name, _LaidOutStorage(self._opened(), self.spans), warnings=self.warnings)

    def _opened(self) -> _Storage:
        if self._storage is None:
            raise ValueError(f"{self.name}: the recording is closed")
        return self._storage

    def close(self) -> None:
        """Free the samples; a second call does nothing."""
        storage, self._storage = self._storage, None
        if storage is not None:
            storage.close()

    def __enter__(self) -> Recording:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Recording({self.name!r}, {self.duration_s:.2f} s)"


class SampleWriter:
    """Collects samples of one dtype (int16 or float32) block by block, and becomes a Recording.
    memory_limit_bytes: above it all samples move to a temporary file, unlinked at once where the system can.
    """

    def __init__(self, dtype: npt.DTypeLike, *, memory_limit_bytes: int) -> None:
        self._dtype = np.dtype(dtype)
        self._limit = memory_limit_bytes
        self._memory = bytearray()
        self._file: IO[bytes] | None = None
        self._n_bytes = 0

    @property
    def n_samples(self) -> int:
        """How many samples were written so far."""
        return self._n_bytes // self._dtype.itemsize

    def write(self, block: bytes | memoryview) -> None:
        """Append whole samples in this machine's byte order. Raises AudioError if the disk is full."""
        self._n_bytes += len(block)
        if self._file is None and self._n_bytes > self._limit:
            self._move_to_file()
        if self._file is None:
            self._memory += block
        else:
            self._write_to_file(block)

    def finish(
        self, name: str, *, warnings: tuple[str, ...] = (), spans: tuple[tuple[int, int], ...] = ()
    ) -> Recording:
        """Return the recording of everything written; the writer is used up."""
        if self._file is None:
            storage: _Storage = _MemoryStorage(np.frombuffer(self._memory, self._dtype))
        else:
            self._write_to_file(b"", flush=True)
            storage = _FileStorage(self._file, self._dtype, self.n_samples)
        return Recording(name, storage, warnings=warnings, spans=spans)

    def discard(self) -> None:
        """Drop all samples: decoding failed."""
        self._memory = bytearray()
        if self._file is not None:
            self._file.close()

    def _move_to_file(self) -> None:
        import tempfile  # noqa: PLC0415 (8 ms, for long recordings only)

        self._file = tempfile.TemporaryFile(prefix="stapes-")  # noqa: SIM115 (the storage closes it)
        self._write_to_file(self._memory)
        self._memory = bytearray()

    def _write_to_file(self, block: bytes | bytearray | memoryview, *, flush: bool = False) -> None:
        assert self._file is not None
        try:
            self._file.write(block)
            if flush:
                self._file.flush()
        except OSError as failure:
            import tempfile  # noqa: PLC0415 (as above)

            raise AudioError(
                f"no room for {self._n_bytes >> 20} MiB of samples in {tempfile.gettempdir()} ({failure}); "
                "free some, or set TMPDIR to a larger disk"
            ) from failure


def recording_of_array(name: str, samples: Samples, *, warnings: tuple[str, ...] = ()) -> Recording:
    """Return a recording that reads from this float32 array (n,) without a copy: do not change it while it is used."""
    return Recording(name, _MemoryStorage(samples), warnings=warnings)


class _Storage(Protocol):
    n_samples: int

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Samples start..stop, int16 or float32."""

    def close(self) -> object:
        """Free the samples."""


class _SharedStorage:
    def __init__(self, storage: _Storage) -> None:
        self.n_samples = storage.n_samples
        self.read = storage.read

    def close(self) -> None:
        """Do nothing: the owner closes it."""


class _SplicedStorage:
    def __init__(self, storage: _Storage, parts: Sequence[tuple[int, int]]) -> None:
        self._storage = storage
        self._first = [start for start, _ in parts]
        #: where each part begins here, and where the last one ends
        self._begin = [0, *itertools.accumulate(end - start for start, end in parts)]
        self.n_samples = self._begin[-1]
        self.close = storage.close

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        pieces = []
        part = bisect.bisect_right(self._begin, start) - 1
        while start < stop:
            end = min(stop, self._begin[part + 1])
            shift = self._first[part] - self._begin[part]
            pieces.append(self._storage.read(start + shift, end + shift))
            start, part = end, part + 1
        return np.concatenate(pieces) if pieces else self._storage.read(0, 0)


class _LaidOutStorage:
    def __init__(self, storage: _Storage, spans: Sequence[tuple[int, int]]) -> None:
        self._storage = storage
        self._spans = spans
        #: by how much each span is later than its samples
        begins = itertools.accumulate((end - start for start, end in spans), initial=0)
        self._moved = [start - begin for (start, _), begin in zip(spans, begins, strict=False)]
        self.n_samples = max(end for _, end in spans)
        self.close = storage.close

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        samples = np.zeros(stop - start, self._storage.read(0, 0).dtype)
        for (first, end), moved in zip(self._spans, self._moved, strict=True):
            lower, upper = max(start, first), min(stop, end)
            if lower < upper:
                samples[lower - start : upper - start] = self._storage.read(lower - moved, upper - moved)
        return samples


class _MemoryStorage:
    def __init__(self, samples: npt.NDArray[Any]) -> None:
        self._samples = samples.view()
        self._samples.flags.writeable = False
        self.n_samples = samples.size

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        return self._samples[start:stop]

    def close(self) -> None:
        self._samples = self._samples[:0].copy()


class _FileStorage:
    """Read with pread, not mapped: a mapping's cached pages would count as this process's memory."""

    def __init__(self, file: IO[bytes], dtype: np.dtype[Any], n_samples: int) -> None:
        self._file = file
        self._dtype = dtype
        self.n_samples = n_samples
        self._lock = threading.Lock()  # only where the system has no pread
        self.close = weakref.finalize(self, file.close)

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        samples = np.empty(stop - start, self._dtype)
        rest = samples.view(np.uint8).data
        offset = start * self._dtype.itemsize
        while rest:
            block = self._read_at(offset, len(rest))
            if not block:
                raise OSError(f"the temporary file of samples ends at byte {offset}")
            rest[: len(block)] = block
            rest, offset = rest[len(block) :], offset + len(block)
        return samples

    def _read_at(self, offset: int, size: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self._file.fileno(), size, offset)
        with self._lock:
            self._file.seek(offset)
            return self._file.read(size)
