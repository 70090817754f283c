"""Recognises a checkpoint's format by its content, and opens it. A file's suffix is not used."""

from __future__ import annotations

import os
from pathlib import Path

from stapes.checkpoint.base import Checkpoint
from stapes.checkpoint.files import FileBytes, read_json_object
from stapes.checkpoint.formats.ctranslate2 import CT2_WEIGHTS, NAME_IN_HEAD, read_ctranslate2
from stapes.checkpoint.formats.folders import weights_in
from stapes.checkpoint.formats.huggingface import INDEX, WEIGHTS, read_huggingface, shard_names
from stapes.checkpoint.formats.safetensors import is_safetensors
from stapes.checkpoint.formats.unsupported import describe_file, describe_names
from stapes.errors import CheckpointError

_EXPECTED = (
    "stapes reads Hugging Face folders (config.json with model.safetensors), OpenAI .pt files, CTranslate2 "
    "folders (model.bin) and ggml .bin files of whisper.cpp"
)


def _format_of(data: FileBytes) -> str | None:
    """Return the format of a file of weights by its first bytes; None if it has none of ours."""
    if data.head.startswith(b"PK\x03\x04"):  # a zip archive
        return "openai"
    if data.head.startswith(b"lmgg"):  # the number 0x67676d6c, little-endian
        return "ggml"
    if data.head[4:].startswith(NAME_IN_HEAD):
        return "ctranslate2"
    return "huggingface" if is_safetensors(data) else None


def open_checkpoint(path: Path, name: str | None = None) -> Checkpoint:
    """Open what is at `path`; raises CheckpointError where it is not a whole Whisper.
    name: what the user asked for; the file's name if not given.
    """
    name = name or path.name
    try:
        return _open_folder(path, name) if path.is_dir() else _open_file(path, name)
    except OSError as exc:
        raise CheckpointError(f"{path}: cannot be read ({exc}); check its permissions") from exc


def _open_folder(folder: Path, name: str) -> Checkpoint:
    folder = snapshot_of(folder) or folder
    if (folder / WEIGHTS).is_file() or (folder / INDEX).is_file():
        return read_huggingface(folder, name)
    if _is_ctranslate2(folder / CT2_WEIGHTS):
        return read_ctranslate2(folder, name)
    raise CheckpointError(f"{folder}: no checkpoint in this folder, it {_content_of(folder)}; {_EXPECTED}")


def _content_of(folder: Path) -> str:
    names = sorted(entry.name for entry in folder.iterdir())
    for name in weights_in(names):
        path = folder / name
        if path.is_symlink() and not path.exists():
            return (
                f"holds {name} as a link to a file that is not there ({str(path.readlink())!r:.120}); copy the folder "
                "together with what its links lead to (cp -rL)"
            )
        if path.is_file():
            data = FileBytes(path)
            is_model = _format_of(data) in ("openai", "ggml")
            own = "a model by itself: give its path" if is_model else "no file of weights"
            return f"holds {name}, which is {describe_file(data.head) or own}"
    if what := describe_names(names):
        return f"holds {what}"
    return f"holds {', '.join(names[:5])}" if names else "is empty"


def snapshot_of(folder: Path) -> Path | None:
    """Return the snapshot in a model's folder of the hub's cache (models--owner--name); None if it is no such folder.

    The one that refs/main names, or else the only one. Raises CheckpointError where there is none, or several.
    Source: https://github.com/huggingface/huggingface_hub/blob/f7c9b7d/docs/source/en/guides/manage-cache.md.
    """
    snapshots = folder / "snapshots"
    named = folder.name.startswith("models--")
    is_cache = named or (snapshots.is_dir() and (folder / "refs").is_dir())
    if not is_cache or weights_in(entry.name for entry in folder.iterdir()):
        return None
    found = sorted(entry for entry in snapshots.iterdir() if entry.is_dir()) if snapshots.is_dir() else []
    main = folder / "refs" / "main"
    if main.is_file() and main.stat().st_size:
        commit = FileBytes(main).head.strip()
        found = [entry for entry in found if os.fsencode(entry.name) == commit] or found
    if len(found) == 1 and weights_in(entry.name for entry in found[0].iterdir()):
        return found[0]
    hub_id = folder.name.removeprefix("models--").replace("--", "/", 1) if named else "OWNER/NAME"
    what = f"without a downloaded model in it; fetch it: 'stapes models pull {hub_id}'"
    if len(found) > 1:
        what = f"with {len(found)} snapshots; give the path of one of them"
    raise CheckpointError(f"{folder}: a model's folder in the hub's cache, {what}")


def _open_file(path: Path, name: str) -> Checkpoint:
    data = FileBytes(path)
    format = _format_of(data)
    # Readers are imported when needed: each file of Python takes milliseconds of every start.
    if format == "openai":
        from stapes.checkpoint.formats.openai import read_openai  # noqa: PLC0415

        return read_openai(path, name)
    if format == "ggml":
        from stapes.checkpoint.formats.ggml import read_ggml  # noqa: PLC0415

        return read_ggml(path, name)
    if format == "ctranslate2":
        return read_ctranslate2(path.parent, name, path)
    if format == "huggingface":
        return read_huggingface(path.parent, name, None if _is_part_of_folder(path) else path)
    is_json = path.suffix == ".json" and data.head.lstrip().startswith(b"{")
    what = "a part of a model's folder; give the folder" if is_json else describe_file(data.head)
    what = what or f"not a checkpoint (it begins with {data.head[:8]!r})"
    raise CheckpointError(f"{path}: is {what}; {_EXPECTED}")


def _is_part_of_folder(path: Path) -> bool:
    """Return whether a file of weights is what its folder is read from: model.safetensors, or a shard."""
    index = path.parent / INDEX
    if path.name == WEIGHTS or not index.is_file():
        return path.name == WEIGHTS
    return path.name in shard_names(read_json_object(index), index)


def _is_ctranslate2(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0 and _format_of(FileBytes(path)) == "ctranslate2"


def looks_like_whisper(path: Path) -> bool:
    """Whether a path is worth opening, by a glance; it may still be damaged."""
    if path.is_dir():
        if path.name.startswith("models--") or _is_ctranslate2(path / CT2_WEIGHTS):
            return True
        config = path / "config.json"
        try:
            return config.is_file() and read_json_object(config).get("model_type") == "whisper"
        except CheckpointError:
            return False
    try:
        return _format_of(FileBytes(path)) is not None
    except CheckpointError:
        return False
