r"""Which precisions `auto` may take: word errors against human references, decided by a bootstrap.

    python -m benchmarks.precision_evidence transcribe --transcripts FOLDER --model base --precision int8 \\
        [--speech FOLDER_WITH_MANIFEST ...]
    python -m benchmarks.precision_evidence decide --transcripts FOLDER --others PYTHON [--speech ...] [--write]

`transcribe` decodes every recording greedily at temperature 0 and goes on where it was stopped; the recordings are
those of the corpus that its manifest calls fit, and those of --speech (benchmarks/more_speech.py makes such a folder).
`decide` compares each arithmetic with float32 of the same model. Left out beforehand: recordings on which float32
loops (a segment's text compresses to less than one part in 2.4). A precision passes if the 97.5th percentile of its
difference to float32, in 10,000 draws of source utterances, is at most 0.3 points, for English and for the others with
at least 10,000 words each (English models: for English), and it loops on at most 1 in 300 recordings more. It is
undecided with fewer words, or with too few for the percentile to pass although the difference is below 0.3: what the
table said stays. --write puts the verdicts into src/stapes/backends/precisions.json.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import stapes
from benchmarks.adapters.stapes_engine import GREEDY
from benchmarks.corpus import COMPRESSES_BY, judged_recordings, read_manifest
from benchmarks.machine import facts
from benchmarks.precision_table import EVIDENCE
from benchmarks.recordings import Recording
from benchmarks.running import run
from benchmarks.word_errors import edits, normalise_all
from stapes.backends.native.library import PRECISIONS, library

DRAWS, PERCENTILE, MOST_POINTS, LEAST_WORDS, ONE_LOOP_IN = 10_000, 97.5, 0.3, 10_000, 300
_LEAST_SHARED_WORDS = 4  # of a text that is part of another, so that both are one utterance
RULE = f"at most {MOST_POINTS} points more words wrong than float32 ({PERCENTILE}th percentile of {DRAWS} draws)"


@dataclass(frozen=True, slots=True)
class Counted:
    """A group of recordings in one arithmetic beside float32."""

    words: int
    errors_float32: int
    errors: int
    upper_points: float  # of the difference
    words_to_decide: int  # so many would make the percentile pass, if the difference stays, or show that none would

    @property
    def points(self) -> float:
        """How many points more words are wrong than in float32."""
        return 100 * (self.errors - self.errors_float32) / max(1, self.words)

    @property
    def verdict(self) -> bool | None:
        """Whether it passes; None: undecided, as the words are too few for a difference like this one."""
        return None if self.words < self.words_to_decide else self.upper_points <= MOST_POINTS

    def as_json(self) -> dict[str, Any]:
        """Return what the table keeps."""
        found = {"words": self.words, "errors_float32": self.errors_float32, "errors": self.errors}
        return found | {"points": round(self.points, 3), "upper_points": round(self.upper_points, 3)}


def compare(words: list[int], float32: list[int], other: list[int], units: list[int]) -> Counted:
    """Count, and draw units with replacement: words, errors and unit of each recording -> the group's figures."""
    n_units = max(units, default=-1) + 1
    in_units = [np.bincount(units, weights=one, minlength=n_units) for one in (words, np.subtract(other, float32))]
    unit_words, unit_more = in_units
    upper, total = 0.0, int(sum(words))
    if total:
        drawn = np.random.default_rng(0).integers(0, n_units, (DRAWS, n_units))
        points = 100 * unit_more[drawn].sum(axis=1) / np.maximum(unit_words[drawn].sum(axis=1), 1)
        upper = float(np.percentile(points, PERCENTILE))
    counted = Counted(total, sum(float32), sum(other), upper, LEAST_WORDS)
    room = MOST_POINTS - counted.points
    if room <= 0:
        return counted
    needed = math.ceil(total * max((upper - counted.points) / room, 0) ** 2)  # the spread shrinks with the root
    return replace(counted, words_to_decide=max(LEAST_WORDS, needed))


def units_of(texts: list[str]) -> list[int]:
    """Number source utterances: recordings with the same words, or with the words of another, are of one."""
    padded = [f" {text} " for text in texts]
    found = list(range(len(texts)))

    def first(i: int) -> int:
        while found[i] != i:
            i = found[i]
        return i

    for i, text in enumerate(padded):
        if len(text.split()) >= _LEAST_SHARED_WORDS:
            for j, other in enumerate(padded):
                if i != j and text in other:
                    found[max(first(i), first(j))] = min(first(i), first(j))
    roots = [first(i) for i in range(len(texts))]
    numbers = {root: number for number, root in enumerate(dict.fromkeys(roots))}
    return [numbers[root] for root in roots]


def main() -> int:
    """Transcribe or decide."""
    arguments = _arguments()
    groups = judged_recordings()
    for folder in arguments.speech:
        lines = read_manifest(folder / "manifest.jsonl")
        lines = {path: line for path, line in lines.items() if line["dataset"] not in arguments.without}
        for name, group in judged_recordings(lines, folder).items():
            groups[name] += group
    if arguments.what == "transcribe":
        return _transcribe(arguments, groups)
    return _decide(arguments, groups)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.precision_evidence",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("what", choices=("transcribe", "decide"))
    add("--transcripts", type=Path, required=True, metavar="FOLDER", help="one file for each model and arithmetic")
    add("--speech", type=Path, action="append", default=[], metavar="FOLDER", help="more recordings, with a manifest")
    add("--without", action="append", default=[], metavar="DATASET", help="of --speech that is left out")
    add("--model", default="base")
    add("--precision", default="float32", choices=PRECISIONS)
    add("--threads", type=int, default=2)
    add("--others", default=sys.executable, metavar="PYTHON", help="that has openai-whisper, for its normaliser")
    add("--write", action="store_true", help=f"into {EVIDENCE.name}")
    return parser.parse_args()


def _transcribe(arguments: argparse.Namespace, groups: dict[str, list[Recording]]) -> int:
    if arguments.model.endswith(".en"):
        groups = {"english": groups["english"]}
    with stapes.load(arguments.model, precision=arguments.precision, threads=arguments.threads) as engine:
        arithmetic = library().peak.arithmetic(engine.info.isa, arguments.precision)
        path = arguments.transcripts / f"{arguments.model}-{arithmetic.replace('/', '-')}.json"
        done = json.loads(path.read_text(encoding="utf-8"))["texts"] if path.is_file() else {}
        left = [one for group in groups.values() for one in group if one.name not in done]
        for number, recording in enumerate(left, 1):
            found = engine.transcribe(recording.path, language=recording.language, **GREEDY)
            loops = any(one.compression_ratio > COMPRESSES_BY for one in found.segments)
            done[recording.name] = {"text": found.text, "loops": loops}
            if number % 20 == 0 or number == len(left):
                sys.stderr.write(f"{path.stem}: {number}/{len(left)}\n")
                said = {"model": arguments.model, "arithmetic": arithmetic, "machine": facts(), "texts": done}
                path.write_text(json.dumps(said, ensure_ascii=False), encoding="utf-8")
    return 0


def _decide(arguments: argparse.Namespace, groups: dict[str, list[Recording]]) -> int:
    table = json.loads(EVIDENCE.read_text(encoding="utf-8"))
    files = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(arguments.transcripts.glob("*.json"))]
    by_model: dict[str, dict[str, Any]] = {}
    for one in files:
        by_model.setdefault(one["model"], {})[one["arithmetic"]] = one
    for model, found in by_model.items():
        exact = found.pop("float32/f32/f32")
        for arithmetic, other in found.items():
            old = table["models"].get(model, {}).get(arithmetic)
            row = _row(exact["texts"], other["texts"], groups, arguments.others)
            row["date"] = other["machine"]["date"]
            sys.stdout.write(f"{model} {arithmetic}: {_said(row)}\n")
            if row["passes"] is None:  # what was decided before stays
                row |= {"passes": (old or {}).get("passes", False), "by": "undecided: as before"}
            table["models"].setdefault(model, {})[arithmetic] = row
    if arguments.write:
        table["rule"] = RULE
        EVIDENCE.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return 0


def _row(
    exact: dict[str, Any], other: dict[str, Any], groups: dict[str, list[Recording]], python: str
) -> dict[str, Any]:
    """Compare one arithmetic with float32 in every group that both have."""
    row: dict[str, Any] = {"recordings": 0, "more_loops": 0}
    verdicts = []
    for name, group in groups.items():
        members = [one for one in group if one.name in exact and one.name in other and not exact[one.name]["loops"]]
        if members:
            counted = _group(members, exact, other, python)
            verdicts.append(counted.pop("passes"))
            row[name] = counted
            row["recordings"] += len(members)
            row["more_loops"] += sum(other[one.name]["loops"] for one in members)
    may_loop = row["more_loops"] <= row["recordings"] / ONE_LOOP_IN
    row["passes"] = False if False in verdicts or not may_loop else None if None in verdicts else True
    return row


def _group(members: list[Recording], exact: dict[str, Any], other: dict[str, Any], python: str) -> dict[str, Any]:
    languages = [one.language or "en" for one in members]
    ours, theirs = ([texts[one.name]["text"] for one in members] for texts in (exact, other))
    texts = [one.reference or "" for one in members] + ours + theirs
    _, normalised = normalise_all(python, list(zip(texts, 3 * languages, strict=True)))
    split = [text.split() for text in normalised]
    n = len(members)
    references = split[:n]
    errors = [[edits(*pair) for pair in zip(references, split[i : i + n], strict=True)] for i in (n, 2 * n)]
    counted = compare([len(one) for one in references], errors[0], errors[1], units_of(normalised[:n]))
    row = counted.as_json() | {"unchanged": round(sum(map(str.__eq__, ours, theirs)) / n, 4)}
    if counted.verdict is None:
        row["words_to_decide"] = counted.words_to_decide
    return row | {"passes": counted.verdict}


def _said(row: dict[str, Any]) -> str:
    verdict = {True: "passes", False: "fails", None: "undecided"}[row["passes"]]
    parts = [
        f"{name}: {one['errors']} errors for {one['errors_float32']} in {one['words']} words, "
        f"{one['points']:+.2f} points, at most {one['upper_points']:+.2f}; {one['unchanged']:.1%} of texts unchanged"
        + (f"; {one['words_to_decide']} words would decide" if one.get("words_to_decide") else "")
        for name, one in row.items()
        if isinstance(one, dict)
    ]
    loops = f"loops on {row['more_loops']} of {row['recordings']} recordings where float32 does not"
    return "; ".join([verdict, *parts, loops])


if __name__ == "__main__":
    run("benchmarks.precision_evidence", main)
