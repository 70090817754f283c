"""Checkpoints as whisper.cpp reads them: one `ggml-*.bin` with sizes, vocabulary and weights.

It states no alignment heads. Layout (little-endian, 32-bit integers): magic; ten sizes and the file type;
mel filters (rows, columns, float32s); number of tokens, per token its length and bytes; then tensors to the
end of the file, each: number of dimensions, length of the name, type, dimensions (innermost first), name,
numbers.
Source: https://github.com/ggml-org/whisper.cpp/blob/v1.8.2/src/whisper.cpp (whisper_model_load) and
models/convert-pt-to-ggml.py beside it.
"""

from __future__ import annotations

import math
from pathlib import Path

from stapes.checkpoint.base import Checkpoint, ModelSpec, VocabularyData
from stapes.checkpoint.files import Array, Cursor, FileBytes
from stapes.checkpoint.formats.quantised import BLOCK, BLOCK_BYTES, dequantise
from stapes.checkpoint.formats.stored import WIDTHS, StoredTensor, kind_of, plain, spec_of, tensors_of
from stapes.errors import CheckpointError

_MAGIC = 0x67676D6C  # "ggml", as a number

#: In the order of the file.
_SIZES = (
    "n_vocab", "n_audio_ctx", "n_audio_state", "n_audio_head", "n_audio_layer",
    "n_text_ctx", "n_text_state", "n_text_head", "n_text_layer", "n_mels",
)  # fmt: skip
#: Type numbers of tensors (enum ggml_type). The file type in the header counts differently (q8_0 is 7 there)
#: and is not needed: every tensor states its type.
_TYPES = {0: "float32", 1: "float16", 2: "q4_0", 3: "q4_1", 6: "q5_0", 7: "q5_1", 8: "q8_0"}
_MAX_TENSORS = 1 << 16
_MAX_NAME_BYTES = 256
_MAX_TOKEN_BYTES = 1 << 12


def read_ggml(path: Path, name: str) -> Checkpoint:
    """Read a file; raises CheckpointError where it is damaged, or quantised as stapes does not know."""
    data = FileBytes(path)
    cursor = Cursor(data)
    if cursor.number("I", "the magic number") != _MAGIC:
        raise CheckpointError(f"{path}: does not begin as a ggml file does; fetch it again")
    sizes = dict(zip(_SIZES, cursor.numbers("i", len(_SIZES), "the sizes"), strict=True))
    spec = spec_of(sizes, str(path))
    cursor.number("i", "the file type")
    rows, columns = cursor.numbers("I", 2, "the shape of the mel filters")
    cursor.skip(rows * columns * 4, "the mel filters")  # stapes computes them, as the reference does
    vocabulary = _read_vocabulary(cursor, spec)
    stored = _read_tensors(cursor)
    return Checkpoint(
        name=name,
        path=path,
        format="ggml",
        storage=kind_of(stored),
        spec=spec,
        tensors=tensors_of(spec, stored, "ggml", str(path)),
        vocabulary=vocabulary,
    )


def _read_vocabulary(cursor: Cursor, spec: ModelSpec) -> VocabularyData | None:
    """Return the tokens by id; None where the file has none.
    Files hold the ordinary tokens; some end in "<|endoftext|>", or go on with further special ones, by name.
    """
    count = cursor.number("I", "the number of tokens")
    if count > spec.n_vocab:
        raise CheckpointError(
            f"{cursor.data.name}: claims {count} tokens, and its sizes say {spec.n_vocab}; fetch it again"
        )
    tokens: list[bytes] = []
    for index in range(count):
        size = cursor.number("I", f"the length of token {index}")
        if size > _MAX_TOKEN_BYTES:
            raise CheckpointError(f"{cursor.data.name}: token {index} has {size} bytes; fetch the file again")
        tokens.append(cursor.take(size, f"token {index}"))
    special: dict[str, int] = {}
    while tokens and tokens[-1].startswith(b"<|") and tokens[-1].endswith(b"|>"):
        special[tokens[-1].decode("utf-8", "replace")] = len(tokens) - 1
        tokens.pop()
    return VocabularyData(tokens=tuple(tokens), special=special) if tokens else None


def _read_tensors(cursor: Cursor) -> dict[str, StoredTensor]:
    found: dict[str, StoredTensor] = {}
    while cursor.offset < cursor.data.size:
        name, tensor = _read_tensor(cursor)
        if name in found or len(found) >= _MAX_TENSORS:
            raise CheckpointError(f"{cursor.data.name}: tensor {name!r:.80} stands twice; fetch it again")
        found[name] = tensor
    return found


def _read_tensor(cursor: Cursor) -> tuple[str, StoredTensor]:
    source = cursor.data.name
    dimensions, length, code = cursor.numbers("i", 3, "a tensor's header")
    if not 1 <= dimensions <= 4 or not 1 <= length <= _MAX_NAME_BYTES:
        raise CheckpointError(
            f"{source}: a tensor at byte {cursor.offset - 12} claims {dimensions} dimensions and a name of "
            f"{length} bytes; the file is damaged: fetch it again"
        )
    shape = cursor.numbers("i", dimensions, "a tensor's shape")[::-1]
    name = cursor.take(length, "a tensor's name").decode("utf-8", "replace")
    if code not in _TYPES:
        raise CheckpointError(
            f"{source}: tensor {name!r:.80} has ggml type {code}; stapes reads {', '.join(_TYPES.values())}"
        )
    if min(shape) < 1:
        raise CheckpointError(f"{source}: tensor {name!r:.80} has shape {shape}; fetch the file again")
    if name.endswith(("conv1.bias", "conv2.bias")) and shape[1:] == (1,):
        shape = shape[:1]  # stored as a column, so that ggml can add it to the rows of a convolution
    return name, _describe(cursor, name, _TYPES[code], shape)


def _describe(cursor: Cursor, name: str, kind: str, shape: tuple[int, ...]) -> StoredTensor:
    data, what = cursor.data, f"tensor {name!r:.80}"
    if kind not in BLOCK_BYTES:
        return plain(data, cursor.skip(math.prod(shape) * WIDTHS[kind], what), kind, shape, what)
    if len(shape) < 2 or shape[-1] % BLOCK:
        raise CheckpointError(
            f"{data.name}: {what} of shape {shape} cannot be {kind}: its rows are not blocks of {BLOCK}; "
            "fetch the file again"
        )
    row_blocks = math.prod(shape[1:]) // BLOCK
    row_bytes = row_blocks * BLOCK_BYTES[kind]
    offset = cursor.skip(shape[0] * row_bytes, what)

    def read(first: int, stop: int) -> Array:
        blocks = ((stop - first) * row_blocks, BLOCK_BYTES[kind])
        raw = data.array(offset + first * row_bytes, "u1", blocks, what)
        return dequantise(kind, raw).reshape(stop - first, *shape[1:])

    return StoredTensor(shape, kind, read)
