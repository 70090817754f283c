"""What the guards do, and what they and word times cost: without speech, in noise, and on clean speech.

    python -m benchmarks.guards [--others other/bin/python --checkpoints folder/of/checkpoints] [--rounds 5]

Every recording is transcribed in the default mode and in mode "reference": under noise as the command does (five beams,
like faster-whisper), else as the library does. Speech with gaps is `benchmarks.gaps`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import stapes
from benchmarks.corpus import benchmark_list, corpus_folder, judged_recordings, manifest
from benchmarks.recordings import Recording
from benchmarks.running import keep, parser_of, result_of, run
from benchmarks.word_errors import edits, normalise_all
from stapes.options import COMMAND_PRESET

MODES = ("sequential", "reference")
NOISES = ("10dB", "0dB")
#: what is timed -> its options
COSTS: dict[str, dict[str, Any]] = {
    "reference": {"mode": "reference"},
    "sequential": {},
    "words": {"word_timestamps": True},
}


def main() -> int:
    """Measure, write and print."""
    parser = parser_of("benchmarks.guards", __doc__, "guards")
    parser.add_argument("--model", default="base")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--others", default=sys.executable, metavar="PYTHON", help="it has faster-whisper")
    parser.add_argument("--checkpoints", type=Path, metavar="FOLDER", help="holds ct2-MODEL/")
    parser.add_argument("--rounds", type=int, default=5, help="of what is timed; 0: leave it out")
    arguments = parser.parse_args()
    with stapes.load(arguments.model, precision=arguments.precision) as engine:
        silent = _without_speech(engine)
        noisy = _noisy(engine, arguments)
        cost = _cost(engine, arguments.rounds)
    settings = {"model": arguments.model, "precision": arguments.precision, "rounds": arguments.rounds}
    result = result_of("guards", settings, characters_where_nobody_speaks=silent, noisy_word_errors=noisy, cost=cost)
    print(json.dumps({name: result[name] for name in list(result)[4:]}, indent=1))
    keep(result, arguments.output, "guards")
    return 0


def _without_speech(engine: stapes.Engine) -> dict[str, dict[str, int]]:
    """Count the characters of text in recordings without speech."""
    silent = [
        line["path"] for line in manifest().values() if line["language"] == "zxx" and "broken" not in line["path"]
    ]
    return {
        path: {mode: len(engine.transcribe(corpus_folder() / "audio" / path, mode=mode).text) for mode in MODES}
        for path in silent
    }


def _noisy(engine: stapes.Engine, arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Count word errors in English under noise: {noise: {engine or mode: per cent}}."""
    recordings = [one for one in judged_recordings()["english"] if one.name.startswith("noisy/")]
    texts = {
        mode: [engine.transcribe(one.path, language="en", mode=mode, **COMMAND_PRESET).text for one in recordings]
        for mode in MODES
    }
    if arguments.checkpoints is not None:
        texts["faster-whisper's defaults"] = _faster_whisper(recordings, arguments)
    wanted = [one.reference or "" for one in recordings]
    rows = [(text, "en") for some in (wanted, *texts.values()) for text in some]
    _, normal = normalise_all(arguments.others, rows)
    n, found = len(recordings), {}
    for noise in NOISES:
        chosen = [i for i, one in enumerate(recordings) if f"-{noise}_" in one.name]
        total = sum(len(normal[i].split()) for i in chosen)
        found[noise] = {
            name: round(100 * sum(edits(normal[i].split(), normal[n * k + i].split()) for i in chosen) / total, 2)
            for k, name in enumerate(texts, 1)
        }
    return found


def _faster_whisper(recordings: list[Recording], arguments: argparse.Namespace) -> list[str]:
    checkpoint = str(arguments.checkpoints / f"ct2-{arguments.model}")
    done = subprocess.run(
        [arguments.others, "-m", "benchmarks.faster_whisper_defaults", checkpoint, "float32"],
        input="".join(f"{one.path}\n" for one in recordings),
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    return [str(json.loads(line)["text"]) for line in done.stdout.splitlines()]


def _cost(engine: stapes.Engine, rounds: int) -> dict[str, Any]:
    """Time clean speech without guards, with them, and with word times too, recording by recording and by turns: sums
    of medians, and what the guards and the word times cost.
    """
    if not rounds:
        return {}
    sums = dict.fromkeys(COSTS, 0.0)
    for one in benchmark_list():
        seconds: dict[str, list[float]] = {way: [] for way in COSTS}
        for i in range(rounds):
            for way in list(COSTS)[:: 1 if i % 2 else -1]:
                started = time.perf_counter()
                engine.transcribe(one.path, language="en", temperature=0.0, **COSTS[way])
                seconds[way].append(time.perf_counter() - started)
        for way, some in seconds.items():
            sums[way] += median(some)
    guards, words = sums["sequential"] / sums["reference"], sums["words"] / sums["sequential"]
    found = {way: round(sum_s, 3) for way, sum_s in sums.items()}
    return found | {"guards_ratio": round(guards, 4), "words_ratio": round(words, 4)}


if __name__ == "__main__":
    run("benchmarks.guards", main)
