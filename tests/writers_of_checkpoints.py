"""Writes one model in each format that stapes reads, with nothing but NumPy and the standard library.

The writers are the tests' own, made from the formats' descriptions in docs/formats.md and not from the readers.
"""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from stapes.checkpoint.base import ModelSpec, parameter_shapes
from stapes.checkpoint.files import Array

TINY = ModelSpec(
    n_mels=4, n_audio_ctx=6, n_audio_state=32, n_audio_head=2, n_audio_layer=1,
    n_vocab=44, n_text_ctx=5, n_text_state=32, n_text_head=2, n_text_layer=2,
)  # fmt: skip
HEADS = ((0, 1), (1, 0))
#: Byte 32 and 160 are not printable, so GPT-2 spells them otherwise.
TOKENS = (b" ", b"\xa0", b"\n", *(bytes([65 + index]) for index in range(35)), b" A", b"")
SPECIAL = {"<|endoftext|>": 40, "<|startoftranscript|>": 41, "<|en|>": 42, "<|0.00|>": 43}


def random_tensors(spec: ModelSpec = TINY, dtype: str = "float16", seed: int = 1) -> dict[str, Array]:
    """Make a model's tensors by their canonical names."""
    generator = np.random.default_rng(seed)
    return {name: generator.normal(size=shape).astype(dtype) for name, shape in parameter_shapes(spec).items()}


# Vocabulary


def spelled(token: bytes) -> str:
    """Spell bytes as GPT-2 does, byte by byte from its rule."""
    return "".join(map(_character, token))


@cache
def _character(byte: int) -> str:
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [other for other in range(256) if other not in printable]
    return chr(byte) if byte in printable else chr(256 + others.index(byte))


def tokenizer_json(tokens: Iterable[bytes] = TOKENS, special: Mapping[str, int] = SPECIAL) -> str:
    vocab = {spelled(token): index for index, token in enumerate(tokens)}
    added = [{"id": index, "content": name, "special": True} for name, index in special.items()]
    return json.dumps({"version": "1.0", "added_tokens": added, "model": {"type": "BPE", "vocab": vocab}})


# Hugging Face

_MODULES = {
    "attn.query": "self_attn.q_proj", "attn.key": "self_attn.k_proj", "attn.value": "self_attn.v_proj",
    "attn.out": "self_attn.out_proj", "attn_ln": "self_attn_layer_norm", "cross_attn.query": "encoder_attn.q_proj",
    "cross_attn.key": "encoder_attn.k_proj", "cross_attn.value": "encoder_attn.v_proj",
    "cross_attn.out": "encoder_attn.out_proj", "cross_attn_ln": "encoder_attn_layer_norm",
    "mlp.0": "fc1", "mlp.2": "fc2", "mlp_ln": "final_layer_norm",
}  # fmt: skip


def huggingface_name(name: str) -> str:
    side, _, rest = name.partition(".")
    if rest.startswith("blocks."):
        _, layer, rest = rest.split(".", 2)
        module, _, kind = rest.rpartition(".")
        return f"model.{side}.layers.{layer}.{_MODULES[module]}.{kind}"
    for ours, theirs in (
        ("ln_post", "layer_norm"),
        ("ln.", "layer_norm."),
        ("token_embedding", "embed_tokens"),
    ):
        if rest.startswith(ours):
            return f"model.{side}.{rest.replace(ours, theirs)}"
    return f"model.{side}.{rest.replace('positional_embedding', 'embed_positions.weight')}"


def safetensors_bytes(tensors: Mapping[str, Array], kinds: Mapping[str, str] | None = None) -> bytes:
    """kinds: dtype names of tensors that are not what NumPy says ("BF16" for uint16 bits)."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, tensor in tensors.items():
        kind = (kinds or {}).get(name) or {2: "F16", 4: "F32", 8: "F64"}[tensor.itemsize]
        header[name] = {"dtype": kind, "shape": tensor.shape, "data_offsets": (at, at + tensor.nbytes)}
        at += tensor.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(tensor.tobytes() for tensor in tensors.values())


def huggingface_config(spec: ModelSpec) -> dict[str, Any]:
    d = spec.n_audio_state
    return {
        "model_type": "whisper", "activation_function": "gelu", "d_model": d, "vocab_size": spec.n_vocab,
        "encoder_layers": spec.n_audio_layer, "encoder_attention_heads": spec.n_audio_head,
        "decoder_layers": spec.n_text_layer, "decoder_attention_heads": spec.n_text_head,
        "encoder_ffn_dim": 4 * d, "decoder_ffn_dim": 4 * d, "num_mel_bins": spec.n_mels,
        "max_source_positions": spec.n_audio_ctx, "max_target_positions": spec.n_text_ctx,
    }  # fmt: skip


def write_huggingface(folder: Path, tensors: Mapping[str, Array], spec: ModelSpec = TINY, shards: int = 1) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(huggingface_config(spec)))
    (folder / "generation_config.json").write_text(json.dumps({"alignment_heads": HEADS}))
    (folder / "tokenizer.json").write_text(tokenizer_json())
    named = {huggingface_name(name): tensor for name, tensor in tensors.items()}
    if shards == 1:
        (folder / "model.safetensors").write_bytes(safetensors_bytes(named))
        return folder
    weight_map = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = dict(list(named.items())[shard::shards])
        (folder / file).write_bytes(safetensors_bytes(part))
        weight_map.update(dict.fromkeys(part, file))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


# OpenAI: a pickle of protocol 2, instruction by instruction


@dataclass(frozen=True)
class Global:
    module: str
    name: str


@dataclass(frozen=True)
class Call:
    function: Global
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Reference:
    content: tuple[Any, ...]


@dataclass(frozen=True)
class Raw:
    instructions: bytes


def pickled(value: Any) -> bytes:
    """A whole pickle of `value`."""
    return b"\x80\x02" + _instructions(value) + b"."


def _instructions(value: Any) -> bytes:
    emit = _instructions
    match value:
        case Raw(instructions):
            return instructions
        case bool() | None:
            return {True: b"\x88", False: b"\x89", None: b"N"}[value]
        case int():
            return b"J" + struct.pack("<i", value)
        case float():
            return b"G" + struct.pack(">d", value)
        case list():
            return b"](" + b"".join(map(emit, value)) + b"e"
        case str():
            return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
        case tuple():
            return b"(" + b"".join(map(emit, value)) + b"t"
        case dict():
            return b"}(" + b"".join(emit(key) + emit(item) for key, item in value.items()) + b"u"
        case Global(module, name):
            return f"c{module}\n{name}\n".encode()
        case Call(function, arguments):
            return emit(function) + emit(arguments) + b"R"
        case Reference(content):
            return emit(content) + b"Q"
    raise AssertionError(value)


EMPTY = Call(Global("collections", "OrderedDict"), ())
REBUILD = Global("torch._utils", "_rebuild_tensor_v2")


def torch_tensor(key: int, shape: tuple[int, ...], *, kind: str = "Half", count: int | None = None,
                 offset: int = 0, strides: tuple[int, ...] | None = None, storage: str = "") -> Call:  # fmt: skip
    """What a pickle says of a tensor."""
    count = int(np.prod(shape)) if count is None else count
    if strides is None:
        strides = tuple(int(np.prod(shape[axis + 1 :])) for axis in range(len(shape)))
    module, _, name = (storage or f"torch.{kind}Storage").rpartition(".")
    numbers = Reference(("storage", Global(module, name), str(key), "cpu", count))
    return Call(REBUILD, (numbers, offset, shape, strides, False, EMPTY))


def openai_value(tensors: Mapping[str, Array], spec: ModelSpec = TINY) -> dict[str, Any]:
    state = {
        name: torch_tensor(key, tensor.shape, kind={2: "Half", 4: "Float", 8: "Double"}[tensor.itemsize])
        for key, (name, tensor) in enumerate(tensors.items())
    }
    return {"dims": asdict(spec), "model_state_dict": state}


def write_archive(path: Path, program: bytes, storages: Iterable[bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("model/data.pkl", program)
        archive.writestr("model/byteorder", "little")
        for key, storage in enumerate(storages):
            archive.writestr(f"model/data/{key}", storage)
        archive.writestr("model/version", "3\n")
    return path


def write_openai(path: Path, tensors: Mapping[str, Array], spec: ModelSpec = TINY) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_archive(path, pickled(openai_value(tensors, spec)), (t.tobytes() for t in tensors.values()))


# CTranslate2


def ctranslate2_tensors(tensors: Mapping[str, Array], spec: ModelSpec = TINY) -> dict[str, Array]:
    """Name and stack tensors as CTranslate2 does; keys get a bias of zeros there."""
    found: dict[str, Array] = {}

    def module(ours: str, theirs: str, kinds: tuple[str, str] = ("weight", "bias")) -> None:
        found[f"{theirs}/{kinds[0]}"], found[f"{theirs}/{kinds[1]}"] = (
            tensors[f"{ours}.weight"],
            tensors[f"{ours}.bias"],
        )

    def norm(ours: str, theirs: str) -> None:
        module(ours, theirs, ("gamma", "beta"))

    def stack(ours: str, parts: tuple[str, ...], theirs: str) -> None:
        weights = [tensors[f"{ours}.{part}.weight"] for part in parts]
        biases = [tensors.get(f"{ours}.{part}.bias", np.zeros(len(weights[0]), weights[0].dtype)) for part in parts]
        found[f"{theirs}/weight"], found[f"{theirs}/bias"] = np.concatenate(weights), np.concatenate(biases)

    for side, heads, layers in (
        ("encoder", spec.n_audio_head, spec.n_audio_layer),
        ("decoder", spec.n_text_head, spec.n_text_layer),
    ):
        found[f"{side}/num_heads"] = np.array(heads, np.int16)
        found[f"{side}/position_encodings/encodings"] = tensors[f"{side}.positional_embedding"]
        for layer in range(layers):
            ours, theirs = f"{side}.blocks.{layer}", f"{side}/layer_{layer}"
            stack(f"{ours}.attn", ("query", "key", "value"), f"{theirs}/self_attention/linear_0")
            module(f"{ours}.attn.out", f"{theirs}/self_attention/linear_1")
            norm(f"{ours}.attn_ln", f"{theirs}/self_attention/layer_norm")
            if side == "decoder":
                module(f"{ours}.cross_attn.query", f"{theirs}/attention/linear_0")
                stack(f"{ours}.cross_attn", ("key", "value"), f"{theirs}/attention/linear_1")
                module(f"{ours}.cross_attn.out", f"{theirs}/attention/linear_2")
                norm(f"{ours}.cross_attn_ln", f"{theirs}/attention/layer_norm")
            module(f"{ours}.mlp.0", f"{theirs}/ffn/linear_0")
            module(f"{ours}.mlp.2", f"{theirs}/ffn/linear_1")
            norm(f"{ours}.mlp_ln", f"{theirs}/ffn/layer_norm")
    module("encoder.conv1", "encoder/conv1")
    module("encoder.conv2", "encoder/conv2")
    norm("encoder.ln_post", "encoder/layer_norm")
    norm("decoder.ln", "decoder/layer_norm")
    found["decoder/activation"] = np.array(3, np.int8)
    found["decoder/embeddings/weight"] = tensors["decoder.token_embedding.weight"]
    return found


def quantised_int8(tensors: Mapping[str, Array]) -> dict[str, Array]:
    """Store weights as int8 with a scale of 127 / (largest of the row) per row, as CTranslate2 does."""
    found = dict(tensors)
    for name, tensor in tensors.items():
        if name.endswith("/weight"):
            rows = tensor.astype(np.float32).reshape(len(tensor), -1)
            scale = np.float32(127) / np.abs(rows).max(axis=1)
            found[name] = np.rint(rows * scale[:, None]).astype(np.int8).reshape(tensor.shape)
            found[f"{name}_scale"] = scale
    return found


_CT2_TYPES = ("float32", "int8", "int16", "int32", "float16")


def ctranslate2_bytes(tensors: Mapping[str, Array], aliases: Mapping[str, str] | None = None) -> bytes:
    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    parts = [struct.pack("<I", 6), text("WhisperSpec"), struct.pack("<II", 3, len(tensors))]
    for name, tensor in sorted(tensors.items()):
        shape = struct.pack(f"<B{tensor.ndim}I", tensor.ndim, *tensor.shape)
        code = _CT2_TYPES.index(tensor.dtype.name)
        parts += [text(name), shape, struct.pack("<BI", code, tensor.nbytes), tensor.tobytes()]
    if aliases is None:
        aliases = {"decoder/projection/weight": "decoder/embeddings/weight"}
    parts.append(struct.pack("<I", len(aliases)))
    parts += [text(alias) + text(name) for alias, name in aliases.items()]
    return b"".join(parts)


def write_ctranslate2(folder: Path, tensors: Mapping[str, Array], spec: ModelSpec = TINY) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.bin").write_bytes(ctranslate2_bytes(ctranslate2_tensors(tensors, spec)))
    (folder / "config.json").write_text(json.dumps({"alignment_heads": HEADS, "lang_ids": [42]}))
    lines = [*map(spelled, TOKENS), *SPECIAL]
    (folder / "vocabulary.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


# ggml

GGML_TYPES = {"q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8}
Quantise = Callable[[Array], Array]


def ggml_bytes(tensors: Mapping[str, Array], spec: ModelSpec = TINY, kind: str = "f16",
               quantise: Quantise | None = None, tokens: Iterable[bytes] = TOKENS) -> bytes:  # fmt: skip
    """kind: "f16" or a key of GGML_TYPES, with `quantise`: float32 rows -> bytes."""
    sizes = (
        spec.n_vocab, spec.n_audio_ctx, spec.n_audio_state, spec.n_audio_head, spec.n_audio_layer,
        spec.n_text_ctx, spec.n_text_state, spec.n_text_head, spec.n_text_layer, spec.n_mels,
    )  # fmt: skip
    filters = np.zeros((spec.n_mels, 3), np.float32)
    tokens = list(tokens)
    parts = [struct.pack("<I11i", 0x67676D6C, *sizes, 1)]
    parts += [struct.pack("<2i", *filters.shape), filters.tobytes(), struct.pack("<i", len(tokens))]
    parts += [struct.pack("<i", len(token)) + token for token in tokens]
    for name, written in tensors.items():
        tensor = written.reshape(-1, 1) if name in ("encoder.conv1.bias", "encoder.conv2.bias") else written
        if tensor.ndim == 1 or tensor.shape[-1] == 1 or name.endswith("positional_embedding"):
            code, data = 0, tensor.astype(np.float32).tobytes()
        elif quantise and tensor.ndim == 2:
            code, data = GGML_TYPES[kind], quantise(tensor.astype(np.float32)).tobytes()
        else:
            code, data = 1, tensor.astype(np.float16).tobytes()
        header = struct.pack(f"<3i{tensor.ndim}i", tensor.ndim, len(name), code, *tensor.shape[::-1])
        parts.append(header + name.encode() + data)
    return b"".join(parts)


def write_ggml(path: Path, tensors: Mapping[str, Array], spec: ModelSpec = TINY) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(ggml_bytes(tensors, spec))
    return path


WRITERS: dict[str, Callable[..., Path]] = {
    "huggingface": write_huggingface,
    "openai": write_openai,
    "ctranslate2": write_ctranslate2,
    "ggml": write_ggml,
}
