"""The recordings of a benchmark: files, their lengths, and what a manifest knows of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One file to transcribe."""

    name: str  # its name in results, without any path of this machine
    path: Path
    duration_s: float
    language: str | None  # None: every engine detects it
    reference: str | None  # what is said; None: no word error rate
    text: str | None = None  # what is said, fit for word error rates or not


def read_recordings(files: Sequence[Path], manifest: Path | None, language: str) -> list[Recording]:
    """Look at every file; a manifest's line belongs to the file whose path ends in the line's `path`."""
    lines = {str(row["path"]): row for row in read_json_lines(manifest)} if manifest is not None else {}
    recordings = []
    for path in files:
        if not path.is_file():
            raise ValueError(f"{path}: no such file")
        line = lines.get(_key(path, lines), {})
        spoken = line.get("language", language)
        recordings.append(
            Recording(
                name=path.name,
                path=path,
                duration_s=round(_duration_s(path), 3),
                language=None if spoken == "auto" else spoken,
                reference=line.get("reference") if line.get("wer_ok", True) else None,
            )
        )
    return recordings


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Read one JSON object from each line that is not empty."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.strip()]


def _key(path: Path, lines: dict[str, dict[str, Any]]) -> str:
    """Find the longest tail of a path that the manifest knows."""
    parts = path.absolute().parts
    tails = ("/".join(parts[start:]) for start in range(1, len(parts)))
    return next((tail for tail in tails if tail in lines), "")


def _duration_s(path: Path) -> float:
    """Count the decoded samples: what a header says may be wrong."""
    import av  # noqa: PLC0415 (only for files that no manifest knows)

    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        rate, samples = stream.rate, 0
        for frame in container.decode(stream):
            samples += frame.samples
    return samples / rate
