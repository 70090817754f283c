"""From answers to figures, and from figures to a JSON file without personal data."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.machine import facts
from benchmarks.process import Engine
from benchmarks.recordings import Recording
from benchmarks.word_errors import edits, normalise_all

RESULTS = Path(__file__).parent / "results"
FORMAT = 1
Rows = list[dict[str, Any]]  # one per file


def collect(
    engines: list[Engine], recordings: list[Recording], settings: dict[str, Any], normalising_python: str
) -> dict[str, Any]:
    """Summarise a run; only base names of files are kept."""
    rows = {engine.label: [_file(engine, recording) for recording in recordings] for engine in engines}
    normaliser = count_word_errors(list(rows.values()), recordings, normalising_python)
    reference = next((files for label, files in rows.items() if label.startswith("openai-whisper")), None)
    summaries = []
    for engine in engines:
        files = rows[engine.label]
        summaries.append(_summary(engine, files, reference))
    return {
        "format": FORMAT,
        "kind": "engines",
        "machine": facts(),
        "settings": settings | {"normaliser": normaliser},
        "recordings": {"count": len(recordings), "seconds": round(sum(r.duration_s for r in recordings), 1)},
        "engines": summaries,
    }


def _file(engine: Engine, recording: Recording) -> dict[str, Any]:
    """Put the repeats of one file together."""
    answers = engine.answers[recording.path]
    failed = next((answer["error"] for answer in answers if "error" in answer), None)
    # An error's text may hold a path of this machine.
    error = failed and failed.replace(str(recording.path.absolute().parent) + "/", "").replace(str(Path.home()), "~")
    seconds = [answer["seconds"] for answer in answers if "seconds" in answer]
    return {
        "file": recording.name,
        "duration_s": recording.duration_s,
        "seconds": seconds,
        "median_s": median(seconds) if seconds and not failed else None,
        "text": None if failed else answers[-1]["text"].strip(),
        "same_text_every_time": len({answer.get("text") for answer in answers}) == 1,
        "error": error,
        "word_errors": None,
        "words": None,
    }


def count_word_errors(engines: list[list[dict[str, Any]]], recordings: list[Recording], python: str) -> str | None:
    """Fill in word_errors and words where a reference is known; returns the normaliser's name."""
    known = [(place, r.reference, r.language or "en") for place, r in enumerate(recordings) if r.reference]
    if not known:
        return None
    texts = [(text, language) for _, text, language in known]
    for files in engines:
        texts += [(files[place]["text"] or "", language) for place, _, language in known]
    name, normalised = normalise_all(python, texts)
    references, given = normalised[: len(known)], iter(normalised[len(known) :])
    for files in engines:
        for (place, _, _), reference in zip(known, references, strict=True):
            text = next(given)
            files[place]["words"] = len(reference.split())
            files[place]["word_errors"] = edits(reference.split(), text.split())
    return name


def _summary(engine: Engine, files: list[dict[str, Any]], reference: list[dict[str, Any]] | None) -> dict[str, Any]:
    """Sum up one engine: failed files count nowhere but in `failed`."""
    done = [row for row in files if row["median_s"] is not None]
    judged = [row for row in done if row["words"] is not None]
    seconds = sum(row["median_s"] for row in done)
    same = None
    if reference is not None:
        same = sum(row["text"] == other["text"] for row, other in zip(files, reference, strict=True))
    return {
        "name": engine.label,
        "facts": engine.ready["facts"],
        "versions": engine.ready["versions"],
        "python": engine.ready["python"],
        "import_s": engine.ready["import_s"],
        "load_s": engine.ready["load_s"],
        "seconds": round(seconds, 3),
        "audio_seconds": round(sum(row["duration_s"] for row in done), 3),
        "times_real_time": round(sum(row["duration_s"] for row in done) / seconds, 3) if seconds else 0.0,
        "peak_memory_mb": engine.peak_memory_mb,
        "word_error_rate": round(sum(row["word_errors"] for row in judged) / words, 6)
        if (words := sum(row["words"] for row in judged))
        else None,
        "same_text_as_openai_whisper": same,
        "word_errors": sum(row["word_errors"] for row in judged) if judged else None,
        "failed": len(files) - len(done),
        "files": files,
    }


def read_results() -> list[dict[str, Any]]:
    """Return every committed result, by file name."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))]


def write(result: dict[str, Any], path: Path | None, name: str) -> Path:
    """Write a result to `path`, or to a new file among the results."""
    if path is None:
        stem = f"{name.replace('/', '-')}-{result['machine']['date']}"
        candidates = [RESULTS / f"{stem}{suffix}.json" for suffix in ("", *(f"-{n}" for n in range(2, 1000)))]
        path = next(candidate for candidate in candidates if not candidate.exists())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path
