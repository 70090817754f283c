"""The corpus that figures are made from: a fixed list for speed, and all that the manifest judges for errors.

The recordings are outside the project: in the folder that STAPES_CORPUS names, or in `shared` beside the checkout.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from benchmarks.recordings import Recording, read_json_lines

LIST = Path(__file__).with_name("list.json")
#: entries of the manifest that are no language: no speech, and several at once
_NO_LANGUAGE = ("zxx", "mul")
#: a text that compresses to less than one part in so many repeats itself
COMPRESSES_BY = 2.4
#: after the name of a group of recordings
WITHOUT_LOOPS = ", without loops"


def corpus_folder() -> Path:
    """Return the folder that holds audio/ and golden/; raises ValueError if it is not there."""
    named = os.environ.get("STAPES_CORPUS")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared"
    if not (folder / "audio" / "manifest.jsonl").is_file():
        raise ValueError(f"{folder}: no audio/manifest.jsonl; let STAPES_CORPUS name the folder that has it")
    return folder


def manifest() -> dict[str, dict[str, Any]]:
    """Return the corpus's lines by path."""
    return read_manifest(corpus_folder() / "audio" / "manifest.jsonl")


def read_manifest(path: Path) -> dict[str, dict[str, Any]]:
    """Return a manifest's lines by path."""
    return {str(row["path"]): row for row in read_json_lines(path)}


def benchmark_list() -> list[Recording]:
    """Return the recordings of list.json; raises ValueError where one has changed."""
    named = json.loads(LIST.read_text(encoding="utf-8"))
    lines, recordings = manifest(), []
    for entry in (*named["short"], *named["long"]):
        recording = _recording(lines[entry["path"]])
        if hashlib.sha256(recording.path.read_bytes()).hexdigest() != entry["sha256"]:
            raise ValueError(f"{entry['path']}: not the recording that the list means (its sha256 differs)")
        recordings.append(recording)
    return recordings


def judged_recordings(
    lines: dict[str, dict[str, Any]] | None = None, folder: Path | None = None
) -> dict[str, list[Recording]]:
    """Return what is fit for word error rates: {"english": ..., "other languages": ...}.

    lines, folder: another manifest than the corpus's, and where its recordings are.
    Variants of one recording in other file formats would only count its errors again.
    """
    groups: dict[str, list[Recording]] = {"english": [], "other languages": []}
    for line in (manifest() if lines is None else lines).values():
        fit = line["wer_ok"] and line["reference"] and line["language"] not in _NO_LANGUAGE
        if fit and not line["path"].startswith("formats/"):
            groups["english" if line["language"] == "en" else "other languages"].append(_recording(line, folder))
    return groups


def golden_transcripts(case: str = "greedy") -> dict[str, dict[str, Any]]:
    """Return what openai-whisper made of each recording, by path; those that it refused are left out."""
    rows = read_json_lines(corpus_folder() / "golden" / f"{case}.jsonl")
    return {str(row["path"]): row["result"] for row in rows if "error" not in row["result"]}


def loops() -> frozenset[str]:
    """Name the recordings on which the reference, and so float32, repeats itself: a segment is of a window whose text
    compresses to less than one part in 2.4, where the reference would try again at a higher temperature.

    A precision that happens not to loop there gains hundreds of words, which do not show its other errors.
    """
    return frozenset(
        path
        for path, result in golden_transcripts().items()
        if any(segment["compression_ratio"] > COMPRESSES_BY for segment in result["segments"])
    )


def golden_speech() -> list[Recording]:
    """Return the recordings of speech that the greedy golden file and the manifest have a text for."""
    lines = manifest()
    known = (lines[path] for path in golden_transcripts() if path in lines)
    return [_recording(line) for line in known if line["language"] not in _NO_LANGUAGE and line["reference"]]


def _recording(line: dict[str, Any], folder: Path | None = None) -> Recording:
    path = (folder or corpus_folder() / "audio") / str(line["path"])
    if not path.is_file():
        raise ValueError(f"{path}: the manifest names it, but it is not there")
    return Recording(
        name=line["path"] if folder is None else f"{folder.name}/{line['path']}",
        path=path,
        duration_s=float(line["duration_s"]),
        language=line["language"],
        reference=line["reference"] if line["wer_ok"] else None,
        text=line["reference"],
    )
