"""The network in PyTorch, for GPUs: windows encoded in batches, decoder steps as captured graphs (docs/gpu.md).

The same code runs without graphs on PyTorch's CPU build, where it is tested. Rows share products, so that a row's
numbers may differ in the last bits with its batch: in float32 the tokens are the same but for ties.
Source of the network: openai/whisper model.py at c0d2f62.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

import numpy as np
import torch

from stapes.backends.base import (
    BackendInfo,
    FloatArray,
    LogMelKernel,
    RowId,
    SchedulingPolicy,
    StepAnswers,
    StepBatch,
    WindowId,
)
from stapes.backends.handles import Handles, HandlesBackend, Row
from stapes.backends.native.library import is_built
from stapes.backends.numerics import log10_mel
from stapes.backends.precisions import Choice
from stapes.backends.resources import usable_cores
from stapes.backends.torch.arithmetic import DTYPES, exact
from stapes.backends.torch.decoder import Decoder
from stapes.backends.torch.device import is_out_of_memory, open_device
from stapes.backends.torch.encoder import encode
from stapes.backends.torch.graphs import Capture
from stapes.backends.torch.memory import BUCKETS, DeviceMemory, RowCache, Slot
from stapes.backends.torch.step import Steps
from stapes.backends.torch.weights import Weights
from stapes.checkpoint.base import Checkpoint
from stapes.errors import BackendError, OutOfDeviceMemoryError
from stapes.runtime.processes import register

#: of a GPU: encoding gains little beyond, and rows wait for it
_WINDOWS_PER_ENCODE: Final = 16
#: what CUDA itself takes of a GPU: its context and its libraries' kernels and workspaces
_CONTEXT_BYTES: Final = 700_000_000
#: of vectors as wide as the model, that a position of an encoded window needs at once: its layer's input, norm, query,
#: key, value and the four of the feed-forward part, with their copies
_ENCODER_VECTORS: Final = 16
#: arrays of all rows' logits at once, float32, while they are chosen from
_LOGITS_AT_ONCE: Final = 8
#: rows of a window, the prompt's and five beams: what they take is left free for growing, when all are copied
_ROWS_THAT_GROW: Final = 6


class TorchBackend(HandlesBackend[Slot, RowCache]):
    """Satisfies `stapes.backends.base.Backend`."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: str = "cpu",
        *,
        precision: str = "float32",
        threads: int | None = None,
        device_memory: int | None = None,
        chosen: Choice | None = None,
    ) -> None:
        """Copy the weights to a device.

        device: "cpu", "cuda:0" or "mps".   precision: "float32", "float16" or "bfloat16".
        threads: PyTorch's are the process's: they are not set; the number is of the log-mel on the CPU.
        device_memory: most bytes that it may take of the device, weights, context and graphs included; None: half of
        what is free beside the weights for windows and rows.   chosen: how the precision was chosen, if not asked for.
        Raises BackendError where memory does not suffice.
        """
        self.spec = checkpoint.spec
        self.handles = Handles(self.spec)
        self._dtype = DTYPES[precision]
        self._failure: str | None = None  # why no call may follow
        self._device = open_device(device)
        self._steps: Steps | None = None
        with self._working():
            self._weights = Weights(checkpoint.tensors, self.spec, self._device.torch, self._dtype)
            self._memory = DeviceMemory(self.spec, self._device, self._dtype, self._free_spare)
            bound = self._bound(device_memory)
            if bound is not None:
                self._memory.most_bytes = bound
                self._memory.capacity = min(BUCKETS[-1], bound // self._least_bytes)
            decoder = Decoder(self.spec, self._weights, self._memory, self._dtype)
            self._steps = Steps(self.spec, decoder, self._weights, self._memory, self._device)
        policy = SchedulingPolicy(
            windows_per_encode=_WINDOWS_PER_ENCODE, windows_in_flight=BUCKETS[-1], encodes_before_rows=1
        )
        self.info: BackendInfo = BackendInfo(
            name="torch",
            device=device,
            precision=precision,
            threads=threads or usable_cores(),
            weight_bytes=self._weights.n_bytes,
            row_bytes=self._memory.row_bytes,
            precisions=tuple(DTYPES) if device != "mps" else ("float32",),
            precision_reason=chosen.reason if chosen else None,
            precision_measured=chosen.measured if chosen else True,
            max_memory=bound,
            policy=policy if self._device.captures_graphs else SchedulingPolicy(),
        )
        register(self)

    @property
    def _least_bytes(self) -> int:
        """What a window takes with the prompt's row and one that grows."""
        return self._memory.window_bytes + 2 * self._memory.row_bytes

    def _bound(self, device_memory: int | None) -> int | None:
        """Return how much windows and rows may take of a GPU; None: as on a CPU."""
        figures = self._device.memory()
        if figures is None:
            return None
        free: int = figures[0]
        least = self._least_bytes
        vectors = _WINDOWS_PER_ENCODE * self.spec.n_audio_ctx * _ENCODER_VECTORS
        work = vectors * self.spec.n_audio_state * self._dtype.itemsize
        work += _LOGITS_AT_ONCE * 4 * self.spec.n_vocab * BUCKETS[-1]
        bound: int = min(free // 2, free - work)
        if device_memory is not None:
            beside = self._weights.n_bytes + _CONTEXT_BYTES + work
            rows = _ROWS_THAT_GROW * self._memory.row_bytes
            bound = int(min(device_memory - beside, free - work) / (1 + rows / (self._memory.window_bytes + rows)))
            if bound < least:
                raise BackendError(
                    f"device_memory is {device_memory / 1e6:,.0f} MB; on {self._device.torch}, weights, context and "
                    f"workspaces take {beside / 1e6:,.0f} MB, and a window with its rows {least / 1e6:,.0f} MB more"
                )
        if bound < least:
            raise self._memory.exhausted(least)
        return bound

    @property
    def captures(self) -> Sequence[Capture]:
        """The graphs that were captured, with their time and memory."""
        return self._running.one_token.captures

    @property
    def capture_graphs(self) -> bool:
        """Whether steps are captured as graphs; False makes them plain calls, behind the same code."""
        return self._running.one_token.capture_graphs

    @capture_graphs.setter
    def capture_graphs(self, value: bool) -> None:
        """Have steps captured, where the device can, or not."""
        self._running.one_token.capture_graphs = value and self._device.captures_graphs

    @property
    def log10_mel(self) -> LogMelKernel:
        if not is_built():
            return log10_mel
        from stapes.backends.native.backend import log_mel_kernel  # noqa: PLC0415 (only where the library is here)

        return log_mel_kernel()

    def after_fork(self) -> None:
        """In a forked child: a GPU's context stays with the parent."""
        if self._device.captures_graphs:
            self._failure = (
                f"a model on {self._device.torch} cannot be used in a forked process: load it in the child, or start "
                "the child with multiprocessing's method 'spawn'"
            )

    # Windows.

    def window_bytes(self, positions: int) -> int:  # noqa: ARG002 (a slot holds a window of any length)
        return self._memory.window_bytes

    def encode(self, mel: FloatArray) -> list[WindowId]:
        positions = self.handles.check_mel(mel)
        with self._working():
            slots = self._encode(np.asarray(mel, np.float32), positions)
        return [self.handles.add_window(slot, positions) for slot in slots]

    def _encode(self, mel: FloatArray, positions: int) -> list[Slot]:
        """Encode windows together, or, where that takes too much memory, in halves."""
        slots = self._memory.take_slots(len(mel), positions)
        try:
            self._fill(mel, slots)
            return slots
        except BaseException as error:  # Ctrl-C among them
            self._give_back(slots)
            if not (isinstance(error, RuntimeError) and is_out_of_memory(error)):
                raise
        self._free_spare()  # not while the error is there: it holds what was computed up to it
        if len(mel) == 1:
            needed = positions * self.spec.n_audio_state * _ENCODER_VECTORS * self._dtype.itemsize
            raise self._memory.exhausted(needed)
        half = len(mel) // 2
        first = self._encode(mel[:half], positions)
        try:
            return first + self._encode(mel[half:], positions)
        except BaseException:
            self._give_back(first)
            raise

    def _fill(self, mel: FloatArray, slots: Sequence[Slot]) -> None:
        """Encode windows into their slots: on a GPU beside the steps, which wait for the windows that they read."""
        with self._device.beside():  # where all that it reads is made too: memory is given back in a stream's order
            index = self._device.whole_numbers([one.index for one in slots])
            uploaded = self._device.upload(mel).to(self._dtype)
            try:
                with exact(self._device.torch):
                    encoded = encode(uploaded, self._weights, self.spec)
                    n, positions, _ = encoded.shape
                    for layer, memory in enumerate(self._memory.windows):
                        both = self._weights.linear(encoded, f"decoder.blocks.{layer}.cross_attn.key_value")
                        both = both.view(n, positions, 2, self.spec.n_text_head, -1).permute(2, 0, 3, 1, 4)
                        memory[:, index, :, :positions] = torch.nan_to_num(both)
            finally:
                ready = self._device.mark()
                for one in slots:
                    one.ready = ready

    def is_encoded(self, window: WindowId) -> bool:
        slot = self.handles.window(window).memory
        if slot.ready is None or self._failure is not None:
            return True  # a step over it says what has failed
        try:
            return self._device.is_past(slot.ready)
        except RuntimeError:
            return True

    def release(self, window: WindowId) -> None:
        slot = self.handles.window(window).memory
        self.handles.release(window)
        if self._failure is None:
            with suppress(BackendError), self._working():  # of a device that is lost nothing can be given back
                self._give_back([slot])

    def _give_back(self, slots: Sequence[Slot]) -> None:
        self._memory.wait(slots)
        for one in slots:
            self._memory.release(one)

    # Rows.

    def open(self, window: WindowId) -> RowId:
        slot = self.handles.window(window).memory
        with self._working():
            return self.handles.add_row(window, self._memory.open(slot))

    def fork(self, row: RowId) -> RowId:
        source = self.handles.row(row)
        with self._working():
            cache = self._memory.fork(source.cache)
        return self.handles.add_row(source.window, cache, source.length)

    def close(self, row: RowId) -> None:
        cache = self.handles.row(row).cache
        self.handles.close(row)
        self._memory.close(cache)

    def shut_down(self) -> None:
        self.handles.clear()
        if self._failure is None:
            with suppress(BackendError), self._working():
                self._memory.wait_for_all()
            self._failure = "this backend was shut down"
            self._running.one_token.drop()
            self._steps = None
            self._weights.clear()
            del self._memory
            self._device.free_spare()  # else another model would count it as taken

    def step(self, batch: StepBatch) -> StepAnswers:
        rows, slots, counts = self.handles.check(batch)
        with self._working():
            self._memory.wait(slots)
            positions = [one.positions for one in slots]
            answers = self._tried(batch, rows, positions)
            if answers is None:
                self._free_spare()
                answers = self._tried(batch, rows, positions)
            if answers is None:
                raise self._memory.exhausted(4 * self.spec.n_vocab * len(batch.tokens))
        for row, n in zip(rows, counts, strict=True):
            row.length += n
            row.cache.n_tokens = row.length
        return answers

    def _tried(self, batch: StepBatch, rows: Sequence[Row[RowCache]], positions: Sequence[int]) -> StepAnswers | None:
        """Run a step; None where memory does not suffice. The error is gone then, and with it what it held."""
        try:
            return self._running.run(batch, rows, positions)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return None

    @property
    def _running(self) -> Steps:
        if self._steps is None:
            raise BackendError(self._failure or "this backend is not ready")
        return self._steps

    def _free_spare(self) -> None:
        """Give back what can be made again: graphs, and memory that PyTorch keeps."""
        if self._steps is not None:
            self._steps.one_token.drop()
        self._device.free_spare()

    @contextmanager
    def _working(self) -> Iterator[None]:
        """Compute on the device, and name what is wrong with it; after a failure that it does not survive, no call may
        follow.
        """
        if self._failure is not None:
            raise BackendError(self._failure)
        try:
            with self._device.active():
                yield
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise OutOfDeviceMemoryError(f"the memory of {self._device.torch} does not suffice: {error}") from error
            if not isinstance(error, torch.AcceleratorError):
                raise
            self._failure = f"{self._device.torch} failed; start the program anew to use it again: {error}"
            raise BackendError(self._failure) from error
