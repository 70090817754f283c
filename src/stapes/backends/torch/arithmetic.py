"""How PyTorch computes for us, whatever the program around it has set: exact float32 products, and no autocast.

Settings of PyTorch are the process's. Ours hold during a call, and the program's come back after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch

#: precision -> what weights, keys and values are kept in
DTYPES: Final = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
#: settings, and what they are for exact sums: products and convolutions of float32 in float32 (not TF32), and sums of
#: half-precision products in float32
_SETTINGS: Final = (
    (torch.backends.cuda.matmul, "fp32_precision", "ieee"),
    (torch.backends.cudnn.conv, "fp32_precision", "ieee"),
    (torch.backends.mkldnn.matmul, "fp32_precision", "ieee"),
    (torch.backends.mkldnn.conv, "fp32_precision", "ieee"),
    (torch.backends.cuda.matmul, "allow_fp16_reduced_precision_reduction", False),
    (torch.backends.cuda.matmul, "allow_bf16_reduced_precision_reduction", False),
    (torch.backends.cuda.matmul, "allow_fp16_accumulation", False),
)


@contextmanager
def exact(device: Any) -> Iterator[None]:
    """Compute as described above.   device: a torch.device."""
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in _SETTINGS]
    try:
        for owner, name, value in _SETTINGS:
            setattr(owner, name, value)
        with torch.inference_mode(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


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
