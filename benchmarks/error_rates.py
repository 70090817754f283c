r"""Word errors and unchanged transcripts of every precision, over the whole corpus.

    python -m benchmarks.error_rates --precision float32,bfloat16,int8 [--engines faster-whisper@int8] \\
        --others other/bin/python --checkpoints folder/of/checkpoints

Greedily at temperature 0, each recording once. Word errors: over all English recordings that the manifest calls fit
(`wer_ok`) outside formats/, and over those of the other languages together; and without the recordings on which
the reference loops. Unchanged: a recording of speech whose
text is exactly openai-whisper's (golden/greedy.jsonl); every distinct reference transcript has one vote,
which the recordings that share it share.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from typing import Any

from benchmarks.corpus import WITHOUT_LOOPS, golden_speech, golden_transcripts, judged_recordings, loops
from benchmarks.engines import EngineName, add_engine_flags, start_engines
from benchmarks.process import Engine, EngineError
from benchmarks.recordings import Recording
from benchmarks.running import keep, parser_of, result_of, run
from benchmarks.word_errors import edits, normalise_all

Texts = dict[str, str]  # recording's name -> an engine's text


def main() -> int:
    """Transcribe, count, write and print."""
    arguments = _arguments()
    arguments.engines = [EngineName.parse(f"stapes@{name}") for name in arguments.precision] + arguments.engines
    groups, golden = judged_recordings(), golden_speech()
    if arguments.first is not None:
        groups = {name: group[: arguments.first] for name, group in groups.items()}
        golden = golden[: arguments.first]
    looping = loops()
    groups |= {
        name + WITHOUT_LOOPS: [recording for recording in group if recording.name not in looping]
        for name, group in groups.items()
    }
    wanted = {recording.name: recording for group in (*groups.values(), golden) for recording in group}
    rows = []
    for engine in start_engines(arguments):
        texts, seconds = _transcribe(engine, list(wanted.values()))
        engine.finish()
        row: dict[str, Any] = {"name": engine.label, "facts": engine.ready["facts"]}
        row |= {"versions": engine.ready["versions"], "seconds": round(seconds, 1), "texts": texts}
        rows.append(row)
    normaliser = _count_all(rows, groups, arguments.others)
    for row in rows:
        row["unchanged"] = _unchanged(row["texts"], golden)
        _print(row)
        if not arguments.with_texts:
            del row["texts"]
    settings = {"model": arguments.model, "threads": arguments.threads, "normaliser": normaliser}
    settings |= {"whole_corpus": arguments.first is None}
    result = result_of("error_rates", settings, engines=rows)
    keep(result, arguments.output, f"error-rates-{arguments.model}")
    return 0


def _arguments() -> argparse.Namespace:
    parser = parser_of("benchmarks.error_rates", __doc__, "error-rates-MODEL")
    add_engine_flags(parser, "")
    add = parser.add_argument
    add("--precision", type=lambda text: [name for name in text.split(",") if name], default=[], help="of stapes")
    add("--first", type=int, metavar="N", help="only the first N of each group: to see that all works")
    add("--with-texts", action="store_true", help="keep the texts in the result")
    arguments = parser.parse_args()
    if not arguments.precision and not arguments.engines:
        parser.error("name --precision or --engines")
    return arguments


def _transcribe(engine: Engine, recordings: list[Recording]) -> tuple[Texts, float]:
    """Return an engine's text of each recording; raises EngineError where one fails."""
    texts, started = {}, time.perf_counter()
    for number, recording in enumerate(recordings, 1):
        answer = engine.transcribe(recording)
        if "error" in answer:
            raise EngineError(f"{engine.label}: {recording.name}: {answer['error']}")
        texts[recording.name] = answer["text"]
        if number % 20 == 0 or number == len(recordings):
            sys.stderr.write(f"{engine.label}: {number}/{len(recordings)}\n")
    return texts, time.perf_counter() - started


def _count_all(rows: list[dict[str, Any]], groups: dict[str, list[Recording]], python: str) -> str:
    """Count the word errors of every engine in every group; returns the normaliser's name."""
    recordings = [recording for group in groups.values() for recording in group]
    given = [(recording.reference or "", recording.language or "en") for recording in recordings]
    for row in rows:
        given += [(row["texts"][recording.name], recording.language or "en") for recording in recordings]
    name, normalised = normalise_all(python, given)
    references, found = normalised[: len(recordings)], iter(normalised[len(recordings) :])
    for row in rows:
        words = {
            recording.name: (edits(reference.split(), next(found).split()), len(reference.split()))
            for recording, reference in zip(recordings, references, strict=True)
        }
        row["word_errors"] = {group: _group(members, words) for group, members in groups.items()}
    return name


def _group(members: list[Recording], words: dict[str, tuple[int, int]]) -> dict[str, Any]:
    errors = sum(words[member.name][0] for member in members)
    n_words = sum(words[member.name][1] for member in members)
    return {
        "recordings": len(members),
        "errors": errors,
        "words": n_words,  # as normalised
        "words_as_written": sum(len((member.reference or "").split()) for member in members),
        "rate": round(errors / n_words, 6) if n_words else None,
        "errors_by_recording": {member.name: words[member.name][0] for member in members if words[member.name][0]},
    }


def _unchanged(texts: Texts, golden: list[Recording]) -> dict[str, Any]:
    """Compare with openai-whisper's texts: a vote for each distinct reference, and recording by recording."""
    theirs = golden_transcripts()
    votes: dict[str, list[bool]] = defaultdict(list)
    for recording in golden:
        votes[str(recording.text).strip()].append(
            texts[recording.name].strip() == theirs[recording.name]["text"].strip()
        )
    every = [vote for shared in votes.values() for vote in shared]
    share = sum(sum(shared) / len(shared) for shared in votes.values()) / len(votes) if votes else 0.0
    return {
        "distinct_references": len(votes),
        "share": round(share, 4),
        "recordings": len(every),
        "recordings_unchanged": sum(every),
        "changed": [r.name for r in golden if texts[r.name].strip() != theirs[r.name]["text"].strip()],
    }


def _print(row: dict[str, Any]) -> None:
    parts = [
        f"{group}: {counted['errors']} of {counted['words']} words wrong ({counted['rate'] or 0:.2%})"
        for group, counted in row["word_errors"].items()
    ]
    unchanged = row["unchanged"]
    parts.append(
        f"unchanged {unchanged['share']:.1%} of {unchanged['distinct_references']} references "
        f"({unchanged['recordings_unchanged']} of {unchanged['recordings']} recordings)"
    )
    sys.stdout.write(f"{row['name']:28} {row['seconds']:7.1f} s  " + "; ".join(parts) + "\n")


if __name__ == "__main__":
    run("benchmarks.error_rates", main)
