"""Recordings of the corpus and options, drawn with a fixed seed, for comparisons of the drop-in faces."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from stapes.audio.load import load_audio
from stapes.backends.base import FloatArray
from stapes.languages import LANGUAGES
from tests.corpus import corpus_folder

#: without speech, broken, or the same speech in many formats
_LEFT_OUT = ("silence", "noise", "broken", "format-variant", "asterisk-moh", "speech-commands-noise")
#: the last has more tokens than a prompt may have
PROMPTS = ("Hello, this is a talk.", "Names: Austen, Darcy, Bennet.", "Languages: " + ", ".join(LANGUAGES.values()))


class Recording(NamedTuple):
    """One recording of the corpus."""

    path: str  # inside of audio/
    language: str
    duration_s: float

    @property
    def file(self) -> str:
        folder = corpus_folder()
        assert folder is not None
        return str(folder / "audio" / self.path)

    def samples(self) -> FloatArray:
        """Read its samples (n,) at 16 kHz."""
        with load_audio(self.file) as recording:
            return recording.read(0, recording.n_samples)


@cache
def _speech() -> tuple[Recording, ...]:
    folder = corpus_folder()
    if folder is None:
        return ()
    lines = (folder / "audio" / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    found = [one for one in map(json.loads, lines) if one["dataset"] not in _LEFT_OUT]
    return tuple(Recording(one["path"], one["language"], one["duration_s"]) for one in found)


def recordings(n: int, seed: int, longest_s: float) -> list[Recording]:
    """Draw recordings of speech that are not longer than that; none where there is no corpus."""
    chosen = [one for one in _speech() if one.duration_s <= longest_s]
    return random.Random(seed).sample(chosen, min(n, len(chosen)))


class Options(dict[str, Any]):
    """Options, each drawn with a probability of its own."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.random = random.Random(seed)

    def maybe(self, probability: float, name: str, *values: Any) -> None:
        """Set an option to one of these values, with a probability."""
        drawn, value = self.random.random(), self.random.choice(values)
        if drawn < probability:
            self[name] = value


def drawn(seed: int, table: dict[str, tuple[float, tuple[Any, ...]]], *more: Callable[[Options], None]) -> Options:
    """Draw options from a table: name -> probability and values."""
    found = Options(seed)
    for name, (probability, values) in table.items():
        found.maybe(probability, name, *values)
    for one in more:
        one(found)
    return found
