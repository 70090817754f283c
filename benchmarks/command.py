r"""`stapes RECORDING` as a whole process, against a Python script that does the same with faster-whisper.

    python -m benchmarks.command --engines stapes,faster-whisper@int8 --others other/bin/python \\
        --checkpoints folder/of/checkpoints [--rounds 7] [RECORDING]

Both with the command's defaults: beams of five, the language detected, temperature fallback. With
--greedy both search greedily, in English, without other tries. RECORDING: jfk/jfk.flac of the corpus. Time is from
start to exit; memory is the peak of the process, mapped files included, as the system counts it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.corpus import corpus_folder
from benchmarks.engines import EngineName, add_engine_flags, checkpoint, interpreter
from benchmarks.process import absolute_program, environment, pause
from benchmarks.running import keep, parser_of, result_of, run

_SCRIPT = "benchmarks.adapters.faster_whisper_command"


def main() -> int:
    """Measure in turn, write, and print the medians."""
    arguments = _arguments()
    recording = arguments.recording or corpus_folder() / "audio" / "jfk" / "jfk.flac"
    commands = {name: _command(name, recording.absolute(), arguments) for name in arguments.engines}
    runs: dict[str, list[tuple[float, float]]] = {name.label: [] for name in arguments.engines}
    texts = {}
    for turn in range(arguments.rounds + 1):  # the first fills the file cache
        for name, command in commands.items():
            seconds, peak_mb, texts[name.label] = _run(command, environment(arguments.threads, name.instruction_set))
            pause()
            if turn:
                runs[name.label].append((round(seconds, 4), peak_mb))
    rows = []
    for label, measured in runs.items():
        times, peak_mb = [seconds for seconds, _ in measured], max(peak_mb for _, peak_mb in measured)
        row: dict[str, Any] = {"name": label, "seconds": times, "median_s": round(median(times), 4)}
        rows.append(row | {"peak_memory_mb": peak_mb, "text": texts[label]})
        sys.stdout.write(f"{label:28} {row['median_s'] * 1000:8.0f} ms  {peak_mb:6.0f} MB\n")
    settings = {"model": arguments.model, "threads": arguments.threads, "rounds": arguments.rounds}
    settings |= {"recording": recording.name, "greedy": arguments.greedy}
    result = result_of("command", settings, engines=rows)
    stem = f"command-{arguments.model}" + ("-greedy" if arguments.greedy else "")
    keep(result, arguments.output, stem)
    return 0


def _arguments() -> argparse.Namespace:
    parser = parser_of("benchmarks.command", __doc__, "command-MODEL")
    parser.add_argument("recording", nargs="?", type=Path)
    add_engine_flags(parser, "stapes")
    parser.add_argument("--rounds", type=int, default=7, help="the median of so many counts")
    parser.add_argument("--greedy", action="store_true", help="greedy search, in English, instead of the defaults")
    return parser.parse_args()


def _command(name: EngineName, recording: Path, arguments: argparse.Namespace) -> list[str]:
    python, weights = absolute_program(interpreter(name, arguments)), checkpoint(name, arguments)
    if name.engine == "stapes":
        command = [python, "-m", "stapes", str(recording), "--model", weights or arguments.model]
        command += ["--precision", name.precision] if name.precision else []
        command += ["--threads", str(arguments.threads)]
        greedy = ["--language", "en", "--beam_size", "None", "--temperature_increment_on_fallback", "None"]
        return command + (greedy if arguments.greedy else [])
    if name.engine == "faster-whisper":
        command = [python, "-m", _SCRIPT, str(recording), str(Path(weights or arguments.model))]
        command += [name.precision, str(arguments.threads)]
        return command + (["greedy"] if arguments.greedy else [])
    raise ValueError(f"{name.label}: there is no command to compare; stapes and faster-whisper have one")


def _run(command: list[str], variables: dict[str, str]) -> tuple[float, float, str]:
    """Return a process's seconds, its peak memory in MB, and what it printed."""
    started = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=variables, cwd=Path(__file__).parents[1]
    )
    assert process.stdout is not None
    text = process.stdout.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.stdout.close()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise ValueError(f"{' '.join(command[1:4])} ended with exit code {process.returncode}")
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, the others KiB
    return seconds, round(usage.ru_maxrss * unit / 1e6, 1), " ".join(text.split())


if __name__ == "__main__":
    run("benchmarks.command", main)
