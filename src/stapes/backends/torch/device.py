"""What a GPU of CUDA (or ROCm, which PyTorch has under the same names) does beside computing: streams, graphs, memory.

`Device` is a device without these, such as the CPU: its calls return when they are done.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

Array = npt.NDArray[Any]
_OUT_OF_MEMORY: Final = 2  # cudaErrorMemoryAllocation, of memory that PyTorch does not manage
#: PyTorch captures one graph at a time in a process
_one_capture: Final = threading.Lock()
#: replays a captured computation: its inputs and outputs are where they were
Replay = Callable[[], None]


class Device:
    """A device whose calls return when they are done; it captures no graphs and has as much memory as the machine."""

    captures_graphs = False

    def __init__(self, name: str) -> None:
        """name: as PyTorch has it: "cpu", "mps"."""
        self.torch = torch.device(name)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Have calls go to this device, and record no gradients: all that the replay of a graph needs."""
        with torch.inference_mode():
            yield

    def upload(self, values: Array, into: Any | None = None) -> Any:
        """Copy an array to the device, into a tensor of this type and shape or a new one."""
        made = torch.from_numpy(np.ascontiguousarray(values))
        return made.to(self.torch) if into is None else into.copy_(made)

    def whole_numbers(self, values: Sequence[Any]) -> Any:
        """Return whole numbers, or lists of as many each, as an int64 tensor on the device."""
        return self.upload(np.array(values, np.int64))

    def download(self, tensor: Any) -> Array:
        """Wait for a tensor; return a copy."""
        values: Array = tensor.cpu().numpy().copy()
        return values

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Have calls run beside those outside of this context, after those that came before it."""
        yield

    def mark(self) -> Any:
        """Return what `wait` waits for: the calls up to here, in the present `beside`. None: they are done."""
        return None

    def wait(self, mark: Any) -> None:
        """Have later calls outside of `beside` run after those before a mark."""

    def is_past(self, _mark: Any) -> bool:
        """Return whether the calls before a mark are done."""
        return True

    def memory(self) -> tuple[int, int, int] | None:
        """Return bytes: free, in all, and held by PyTorch in this process; None where the machine's memory serves."""
        return None

    def free_spare(self) -> None:
        """Give back memory that PyTorch keeps for later."""

    def capture(self, compute: Callable[[], Any], pool: Any) -> tuple[Replay, Any, Any]:
        """Capture a computation. Returns what replays it, its result, and the pool of memory for the next capture.
        pool: of the capture before, or None.   Raises RuntimeError.
        """
        raise NotImplementedError


class CudaDevice(Device):
    """A GPU."""

    captures_graphs = True

    def __init__(self, name: str) -> None:
        """name: "cuda:0"."""
        super().__init__(name)
        self._stream = torch.cuda.Stream(self.torch)  # of what runs beside steps
        # A stream of this device: without one, PyTorch captures on a stream of the first device that captured. Steps
        # go before what runs beside them: a graph keeps the priority that it was captured with.
        self._capturing = torch.cuda.Stream(self.torch, priority=-1)
        self._sent = self._received = torch.empty(0, device="cpu")  # pinned memory of the latest transfers

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make it the current device, and record no gradients."""
        with torch.inference_mode(), torch.cuda.device(self.torch):
            yield

    def upload(self, values: Array, into: Any | None = None) -> Any:
        """Copy by pinned memory, without waiting."""
        if into is None:  # PyTorch keeps this memory until the copy is done
            pinned = torch.from_numpy(np.ascontiguousarray(values)).pin_memory()
            return pinned.to(self.torch, non_blocking=True)
        self._sent = _pinned(self._sent, into)  # free: a step ends with a wait
        self._sent.numpy()[: values.size] = values.ravel()
        return into.copy_(self._sent[: values.size].view(into.shape), non_blocking=True)

    def download(self, tensor: Any) -> Array:
        """Copy to pinned memory, and wait."""
        self._received = _pinned(self._received, tensor)
        received = self._received[: tensor.numel()].view(tensor.shape)
        received.copy_(tensor, non_blocking=True)
        torch.cuda.current_stream(self.torch).synchronize()
        values: Array = received.numpy().copy()
        return values

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Use a stream of its own."""
        self._stream.wait_stream(torch.cuda.current_stream(self.torch))
        with torch.cuda.stream(self._stream):
            yield

    def mark(self) -> Any:
        """Return an event."""
        return torch.cuda.current_stream(self.torch).record_event()

    def wait(self, mark: Any) -> None:
        """Have the current stream wait for an event."""
        torch.cuda.current_stream(self.torch).wait_event(mark)

    def is_past(self, mark: Any) -> bool:
        """Ask the event."""
        return bool(mark.query())

    def memory(self) -> tuple[int, int, int] | None:
        """Return what CUDA and PyTorch say."""
        free, total = torch.cuda.mem_get_info(self.torch)
        return free, total, torch.cuda.memory_reserved(self.torch)

    def free_spare(self) -> None:
        """Empty PyTorch's cache, of all devices: none may be capturing."""
        with _one_capture:
            torch.cuda.empty_cache()

    def capture(self, compute: Callable[[], Any], pool: Any) -> tuple[Replay, Any, Any]:
        """Capture a CUDA graph."""
        before, graph = torch.cuda.current_stream(self.torch), torch.cuda.CUDAGraph()
        with _one_capture:
            try:
                self._capturing.wait_stream(before)
                # Once without capturing: libraries make handles and workspaces for each thread and stream, which they
                # cannot during a capture. It computes and writes what was computed before.
                with torch.cuda.stream(self._capturing):
                    compute()
                # Other threads of the program may call CUDA meanwhile.
                with torch.cuda.graph(graph, pool=pool, stream=self._capturing, capture_error_mode="thread_local"):
                    made = compute()
            finally:
                torch.cuda.set_stream(before)  # which a capture that fails does not
        before.wait_stream(self._capturing)
        return graph.replay, made, pool or graph.pool()


def _pinned(buffer: Any, like: Any) -> Any:
    """Return a pinned buffer for as many values of a tensor's type: the one given, if it does."""
    if buffer.dtype == like.dtype and len(buffer) >= like.numel():
        return buffer
    return torch.empty(like.numel(), dtype=like.dtype, device="cpu", pin_memory=True)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether an error says that a device has no more memory: PyTorch's, CUDA's, or a library's."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return getattr(error, "error_code", None) == _OUT_OF_MEMORY or "ALLOC_FAILED" in str(error)


def open_device(name: str) -> Device:
    """Return the device of that name."""
    return CudaDevice(name) if name.startswith("cuda") else Device(name)
