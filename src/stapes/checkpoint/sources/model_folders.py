"""Finds models in folders, by the file names of openai-whisper, faster-whisper and whisper.cpp. Asks no network."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from stapes.checkpoint.base import Checkpoint
from stapes.checkpoint.files import FileBytes
from stapes.checkpoint.heads import OFFICIAL
from stapes.checkpoint.open import looks_like_whisper, open_checkpoint, snapshot_of
from stapes.checkpoint.sources.packages import FileHash
from stapes.checkpoint.sources.registry import KnownModel, model_named, name_in
from stapes.errors import CheckpointError
from stapes.runtime.warn import warn

_MOST_ENTRIES = 10_000  # of a folder that is listed
_CACHED = "models--"  # how the hub's cache begins a model's folder


def whisper_folder() -> Path | None:
    """Return the folder where openai-whisper keeps its models; None where there is no home.
    Source: https://github.com/openai/whisper/blob/c0d2f62/whisper/__init__.py (load_model).
    """
    with suppress(RuntimeError):  # no home is known
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "whisper"
    return None


def find_in_folder(folder: Path, name: str, model: KnownModel | None, hub_ids: Sequence[str]) -> Checkpoint | None:
    """Open the model of this name in a folder; None if it is not there.
    What has that name and is no whole checkpoint (an interrupted download) is skipped with a warning.
    """
    for path in _places(folder, name, model, hub_ids):
        if not exists(path):
            continue
        try:
            return _checked(open_checkpoint(path, name), model)
        except CheckpointError as exc:
            if not path.name.startswith(_CACHED):  # the hub goes on with these where it stopped
                warn(f"skipped while looking for {name}: {exc}")
    return None


def exists(path: Path) -> bool:
    """Whether something is at a path, whatever its name is made of."""
    try:
        return path.exists()
    except (OSError, ValueError):  # a name too long for a file, or with a zero byte
        return False


def _places(folder: Path, name: str, model: KnownModel | None, hub_ids: Sequence[str]) -> Iterator[Path]:
    """Yield the paths under which programs keep a model, never one outside the folder."""
    stems = dict.fromkeys([model.name, *model.aliases] if model else [])
    if not set("/\\:") & set(name) and name not in (".", "..", ""):
        stems.setdefault(name)
    for stem in stems:
        yield folder / f"{stem}.pt"  # openai-whisper
        for entry in (stem, f"faster-whisper-{stem}", f"whisper-{stem}", f"ggml-{stem}.bin"):
            yield folder / entry
    for hub_id in hub_ids:
        yield folder / hub_id.partition("/")[2]
        yield folder / hub_id
        yield folder / f"{_CACHED}{hub_id.replace('/', '--')}"
    if (
        model
        and model_named(name_in(folder.name)) == model
        and ((folder / "snapshots").is_dir() or looks_like_whisper(folder))
    ):
        yield folder  # the model's own


def _checked(checkpoint: Checkpoint, model: KnownModel | None) -> Checkpoint:
    """Let `verify` compare a `.pt` with the published hash of its name; it warns where they differ."""
    sha256 = next((official.sha256 for official in OFFICIAL if model and official.name == model.name), None)
    if checkpoint.format != "openai" or checkpoint.path is None or model is None or sha256 is None:
        return checkpoint
    hashing, path = FileHash(FileBytes(checkpoint.path)), checkpoint.path

    def compare() -> None:
        if (found := hashing.wait()) != sha256:
            other = next((official.name for official in OFFICIAL if official.sha256 == found), None)
            instead = f"but {other}" if other else "(another sha256), so a fine-tuned or a damaged file"
            warn(f"{path}: not {model.name} as OpenAI published it {instead}; it is used as it is")

    return replace(checkpoint, verification=compare)


def models_in(folder: Path) -> Iterator[tuple[str, Path, int]]:
    """Yield the models that a folder holds as (name, path, bytes)."""
    try:
        entries = sorted(entry for entry, _ in zip(folder.iterdir(), range(_MOST_ENTRIES), strict=False))
    except OSError:
        return
    for path in entries:
        if path.name.startswith(".") or not (path.is_dir() or path.suffix in (".pt", ".bin")):
            continue
        with suppress(CheckpointError, OSError):
            model = (snapshot_of(path) or path) if path.is_dir() else path
            if looks_like_whisper(model):
                files = [file for file in model.iterdir() if file.is_file()] if model.is_dir() else [model]
                yield name_in(path.name).removesuffix(".pt"), model, sum(file.stat().st_size for file in files)
