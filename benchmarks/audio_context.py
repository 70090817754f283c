"""Word errors and time of `audio_context="fit"` beside full windows, by the sound's length and the margin after it.

    python -m benchmarks.audio_context [--model base] [--precision float32] [--every 2] [--margins 0 1 2 4]

Recordings of speech that are shorter than a window, language given, greedy; each is transcribed in every way by turns.
Time is that of the processor in one thread. Prints the rows of docs/audio-context.md.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import stapes
from benchmarks.corpus import judged_recordings
from benchmarks.recordings import Recording
from benchmarks.word_errors import edits, normalise_all
from stapes.recording import audio_context
from stapes.results import Transcript

#: a recording is of the first group whose seconds it does not exceed
_GROUPS: Final = (4.0, 8.0, 16.0, 27.0)
_FULL: Final = "full"
_ALL: Final = math.inf


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="benchmarks.audio_context", description=__doc__)
    parser.add_argument("--model", default="base")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--every", type=int, default=1, help="takes every so-manieth recording only")
    parser.add_argument(
        "--margins", type=float, nargs="+", default=[0.0, 1.0, 2.0, 4.0], help="seconds after the sound"
    )
    parser.add_argument("--others", default=sys.executable, metavar="PYTHON", help="it has openai-whisper's normaliser")
    arguments = parser.parse_args()
    recordings = [one for group in judged_recordings().values() for one in group if one.duration_s <= _GROUPS[-1]]
    recordings = sorted(recordings, key=lambda one: (one.duration_s, one.name))[:: arguments.every]
    with stapes.load(arguments.model, precision=arguments.precision, threads=1) as engine:
        found = [_in_every_way(engine, one, arguments.margins) for one in recordings]
    for line in _table(recordings, found, arguments.others):
        print(line)
    return 0


def _in_every_way(
    engine: stapes.Engine, recording: Recording, margins: Sequence[float]
) -> dict[str, tuple[Transcript, float]]:
    """Transcribe a recording with full windows and with each margin: {way: (transcript, seconds)}."""
    keywords: dict[str, Any] = {"language": recording.language}
    found = {_FULL: _timed(engine, recording, keywords)}
    for margin in margins:
        audio_context._MARGIN = round(margin * 100)
        found[f"fit, {margin:g} s"] = _timed(engine, recording, {**keywords, "audio_context": "fit"})
    print(recording.name, {way: round(seconds, 2) for way, (_, seconds) in found.items()}, file=sys.stderr, flush=True)
    return found


def _timed(engine: stapes.Engine, recording: Recording, keywords: dict[str, Any]) -> tuple[Transcript, float]:
    started = time.process_time()
    return engine.transcribe(recording.path, **keywords), time.process_time() - started


def _table(
    recordings: Sequence[Recording], found: Sequence[dict[str, tuple[Transcript, float]]], others: str
) -> list[str]:
    """Return a table's rows: a group of lengths and a way in each."""
    ways = list(found[0])
    texts = [one.reference or "" for one in recordings]
    texts += [one[way][0].text for way in ways for one in found]
    languages = [one.language or "" for one in recordings] * (1 + len(ways))
    _, normal = normalise_all(others, list(zip(texts, languages, strict=True)))
    n = len(recordings)
    sums: dict[tuple[float, str], list[float]] = defaultdict(lambda: [0.0] * 6)
    for i, (recording, one) in enumerate(zip(recordings, found, strict=True)):
        group = next(limit for limit in _GROUPS if recording.duration_s <= limit)
        right = normal[i].split()
        for place, way in enumerate(ways, 1):
            transcript, seconds = one[way]
            n_again = sum(window.encoded_frames is not None and window.decoded_again for window in transcript.windows)
            differs = transcript.text != one[_FULL][0].text
            values = (1, edits(right, normal[n * place + i].split()), len(right), differs, n_again, seconds)
            for limit in (group, _ALL):
                sums[limit, way] = [total + value for total, value in zip(sums[limit, way], values, strict=True)]
    columns = ("sound up to", "way", "recordings", "word errors", "other text", "encoded again in full", "time")
    return [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns), *_rows(sums)]


def _rows(sums: Mapping[tuple[float, str], Sequence[float]]) -> Iterator[str]:
    for (limit, way), (n_files, errors, words, differing, again, seconds) in sorted(sums.items()):
        name = "all" if limit == _ALL else f"{limit:g} s"
        share = seconds / sums[limit, _FULL][-1]
        yield (
            f"| {name} | {way} | {n_files:.0f} | {100 * errors / words:.1f} % | {differing:.0f} | {again:.0f} "
            f"| {share:.2f} |"
        )


if __name__ == "__main__":
    sys.exit(main())
