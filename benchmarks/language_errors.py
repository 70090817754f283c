"""Recordings in which languages take turns: which words are wrong, and why.

    python -m benchmarks.language_errors --seeds 1 2 3 4 --python other/bin/python

The recordings are those of benchmarks.languages. All words of a recording are compared at once, so that a segment in
two parts counts for both. A wrong word gets the first cause that applies to the window that decoded the word's time;
the words of a part are assumed to be spread evenly over it. The same words are counted where the part is decoded alone,
and where it is decoded from the recording between the given times. In the latter, the recording's loudest frame sets
the floor. The language is given in both.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.languages import FLEURS, Part, joined, part_of, parts_of
from benchmarks.word_errors import aligned, normalise_all
from stapes import Engine, Segment, Transcript, load
from stapes.audio.pcm import Samples
from stapes.results import Window

#: half a second of another language in a window counts, and so does a window's edge so far inside a part
_MARGIN_S = 0.5
CAUSES = {
    "not decoded": "no window with text holds it",
    "wrong language": "its window is in another language",
    "two languages": "another language is spoken in its window, too",
    "cut": "its part is in several windows",
    "else": "a window of its language that holds all of its part",
}


@dataclass(frozen=True)
class Spoken:
    """A word that is said."""

    text: str
    part: Part
    time_s: float


def spoken_words(parts: Sequence[Part], python: str) -> list[Spoken]:
    """Return all words that are said, normalised, with times."""
    _, texts = normalise_all(python, [(part.reference, part.language) for part in parts])
    words = []
    for part, text in zip(parts, texts, strict=True):
        said = text.split()
        step_s = (part.end_s - part.start_s) / max(1, len(said))
        words += [Spoken(word, part, part.start_s + (i + 0.5) * step_s) for i, word in enumerate(said)]
    return words


def wrong_words(words: Sequence[Spoken], texts: Sequence[tuple[Part, str]], python: str) -> set[int]:
    """Return which words are wrong or missing in the texts of parts."""
    _, normal = normalise_all(python, [(text, part.language) for part, text in texts])
    given = " ".join(normal).split()
    pairs = aligned([word.text for word in words], given)
    return {i for i, j in pairs if i is not None and (j is None or words[i].text != given[j])}


def cause_of(time_s: float, part: Part, parts: Sequence[Part], transcript: Transcript) -> str:
    """Return which cause is true of a moment."""
    windows = [one for one in transcript.windows if not one.skipped and one.seek <= 100 * time_s < one.next_seek]
    language = _language(windows[-1], transcript.segments) if windows else None
    if language is None:
        return "not decoded"
    if language != part.language:
        return "wrong language"
    start_s, end_s = windows[-1].seek / 100, windows[-1].end / 100
    foreign_s = sum(
        max(0.0, min(end_s, other.end_s) - max(start_s, other.start_s))
        for other in parts
        if other.language != part.language
    )
    if foreign_s > _MARGIN_S:
        return "two languages"
    end_s = min(end_s, windows[-1].next_seek / 100)
    is_cut = start_s > part.start_s + _MARGIN_S or end_s < part.end_s - _MARGIN_S
    return "cut" if is_cut else "else"


def _language(window: Window, segments: Sequence[Segment]) -> str | None:
    return next((one.language for one in segments if one.seek == window.seek and one.text.strip()), None)


def count(
    parts: Sequence[Part], transcript: Transcript, beside: dict[str, list[tuple[Part, str]]], python: str
) -> dict[str, Counter[str]]:
    """Count one recording's words by cause: all, wrong, too many, and wrong in the texts that stand beside it."""
    segments = [one for one in transcript.segments if one.text.strip()]
    owners = [part_of(one, parts) for one in segments]
    words = spoken_words(parts, python)
    _, normal = normalise_all(python, [(one.text, part.language) for one, part in zip(segments, owners, strict=True)])
    given = [(word, at) for at, text in enumerate(normal) for word in text.split()]
    causes = [cause_of(word.time_s, word.part, parts, transcript) for word in words]
    found: dict[str, Counter[str]] = {cause: Counter() for cause in CAUSES}
    for cause in causes:
        found[cause]["words"] += 1
    for name, texts in beside.items():
        for at in wrong_words(words, texts, python):
            found[causes[at]][name] += 1
    for i, j in aligned([word.text for word in words], [word for word, _ in given]):
        if i is not None:
            found[causes[i]]["wrong"] += j is None or words[i].text != given[j][0]
        elif j is not None:
            its = given[j][1]
            middle_s = (segments[its].start_s + segments[its].end_s) / 2
            found[cause_of(middle_s, owners[its], parts, transcript)]["too many"] += 1
    return found


def texts_beside(engine: Engine, parts: Sequence[Part], audio: Samples) -> dict[str, list[tuple[Part, str]]]:
    """Decode each part with its language given: alone, and out of the recording."""
    alone, out_of_it = [], []
    for part in parts:
        alone.append((part, engine.transcribe(part.samples, language=part.language).text))
        clip = [part.start_s, part.end_s]
        text = engine.transcribe(audio, language=part.language, clip_timestamps=clip).text
        out_of_it.append((part, text))
    return {"wrong alone": alone, "wrong out of it": out_of_it}


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--model", default="base")
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--python", default=sys.executable, help="an interpreter whose openai-whisper normalises texts")
    arguments = parser.parse_args()
    engine = load(arguments.model, precision=arguments.precision)
    total: dict[str, Counter[str]] = {cause: Counter() for cause in CAUSES}
    for seed in arguments.seeds:
        parts = parts_of(FLEURS, seed)
        audio = joined(parts)
        transcript = engine.transcribe(audio, multilingual=True)
        found = count(parts, transcript, texts_beside(engine, parts, audio), arguments.python)
        sys.stdout.write(f"seed {seed}: {json.dumps(found)}\n")
        sys.stdout.flush()
        for cause, counts in found.items():
            total[cause] += counts
    for cause, counts in total.items():
        sys.stdout.write(f"{cause} ({CAUSES[cause]}): {json.dumps(counts)}\n")


if __name__ == "__main__":
    main()
