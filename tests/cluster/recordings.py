"""Recordings and manifests for tests of batches: WAV files, and what breaks in ten ways."""

from __future__ import annotations

import json
import os
import wave
from collections.abc import Callable
from pathlib import Path

from stapes.batch.rows import FAILED

#: rate of the WAV files; see tests/cluster/engines.py for the one that ends its process
RATE = 8000


def python_path() -> str:
    """The PYTHONPATH of processes that import these tests and stapes, and what this process finds through its own."""
    root = Path(__file__).parents[2]
    return os.pathsep.join(filter(None, (str(root / "src"), str(root), os.environ.get("PYTHONPATH"))))


def write_wav(path: Path, duration_s: float, rate: int = RATE) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(bytes(2 * round(duration_s * rate)))


def _folder(path: Path) -> None:
    path.mkdir(exist_ok=True)


#: ways in which a recording is broken
BROKEN: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: path.unlink(missing_ok=True),
    "empty": lambda path: path.write_bytes(b""),
    "rubbish": lambda path: path.write_bytes(bytes(range(256)) * 20),
    "text": lambda path: path.write_text("not a recording"),
    "cut header": lambda path: path.write_bytes(b"RIFF\x24\x00"),
    "folder": _folder,
    "dangling link": lambda path: path.symlink_to("nowhere.wav"),
    "circle of links": lambda path: path.symlink_to(path.name),
    "web page": lambda path: path.write_text("<html>404</html>"),
    "header alone": lambda path: path.write_bytes(b"RIFF\x24\x00\x00\x00WAVEfmt "),
}


def write_batch(folder: Path, n_rows: int, *, every: int = 50, killing: int | None = None) -> tuple[Path, set[str]]:
    """Write recordings and a manifest; return it, and the ids of rows that must fail.

    every: one of so many is broken.   killing: the number of the recording that ends its worker.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ways = list(BROKEN.values())
    bad: set[str] = set()
    lines = []
    for number in range(n_rows):
        path, name = folder / f"{number}.wav", f"row {number}"
        if number == killing:
            write_wav(path, 1.0, rate=4001)
            bad.add(name)
        elif every and number % every == every - 1:
            ways[number // every % len(ways)](path)
            bad.add(name)
        else:
            write_wav(path, 0.5 + number % 8 * 0.25)
        lines.append(json.dumps({"id": name, "path": str(path)}))
    manifest = folder / "manifest.jsonl"
    manifest.write_text("\n".join(lines) + "\n")
    return manifest, bad


def check_batch(out: Path, n_rows: int, bad: set[str], killing: int | None = None) -> dict[str, str]:
    """Check that each row has ended once, and return the transcripts by id."""
    from stapes.batch.ledger import read_entries  # noqa: PLC0415 (of the extra `batch`)

    entries = [
        one for path in sorted((out / "ledger").glob("*.parquet")) for one in read_entries(path.read_bytes(), "")
    ]
    assert len(entries) == len({one.key for one in entries}) == n_rows
    failed = {one.id for one in entries if one.state == FAILED}
    assert failed == bad, f"failed that should not: {failed - bad}, did not fail: {bad - failed}"
    assert all(one.error and one.reason for one in entries if one.state == FAILED)
    for one in entries:
        if killing is not None and one.id == f"row {killing}":
            assert (one.reason, one.tries) == ("LostWorker", 3)
    files = {path.name for path in (out / "transcripts").rglob("*")}
    from stapes.batch.sources import file_stem  # noqa: PLC0415 (as above)

    texts = {}
    for path in (out / "transcripts").rglob("*.json"):
        texts[path.stem] = json.loads(path.read_text())["text"]
    assert set(texts) == {file_stem(one.id) for one in entries if one.id not in bad}
    left = [name for name in files if not name.endswith(".json") and len(name) != 2]
    assert not left, f"files that no row has: {left}"
    assert not list((out / "ledger" / "attempts").glob("*.parquet"))
    return texts
