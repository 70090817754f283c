"""Word error rate: normalise both texts, then count the edits.

As a program it normalises JSON lines {"text", "language"} from standard input, so that the interpreter which
has openai-whisper can lend its normaliser to one that has not.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

WHISPER, SIMPLE = "openai-whisper", "simple (lower case, letters and digits only)"
#: written without spaces: counted by characters
_UNSPACED = frozenset({"zh", "ja", "th", "lo", "my", "yue"})


def simple(text: str, language: str) -> str:
    """Lower the case, and leave letters, digits and apostrophes."""
    kept = re.sub(r"[^\w'\s]|_", " ", unicodedata.normalize("NFKC", text).lower())
    return " ".join(" ".join(kept) if language in _UNSPACED else kept.split())


def normaliser() -> tuple[str, Callable[[str, str], str]]:
    """Return openai-whisper's normaliser where it is installed, else a simple one, with its name."""
    try:
        from whisper.normalizers import (  # noqa: PLC0415 (an engine that may be absent)
            BasicTextNormalizer,
            EnglishTextNormalizer,
        )
    except ImportError:
        return SIMPLE, simple
    english: Any = EnglishTextNormalizer()
    basic: Any = BasicTextNormalizer()
    unspaced: Any = BasicTextNormalizer(split_letters=True)

    def normalise(text: str, language: str) -> str:
        chosen = english if language == "en" else unspaced if language in _UNSPACED else basic
        return str(chosen(text))

    return WHISPER, normalise


def normalise_all(python: str, rows: Sequence[tuple[str, str]]) -> tuple[str, list[str]]:
    """Normalise (text, language) rows with what the interpreter `python` has; the normaliser's name first."""
    lines = "".join(json.dumps({"text": text, "language": language}) + "\n" for text, language in rows)
    done = subprocess.run(
        [python, "-m", "benchmarks.word_errors"],
        input=lines,
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    name, *texts = (json.loads(line) for line in done.stdout.splitlines())
    return str(name), [str(text) for text in texts]


def edits(reference: Sequence[str], hypothesis: Sequence[str]) -> int:
    """Count the fewest words to insert, delete or replace."""
    above = list(range(len(hypothesis) + 1))
    for wanted in reference:
        above = _next_row(above, wanted, hypothesis)
    return above[-1]


def aligned(reference: Sequence[str], hypothesis: Sequence[str]) -> list[tuple[int | None, int | None]]:
    """Pair the words' places in order, with the fewest edits; None: a word that is missing, or one too many."""
    rows = [list(range(len(hypothesis) + 1))]
    for wanted in reference:
        rows.append(_next_row(rows[-1], wanted, hypothesis))
    pairs: list[tuple[int | None, int | None]] = []
    i, j = len(reference), len(hypothesis)
    while i or j:
        if i and j and rows[i][j] == rows[i - 1][j - 1] + (reference[i - 1] != hypothesis[j - 1]):
            i, j = i - 1, j - 1
            pairs.append((i, j))
        elif i and rows[i][j] == rows[i - 1][j] + 1:
            i -= 1
            pairs.append((i, None))
        else:
            j -= 1
            pairs.append((None, j))
    return pairs[::-1]


def _next_row(above: Sequence[int], wanted: str, hypothesis: Sequence[str]) -> list[int]:
    row = [above[0] + 1]
    for j, given in enumerate(hypothesis, 1):
        row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (wanted != given)))
    return row


def main() -> None:
    """Normalise standard input line by line; the first line out is the normaliser's name."""
    name, normalise = normaliser()
    sys.stdout.write(json.dumps(name) + "\n")
    for line in sys.stdin:
        row = json.loads(line)
        sys.stdout.write(json.dumps(normalise(row["text"], row["language"])) + "\n")


if __name__ == "__main__":
    main()
