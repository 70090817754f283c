"""How long a clip of 3 s takes beside recordings of an hour, in times of what it takes alone; with real weights.

python -m benchmarks.fairness [--model base] [--clips 10] [--minutes 60] [--files 1] [--interactive] [--output FILE]

The long recording is joined from those of longform-libri-chapter in a temporary file, the clip is the beginning of
jfk.flac. Half of the runs alone come before the long recording, half after it; beside it the clips come at random
moments (fixed seed). A time is from the call to the transcript, reading included. In the end the long recordings are
cancelled, and the time until they have ended is taken. With --interactive the clips are interactive jobs, whose 95th
percentile is to be at most 1.25 times the time alone, plus the encoding of a window and a step of all rows.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import stapes
from benchmarks.adapters.stapes_engine import GREEDY, facts_of
from benchmarks.corpus import corpus_folder
from benchmarks.joined import write_joined
from benchmarks.running import keep, parser_of, result_of, run
from stapes.audio.load import load_audio
from stapes.audio.pcm import SAMPLE_RATE, Samples

CLIP_S = 3.0
WHOLE_MINUTES, WHOLE_CLIPS = 60, 10
SEED = 20
#: between two clips, so that each meets another moment of the long recording's windows
PAUSE_S = (0.3, 1.8)


def main() -> int:
    """Measure, write, and print."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.wav"
        write_joined(path, arguments.minutes)
        measured = _measure(arguments, path)
    alone_s = median(measured["alone_s"])
    ratios = [seconds / alone_s for seconds in measured["beside_s"]]
    measured |= {"alone_median_s": round(alone_s, 4), "beside_median_s": round(median(measured["beside_s"]), 4)}
    measured["p95_s"] = sorted(measured["beside_s"])[max(0, -(-95 * len(ratios) // 100) - 1)]
    measured |= {"ratio_median": round(median(ratios), 3), "ratio_most": round(max(ratios), 3)}
    settings: dict[str, Any] = {"model": arguments.model, "threads": arguments.threads, "minutes": arguments.minutes}
    settings |= {"clips": arguments.clips, "clip_s": CLIP_S, "seed": SEED}
    settings |= {"files": arguments.files, "interactive": arguments.interactive}
    settings["whole"] = arguments.minutes >= WHOLE_MINUTES and arguments.clips >= WHOLE_CLIPS
    sys.stdout.write(
        f"alone {alone_s * 1000:.0f} ms (median); beside: {measured['ratio_median']:.2f} times that (median), "
        f"{measured['ratio_most']:.2f} times (slowest of {len(ratios)}), "
        f"95th percentile {measured['p95_s'] * 1000:.0f} ms\n"
        f"1.25 times the time alone, an encoding and a step: {1250 * alone_s + 1000 * measured['unit_s']:.0f} ms\n"
        f"cancelled: the long recording ended after {measured['cancel_s'] * 1000:.0f} ms\n"
    )
    keep(result_of("fairness", settings, **measured), arguments.output, f"fairness-{arguments.model}")
    return 0


def _arguments() -> argparse.Namespace:
    parser = parser_of("benchmarks.fairness", __doc__, "fairness-MODEL")
    add = parser.add_argument
    add("--model", default="base")
    add("--precision", default="auto")
    add("--threads", type=int, default=2)
    add("--clips", type=int, default=WHOLE_CLIPS, help="so many beside the long recording, and so many alone")
    add("--minutes", type=float, default=WHOLE_MINUTES, help="of the long recording")
    add("--files", type=int, default=1, help="so many long recordings at once")
    add("--interactive", action="store_true", help="submit the clips as interactive jobs")
    return parser.parse_args()


def _measure(arguments: argparse.Namespace, long: Path) -> dict[str, Any]:
    moments = random.Random(SEED)  # noqa: S311 (moments, not secrets)
    with load_audio(corpus_folder() / "audio" / "jfk" / "jfk.flac") as recording:
        clip = recording.read(0, round(CLIP_S * SAMPLE_RATE)).copy()
    with stapes.load(arguments.model, precision=arguments.precision, threads=arguments.threads) as engine:
        _seconds(engine, clip)  # the first call is slower
        alone_s = [_seconds(engine, clip) for _ in range(arguments.clips // 2)]
        jobs = [engine.submit(long, language="en", **GREEDY) for _ in range(arguments.files)]
        jobs[0].start()
        beside_s = []
        for _ in range(arguments.clips):
            time.sleep(moments.uniform(*PAUSE_S))
            beside_s.append(_seconds(engine, clip, interactive=arguments.interactive))
            if any(job.state.ended for job in jobs):
                raise ValueError(f"{arguments.minutes:g} minutes were over before {arguments.clips} clips: take more")
        costs = engine.status().costs
        n_rows = arguments.files * (costs.row_s or 0.0)
        unit_s = (costs.encode_s or 0.0) + (costs.step_s or 0.0) + n_rows
        started = time.perf_counter()
        for job in jobs:
            job.cancel()
        while not all(job.state.ended for job in jobs):
            time.sleep(0.001)
        cancel_s = time.perf_counter() - started
        alone_s += [_seconds(engine, clip) for _ in range(arguments.clips - len(alone_s))]
        times = {"alone_s": alone_s, "beside_s": beside_s, "cancel_s": round(cancel_s, 4), "unit_s": round(unit_s, 4)}
        return {"facts": facts_of(engine), **times}


def _seconds(engine: stapes.Engine, clip: Samples, *, interactive: bool = False) -> float:
    started = time.perf_counter()
    engine.transcribe(clip, language="en", interactive=interactive, **GREEDY)
    return round(time.perf_counter() - started, 4)


if __name__ == "__main__":
    run("benchmarks.fairness", main)
