"""Where a file keeps each tensor, checked against the model's sizes before any of it is read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from stapes.checkpoint.base import ModelSpec, parameter_shapes
from stapes.checkpoint.files import Array, FileBytes
from stapes.checkpoint.formats.names import place_of
from stapes.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of a file: its shape, how its numbers are stored, and how to read them.

    read: (first row, last row + 1) -> that part as float16 or float32; rows are the first axis. None: stapes does not
    read this kind, which matters only where the model needs the tensor.
    """

    shape: tuple[int, ...]
    kind: str  # "float16", "float32", "bfloat16", "float64", "int8", "q5_0", ...
    read: Callable[[int, int], Array] | None


#: Bytes of a number, for each kind that is stored as it is.
WIDTHS = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}


def plain(data: FileBytes, offset: int, kind: str, shape: tuple[int, ...], what: str) -> StoredTensor:
    """Return how to read a tensor of a kind in WIDTHS, rows one after another. Bounds are checked at once.
    bfloat16 is widened to float32, float64 rounded to it.
    """
    width = WIDTHS[kind]
    data.check(offset, math.prod(shape) * width, what)
    row_bytes = math.prod(shape[1:]) * width

    def read(first: int, stop: int) -> Array:
        part = (stop - first, *shape[1:])
        start = offset + first * row_bytes
        if kind == "bfloat16":
            return _widen_bfloat16(data.array(start, "<u2", part, what))
        if kind == "float64":
            with np.errstate(over="ignore"):  # beyond float32 is infinity, as where PyTorch rounds
                return data.array(start, "<f8", part, what).astype(np.float32)
        return data.array(start, "<f2" if kind == "float16" else "<f4", part, what)

    return StoredTensor(shape, kind, read)


def _widen_bfloat16(bits: Array) -> Array:
    widened: Array = (bits.astype(np.uint32) << 16).view(np.float32)  # exact
    return widened


def spec_of(sizes: Mapping[str, int], source: str) -> ModelSpec:
    """Make a model's sizes; raises CheckpointError that names `source` where they are not a Whisper's."""
    try:
        return ModelSpec(**sizes)
    except CheckpointError as exc:
        raise CheckpointError(f"{source}: {exc}; the file is damaged or of another network") from exc


class _Tensors(Mapping[str, Array]):
    def __init__(self, reads: Mapping[str, Callable[[], Array]]) -> None:
        self._reads = reads

    def __getitem__(self, name: str) -> Array:
        return self._reads[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._reads)

    def __len__(self) -> int:
        return len(self._reads)


def tensors_of(spec: ModelSpec, stored: Mapping[str, StoredTensor], format: str, source: str) -> Mapping[str, Array]:
    """Return a file's tensors by their canonical names, each read when asked for.

    stored: by the names of `format`. Raises CheckpointError where one is missing, of a kind that is not read, or has
    another shape than the model's sizes ask for, or where the file holds more layers than these sizes say.
    """
    reads = {}
    for name, shape in parameter_shapes(spec).items():
        place = place_of(name, format)
        found = stored.get(place.name)
        if found is None or found.read is None:
            raise CheckpointError(f"{source}: {_why_missing(place.name, found, stored)}")
        asked = (shape[0] * place.parts, *shape[1:])
        if found.shape != asked:
            raise CheckpointError(f"{source}: {place.name} has shape {found.shape}; the model's sizes ask for {asked}")
        reads[name] = partial(found.read, shape[0] * place.part, shape[0] * (place.part + 1))
    _refuse_more_layers(spec, stored, format, source)
    return _Tensors(reads)


def _why_missing(name: str, found: StoredTensor | None, stored: Mapping[str, StoredTensor]) -> str:
    if found is not None:
        return (
            f"a tensor of weights is missing: {name} is stored as {found.kind:.60}, and stapes reads "
            f"{', '.join(WIDTHS)}; save the model in one of these"
        )
    # Of transformers' names only what a bare WhisperModel has, too.
    longer = next((one for one in stored if one.endswith(f".{name.removeprefix('model.')}")), None)
    if longer:
        return (
            f"tensor {name} is missing, and the file has {longer!r:.120}; save the model without what stands before "
            "its names (torch.compile, DataParallel and PEFT put something there)"
        )
    unread = next((tensor.kind for tensor in stored.values() if tensor.read is None), None)
    others = f" (others are stored as {unread:.60}, which stapes does not read)" if unread else ""
    return f"tensor {name} is missing{others}; the checkpoint is not whole: fetch it again"


def _refuse_more_layers(spec: ModelSpec, stored: Mapping[str, StoredTensor], format: str, source: str) -> None:
    for side, n_layer in (("encoder", spec.n_audio_layer), ("decoder", spec.n_text_layer)):
        beyond = place_of(f"{side}.blocks.{n_layer}.mlp.0.weight", format).name
        if beyond in stored:
            raise CheckpointError(
                f"{source}: holds {beyond}, and its sizes say that the {side} has {n_layer} layers; "
                "sizes and weights are not of one model"
            )


def kind_of(stored: Mapping[str, StoredTensor]) -> str:
    """Return how most of a file's numbers are stored."""
    counts: Counter[str] = Counter()
    for tensor in stored.values():
        if tensor.read is not None:
            counts[tensor.kind] += math.prod(tensor.shape)
    return counts.most_common(1)[0][0] if counts else "none"
