"""A GPU that is not there: PyTorch's CPU behind the interface of one, with graphs that are recorded and replayed.

A graph is the list of PyTorch's operations that a computation called, on the very tensors that it called them on, as a
GPU's is: Python is not asked again, and a tensor that was replaced since is not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from stapes.backends.torch.backend import TorchBackend
from stapes.backends.torch.device import Device, Replay
from stapes.checkpoint.base import Checkpoint


class _Recorder(TorchDispatchMode):  # type: ignore[misc]  # PyTorch's types are not read
    """Notes every operation with its arguments and results."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, made))
        return made

    def replay(self) -> None:
        """Call them again; results go where they were, as the next operation looks for them there."""
        for func, args, kwargs, made in self.calls:
            again = func(*args, **kwargs)
            for old, new in zip(_tensors(made), _tensors(again), strict=True):
                if old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def _tensors(values: Any) -> list[Any]:
    parts = values if isinstance(values, (tuple, list)) else (values,)
    return [one for one in parts if isinstance(one, torch.Tensor)]


class FakeGpu(Device):
    """Records graphs, and says that it has `total` bytes."""

    captures_graphs = True

    def __init__(self, total: int = 1 << 34) -> None:
        super().__init__("cpu")
        self.total = total
        self.n_replays = 0
        self.waited: list[Any] = []
        self.is_behind = False  # whether it is still encoding whatever was encoded

    def memory(self) -> tuple[int, int, int] | None:
        return self.total, self.total, 0

    def mark(self) -> Any:
        return object()

    def is_past(self, mark: Any) -> bool:
        return not self.is_behind

    def wait(self, mark: Any) -> None:
        self.waited.append(mark)

    def capture(self, compute: Callable[[], Any], pool: Any) -> tuple[Replay, Any, Any]:
        recorder = _Recorder()
        with recorder:
            made = compute()

        def replay() -> None:
            self.n_replays += 1
            recorder.replay()

        return replay, made, pool or "the pool"


@contextmanager
def fake_gpu(**keywords: Any) -> Iterator[FakeGpu]:
    """Have `TorchBackend` find one."""
    gpu = FakeGpu(**keywords)
    with patch("stapes.backends.torch.backend.open_device", lambda _name: gpu):
        yield gpu


def backend_on_fake_gpu(checkpoint: Checkpoint, precision: str = "float32", **keywords: Any) -> TorchBackend:
    """Return a backend on one."""
    with fake_gpu():
        return TorchBackend(checkpoint, "cuda:0", precision=precision, **keywords)
