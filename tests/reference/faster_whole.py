"""Transcriptions with faster-whisper, or with the face that has its names: the same calls, and what they give.

Imported with the face's package; run by another interpreter, as a program, with the real one:
    python faster_whole.py MODEL IN.json OUT.json
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

Case = dict[str, Any]


def signatures(package: str) -> dict[str, Any]:
    """Return the public names of the package and of its transcribe module: parameters of functions and methods, and
    the fields of dataclasses.
    """
    found: dict[str, Any] = {}
    for module in (package, f"{package}.transcribe"):
        for name, value in vars(import_module(module)).items():
            own = str(getattr(value, "__module__", "")).startswith((package, "faster_whisper"))
            if name.startswith("_") or not callable(value) or not own:
                continue
            if inspect.isclass(value) and issubclass(value, dict):  # a TypedDict of ours
                continue
            where = f"{module.removeprefix(package)}.{name}"
            found[where] = _parameters(value)
            if inspect.isclass(value):
                found |= {f"{where}.{one}": parameters for one, parameters in _methods(value).items()}
            if dataclasses.is_dataclass(value):
                found[f"{where} fields"] = [[one.name, _default(one)] for one in dataclasses.fields(value)]
                found[f"{where} frozen"] = vars(value)["__dataclass_params__"].frozen
    return found


def _methods(kind: type) -> dict[str, Any]:
    """Return the methods that a class defines itself, with their parameters; of properties, that they are there."""
    found: dict[str, Any] = {}
    for name, value in vars(kind).items():
        method = getattr(value, "__func__", value)
        if inspect.isfunction(method) and (not name.startswith("_") or name in ("__call__", "_asdict")):
            found[name] = [list(inspect.getargs(method.__code__).args), _parameters(method)]
        elif isinstance(value, property):
            found[name] = "property"
    return found


def _parameters(call: Any) -> list[list[str]]:
    return [[one.kind.name, one.name, repr(one.default)] for one in inspect.signature(call).parameters.values()]


def _default(field: Any) -> str:
    return "required" if field.default is dataclasses.MISSING else repr(field.default)


@contextmanager
def speech_spans(package: str, given: list[Any] | None, kept: list[Any]) -> Iterator[None]:
    """Have VAD give these spans, one list for each call, or, where none are given, keep those that it finds."""
    module: Any = import_module(f"{package}.transcribe")
    find, left = module.get_speech_timestamps, iter(given or ())

    def found(*arguments: Any, **keywords: Any) -> Any:
        spans = find(*arguments, **keywords) if given is None else next(left)
        kept.append([{"start": int(one["start"]), "end": int(one["end"])} for one in spans])
        return spans

    module.get_speech_timestamps = found
    try:
        yield
    finally:
        module.get_speech_timestamps = find


@contextmanager
def temperatures(model: Any, kept: list[float]) -> Iterator[None]:
    """Keep the temperature of each window of the real model; the face's segments state theirs."""
    decode = model.generate_with_fallback

    def decoded(*arguments: Any, **keywords: Any) -> Any:
        found = decode(*arguments, **keywords)
        kept.append(found[2])
        return found

    model.generate_with_fallback = decoded
    try:
        yield
    finally:
        del model.generate_with_fallback


def run(package: str, model: Any, pipeline: Any, case: Case, spans: list[Any] | None) -> Case:
    """Make one call. spans: those of VAD."""
    samples = np.load(case["samples"]) if case["samples"].endswith(".npy") else case["samples"]
    options = dict(case["options"])
    # In the original, chunk_length stays for later calls.
    model.feature_extractor = type(model.feature_extractor)(**model.feat_kwargs)
    kept: list[Any] = []
    warm: list[float] = []
    with speech_spans(package, spans, kept), temperatures(model, warm):
        try:
            if case["call"] == "detect_language":
                found: Any = model.detect_language(samples, **options)
            else:
                segments, info = (pipeline if case["call"] == "batched" else model).transcribe(samples, **options)
                about = {name: one for name, one in dataclasses.asdict(info).items() if name != "vad_options"}
                about["vad_options"] = info.vad_options and dataclasses.asdict(info.vad_options)
                found = {"info": about, "segments": [dataclasses.asdict(one) for one in segments]}
        except (OSError, ValueError, RuntimeError, TypeError, AssertionError, IndexError) as error:
            names = [one.__name__ for one in type(error).__mro__ if one.__module__ == "builtins"]
            found = {"error": names[0], "message": str(error)}
    return {"found": found, "spans": kept, "temperatures": warm}


def run_all(package: str, folder: str, cases: list[Case], given: list[Any] | None = None) -> list[Case]:
    """Load a model, and make all calls. given: for each of them the spans of VAD."""
    loaded = import_module(package)
    model = loaded.WhisperModel(folder, device="cpu", compute_type="float32", cpu_threads=2)
    pipeline = loaded.BatchedInferencePipeline(model)
    found = []
    for number, case in enumerate(cases):
        found.append(run(package, model, pipeline, case, None if given is None else given[number]))
        print(f"{package}: {number + 1} of {len(cases)}", file=sys.stderr, flush=True)
    plain: list[Case] = json.loads(json.dumps(found, default=_plain))
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not in results")


def scores(segments: list[dict[str, Any]]) -> str:
    """Write the scores of windows, each once: the sum of log-probabilities of its tokens."""
    windows = {one["seek"]: one["avg_logprob"] for one in segments}
    return ", ".join(f"{seek / 100:.2f} s: {score:.4f}" for seek, score in windows.items() if not math.isnan(score))


def main(model: str, wanted: str, output: str) -> None:
    """Run with the real package, and write what it gives."""
    cases = json.loads(Path(wanted).read_text(encoding="utf-8"))
    values = {"signatures": signatures("faster_whisper"), "cases": run_all("faster_whisper", model, cases)}
    Path(output).write_text(json.dumps(values), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
