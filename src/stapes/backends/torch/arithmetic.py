"""How PyTorch computes for us, whatever the program around it has set: exact float32 products, and no autocast.

Settings of PyTorch are the process's. Ours hold during a call, and the program's come back after it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import torch

from stapes.runtime.processes import register

_CUDA: Final = torch.backends.cuda


def _reduced(name: str) -> Any:
    """Return whether sums are rounded to half precision on their way, and, where PyTorch has that, whether they may be
    split, as its setter takes it.
    """
    split = f"{name}_split_k"
    value = bool(getattr(_CUDA.matmul, name))
    return (value, bool(getattr(_CUDA.matmul, split))) if hasattr(_CUDA.matmul, split) else value


#: split sums, which thin products need and not every library can do without, are added in float32
_NOT_REDUCED: Final = (False, True) if isinstance(_reduced("allow_fp16_reduced_precision_reduction"), tuple) else False


def _deterministic() -> tuple[bool, bool]:
    """Return whether PyTorch refuses what may give other bits, and whether it only warns of it."""
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


#: precision -> what weights, keys and values are kept in
DTYPES: Final = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
#: what reads a setting, what sets it, and what it is for us: products and convolutions of float32 in float32 (not in
#: TF32), sums of half-precision products in float32, no attention by cuDNN (it builds a plan for every new shape, and
#: gave wrong numbers for single queries: pytorch issue 193893), and sums that need not give the same bits every time
_SETTINGS: Final[Sequence[tuple[Callable[[], Any], Callable[[Any], object], Any]]] = (
    *(
        (partial(getattr, owner, "fp32_precision"), partial(setattr, owner, "fp32_precision"), "ieee")
        for owner in (
            _CUDA.matmul, torch.backends.cudnn.conv, torch.backends.mkldnn.matmul, torch.backends.mkldnn.conv,
        )
    ),
    *(
        (partial(_reduced, name), partial(setattr, _CUDA.matmul, name), _NOT_REDUCED)
        for name in ("allow_fp16_reduced_precision_reduction", "allow_bf16_reduced_precision_reduction")
    ),
    (
        partial(getattr, _CUDA.matmul, "allow_fp16_accumulation"),
        partial(setattr, _CUDA.matmul, "allow_fp16_accumulation"),
        False,
    ),
    (_CUDA.cudnn_sdp_enabled, _CUDA.enable_cudnn_sdp, False),
    (_CUDA.mem_efficient_sdp_enabled, _CUDA.enable_mem_efficient_sdp, True),
    (_CUDA.flash_sdp_enabled, _CUDA.enable_flash_sdp, True),
    (_CUDA.math_sdp_enabled, _CUDA.enable_math_sdp, True),
    (_deterministic, lambda value: torch.use_deterministic_algorithms(value[0], warn_only=value[1]), (False, False)),
)  # fmt: skip


class _Shared:
    """Settings that several threads want at the same time: the first one sets them, the last one restores them."""

    def __init__(self) -> None:
        self._before: list[tuple[Callable[[Any], object], Any]] = []
        self.after_fork()
        register(self)

    def after_fork(self) -> None:
        """Make the lock again; the parent's other threads do not compute here."""
        self._lock = threading.Lock()
        self._restore()
        self._n_inside = 0

    def enter(self) -> None:
        """Set them."""
        with self._lock:
            if self._n_inside == 0:
                try:
                    for read, write, value in _SETTINGS:
                        if (before := read()) != value:  # what is right already is not touched
                            write(value)
                            self._before.append((write, before))
                except BaseException:
                    self._restore()
                    raise
            self._n_inside += 1

    def leave(self) -> None:
        """Restore what the program had."""
        with self._lock:
            self._n_inside = max(0, self._n_inside - 1)  # 0 already in a child that was forked inside
            if self._n_inside == 0:
                self._restore()

    def _restore(self) -> None:
        while self._before:
            write, value = self._before.pop()
            write(value)


_shared: Final = _Shared()


@contextmanager
def exact(device: Any) -> Iterator[None]:
    """Compute as described above.   device: a torch.device."""
    _shared.enter()
    try:
        with torch.inference_mode(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        _shared.leave()


def stream_dtype(dtype: Any) -> Any:
    """Return what the residual stream is kept in: bfloat16's 8 bits are too few for sums over many layers."""
    return torch.float32 if dtype == torch.bfloat16 else dtype


def scores_of(queries: Any, keys: Any) -> Any:
    """Return scaled attention scores: (..., queries, width) and (..., keys, width) -> (..., queries, keys)."""
    return torch.matmul(queries * queries.shape[-1] ** -0.5, keys.transpose(-1, -2))


def attend(queries: Any, keys: Any, values: Any, mask: Any | None = None) -> Any:
    """Return what attention gives: (batch, heads, queries, width).

    queries: (batch, heads, queries, width).   keys, values: (batch, heads, keys, width).
    mask: (batch, 1, queries, keys), added to the scores; None: nothing is masked.
    In float32 it is two products and a softmax, since fused kernels may multiply in TF32; else a fused kernel.
    """
    if queries.dtype != torch.float32:
        return torch.nn.functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
    scores = scores_of(queries, keys)
    if mask is not None:
        scores += mask
    return torch.matmul(torch.softmax(scores, dim=-1), values)
