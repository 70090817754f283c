"""What every checkpoint format is read into: sizes, named tensors, and what it states of its vocabulary."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path

import numpy as np

from stapes.checkpoint.files import Array
from stapes.checkpoint.heads import known_heads
from stapes.errors import CheckpointError
from stapes.runtime.warn import warn

#: Far beyond the largest Whisper (1,280 states, 32 layers, 51,866 tokens): larger sizes are not Whisper's.
LIMITS: dict[str, int] = {
    "n_mels": 512, "n_audio_ctx": 1 << 16, "n_audio_state": 1 << 14, "n_audio_head": 256,
    "n_audio_layer": 256, "n_vocab": 1 << 20, "n_text_ctx": 1 << 14, "n_text_state": 1 << 14,
    "n_text_head": 256, "n_text_layer": 256,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """The sizes of one model; names as in OpenAI's checkpoints."""

    n_mels: int  # mel bins of the input: 80, or 128 from large-v3 on
    n_audio_ctx: int  # encoder positions of one window: 1500, 20 ms each
    n_audio_state: int  # width of the encoder
    n_audio_head: int
    n_audio_layer: int
    n_vocab: int  # ids that the decoder can give, specials and timestamps included
    n_text_ctx: int  # decoder positions: 448
    n_text_state: int  # width of the decoder; equal to n_audio_state in every published model
    n_text_head: int
    n_text_layer: int

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= LIMITS[item.name]:
                raise CheckpointError(f"{item.name} is {value!r}; a Whisper model has 1 to {LIMITS[item.name]}")
        for side in ("audio", "text"):
            state, head = getattr(self, f"n_{side}_state"), getattr(self, f"n_{side}_head")
            if state % head:
                raise CheckpointError(f"n_{side}_state {state} is not a multiple of n_{side}_head {head}")
        if self.n_audio_state != self.n_text_state:
            raise CheckpointError(
                f"encoder and decoder differ in width ({self.n_audio_state} and {self.n_text_state}); "
                "no Whisper model does, and this engine cannot run one"
            )

    @property
    def n_parameters(self) -> int:
        """How many numbers the network has, positional embeddings included."""
        return sum(int(np.prod(shape)) for shape in parameter_shapes(self).values())


def parameter_shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of a model by its canonical name (OpenAI's).
    Linear weights are (out, in), convolutions (out, in, width), embeddings (id, state).
    """
    d = spec.n_audio_state
    shapes: dict[str, tuple[int, ...]] = {
        "encoder.conv1.weight": (d, spec.n_mels, 3),
        "encoder.conv1.bias": (d,),
        "encoder.conv2.weight": (d, d, 3),
        "encoder.conv2.bias": (d,),
        "encoder.positional_embedding": (spec.n_audio_ctx, d),
        "decoder.token_embedding.weight": (spec.n_vocab, d),
        "decoder.positional_embedding": (spec.n_text_ctx, d),
    }
    for name in ("encoder.ln_post", "decoder.ln"):
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (d,)
    for side, n_layer, kinds in (
        ("encoder", spec.n_audio_layer, ("attn",)),
        ("decoder", spec.n_text_layer, ("attn", "cross_attn")),
    ):
        for layer in range(n_layer):
            block = f"{side}.blocks.{layer}"
            for kind in kinds:
                for part in ("query", "key", "value", "out"):
                    shapes[f"{block}.{kind}.{part}.weight"] = (d, d)
                    if part != "key":  # keys have no bias: it would not change the softmax
                        shapes[f"{block}.{kind}.{part}.bias"] = (d,)
                shapes[f"{block}.{kind}_ln.weight"] = shapes[f"{block}.{kind}_ln.bias"] = (d,)
            shapes[f"{block}.mlp.0.weight"], shapes[f"{block}.mlp.0.bias"] = (4 * d, d), (4 * d,)
            shapes[f"{block}.mlp.2.weight"], shapes[f"{block}.mlp.2.bias"] = (d, 4 * d), (d,)
            shapes[f"{block}.mlp_ln.weight"] = shapes[f"{block}.mlp_ln.bias"] = (d,)
    return shapes


@dataclass(frozen=True, slots=True, kw_only=True)
class VocabularyData:
    """A vocabulary as a checkpoint states it, not yet checked against the model.

    tokens: the bytes of the ordinary tokens; a token's index is its id and its merge rank. Empty: not stated.
    special: ids of all other tokens by name ("<|startoftranscript|>"), as far as the files name them.
    languages: names of the tokens that the files list as languages ("<|en|>"); None: there is no such list.
    multilingual: whether prompts name a language and a task; None: not stated.
    """

    tokens: tuple[bytes, ...]
    special: Mapping[str, int] = field(default_factory=dict)
    languages: tuple[str, ...] | None = None
    multilingual: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """One model, whatever file it came from."""

    name: str  # what the user asked for, or the file's name
    path: Path | None  # None: made in memory
    format: str  # "huggingface", "openai", "ctranslate2", "ggml", "memory"
    storage: str  # how the weights are stored: "float16", "float32", "int8", "q5_0", ...
    spec: ModelSpec
    #: float16 (which may lie at an odd address) or float32, by canonical name; read when asked for
    tensors: Mapping[str, Array]
    vocabulary: VocabularyData | None = None  # None: nothing is stated; only a published size can be decoded
    stated_alignment_heads: tuple[tuple[int, int], ...] | None = None  # None: the format does not say
    verification: Callable[[], None] | None = None  # None: there is nothing that the weights could be held against

    def verify(self) -> None:
        """Wait until the weights' hash is checked; call this before what they compute is used.
        Raises CheckpointError if they are damaged.
        """
        if self.verification is not None:
            self.verification()

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the weights that every format of a model shares, quantised ones included: of the last layer norm of
        encoder and decoder, which all formats keep in full (all but a file in bfloat16 throughout).
        """
        digest = hashlib.sha256()
        for name in ("encoder.ln_post", "decoder.ln"):
            for part in ("weight", "bias"):
                digest.update(np.ascontiguousarray(self.tensors[f"{name}.{part}"], dtype="<f4").tobytes())
        return digest.hexdigest()

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of sizes, vocabulary, stated heads and every weight as it is stored: the same model, wherever it is.
        Reads all weights, tensor by tensor (0.2 s for `base`).
        """
        digest = hashlib.sha256(repr((self.spec, self.vocabulary, self.stated_alignment_heads)).encode())
        for name in sorted(self.tensors):
            tensor = np.ascontiguousarray(self.tensors[name])
            digest.update(f"{name} {tensor.dtype.str} {tensor.shape}".encode())
            digest.update(tensor.view(np.uint8).reshape(-1).data)
        return digest.hexdigest()

    @cached_property
    def alignment_heads(self) -> tuple[tuple[int, int], ...]:
        """(layer, head) of the decoder whose cross-attention follows the audio.

        What the file states; else what is known of these weights; else all heads of the later half of the layers, as in
        the reference. Stated heads that this decoder does not have are another model's (a student keeps its teacher's
        generation_config.json): a StapesWarning says so, and the later half is used.
        """
        spec = self.spec
        sizes = spec.n_audio_layer, spec.n_text_layer, spec.n_audio_state, spec.n_vocab
        file = self.path if self.format == "openai" else None
        found = self.stated_alignment_heads or known_heads(self.fingerprint, sizes, file)
        n_layer, n_head = spec.n_text_layer, spec.n_text_head
        missing = next((pair for pair in found or () if not (0 <= pair[0] < n_layer and 0 <= pair[1] < n_head)), None)
        if missing is not None:
            warn(
                f"{self.path or self.name}: its alignment heads are another model's (layer {missing[0]}, head "
                f"{missing[1]} of a decoder with {n_layer} layers of {n_head} heads); word times are taken from all "
                "heads of the later half of the layers, and may be less exact"
            )
        elif found:
            return found
        return tuple((layer, head) for layer in range(n_layer // 2, n_layer) for head in range(n_head))
