"""Where the recordings for corpus tests are, if there are any."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def corpus_folder() -> Path | None:
    """The folder that holds audio/ and golden/: STAPES_CORPUS, or `shared` beside the checkout."""
    named = os.environ.get("STAPES_CORPUS")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared"
    return folder if (folder / "audio" / "manifest.jsonl").is_file() else None


_is_missing = pytest.mark.skipif(
    corpus_folder() is None, reason="no recordings: set STAPES_CORPUS to the folder that holds audio/ and golden/"
)


def needs_corpus(test):
    """Mark a test `corpus`, and skip it where there are no recordings."""
    return pytest.mark.corpus(_is_missing(test))
