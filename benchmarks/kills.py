r"""Ends `stapes` with kill -9 at random points of a run on many files, and checks that the same command resumes.

    python -m benchmarks.kills [--kills 100] [--in-a-row 5] [--files 20] [--concurrency 4] [--seed 0]

A trial begins in an empty folder. The command is killed after a random line of --progress json and up to 30 ms more,
run again, killed again, and in the end run to its end. Then the folder holds the bytes of an unbroken run and nothing
else, the events hold each window of each file once, and no kill cost more than the windows of its last second and
those in flight. The model is scripted: random tokens, the same for the same sound.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
import wave
from collections import Counter
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

_ROOT = Path(__file__).resolve().parents[1]
_SAMPLE_RATE = 16000
_MOST_DELAY_S = 0.03
#: windows that a kill may cost
_LOST_S = 1.0
#: sometimes temperature fallback, short texts, all formats
_FLAGS = [
    *("--beam_size", "None", "--best_of", "None", "--temperature_increment_on_fallback", "0.5"),
    *("--sample_len", "20", "--progress", "json"),
]


class ResumeError(AssertionError):
    """A run after a kill did not end as an unbroken one."""


@dataclass(frozen=True)
class Run:
    """The exit status, events and work of one process."""

    code: int
    events: list[dict[str, Any]]
    events_s: list[float]  # when each came
    encodings: list[tuple[str, float]]  # checksum of a window, when it was encoded
    killed_s: float = math.inf  # all on the clock of time.time

    @property
    def encoded(self) -> Counter[str]:
        """How often each window was encoded."""
        return Counter(window for window, _ in self.encodings)

    def windows(self, until_s: float = math.inf) -> set[tuple[str, float]]:
        """Return the windows that were decoded until then, not known: (file, where it began)."""
        reported = zip(self.events, self.events_s, strict=True)
        decoded = [one for one, at_s in reported if one["event"] == "window" and not one["resumed"] and at_s <= until_s]
        return {(one["file"], one["seek_s"]) for one in decoded}


class Kills:
    """Recordings, an unbroken run on them, and trials that are compared with it."""

    def __init__(self, folder: Path, *, n_files: int, concurrency: int, step_s: float = 0.002) -> None:
        self._folder = folder
        self._concurrency = concurrency
        self._step_s = step_s
        self._files = make_recordings(folder, n_files)
        self._unbroken = self.run("unbroken")
        _require(self._unbroken.code == 0, f"the unbroken run ends with {self._unbroken.code}")
        self._expected = contents(folder / "unbroken")
        self.n_lines = len(self._unbroken.events)

    def run(self, name: str, kill_after: int | None = None, delay_s: float = 0.0) -> Run:
        """Run the command into the folder `name`. kill_after: so many lines of progress, then kill -9."""
        log = self._folder / f"{name}.encoded"
        log.write_text("")
        words = [*map(str, self._files), "-o", str(self._folder / name), "--concurrency", str(self._concurrency)]
        settings = {"STAPES_ENCODED": str(log), "STAPES_STEP_S": str(self._step_s)}
        paths = (str(_ROOT / "src"), str(_ROOT), os.environ.get("PYTHONPATH", ""))
        settings["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.scripted_command", *words, *_FLAGS],
            stderr=subprocess.PIPE,
            env={**os.environ, **settings},
        )
        assert process.stderr is not None
        lines, lines_s, killed_s = [], [], math.inf
        for line in process.stderr:
            lines.append(line)
            lines_s.append(time.time())
            if len(lines) == kill_after:
                time.sleep(delay_s)
                killed_s = time.time()
                process.kill()
        whole = [line for line in lines if line.endswith(b"\n")]  # the last may be cut
        process.stderr.close()
        code = process.wait()
        try:
            events = [json.loads(line) for line in whole]
        except ValueError as error:
            raise ResumeError(f"standard error holds more than JSON: {b''.join(whole)!r}") from error
        logged = [line.split() for line in log.read_text().splitlines()]
        encodings = [(window, float(at_s)) for window, at_s in logged]
        return Run(code, events, lines_s[: len(events)], encodings, killed_s)

    def kill_and_go_on(self, name: str, random_numbers: random.Random, kills: int = 1) -> int:
        """Kill a run `kills` times, at random points, then let it end. Returns how many kills came before the end."""
        broken: list[Run] = []
        for _ in range(kills):
            after = random_numbers.randrange(1, self.n_lines)
            run = self.run(name, after if kills == 1 else 1 + after // kills, random_numbers.random() * _MOST_DELAY_S)
            if run.code == 0:
                break
            broken.append(run)
        self.check(name, [*broken, self.run(name)] if broken else [run])
        return len(broken)

    def check(self, name: str, runs: list[Run]) -> None:
        """Compare the results of several runs with those of the unbroken one."""
        last = runs[-1]
        _require(last.code == 0, f"{name}: ends with {last.code}: {last.events[-3:]}")
        found = contents(self._folder / name)
        _require(found.keys() == self._expected.keys(), f"{name}: holds {found.keys() ^ self._expected.keys()}")
        wrong = [file for file, data in found.items() if data != self._expected[file]]
        _require(not wrong, f"{name}: other bytes than an unbroken run in {wrong}")
        _check_events(name, last, self._unbroken)
        for before, after in combinations(runs, 2):
            twice = before.windows(before.killed_s - _LOST_S) & after.windows()
            _require(not twice, f"{name}: windows decoded again: {twice}")
        # Reported windows are in the journal. The window that was being decoded shows in what was encoded.
        again = sum((run.encoded for run in runs), Counter()) - self._unbroken.encoded
        late = sum(at_s > run.killed_s - _LOST_S for run in runs[:-1] for _, at_s in run.encodings)
        most = late + (len(runs) - 1) * self._concurrency
        _require(again.total() <= most, f"{name}: {again.total()} windows were encoded again, at most {most} may be")
        _require(max(again.values(), default=0) < len(runs), f"{name}: a window was encoded again twice: {again}")


def _check_events(name: str, last: Run, unbroken: Run) -> None:
    """Check that the last run reported each file whole and once, or as done before."""
    reported, whole = _parts(last), _parts(unbroken)
    skipped = {one["file"] for one in last.events if one["event"] == "file_skipped"}
    _require(reported.keys() | skipped == whole.keys(), f"{name}: files are missing in the events")
    wrong = [file for file, parts in reported.items() if parts != whole[file]]
    _require(not wrong, f"{name}: other events than those of an unbroken run: {wrong}")


def _parts(run: Run) -> dict[str, list[dict[str, Any]]]:
    """Return each file's windows and segments in order, whether known or new."""
    parts: dict[str, list[dict[str, Any]]] = {}
    for one in run.events:
        if one["event"] in ("window", "segment"):
            parts.setdefault(one["file"], []).append({name: one[name] for name in one if name != "resumed"})
    return parts


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file of a folder, hidden ones included."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def make_recordings(folder: Path, n_files: int) -> list[Path]:
    """Write noise of 35 to 75 s, and the first of four times as much."""
    paths = []
    for number in range(n_files):
        source = np.random.default_rng(number)
        duration_s = float(source.uniform(35, 75)) * (4 if number == 0 else 1)
        samples = source.standard_normal(round(duration_s * _SAMPLE_RATE), dtype=np.float32) * 1000
        paths.append(folder / f"noise-{number:02}.wav")
        with wave.open(str(paths[-1]), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(_SAMPLE_RATE)
            file.writeframes(samples.astype("<i2").tobytes())
    return paths


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ResumeError(message)


def main() -> int:
    """Kill, and print the outcome."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.kills", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--in-a-row", type=int, default=5, help="kills of one run")
    parser.add_argument("--files", type=int, default=20)
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    random_numbers = random.Random(arguments.seed)  # noqa: S311 (nothing secret)
    with tempfile.TemporaryDirectory(prefix="stapes-kills-") as name:
        trials = Kills(Path(name), n_files=arguments.files, concurrency=arguments.concurrency)
        n_kills = n_trials = 0
        while n_kills < arguments.kills:
            kills = min(arguments.in_a_row, arguments.kills - n_kills)
            n_kills += trials.kill_and_go_on(f"trial-{n_trials}", random_numbers, kills)
            n_trials += 1
            sys.stdout.write(f"\r{n_kills} kills in {n_trials} runs, each of which ended as an unbroken one")
            sys.stdout.flush()
    sys.stdout.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
