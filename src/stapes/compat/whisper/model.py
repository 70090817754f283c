"""Models as `whisper.model` of openai-whisper 20250625 has them: an engine of stapes instead of a PyTorch module."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, NoReturn

import numpy as np

from stapes.compat.loading import DeviceError, absent_class, usable_device
from stapes.compat.tensors import as_device, tensor_of
from stapes.compat.whisper.decoding import decode as decode_function
from stapes.compat.whisper.decoding import detect_language as detect_language_function
from stapes.compat.whisper.transcribe import transcribe as transcribe_function

if TYPE_CHECKING:
    from stapes import Engine

_NO_MODULE: Final = (
    "stapes computes with kernels of its own and has no PyTorch modules, parameters or hooks; decode() takes log-mels, "
    "and transcribe() word_timestamps=True"
)
#: language tokens in the vocabulary of models that know English only
_LANGUAGES_OF_ENGLISH: Final = 99
_LAYERS: Final = (
    "AudioEncoder", "Conv1d", "LayerNorm", "Linear", "MultiHeadAttention", "ResidualAttentionBlock", "TextDecoder",
)  # fmt: skip
#: of PyTorch modules, that are refused with a reason; any other name is no attribute
_OF_MODULES: Final = frozenset((
    "encoder", "decoder", "alignment_heads", "parameters", "named_parameters", "modules", "named_modules", "children",
    "state_dict", "load_state_dict", "register_forward_hook", "register_forward_pre_hook", "apply", "buffers",
))  # fmt: skip


@dataclass
class ModelDimensions:
    """A model's sizes."""

    n_mels: int
    n_audio_ctx: int
    n_audio_state: int
    n_audio_head: int
    n_audio_layer: int
    n_vocab: int
    n_text_ctx: int
    n_text_state: int
    n_text_head: int
    n_text_layer: int


class Whisper:
    """A loaded model; `load_model` makes it."""

    dims: ModelDimensions
    engine: Engine
    training = False

    def __init__(self, dims: ModelDimensions) -> None:
        """Raise NotImplementedError: a model is loaded with its weights."""
        raise NotImplementedError("Whisper(dims) has no weights; whisper.load_model(name) loads a model")

    @classmethod
    def of(cls, engine: Engine) -> Whisper:
        """Return the model of an engine."""
        model = object.__new__(cls)
        model.engine = engine
        spec = engine.info.spec
        model.dims = ModelDimensions(**{item.name: getattr(spec, item.name) for item in fields(ModelDimensions)})
        return model

    def __getattr__(self, name: str) -> Any:
        if name in _OF_MODULES:
            raise NotImplementedError(f"model.{name}: {_NO_MODULE}")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)

    @property
    def device(self) -> Any:
        """The device, of several the first: a torch.device where PyTorch is imported, else what equals it."""
        return as_device(self.engine.info.device.partition(",")[0])

    @property
    def is_multilingual(self) -> bool:
        """Whether the model knows several languages."""
        return self.engine.info.multilingual

    @property
    def num_languages(self) -> int:
        """How many languages the vocabulary has: 99, or 100 for large-v3 and its kin."""
        return len(self.engine.info.languages) if self.is_multilingual else _LANGUAGES_OF_ENGLISH

    def to(self, device: Any = None, *arguments: Any, **keywords: Any) -> Whisper:  # noqa: ARG002 (types change nothing)
        """Return the model, which stays where it was loaded.

        Raises ValueError for a GPU where the model is on the CPU, and for a device that stapes does not have. Under
        `stapes run-as` a GPU that cannot be used is a warning.
        """
        if not isinstance(device, str) and not hasattr(device, "type"):
            return self
        kind = str(device).partition(":")[0]
        if kind != self.engine.info.device.partition(":")[0] and usable_device(device) != "cpu":
            raise DeviceError(
                f"the model was loaded on the CPU and stays there; give load_model device={str(device)!r}"
            )
        return self

    def cuda(self, device: Any = None) -> Whisper:  # noqa: ARG002 (which one does not matter)
        """Return the model of a GPU. Raises what `to` raises."""
        return self.to("cuda")

    def cpu(self) -> Whisper:
        """Return the model."""
        return self

    eval = half = float = requires_grad_ = cpu

    def set_alignment_heads(self, dump: bytes) -> NoReturn:
        """Raise NotImplementedError: the heads are those that were published for the weights, or its file states."""
        raise NotImplementedError("set_alignment_heads: stapes takes the published heads of the weights, or the file's")

    def embed_audio(self, mel: Any) -> NoReturn:
        """Raise NotImplementedError."""
        raise NotImplementedError(f"embed_audio: {_NO_MODULE}")

    def logits(self, tokens: Any, audio_features: Any) -> NoReturn:
        """Raise NotImplementedError."""
        raise NotImplementedError(f"logits: {_NO_MODULE}")

    def forward(self, mel: Any, tokens: Any) -> NoReturn:
        """Raise NotImplementedError."""
        raise NotImplementedError(f"forward: {_NO_MODULE}")

    __call__ = forward

    def install_kv_cache_hooks(self, cache: dict[Any, Any] | None = None) -> NoReturn:
        """Raise NotImplementedError."""
        raise NotImplementedError(f"install_kv_cache_hooks: {_NO_MODULE}")

    detect_language = detect_language_function
    transcribe = transcribe_function
    decode = decode_function


def sinusoids(length: int, channels: int, max_timescale: int = 10000) -> Any:
    """Return the encoder's position embedding: a float32 tensor (length, channels), sines and then cosines."""
    assert channels % 2 == 0, "channels must be even"
    rates = np.exp(-np.log(max_timescale) / (channels // 2 - 1) * np.arange(channels // 2, dtype=np.float32))
    angles = np.arange(length, dtype=np.float32)[:, None] * rates
    return tensor_of(np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32))


@contextmanager
def disable_sdpa() -> Iterator[None]:
    """Do nothing: there is no fused attention of PyTorch to switch off."""
    yield


def __getattr__(name: str) -> Any:
    """Return a class for a layer of the original."""
    if name not in _LAYERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    made = globals()[name] = absent_class(name, __name__, _NO_MODULE)
    return made
