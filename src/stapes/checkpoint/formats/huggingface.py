"""Checkpoints as Hugging Face transformers writes them: config.json, safetensors, tokenizer.json. Reads no pickle."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

from stapes.checkpoint.base import Checkpoint, ModelSpec
from stapes.checkpoint.files import FileBytes, is_file, positive_int, read_json_object
from stapes.checkpoint.formats.safetensors import read_safetensors, refuse_unsupported
from stapes.checkpoint.formats.stored import StoredTensor, kind_of, spec_of, tensors_of
from stapes.checkpoint.formats.tokens import read_vocabulary
from stapes.checkpoint.formats.unsupported import MLX
from stapes.errors import CheckpointError

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_MAX_SHARDS = 1000

#: Sizes by OpenAI's name -> by the name in config.json.
#: Source: transformers v5.0.0 models/whisper/configuration_whisper.py.
_SIZES = {
    "n_mels": "num_mel_bins", "n_audio_ctx": "max_source_positions", "n_audio_state": "d_model",
    "n_audio_head": "encoder_attention_heads", "n_audio_layer": "encoder_layers", "n_vocab": "vocab_size",
    "n_text_ctx": "max_target_positions", "n_text_state": "d_model",
    "n_text_head": "decoder_attention_heads", "n_text_layer": "decoder_layers",
}  # fmt: skip


def read_huggingface(folder: Path, name: str, weights: Path | None = None) -> Checkpoint:
    """Read a folder; raises CheckpointError where a file is missing, damaged, or of another network.
    weights: the one file of weights, where it is not model.safetensors or the shards of the index.
    """
    config_path = folder / "config.json"
    config = read_json_object(config_path) if is_file(config_path) else {}
    check_network(config, config_path)
    if (first := weights or folder / WEIGHTS).is_file():
        refuse_unsupported(
            FileBytes(first)
        )  # before the sizes: a Git LFS pointer is the error to report, whatever the sizes are
    if not config_path.is_file():
        raise CheckpointError(f"{folder}: no config.json beside the weights; fetch the whole folder of the model")
    spec = _spec(config, config_path)
    stored = _with_prefix(read_safetensors(weights) if weights else _read_weights(folder))
    _refuse_other_names(stored, spec, folder)
    return Checkpoint(
        name=name,
        path=folder,
        format="huggingface",
        storage=kind_of(stored),
        spec=spec,
        tensors=tensors_of(spec, stored, "huggingface", str(folder)),
        vocabulary=read_vocabulary(folder),
        stated_alignment_heads=stated_heads(folder / "generation_config.json"),
    )


def check_network(config: dict[str, Any], path: Path) -> None:
    """Raise CheckpointError where config.json is of MLX, or of another network than Whisper's."""
    if "n_audio_state" in config and "d_model" not in config:
        # Sizes by OpenAI's names: https://github.com/ml-explore/mlx-examples/blob/d4c3a9c/whisper/convert.py
        raise CheckpointError(f"{path}: belongs to {MLX}")
    for key, expected in (
        ("model_type", "whisper"),
        ("activation_function", "gelu"),
        ("scale_embedding", False),
        ("tie_word_embeddings", True),
    ):
        if config.get(key, expected) != expected:
            raise CheckpointError(
                f"{path}: {key} is {config[key]!r:.60}; stapes runs Whisper, where it is {expected!r}"
            )


def _spec(config: dict[str, Any], path: Path) -> ModelSpec:
    spec = spec_of({ours: positive_int(config, theirs, str(path)) for ours, theirs in _SIZES.items()}, str(path))
    for side in ("encoder", "decoder"):
        inner = config.get(f"{side}_ffn_dim", 4 * spec.n_audio_state)
        if inner != 4 * spec.n_audio_state:
            raise CheckpointError(
                f"{path}: {side}_ffn_dim is {inner!r:.40}; every Whisper has four times d_model, "
                f"{4 * spec.n_audio_state}"
            )
    return spec


def shard_names(index: dict[str, Any], path: Path) -> list[str]:
    """Return the weight files that an index names, sorted.
    Raises CheckpointError for a name that is not a plain file name: it could lead out of the folder.
    """
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{path}: no weight_map in it; fetch it again")
    names = {name if isinstance(name, str) else "" for name in weight_map.values()}
    for name in names:
        if not name.endswith(".safetensors") or PurePosixPath(name).name != name or "\\" in name:
            raise CheckpointError(f"{path}: {name!r:.80} is not the name of a shard; fetch the index again")
    if len(names) > _MAX_SHARDS:
        raise CheckpointError(f"{path}: names {len(names)} shards; a Whisper has a few")
    return sorted(names)


def _read_weights(folder: Path) -> dict[str, StoredTensor]:
    if (folder / WEIGHTS).is_file():
        return read_safetensors(folder / WEIGHTS)
    index = folder / INDEX
    if not index.is_file():
        raise CheckpointError(
            f"{folder}: no {WEIGHTS} and no {INDEX}. stapes reads no pytorch_model.bin: load the model with "
            "transformers once and save it with save_pretrained(folder, safe_serialization=True)"
        )
    found: dict[str, StoredTensor] = {}
    for name in shard_names(read_json_object(index), index):
        shard = read_safetensors(folder / name)
        if twice := sorted(found.keys() & shard.keys()):
            raise CheckpointError(f"{folder}: {twice[0]!r:.80} stands in two shards; fetch the folder again")
        found.update(shard)
    return found


def _with_prefix(stored: dict[str, StoredTensor]) -> dict[str, StoredTensor]:
    """Name tensors as WhisperForConditionalGeneration does; a bare WhisperModel leaves "model." out.
    A stored proj_out.weight is the token embedding once more, and is not read.
    """
    return {
        f"model.{name}" if name.startswith(("encoder.", "decoder.")) else name: tensor
        for name, tensor in stored.items()
    }


def _refuse_other_names(stored: dict[str, StoredTensor], spec: ModelSpec, folder: Path) -> None:
    """Refuse files of MLX and of OpenAI's names, which would seem to lack tensors."""
    convolution = stored.get("model.encoder.conv1.weight")
    if convolution and convolution.shape == (spec.n_audio_state, 3, spec.n_mels) and spec.n_mels != 3:
        raise CheckpointError(f"{folder}: holds {MLX}")
    if name := next((name for name in stored if ".blocks." in name), None):
        raise CheckpointError(
            f"{folder}: tensor {name!r:.80} and others have the names of OpenAI's .pt; save the model as a .pt, or "
            "with transformers"
        )


def stated_heads(path: Path) -> tuple[tuple[int, int], ...] | None:
    """Return the (layer, head) pairs that a configuration states; None where it is missing or states nothing.

    A pair that stands twice counts once, as in the reference's mask. Whether the model has such heads is not checked.
    """
    stated = read_json_object(path).get("alignment_heads") if is_file(path) else None
    if stated is None or stated == []:
        return None
    if not (
        isinstance(stated, list)
        and all(isinstance(pair, list) and len(pair) == 2 and all(type(n) is int for n in pair) for pair in stated)
    ):
        raise CheckpointError(
            f"{path}: alignment_heads is {stated!r:.80}, expected pairs of layer and head; fetch it again"
        )
    return tuple(dict.fromkeys((layer, head) for layer, head in stated))
