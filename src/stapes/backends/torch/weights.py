"""The tensors of a checkpoint on a device, joined where one product serves; read from the mapped file one by one."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.functional import layer_norm, linear

from stapes.backends.torch.arithmetic import stream_dtype
from stapes.checkpoint.base import ModelSpec
from stapes.checkpoint.files import release_pages

_JOINED = ("query", "key", "value")


class Weights:
    """Tensors by OpenAI's names: matrices in the precision, layer norms in that of the residual stream.

    A block's query, key and value of self-attention are one matrix `qkv`; the decoder's cross-attention's key and value
    are one, `cross_attn.key_value`.
    """

    def __init__(self, tensors: Mapping[str, Any], spec: ModelSpec, device: Any, dtype: Any) -> None:
        """Copy all tensors to the device."""
        self._device, self._dtype, self._stream = device, dtype, stream_dtype(dtype)
        self._held: dict[str, Any] = {}
        for side, n_layers in (("encoder", spec.n_audio_layer), ("decoder", spec.n_text_layer)):
            for layer in range(n_layers):
                block = f"{side}.blocks.{layer}"
                self._join(tensors, f"{block}.attn", _JOINED, f"{block}.qkv")
                if side == "decoder":
                    self._join(tensors, f"{block}.cross_attn", _JOINED[1:], f"{block}.cross_attn.key_value")
        for name in tensors:
            if not any(f"attn.{part}." in name for part in _JOINED) or "cross_attn.query." in name:
                self._held[name] = self._on_device(tensors[name], self._kind(name))

    def _kind(self, name: str) -> Any:
        return self._stream if "ln" in name.split(".")[-2] or "positional" in name else self._dtype

    def _join(self, tensors: Mapping[str, Any], attention: str, parts: Sequence[str], name: str) -> None:
        matrices = [self._on_device(tensors[f"{attention}.{part}.weight"], self._dtype) for part in parts]
        zeros = torch.zeros(len(matrices[0]), dtype=self._dtype, device=self._device)
        biases = [tensors.get(f"{attention}.{part}.bias") for part in parts]  # keys have none
        self._held[f"{name}.weight"] = torch.cat(matrices)
        self._held[f"{name}.bias"] = torch.cat(
            [zeros if one is None else self._on_device(one, self._dtype) for one in biases]
        )

    def _on_device(self, array: Any, dtype: Any) -> Any:
        values = np.ascontiguousarray(array)
        if not values.flags.aligned:
            values = values.copy()
        with warnings.catch_warnings():  # of a mapped file, which cannot be written: nothing is written to it
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            made = torch.from_numpy(values).to(device=self._device, dtype=dtype, copy=True)
        release_pages(array)
        return made

    def __getitem__(self, name: str) -> Any:
        """Return a tensor."""
        return self._held[name]

    @property
    def n_bytes(self) -> int:
        """What they take."""
        return sum(one.numel() * one.element_size() for one in self._held.values())

    def norm(self, x: Any, name: str) -> Any:
        """Apply a layer norm to the residual stream (..., d); the result is in the precision."""
        made = layer_norm(x, x.shape[-1:], self._held[f"{name}.weight"], self._held[f"{name}.bias"])
        return made.to(self._dtype)

    def linear(self, x: Any, name: str) -> Any:
        """Apply a linear layer: (..., in) -> (..., out)."""
        return linear(x, self._held[f"{name}.weight"], self._held.get(f"{name}.bias"))

    def embed(self, tokens: Any, positions: Any) -> Any:
        """Return tokens (...,) at positions (...,) as vectors of the residual stream (..., d)."""
        found = self._held["decoder.token_embedding.weight"][tokens].to(self._stream)
        return found + self._held["decoder.positional_embedding"][positions]

    def logits(self, x: Any, out: Any | None = None) -> Any:
        """Return float32 logits (n, n_vocab) of the last layer's output (n, d).   out: where they go."""
        h, embedding = self.norm(x, "decoder.ln"), self._held["decoder.token_embedding.weight"].T
        if h.dtype == torch.float32:
            return torch.mm(h, embedding, out=out)
        if h.device.type != "cuda":  # no other device sums half-precision products into float32
            return torch.mm(h.float(), embedding.float(), out=out)
        if torch.version.hip is not None:  # whose libraries have no such product in every version
            made = torch.mm(h, embedding).float()
            return made if out is None else out.copy_(made)
        return torch.mm(h, embedding, out_dtype=torch.float32, out=out)

    def clear(self) -> None:
        """Give the memory back."""
        self._held.clear()
