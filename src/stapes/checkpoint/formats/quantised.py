"""The block formats of ggml, back to float32: 32 numbers share a scale (and an offset, where there is one).

Bit for bit what ggml's own functions give. Knows blocks, not files.
Source: https://github.com/ggml-org/whisper.cpp/blob/v1.8.2/ggml/src/ggml-common.h (block_q4_0 to block_q8_0) and
ggml-quants.c (dequantize_row_*) beside it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stapes.checkpoint.files import Array

BLOCK = 32  # numbers per block, in each of these formats

#: Bytes per block: float16 scale (2), float16 offset of *_1 (2), fifth bits of q5 (4), then 16 bytes of 4-bit
#: or 32 of 8-bit numbers.
BLOCK_BYTES = {"q4_0": 2 + 16, "q4_1": 2 + 2 + 16, "q5_0": 2 + 4 + 16, "q5_1": 2 + 2 + 4 + 16, "q8_0": 2 + 32}


def dequantise(kind: str, raw: Array) -> Array:
    """Return the float32 numbers of blocks, (blocks, 32); raw: uint8 (blocks, BLOCK_BYTES[kind])."""
    with np.errstate(all="ignore"):  # damaged scales may overflow or be NaN; float16 signalling NaN warns
        return _READERS[kind](raw)


def _halves(raw: Array, at: int) -> Array:
    """Return the float16 at byte `at` of each block as float32, (blocks, 1)."""
    found: Array = np.ascontiguousarray(raw[:, at : at + 2]).view("<f2").astype(np.float32)
    return found


def _nibbles(raw: Array) -> Array:
    """Unpack 16 bytes to 32 numbers: low halves are the first 16, high halves the rest."""
    return np.concatenate((raw & 0x0F, raw >> 4), axis=1)


def _fifths(raw: Array) -> Array:
    """Unpack 4 bytes to 32 numbers of 0 or 16: bit n is the fifth bit of number n."""
    return np.unpackbits(raw, axis=1, bitorder="little") << np.uint8(4)


def _q4_0(raw: Array) -> Array:
    signed = _nibbles(raw[:, 2:]).astype(np.int8) - np.int8(8)
    return _halves(raw, 0) * signed.astype(np.float32)


def _q4_1(raw: Array) -> Array:
    return _halves(raw, 0) * _nibbles(raw[:, 4:]).astype(np.float32) + _halves(raw, 2)


def _q5_0(raw: Array) -> Array:
    signed = (_nibbles(raw[:, 6:]) | _fifths(raw[:, 2:6])).astype(np.int8) - np.int8(16)
    return _halves(raw, 0) * signed.astype(np.float32)


def _q5_1(raw: Array) -> Array:
    numbers = _nibbles(raw[:, 8:]) | _fifths(raw[:, 4:8])
    return _halves(raw, 0) * numbers.astype(np.float32) + _halves(raw, 2)


def _q8_0(raw: Array) -> Array:
    return _halves(raw, 0) * raw[:, 2:].view(np.int8).astype(np.float32)


_READERS: dict[str, Callable[[Array], Array]] = {
    "q4_0": _q4_0, "q4_1": _q4_1, "q5_0": _q5_0, "q5_1": _q5_1, "q8_0": _q8_0,
}  # fmt: skip
