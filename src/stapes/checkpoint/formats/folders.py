"""Which files of a folder hold weights that can be read."""

from __future__ import annotations

from collections.abc import Iterable

from stapes.checkpoint.formats.ctranslate2 import CT2_WEIGHTS
from stapes.checkpoint.formats.huggingface import INDEX, WEIGHTS


def weights_in(files: Iterable[str]) -> list[str]:
    """Return the files that weights can be read from, the best first (an index stands for its shards).

    Names are exact on purpose: repositories also hold float32 duplicates (model.fp32-*.safetensors), pickles
    (pytorch_model.bin), and other frameworks' files.
    """
    present = set(files)
    return [name for name in (WEIGHTS, INDEX, CT2_WEIGHTS) if name in present]
