"""Each format is read into the same names, shapes and numbers. No weights are needed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from stapes.checkpoint.base import ModelSpec
from stapes.checkpoint.formats.names import place_of
from stapes.checkpoint.formats.quantised import BLOCK_BYTES, dequantise
from stapes.checkpoint.open import open_checkpoint
from stapes.errors import CheckpointError
from tests import writers_of_checkpoints as write


@pytest.mark.parametrize(
    ("format", "dtype"),
    [
        (name, dtype)
        for name in write.WRITERS
        for dtype in ("float16", "float32")
        if (name, dtype) != ("ggml", "float32")
    ],
)
def test_every_format_gives_the_tensors_that_were_written(tmp_path: Path, format: str, dtype: str) -> None:
    tensors = write.random_tensors(dtype=dtype)
    checkpoint = open_checkpoint(write.WRITERS[format](tmp_path / "model", tensors))
    assert checkpoint.format == format
    assert checkpoint.storage == dtype
    assert checkpoint.spec == write.TINY
    assert list(checkpoint.tensors) == list(tensors)
    for name, written in tensors.items():
        read = checkpoint.tensors[name]
        np.testing.assert_array_equal(read, written)
        assert read.flags.aligned or read.dtype == np.float16  # which is packed from any address
        assert read.flags.c_contiguous
        assert not read.flags.writeable


def test_all_formats_share_one_fingerprint(tmp_path: Path) -> None:
    tensors = write.random_tensors()
    found = {open_checkpoint(writer(tmp_path / name, tensors)).fingerprint for name, writer in write.WRITERS.items()}
    assert len(found) == 1


def test_vocabulary_and_heads_come_from_the_formats_that_state_them(tmp_path: Path) -> None:
    tensors = write.random_tensors()
    read = {name: open_checkpoint(writer(tmp_path / name, tensors)) for name, writer in write.WRITERS.items()}
    for name in ("huggingface", "ctranslate2"):
        vocabulary = read[name].vocabulary
        assert vocabulary is not None
        assert vocabulary.tokens == write.TOKENS
        assert vocabulary.special == write.SPECIAL
        assert read[name].alignment_heads == write.HEADS
    assert read["openai"].vocabulary is None
    assert read["ggml"].vocabulary is not None
    assert read["ggml"].vocabulary.tokens == write.TOKENS
    for name in ("openai", "ggml"):
        assert read[name].stated_alignment_heads is None
        assert read[name].alignment_heads == (
            (1, 0),
            (1, 1),
        )  # unknown weights: the later half, as the reference


def test_the_table_of_names_agrees_with_the_writers() -> None:
    for name in write.random_tensors():
        assert place_of(name, "huggingface").name == write.huggingface_name(name)
    assert place_of("decoder.blocks.11.cross_attn.value.bias", "ctranslate2").parts == 2


# Hugging Face


def test_shards_are_joined(tmp_path: Path) -> None:
    tensors = write.random_tensors()
    folder = write.write_huggingface(tmp_path / "model", tensors, shards=3)
    for path in (folder, folder / "model-00002-of-00003.safetensors"):
        read = open_checkpoint(path).tensors
        assert all(np.array_equal(read[name], tensors[name]) for name in tensors)


def test_a_bare_encoder_decoder_and_a_stored_projection_are_read(tmp_path: Path) -> None:
    tensors = write.random_tensors()
    folder = write.write_huggingface(tmp_path, tensors)
    named = {write.huggingface_name(name).removeprefix("model."): tensor for name, tensor in tensors.items()}
    named["proj_out.weight"] = tensors["decoder.token_embedding.weight"]
    (folder / "model.safetensors").write_bytes(write.safetensors_bytes(named))
    read = open_checkpoint(folder).tensors
    assert all(np.array_equal(read[name], tensors[name]) for name in tensors)


def test_bfloat16_is_widened_exactly(tmp_path: Path) -> None:
    tensors = write.random_tensors(dtype="float32")
    halves = {name: tensor.view(np.uint32) & np.uint32(0xFFFF0000) for name, tensor in tensors.items()}
    named = {write.huggingface_name(name): (bits >> 16).astype(np.uint16) for name, bits in halves.items()}
    folder = write.write_huggingface(tmp_path, tensors)
    (folder / "model.safetensors").write_bytes(write.safetensors_bytes(named, dict.fromkeys(named, "BF16")))
    checkpoint = open_checkpoint(folder)
    assert checkpoint.storage == "bfloat16"
    for name, bits in halves.items():
        np.testing.assert_array_equal(checkpoint.tensors[name], bits.view(np.float32))


@pytest.mark.parametrize("format", ["huggingface", "openai"])
def test_float64_is_rounded_to_float32(tmp_path: Path, format: str) -> None:
    tensors = write.random_tensors(dtype="float64")
    tensors["decoder.ln.bias"][:3] = 1e300, -1e300, 1e-300
    checkpoint = open_checkpoint(write.WRITERS[format](tmp_path / "model", tensors))
    assert checkpoint.storage == "float64"
    for name, tensor in tensors.items():
        read = checkpoint.tensors[name]
        assert read.dtype == np.float32
        with np.errstate(over="ignore"):
            np.testing.assert_array_equal(read, tensor.astype(np.float32))


def test_a_transposed_float64_tensor_is_read(tmp_path: Path) -> None:
    tensors = write.random_tensors(dtype="float64")
    value, name = write.openai_value(tensors), "encoder.blocks.0.mlp.0.weight"
    storages = [tensor.T.tobytes() if key == name else tensor.tobytes() for key, tensor in tensors.items()]
    place = list(tensors).index(name)
    value["model_state_dict"][name] = write.torch_tensor(place, (128, 32), kind="Double", strides=(1, 128))
    path = write.write_archive(tmp_path / "model.pt", write.pickled(value), storages)
    np.testing.assert_array_equal(open_checkpoint(path).tensors[name], tensors[name].astype(np.float32))


def test_tensors_of_other_kinds_beside_the_weights_are_passed_over(tmp_path: Path) -> None:
    tensors = write.random_tensors()
    folder = write.write_huggingface(tmp_path, tensors)
    named = {write.huggingface_name(name): tensor for name, tensor in tensors.items()}
    kinds = {"ids": "I64", "mask": "BOOL", "scale": "F8_E4M3"}
    beside = {"ids": np.arange(3), "mask": np.ones(2, bool), "scale": np.ones(5, np.uint8)}
    (folder / "model.safetensors").write_bytes(write.safetensors_bytes({**beside, **named}, kinds))
    checkpoint = open_checkpoint(folder)
    assert checkpoint.storage == "float16"
    assert all(np.array_equal(checkpoint.tensors[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize("kind", ["I64", "I8", "U8", "F8_E4M3", "BOOL", "C64"])
def test_weights_of_other_kinds_are_refused_with_the_reason(tmp_path: Path, kind: str) -> None:
    tensors = write.random_tensors()
    folder = write.write_huggingface(tmp_path, tensors)
    named = {write.huggingface_name(name): tensor for name, tensor in tensors.items()}
    kinds = {"model.decoder.layers.1.fc2.weight": kind}
    (folder / "model.safetensors").write_bytes(write.safetensors_bytes(named, kinds))
    with pytest.raises(CheckpointError, match=f"fc2.weight is stored as {kind}.*reads float16, .*float64"):
        open_checkpoint(folder)


def test_vocabulary_falls_back_to_vocab_json(tmp_path: Path) -> None:
    folder = write.write_huggingface(tmp_path, write.random_tensors())
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(
        json.dumps({write.spelled(token): index for index, token in enumerate(write.TOKENS)} | {"<|endoftext|>": 40})
    )
    (folder / "added_tokens.json").write_text(json.dumps(write.SPECIAL))
    vocabulary = open_checkpoint(folder).vocabulary
    assert vocabulary is not None
    assert (vocabulary.tokens, vocabulary.special) == (write.TOKENS, write.SPECIAL)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "wav2vec2"}, "model_type"),
        ({"activation_function": "relu"}, "activation_function"),
        ({"d_model": None}, "d_model"),
        ({"d_model": 64, "encoder_ffn_dim": 256, "decoder_ffn_dim": 256}, "shape"),
        ({"encoder_layers": 2}, "missing"),
        ({"decoder_layers": 1}, "layers"),
        ({"encoder_layers": 1 << 40}, "n_audio_layer"),
        ({"encoder_ffn_dim": 7}, "encoder_ffn_dim"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings"),
    ],
)
def test_sizes_that_do_not_fit_the_weights_are_refused(tmp_path: Path, change: dict[str, object], said: str) -> None:
    folder = write.write_huggingface(tmp_path, write.random_tensors())
    (folder / "config.json").write_text(json.dumps(write.huggingface_config(write.TINY) | change))
    with pytest.raises(CheckpointError, match=said):
        open_checkpoint(folder)


# CTranslate2


def test_int8_weights_lie_within_half_a_step_of_the_floats(tmp_path: Path) -> None:
    tensors = write.random_tensors(dtype="float32")
    folder = write.write_ctranslate2(tmp_path, tensors)
    quantised = write.quantised_int8(write.ctranslate2_tensors(tensors))
    (folder / "model.bin").write_bytes(write.ctranslate2_bytes(quantised))
    checkpoint = open_checkpoint(folder)
    assert checkpoint.storage == "int8"
    for name, written in tensors.items():
        read = checkpoint.tensors[name].reshape(len(written), -1)
        rows = written.reshape(len(written), -1)
        half_step = np.abs(rows).max(axis=1, keepdims=True) / 127 / 2
        assert (np.abs(read - rows) <= half_step * 1.0001).all()


def test_keys_lose_their_bias_which_no_softmax_sees(tmp_path: Path) -> None:
    tensors = write.random_tensors()
    folder = write.write_ctranslate2(tmp_path, tensors)
    stacked = write.ctranslate2_tensors(tensors)
    bias = stacked["encoder/layer_0/self_attention/linear_0/bias"].copy()
    bias[32:64] = 5
    stacked["encoder/layer_0/self_attention/linear_0/bias"] = bias
    (folder / "model.bin").write_bytes(write.ctranslate2_bytes(stacked))
    read = open_checkpoint(folder).tensors
    assert all(np.array_equal(read[name], tensors[name]) for name in tensors)


def test_an_output_projection_of_its_own_is_refused(tmp_path: Path) -> None:
    folder = write.write_ctranslate2(tmp_path, write.random_tensors())
    stacked = write.ctranslate2_tensors(write.random_tensors())
    stacked["decoder/projection/weight"] = stacked["decoder/embeddings/weight"] + 1
    (folder / "model.bin").write_bytes(write.ctranslate2_bytes(stacked, {}))
    with pytest.raises(CheckpointError, match="projection"):
        open_checkpoint(folder)


# ggml


@pytest.mark.parametrize("kind", BLOCK_BYTES)
def test_blocks_are_dequantised_bit_for_bit_as_by_ggml(kind: str) -> None:
    gguf = pytest.importorskip("gguf")
    blocks = np.random.default_rng(7).integers(0, 256, (500, BLOCK_BYTES[kind]), dtype=np.uint8)
    scales = np.random.default_rng(8).normal(size=(500, 2)).astype(np.float16)
    blocks[:, :4] = scales.view(np.uint8)  # scale, and offset where there is one: no NaN, which equals nothing
    if kind in ("q4_0", "q5_0", "q8_0"):
        blocks[:, 2:4] = np.random.default_rng(9).integers(0, 256, (500, 2), dtype=np.uint8)
    expected = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[kind.upper()])
    found = dequantise(kind, blocks)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found.view(np.uint32), expected.reshape(-1, 32).view(np.uint32))


@pytest.mark.parametrize("kind", BLOCK_BYTES)
def test_quantised_files_are_read(tmp_path: Path, kind: str) -> None:
    gguf = pytest.importorskip("gguf")
    code = gguf.GGMLQuantizationType[kind.upper()]
    tensors = write.random_tensors()
    path = tmp_path / "model.bin"
    path.write_bytes(write.ggml_bytes(tensors, kind=kind, quantise=lambda rows: gguf.quants.quantize(rows, code)))
    checkpoint = open_checkpoint(path)
    assert checkpoint.storage == kind
    for name, written in tensors.items():
        expected = written.astype(np.float32)
        if written.ndim == 2 and not name.endswith("positional_embedding"):
            expected = gguf.quants.dequantize(gguf.quants.quantize(expected, code), code)
        np.testing.assert_array_equal(checkpoint.tensors[name].astype(np.float32), expected)


def test_special_tokens_at_the_end_of_a_ggml_vocabulary_are_named(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(write.ggml_bytes(write.random_tensors(), tokens=[*write.TOKENS, b"<|endoftext|>"]))
    vocabulary = open_checkpoint(path).vocabulary
    assert vocabulary is not None
    assert (vocabulary.tokens, vocabulary.special) == (write.TOKENS, {"<|endoftext|>": 40})


def test_a_ggml_file_without_tokens_has_no_vocabulary(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(write.ggml_bytes(write.random_tensors(), tokens=[]))
    assert open_checkpoint(path).vocabulary is None


# Sizes


def test_a_larger_shape_needs_no_other_code(tmp_path: Path) -> None:
    spec = ModelSpec(
        n_mels=8, n_audio_ctx=6, n_audio_state=64, n_audio_head=4, n_audio_layer=2,
        n_vocab=50, n_text_ctx=5, n_text_state=64, n_text_head=4, n_text_layer=1,
    )  # fmt: skip
    tensors = write.random_tensors(spec)
    for name, writer in write.WRITERS.items():
        checkpoint = open_checkpoint(writer(tmp_path / name, tensors, spec))
        assert checkpoint.spec == spec
        assert all(np.array_equal(checkpoint.tensors[key], tensors[key]) for key in tensors)
