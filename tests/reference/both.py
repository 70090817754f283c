"""What the comparisons share: the reference's modules, and one model's tokenizers on either side.

Every test here runs openai-whisper 20250625 in the same process (`make reference`); without it the modules are skipped.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from typing import Any

import numpy as np
import pytest

from stapes.backends.base import FloatArray
from stapes.checkpoint.base import Checkpoint, ModelSpec
from stapes.testing import tiny_spec
from stapes.tokenizer import Tokenizer

torch = pytest.importorskip("torch")
whisper = pytest.importorskip("whisper")
whisper_audio = pytest.importorskip("whisper.audio")
whisper_decoding = pytest.importorskip("whisper.decoding")
whisper_model = pytest.importorskip("whisper.model")
whisper_tokenizer = pytest.importorskip("whisper.tokenizer")
# The package's attribute of this name is the function; the module is where its names can be replaced.
whisper_transcribe = pytest.importorskip("whisper.transcribe")

ENGLISH, MULTILINGUAL, LARGE_V3 = 51864, 51865, 51866
#: the 20 ms of a timestamp token
FRAMES_PER_TIMESTAMP = 2

#: tokens of a row so far -> logits (n_vocab,) for the next one
TokenScript = Callable[[tuple[int, ...]], FloatArray]


def spec_of(n_vocab: int) -> ModelSpec:
    """Return sizes that suit a vocabulary: tiny ones, but for the ids."""
    return tiny_spec("english" if n_vocab == ENGLISH else "multilingual", n_vocab=n_vocab)


@cache
def our_tokenizer(n_vocab: int) -> Tokenizer:
    return Tokenizer(spec_of(n_vocab))


def their_tokenizer(n_vocab: int, language: str = "en", task: str = "transcribe") -> Any:
    many = n_vocab != ENGLISH
    n_languages = n_vocab - 51765 - int(many)
    return whisper_tokenizer.get_tokenizer(many, num_languages=n_languages, language=language, task=task)


def dimensions(spec: ModelSpec) -> Any:
    return whisper_model.ModelDimensions(**asdict(spec))


class FakeModel:
    """What the reference asks of a model besides its network."""

    device = torch.device("cpu")

    def __init__(self, n_vocab: int) -> None:
        self.dims = dimensions(spec_of(n_vocab))
        self.is_multilingual = n_vocab != ENGLISH
        self.num_languages = n_vocab - 51765 - int(self.is_multilingual)


def their_network(checkpoint: Checkpoint) -> Any:
    """Load a checkpoint into the reference's network, in float32."""
    model = whisper_model.Whisper(dimensions(checkpoint.spec))
    tensors = {name: torch.from_numpy(np.asarray(one, dtype=np.float32)) for name, one in checkpoint.tensors.items()}
    model.load_state_dict(tensors)
    return model.eval()


# The reference leaves its vocabulary files open; read them where no warning shows.
with warnings.catch_warnings():
    warnings.simplefilter("ignore", ResourceWarning)
    for _n_vocab in (ENGLISH, MULTILINGUAL, LARGE_V3):
        their_tokenizer(_n_vocab)
