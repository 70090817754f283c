"""The encoder in PyTorch. Source: openai/whisper model.py at c0d2f62 (AudioEncoder)."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import conv1d, gelu

from stapes.backends.torch.arithmetic import attend, stream_dtype
from stapes.backends.torch.weights import Weights
from stapes.checkpoint.base import ModelSpec


def encode(mel: Any, w: Weights, spec: ModelSpec) -> Any:
    """Encode windows: log-mel (windows, n_mels, 2 * positions) in the precision -> (windows, positions, d)."""
    x = gelu(conv1d(mel, w["encoder.conv1.weight"], w["encoder.conv1.bias"], padding=1))
    x = gelu(conv1d(x, w["encoder.conv2.weight"], w["encoder.conv2.bias"], stride=2, padding=1))
    x = x.transpose(1, 2).to(stream_dtype(mel.dtype))
    x = x + w["encoder.positional_embedding"][: x.shape[1]]
    for layer in range(spec.n_audio_layer):
        block = f"encoder.blocks.{layer}"
        x = x + w.linear(_attention(w.linear(w.norm(x, f"{block}.attn_ln"), f"{block}.qkv"), spec), f"{block}.attn.out")
        x = x + w.linear(gelu(w.linear(w.norm(x, f"{block}.mlp_ln"), f"{block}.mlp.0")), f"{block}.mlp.2")
    return w.norm(x, "encoder.ln_post")


def _attention(qkv: Any, spec: ModelSpec) -> Any:
    """(windows, positions, 3 * d) -> (windows, positions, d). In float32 window by window: scores take much memory."""
    n, positions = qkv.shape[:2]
    queries, keys, values = qkv.view(n, positions, 3, spec.n_audio_head, -1).permute(2, 0, 3, 1, 4)
    if qkv.dtype == torch.float32:
        each = zip(queries, keys, values, strict=True)
        mixed = torch.cat([attend(*(part.unsqueeze(0) for part in one)) for one in each])
    else:
        mixed = attend(queries, keys, values)
    return mixed.transpose(1, 2).reshape(n, positions, -1)
