"""Hand a checkpoint's tensors to the native library under its names, matrix by matrix, copying little."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from stapes.checkpoint.base import ModelSpec
from stapes.checkpoint.files import release_pages

Array = npt.NDArray[Any]
_PANEL = 32  # outputs that the library packs together: parts that are joined begin at a whole panel


class Model(Protocol):
    """What loading needs of the native model."""

    @property
    def stride(self) -> int:
        """Values from one row of activations to the next."""

    def make_linear(self, name: str, n: int, k: int, as_float16: bool) -> None:
        """Make room for (n, k) weights."""

    def pack_float16(self, name: str, first: int, rows: Array) -> None:
        """Pack rows (outputs, k), float16's bits, from output `first` on."""

    def pack_float32(self, name: str, first: int, rows: Array) -> None:
        """Pack rows (outputs, k) from output `first` on."""

    def set_bias(self, name: str, bias: Array) -> None:
        """Set a bias (n,)."""

    def set_norm(self, name: str, weight: Array, bias: Array) -> None:
        """Set a layer norm's weight and bias (d,)."""

    def set_positions(self, of_encoder: bool, table: Array) -> None:
        """Set positional embeddings (positions, d)."""


def load_weights(model: Model, tensors: Mapping[str, Any], spec: ModelSpec) -> None:
    """Load all weights into the model. tensors: by OpenAI's names (checkpoint/base.py)."""
    # The largest first: while it is packed, it is in memory twice.
    _linear(model, "decoder.embedding", [np.asarray(tensors["decoder.token_embedding.weight"])])
    for side, n_layers in (("encoder", spec.n_audio_layer), ("decoder", spec.n_text_layer)):
        for layer in range(n_layers):
            _load_block(model, tensors, f"{side}.blocks.{layer}", f"{side}.{layer}", cross=side == "decoder")
    _convolution(model, tensors, "encoder.conv1", spec.n_mels)
    _convolution(model, tensors, "encoder.conv2", model.stride)
    for name, norm in (("encoder.norm", "encoder.ln_post"), ("decoder.norm", "decoder.ln")):
        _norm(model, tensors, name, norm)
    model.set_positions(True, _float32(tensors["encoder.positional_embedding"]))
    model.set_positions(False, _float32(tensors["decoder.positional_embedding"]))


def _load_block(model: Model, tensors: Mapping[str, Any], block: str, name: str, *, cross: bool) -> None:
    attn = f"{block}.attn"
    _linear(
        model,
        f"{name}.qkv",
        [np.asarray(tensors[f"{attn}.{part}.weight"]) for part in ("query", "key", "value")],
        [tensors[f"{attn}.query.bias"], None, tensors[f"{attn}.value.bias"]],
    )
    plain = [("attn_out", "attn.out"), ("mlp_in", "mlp.0"), ("mlp_out", "mlp.2")]
    norms = [("attn_norm", "attn_ln"), ("mlp_norm", "mlp_ln")]
    if cross:
        plain += [(f"cross_{part}", f"cross_attn.{part}") for part in ("query", "key", "value", "out")]
        norms.append(("cross_norm", "cross_attn_ln"))
    for mine, theirs in plain:
        weight = np.asarray(tensors[f"{block}.{theirs}.weight"])
        _linear(model, f"{name}.{mine}", [weight], [tensors.get(f"{block}.{theirs}.bias")])
    for mine, theirs in norms:
        _norm(model, tensors, f"{name}.{mine}", f"{block}.{theirs}")


def _convolution(model: Model, tensors: Mapping[str, Any], name: str, tap_stride: int) -> None:
    """(out, in, 3) -> (out, 3 * tap_stride): the three taps one after the other, as the rows of frames are."""
    weight = np.asarray(tensors[f"{name}.weight"])
    rows = np.zeros((len(weight), 3, tap_stride), weight.dtype)
    rows[:, :, : weight.shape[1]] = weight.transpose(0, 2, 1)
    _linear(model, name, [rows.reshape(len(weight), -1)], [tensors[f"{name}.bias"]])


def _linear(model: Model, name: str, parts: Sequence[Array], biases: Sequence[Any] = (None,)) -> None:
    """Make one linear layer of several (outputs, k), each beginning at a whole panel."""
    padded = [-(-len(part) // _PANEL) * _PANEL for part in parts]
    n = sum(padded[:-1]) + len(parts[-1])
    halves = [_as_float16(part) for part in parts]
    exact = all(half is not None for half in halves)
    model.make_linear(name, n, parts[0].shape[1], exact)
    bias = np.zeros(n, np.float32)
    for first, part, half, own_bias in zip(_starts(padded), parts, halves, biases, strict=True):
        if exact and half is not None:
            model.pack_float16(name, first, np.ascontiguousarray(half).view(np.uint16))
        else:
            model.pack_float32(name, first, _float32(part))
        if own_bias is not None:
            bias[first : first + len(part)] = own_bias
    if any(own_bias is not None for own_bias in biases):
        model.set_bias(name, bias)
    for part in parts:  # packed: its pages of the file are no longer needed
        release_pages(part)


def _starts(lengths: Sequence[int]) -> Iterator[int]:
    start = 0
    for length in lengths:
        yield start
        start += length


def _as_float16(weight: Array) -> Array | None:
    """Return the same numbers as float16, if it holds them all (published weights are float16); else None."""
    if weight.dtype == np.float16:
        return weight
    with np.errstate(over="ignore", under="ignore"):
        half = weight.astype(np.float16)
    return half if np.array_equal(half, weight, equal_nan=True) else None


def _norm(model: Model, tensors: Mapping[str, Any], name: str, source: str) -> None:
    model.set_norm(name, _float32(tensors[f"{source}.weight"]), _float32(tensors[f"{source}.bias"]))


def _float32(values: Any) -> Array:
    return np.ascontiguousarray(values, dtype=np.float32)
