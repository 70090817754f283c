"""Speech with gaps: invented words in them, lost words beside them, and the starts of words.

    python -m benchmarks.gaps [--first 6] [--methods default,reference,vad] [--drawings 4] [--others other/bin/python]

Recordings of one speaker each are joined with gaps of 3 to 45 s (the same for every run: the seeds are fixed), filled
with silence, with faint noise, or with music, or without gaps. Each is transcribed with word times, by each method;
and each piece alone (without the text before it as prompt). One drawing of the gaps changes ten
words by chance: several are counted together.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from itertools import groupby
from typing import Any

import numpy as np

import stapes
from benchmarks.corpus import corpus_folder, judged_recordings
from benchmarks.recordings import Recording
from benchmarks.running import keep, parser_of, result_of, run
from benchmarks.word_errors import edits, normalise_all, simple
from stapes.audio.load import load_audio
from stapes.audio.pcm import SAMPLE_RATE, Samples
from stapes.results import Word

ALONE = "each piece alone"
FILLERS = ("silence", "faint noise", "music")
METHODS: dict[str, dict[str, Any]] = {"default": {}, "reference": {"mode": "reference"}, "vad": {"vad": True}}
_SPEAKERS = ("ljspeech/", "librispeech-test-other/1688", "librispeech-test-other/2033", "librispeech-test-other/3005",
           "librispeech-test-other/367", "fleurs/fleurs-en", "cmu-arctic/")  # fmt: skip
_MUSIC = "asterisk-moh/moh_manolo_camp-morning_coffee.flac"
_SHORTEST_S, _LONGEST_S = 3.0, 45.0
#: dB above the speech after it
_LEVELS = {"faint noise": -30.0, "music": 0.0}
#: seconds by which a word may miss its own time, or reach into a gap
_TOLERANCE_S = 0.2


@dataclass(frozen=True)
class Joined:
    """Pieces with gaps between them."""

    samples: Samples
    starts_s: tuple[float, ...]  # of the pieces
    gaps: tuple[tuple[float, float], ...]  # start and end of each, in seconds


@dataclass
class Counts:
    """The counts of a way of transcribing, over all speakers."""

    errors: int = 0
    words: int = 0
    in_gaps: list[str] = field(default_factory=list)
    deviations_s: list[float] = field(default_factory=list)

    @property
    def within(self) -> float:
        """The share of the words that begin where they begin when their piece is decoded alone."""
        return sum(abs(one) <= _TOLERANCE_S for one in self.deviations_s) / max(1, len(self.deviations_s))


def main() -> int:
    """Join, transcribe, count, write and print."""
    parser = parser_of("benchmarks.gaps", __doc__, "gaps")
    parser.add_argument("--first", type=int, help="only so many pieces of each speaker")
    parser.add_argument("--speakers", default="", help="only those whose names hold this")
    parser.add_argument("--methods", type=_methods, default=_methods("default,reference"), help=", ".join(METHODS))
    parser.add_argument("--drawings", type=int, default=1, help="how often gaps are drawn; first the usual ones")
    parser.add_argument("--model", default="base")
    parser.add_argument("--precision", default="float32")
    parser.add_argument(
        "--others", default=sys.executable, metavar="PYTHON", help="one that has openai-whisper, to count"
    )
    arguments = parser.parse_args()
    rows: dict[str, Counts] = {}
    texts: list[tuple[str, str, str]] = []  # way, wanted, given
    with stapes.load(arguments.model, precision=arguments.precision) as engine:
        for speaker, pieces in _speakers(arguments.first, arguments.speakers):
            samples = [_samples(piece) for piece in pieces]
            wanted = " ".join(piece.reference or "" for piece in pieces)
            alone = [_words(engine, one, "default") for one in samples]
            rows.setdefault(ALONE, Counts())
            texts.append((ALONE, wanted, " ".join("".join(word.text for word in words) for words in alone)))
            for way, joined, method in _ways(speaker, samples, arguments.methods, arguments.drawings):
                words = _words(engine, joined.samples, method)
                some = Counts(in_gaps=_in_gaps(words, joined), deviations_s=_deviations(words, alone, joined))
                counts = rows.setdefault(way, Counts())
                counts.in_gaps += some.in_gaps
                counts.deviations_s += some.deviations_s
                texts.append((way, wanted, "".join(word.text for word in words)))
                errors = edits(*(simple(text, "en").split() for text in texts[-1][1:]))
                sys.stderr.write(
                    f"{speaker} {way}: {errors} errors, {100 * some.within:.1f} % in time, in gaps: {some.in_gaps}\n"
                )
    name, normal = normalise_all(arguments.others, [(text, "en") for _, *both in texts for text in both])
    for i, (way, _, _) in enumerate(texts):
        reference, text = normal[2 * i].split(), normal[2 * i + 1].split()
        rows[way].errors += edits(reference, text)
        rows[way].words += len(reference)
    for way, counts in rows.items():
        rate = 100 * counts.errors / counts.words
        print(f"{way:34} {rate:6.2f} % of {counts.words} words, {len(counts.in_gaps)} in gaps, "
              f"{100 * counts.within:.1f} % of {len(counts.deviations_s)} begin within {_TOLERANCE_S} s")  # fmt: skip
        if counts.in_gaps:
            print("    in gaps:", " ".join(counts.in_gaps[:12]))
    found = {
        way: {
            "word_errors": counts.errors,
            "words": counts.words,
            "words_in_gaps": len(counts.in_gaps),
            "begin_within_0.2_s": round(counts.within, 4),
            "compared_words": len(counts.deviations_s),
        }
        for way, counts in rows.items()
    }
    settings = {"model": arguments.model, "precision": arguments.precision, "normaliser": name}
    settings |= {"drawings": arguments.drawings}
    keep(result_of("gaps", settings, ways=found), arguments.output, "gaps")
    return 0


def _methods(value: str) -> tuple[str, ...]:
    found = tuple(value.split(","))
    if unknown := set(found) - set(METHODS):
        raise argparse.ArgumentTypeError(f"no method {min(unknown)!r}; there are: {', '.join(METHODS)}")
    return found


def _speakers(first: int | None, wanted: str) -> Iterator[tuple[str, list[Recording]]]:
    known = sorted(judged_recordings()["english"], key=lambda one: one.name)
    for speaker, members in groupby(known, key=lambda one: next((v for v in _SPEAKERS if one.name.startswith(v)), "")):
        if speaker and wanted in speaker:
            once = {one.reference: one for one in members}  # some are there twice, as other files
            yield speaker, list(once.values())[:first]


def _samples(recording: Recording) -> Samples:
    with load_audio(recording.path) as loaded:
        return loaded.read(0, loaded.n_samples).copy()


def _ways(
    speaker: str, pieces: Sequence[Samples], methods: Sequence[str], n_drawings: int
) -> Iterator[tuple[str, Joined, str]]:
    ways = [("no gaps", [0.0] * len(pieces), "silence")]
    for drawing in range(n_drawings):
        generator = np.random.default_rng(len(speaker) + 1000 * drawing)
        gaps = [0.0, *np.exp(generator.uniform(np.log(_SHORTEST_S), np.log(_LONGEST_S), len(pieces) - 1))]
        ways += [(f"gaps of {filler}", gaps, filler) for filler in FILLERS]
    for name, gaps_s, filler in ways:
        joined = _join(pieces, gaps_s, filler)
        for method in methods:
            yield name if method == "default" else f"{name}, {method}", joined, method


def _join(pieces: Sequence[Samples], gaps_s: Sequence[float], filler: str) -> Joined:
    """Put a gap before each piece."""
    blocks, starts, gaps, at = [], [], [], 0
    for piece, gap_s in zip(pieces, gaps_s, strict=True):
        n_gap = round(gap_s * SAMPLE_RATE)
        blocks += [_fill(filler, n_gap, _loudness(piece)), piece]
        gaps.append((at / SAMPLE_RATE, (at + n_gap) / SAMPLE_RATE))
        starts.append((at + n_gap) / SAMPLE_RATE)
        at += n_gap + len(piece)
    return Joined(
        np.concatenate(blocks).astype(np.float32), tuple(starts), tuple(one for one in gaps if one[1] > one[0])
    )


def _fill(filler: str, n: int, loudness: float) -> Samples:
    """Fill a gap; loudness: of the piece after it."""
    if filler == "silence" or not n:
        return np.zeros(n, np.float32)
    if filler == "music":
        with load_audio(corpus_folder() / "audio" / _MUSIC) as loaded:
            sound = loaded.read(0, n)
    else:
        sound = np.random.default_rng(n).standard_normal(n).astype(np.float32)
    return sound * np.float32(loudness / _loudness(sound) * 10 ** (_LEVELS[filler] / 20))


def _loudness(samples: Samples) -> float:
    return max(1e-9, float(np.sqrt(np.mean(samples**2))))


def _words(engine: stapes.Engine, samples: Samples, method: str) -> list[Word]:
    found = engine.transcribe(samples, language="en", word_timestamps=True, **METHODS[method])
    return [word for segment in found.segments for word in segment.words or ()]


def _in_gaps(words: Sequence[Word], joined: Joined) -> list[str]:
    """Return the words in a gap, with the tolerance on either side."""
    return [
        word.text.strip() for word in words
        if any(start - _TOLERANCE_S < word.start_s < end - _TOLERANCE_S and word.end_s < end + _TOLERANCE_S
               and word.end_s > start + _TOLERANCE_S for start, end in joined.gaps)
    ]  # fmt: skip


def _deviations(words: Sequence[Word], alone: Sequence[Sequence[Word]], joined: Joined) -> list[float]:
    """Return how much later each word begins than in its piece alone, for the words that both have."""
    wanted = [(word, start) for piece, start in zip(alone, joined.starts_s, strict=True) for word in piece]
    mine, theirs = ([simple(word.text, "en") for word in some] for some in (words, [word for word, _ in wanted]))
    matcher = SequenceMatcher(a=mine, b=theirs, autojunk=False)
    return [
        words[block.a + i].start_s - (wanted[block.b + i][0].start_s + wanted[block.b + i][1])
        for block in matcher.get_matching_blocks() for i in range(block.size)
    ]  # fmt: skip


if __name__ == "__main__":
    run("benchmarks.gaps", main)
