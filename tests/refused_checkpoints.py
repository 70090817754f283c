"""What a refusal must be: one sentence that names the file, and no memory taken by a file's claims."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from stapes.checkpoint.open import open_checkpoint
from stapes.errors import CheckpointError


def refused(path: Path, said: str | None = None) -> str:
    """Open a checkpoint that must be refused, cheaply, with a sentence that names it; give the sentence."""
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=said) as caught:
            open_checkpoint(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    sentence = str(caught.value)
    assert str(path) in sentence
    assert len(sentence) < 800
    assert peak < 8 << 20
    return sentence
