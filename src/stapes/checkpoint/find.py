"""From a name or a path to an open checkpoint: look on the disk, in packages, in the hub's cache, on the hub.

Knows the order of looking; what a file holds is the readers' business, and the network the hub's.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from stapes.checkpoint.base import Checkpoint
from stapes.checkpoint.hub import DownloadProgress, cached_folder, cached_repositories, download_folder
from stapes.checkpoint.packages import PACKAGES, open_package
from stapes.checkpoint.registry import KNOWN, KnownModel, is_hub_id, known_models, model_named, no_such_model
from stapes.checkpoint.sniff import looks_like_whisper, open_checkpoint
from stapes.errors import ModelNotFoundError

__all__ = [
    "DownloadProgress",
    "InstalledModel",
    "KnownModel",
    "find_checkpoint",
    "installed_models",
    "known_models",
    "pull",
]


@dataclass(frozen=True, slots=True)
class InstalledModel:
    """A model that needs no network."""

    name: str  # what find_checkpoint takes
    source: str  # "package" or "hub cache"
    path: Path
    size_bytes: int


def find_checkpoint(
    name_or_path: str | os.PathLike[str], *, download: bool = True, progress: DownloadProgress | None = None
) -> Checkpoint:
    """Open a checkpoint by path, by name ("base", "turbo"), or by its owner/name on the hub.

    Looks at the path, installed weights packages, and the hub's cache, and fetches from the hub last.
    download: False never asks the network.   progress: told of bytes meanwhile; None shows the hub's bars.
    A package's weights are still being verified: call `verify` before what they compute is used (the engine does).
    Raises ModelNotFoundError where nothing of this name is here or can be fetched, and CheckpointError where
    what is here is not a whole Whisper.
    """
    text = os.fspath(name_or_path)
    is_name = isinstance(name_or_path, str)  # a Path is never a name
    model, path = model_named(text) if is_name else None, Path(text).expanduser()
    # A folder that happens to be called "base" and holds something else does not hide the model of that name.
    if text and _exists(path) and (model is None or looks_like_whisper(path)):
        return open_checkpoint(path)
    if model is None and not (is_name and is_hub_id(text)):
        raise no_such_model(text)
    if model and (packaged := _from_package(model)):
        return packaged
    hub_ids = (model.hub_id, *model.other_hub_ids) if model else (text,)
    for hub_id in hub_ids:
        if folder := cached_folder(hub_id):
            return open_checkpoint(folder, text)
    if not download:
        raise ModelNotFoundError(
            f"{text}: is neither a path, nor installed, nor in the hub's cache; fetch it once with "
            f"`stapes models pull {text}`, or allow downloads"
        )
    return open_checkpoint(download_folder(hub_ids[0], progress=progress), text)


def pull(name: str, *, progress: DownloadProgress | None = None) -> Path:
    """Fetch a model from the hub, or its newer version; give its folder. Errors as find_checkpoint's."""
    model = model_named(name)
    if model is None and not is_hub_id(name):
        raise no_such_model(name)
    return download_folder(model.hub_id if model else name, progress=progress)


def installed_models() -> list[InstalledModel]:
    """Give the models that are here: weights packages, then the hub's cache. Nothing is verified yet."""
    found = []
    for package in PACKAGES:
        if paths := package.paths():
            size = sum(path.stat().st_size for path in paths)
            found.append(InstalledModel(package.model, "package", paths[0].parent, size))
    names = {hub_id: model.name for model in KNOWN for hub_id in (model.hub_id, *model.other_hub_ids)}
    for hub_id, folder, size in cached_repositories():
        found.append(InstalledModel(names.get(hub_id, hub_id), "hub cache", folder, size))
    return found


def _from_package(model: KnownModel) -> Checkpoint | None:
    package = next((package for package in PACKAGES if package.model == model.name), None)
    return open_package(package) if package else None


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name too long for a file, or with a zero byte
        return False
