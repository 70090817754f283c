"""From a name or a path to an open checkpoint: paths, packages, folders of models, the hub's cache, the hub."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from stapes.checkpoint.base import Checkpoint
from stapes.checkpoint.open import looks_like_whisper, open_checkpoint
from stapes.checkpoint.sources.hub import DownloadProgress, cached_folder, cached_repositories, download_folder
from stapes.checkpoint.sources.model_folders import exists, find_in_folder, models_in, whisper_folder
from stapes.checkpoint.sources.packages import PACKAGES, open_package
from stapes.checkpoint.sources.registry import KnownModel, hub_ids_of, known_models, model_named, name_in, no_such_model
from stapes.errors import ModelNotFoundError

__all__ = [
    "DownloadProgress",
    "InstalledModel",
    "KnownModel",
    "find_checkpoint",
    "find_here",
    "how_to_remove",
    "installed_models",
    "known_models",
    "pull",
]


@dataclass(frozen=True, slots=True)
class InstalledModel:
    """A model that needs no network."""

    name: str  # what find_checkpoint takes
    source: str  # "package", "model_dir", "whisper" (openai-whisper's folder) or "hub cache"
    path: Path
    size_bytes: int


@dataclass(frozen=True, slots=True)
class _ModelRequest:
    name: str
    model: KnownModel | None
    hub_ids: tuple[str, ...]
    model_dir: Path | None

    @classmethod
    def of(cls, text: str, model_dir: str | os.PathLike[str] | None) -> _ModelRequest:
        name = name_in(text)
        model = model_named(name)
        return cls(name, model, hub_ids_of(name, model), None if model_dir is None else _expanded(model_dir))


def find_checkpoint(
    name_or_path: str | os.PathLike[str],
    *,
    download: bool = True,
    progress: DownloadProgress | None = None,
    model_dir: str | os.PathLike[str] | None = None,
) -> Checkpoint:
    """Open a checkpoint by path, by name ("base", "turbo"), or by its owner/name on the hub.

    Looks at the path, installed weights packages, `model_dir`, openai-whisper's folder and the hub's cache, and fetches
    from the hub last. A known model's hub ids are names of it: "openai/whisper-base" needs no hub where base is here.
    download: False never asks the network.   progress: called with bytes; None shows the hub's bars.
    model_dir: where models are kept, as by openai-whisper (small.pt), faster-whisper or the hub; what is fetched goes
    there. Weights with a known hash are still being hashed: call `verify` before what they compute is used.
    Raises ModelNotFoundError where nothing of this name is here or can be fetched, CheckpointError where what is here
    is not a whole Whisper.
    """
    text = os.fspath(name_or_path)
    is_name = isinstance(name_or_path, str)  # a Path is never a name
    request, path = _ModelRequest.of(text if is_name else "", model_dir), _expanded(text)
    # A folder that happens to be called "base" and holds something else does not hide the model of that name.
    if text and exists(path) and (request.model is None or looks_like_whisper(path)):
        return open_checkpoint(path)
    if not is_name:
        raise no_such_model(text)
    if found := _find_here(request):
        return found
    if not request.hub_ids:
        raise no_such_model(text)
    if request.model_dir and looks_like_whisper(request.model_dir):
        raise ModelNotFoundError(
            f"{request.name}: not in {request.model_dir}, which is a model itself and no folder of models; to use it, "
            "give it as the model"
        )
    if not download:
        raise ModelNotFoundError(
            f"{request.name}: is neither a path, nor installed, nor in a folder of models or the hub's cache; fetch it "
            f"once with 'stapes models pull {request.name}', or allow downloads"
        )
    folder = download_folder(request.hub_ids[0], progress=progress, cache_dir=request.model_dir)
    return open_checkpoint(folder, request.name)


def find_here(name: str, *, model_dir: str | os.PathLike[str] | None = None) -> Path | None:
    """Return the path of a model that needs no network, by its path, name or hub id; None if it is not here.
    A weights package is verified. Raises CheckpointError where it is damaged.
    """
    request, path = _ModelRequest.of(name, model_dir), _expanded(name)
    if name and exists(path) and looks_like_whisper(path):
        return path
    found = _find_here(request)
    if found is None:
        return None
    found.verify()
    return found.path


def how_to_remove(name: str, *, model_dir: str | os.PathLike[str] | None = None) -> str | None:
    """Return how a user removes a model that is here, in words; None if it is not."""
    path = find_here(name, model_dir=model_dir)
    if path is None:
        return None
    package = next((package for package in PACKAGES if (paths := package.paths()) and paths[0].parent == path), None)
    if package:
        names = " ".join(part.partition("==")[0] for part in package.install.split())
        return f"it is a package: 'pip uninstall {names}'"
    in_cache = path.parent.name == "snapshots"  # of the model's folder in the hub's cache
    return f"delete {path.parents[1] if in_cache else path}"


def pull(
    name: str, *, progress: DownloadProgress | None = None, model_dir: str | os.PathLike[str] | None = None
) -> Path:
    """Fetch a model from the hub, or its newer version; return its folder. Errors as find_checkpoint's."""
    folder = None if model_dir is None else _expanded(model_dir)
    return download_folder(hub_id_of(name), progress=progress, cache_dir=folder)


def hub_id_of(name: str) -> str:
    """Return the owner/name on the hub that a model is fetched by. Raises ModelNotFoundError where there is none."""
    request = _ModelRequest.of(name, None)
    if not request.hub_ids:
        raise no_such_model(name)
    return request.hub_ids[0]


def installed_models(model_dir: str | os.PathLike[str] | None = None) -> list[InstalledModel]:
    """Return the models that are here, in the order in which they are looked for. Nothing is verified yet."""
    found = []
    for package in PACKAGES:
        if paths := package.paths():
            size = sum(path.stat().st_size for path in paths)
            found.append(InstalledModel(package.model, "package", paths[0].parent, size))
    chosen = None if model_dir is None else _expanded(model_dir)
    for folder, source in ((chosen, "model_dir"), (whisper_folder(), "whisper")):
        if folder is not None:
            found += [InstalledModel(_shortest(name), source, path, size) for name, path, size in models_in(folder)]
    for hub_id, folder, size in cached_repositories():
        found.append(InstalledModel(_shortest(hub_id), "hub cache", folder, size))
    return found


def _shortest(name: str) -> str:
    model = model_named(name)
    return model.name if model else name


def _find_here(request: _ModelRequest) -> Checkpoint | None:
    """Open what needs no network, in the order that docs/formats.md gives."""
    package = next((one for one in PACKAGES if request.model and one.model == request.model.name), None)
    if package and (packaged := open_package(package)):
        return packaged
    if request.model_dir is not None and (
        found := find_in_folder(request.model_dir, request.name, request.model, request.hub_ids)
    ):
        return found
    folder = whisper_folder() if request.model else None
    if folder is not None and (found := find_in_folder(folder, request.name, request.model, ())):
        return found
    cached = next((folder for hub_id in request.hub_ids if (folder := cached_folder(hub_id))), None)
    return open_checkpoint(cached, request.name) if cached else None


def _expanded(path: str | os.PathLike[str]) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:  # "~user" that this machine does not know
        return Path(path)
