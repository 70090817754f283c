"""The one table of parameter names: a row per part of the network, a column per format.

Canonical names are OpenAI's (openai/whisper model.py at c0d2f62); ggml files use the same. The others:
Hugging Face transformers v5.0.0 models/whisper/modeling_whisper.py, CTranslate2 v4.8.0
python/ctranslate2/specs (whisper_spec.py, transformer_spec.py, attention_spec.py). Knows names, not bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

#: Columns: canonical, Hugging Face (after "model."), CTranslate2, and which part of how many stacked along
#: the first axis CTranslate2 keeps there: it stores query, key and value as one matrix ("fused").
_WHOLE = (0, 1)
_MODULES: tuple[tuple[str, str, str, tuple[int, int]], ...] = (
    ("encoder.conv1", "encoder.conv1", "encoder/conv1", _WHOLE),
    ("encoder.conv2", "encoder.conv2", "encoder/conv2", _WHOLE),
    ("encoder.ln_post", "encoder.layer_norm", "encoder/layer_norm", _WHOLE),
    ("decoder.ln", "decoder.layer_norm", "decoder/layer_norm", _WHOLE),
    ("decoder.token_embedding", "decoder.embed_tokens", "decoder/embeddings", _WHOLE),
)
_BLOCK_MODULES: tuple[tuple[str, str, str, tuple[int, int]], ...] = (
    ("attn.query", "self_attn.q_proj", "self_attention/linear_0", (0, 3)),
    ("attn.key", "self_attn.k_proj", "self_attention/linear_0", (1, 3)),
    ("attn.value", "self_attn.v_proj", "self_attention/linear_0", (2, 3)),
    ("attn.out", "self_attn.out_proj", "self_attention/linear_1", _WHOLE),
    ("attn_ln", "self_attn_layer_norm", "self_attention/layer_norm", _WHOLE),
    ("cross_attn.query", "encoder_attn.q_proj", "attention/linear_0", _WHOLE),
    ("cross_attn.key", "encoder_attn.k_proj", "attention/linear_1", (0, 2)),
    ("cross_attn.value", "encoder_attn.v_proj", "attention/linear_1", (1, 2)),
    ("cross_attn.out", "encoder_attn.out_proj", "attention/linear_2", _WHOLE),
    ("cross_attn_ln", "encoder_attn_layer_norm", "attention/layer_norm", _WHOLE),
    ("mlp.0", "fc1", "ffn/linear_0", _WHOLE),
    ("mlp.2", "fc2", "ffn/linear_1", _WHOLE),
    ("mlp_ln", "final_layer_norm", "ffn/layer_norm", _WHOLE),
)
#: Tensors that are not a weight or a bias of a module.
_SINGLE: tuple[tuple[str, str, str], ...] = (
    ("encoder.positional_embedding", "encoder.embed_positions.weight", "encoder/position_encodings/encodings"),
    ("decoder.positional_embedding", "decoder.embed_positions.weight", "decoder/position_encodings/encodings"),
)
#: CTranslate2 calls a layer norm's weight and bias by the names of the paper (arXiv:1607.06450).
_NORMS = ("ln_post", "decoder.ln", "attn_ln", "mlp_ln")
_NORM_PARTS = {"weight": "gamma", "bias": "beta"}

_LAYER = re.compile(r"\.blocks\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a format keeps a tensor: under `name`, as part `part` of `parts` equal ones of its rows."""

    name: str
    part: int = 0
    parts: int = 1


def _rows() -> dict[str, dict[str, Place]]:
    """Return the whole table: canonical name with {} for the layer -> format -> place."""
    modules = list(_MODULES)
    for side in ("encoder", "decoder"):
        modules += [
            (f"{side}.blocks.{{}}.{ours}", f"{side}.layers.{{}}.{theirs}", f"{side}/layer_{{}}/{fused}", part)
            for ours, theirs, fused, part in _BLOCK_MODULES
        ]
    table: dict[str, dict[str, Place]] = {}
    for ours, theirs, fused, (part, parts) in modules:
        for kind in ("weight", "bias"):
            ct2_kind = _NORM_PARTS[kind] if ours.endswith(_NORMS) else kind
            table[f"{ours}.{kind}"] = {
                "huggingface": Place(f"model.{theirs}.{kind}"),
                "ctranslate2": Place(f"{fused}/{ct2_kind}", part, parts),
            }
    for ours, theirs, single in _SINGLE:
        table[ours] = {"huggingface": Place(f"model.{theirs}"), "ctranslate2": Place(single)}
    return table


_TABLE = _rows()


def place_of(canonical: str, format: str) -> Place:
    """Return where `format` keeps the tensor that OpenAI calls `canonical`.
    format: "openai", "ggml", "huggingface" or "ctranslate2". Raises KeyError for a name that no Whisper has.
    """
    if format in ("openai", "ggml"):
        return Place(canonical)
    layer = _LAYER.search(canonical)
    row = _TABLE[_LAYER.sub(".blocks.{}.", canonical)][format]
    return Place(row.name.format(layer[1]), row.part, row.parts) if layer else row
