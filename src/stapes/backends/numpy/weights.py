"""The tensors of a checkpoint as the NumPy backend multiplies them: float32, joined where one product serves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from stapes.backends.base import FloatArray
from stapes.backends.numpy.kernels import layer_norm, linear
from stapes.checkpoint.base import ModelSpec

T = TypeVar("T")
#: The vocabulary is padded to whole blocks of ids: BLAS sums the rows left over at a cut in another order.
ID_BLOCK = 32


class Share(Protocol):
    """Lets threads share a piece of work, and waits until all of it is done."""

    def __call__(self, work: Callable[[T], object], parts: Sequence[T]) -> None:
        """Call `work` with every part."""


class Weights(dict[str, FloatArray]):
    """The tensors as float32, those that are multiplied together joined into one."""

    def __init__(self, tensors: Mapping[str, Any], spec: ModelSpec) -> None:
        super().__init__()
        for name in tensors:
            if not name.endswith(("query.weight", "query.bias", "conv1.weight", "conv2.weight")):
                self[name] = np.ascontiguousarray(tensors[name], dtype=np.float32)
        embedding = self["decoder.token_embedding.weight"]
        padding = np.zeros((-len(embedding) % ID_BLOCK, embedding.shape[1]), np.float32)
        self["decoder.token_embedding.weight"] = np.concatenate((embedding, padding))
        for name in ("conv1", "conv2"):  # (out, in, 3) -> (out, 3 * in)
            weight = np.asarray(tensors[f"encoder.{name}.weight"], dtype=np.float32)
            self[f"encoder.{name}.weight"] = np.ascontiguousarray(weight.transpose(0, 2, 1)).reshape(len(weight), -1)
        for side, n_layer in (("encoder", spec.n_audio_layer), ("decoder", spec.n_text_layer)):
            for layer in range(n_layer):
                self._join(f"{side}.blocks.{layer}", tensors)
        self.n_bytes = sum(array.nbytes for array in self.values())

    def _join(self, block: str, tensors: Mapping[str, Any]) -> None:
        attn = f"{block}.attn"
        query = np.asarray(tensors[f"{attn}.query.weight"], dtype=np.float32)
        self[f"{block}.qkv.weight"] = np.concatenate(
            (query, self.pop(f"{attn}.key.weight"), self.pop(f"{attn}.value.weight"))
        )
        bias = np.asarray(tensors[f"{attn}.query.bias"], dtype=np.float32)
        self[f"{block}.qkv.bias"] = np.concatenate((bias, np.zeros_like(bias), self.pop(f"{attn}.value.bias")))
        cross = f"{block}.cross_attn.query"
        if f"{cross}.weight" in tensors:
            for part in ("weight", "bias"):
                self[f"{cross}.{part}"] = np.ascontiguousarray(tensors[f"{cross}.{part}"], dtype=np.float32)

    def norm(self, x: FloatArray, name: str) -> FloatArray:
        """Apply the layer norm of that name to (n, d)."""
        return layer_norm(x, self[f"{name}.weight"], self[f"{name}.bias"])

    def linear(self, x: FloatArray, name: str) -> FloatArray:
        """Apply the linear layer of that name to (n, in) -> (n, out)."""
        return linear(x, self[f"{name}.weight"], self.get(f"{name}.bias"))
