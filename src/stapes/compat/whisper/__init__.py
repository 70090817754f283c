"""The interface of openai-whisper 20250625."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, Final

import stapes
import stapes.compat.whisper.timing
from stapes.compat.loading import argument_errors, usable_device
from stapes.compat.whisper.audio import load_audio, log_mel_spectrogram, pad_or_trim
from stapes.compat.whisper.decoding import DecodingOptions, DecodingResult, decode, detect_language
from stapes.compat.whisper.model import ModelDimensions, Whisper
from stapes.compat.whisper.transcribe import transcribe
from stapes.compat.whisper.version import __version__

__all__ = [
    "DecodingOptions", "DecodingResult", "ModelDimensions", "Whisper", "__version__", "available_models", "decode",
    "detect_language", "load_audio", "load_model", "log_mel_spectrogram", "pad_or_trim", "transcribe",
]  # fmt: skip

_HOST: Final = "https://openaipublic.azureedge.net/main/whisper/models"
#: name -> where OpenAI publishes it, a file's sha256 in the folder's name (openai/whisper __init__.py at c0d2f62)
_MODELS = {
    name: f"{_HOST}/{sha256}/{file}.pt"
    for name, file, sha256 in (
        ("tiny.en", "tiny.en", "d3dd57d32accea0b295c96e26691aa14d8822fac7d9d27d5dc00b4ca2826dd03"),
        ("tiny", "tiny", "65147644a518d12f04e32d6f3b26facc3f8dd46e5390956a9424a650c0ce22b9"),
        ("base.en", "base.en", "25a8566e1d0c1e2231d1c762132cd20e0f96a85d16145c3a00adf5d1ac670ead"),
        ("base", "base", "ed3a0b6b1c0edf879ad9b11b1af5a0e6ab5db9205f891f668f8b0e6c6326e34e"),
        ("small.en", "small.en", "f953ad0fd29cacd07d5a9eda5624af0f6bcf2258be67c92b79389873d91e0872"),
        ("small", "small", "9ecf779972d90ba49c06d968637d720dd632c55bbf19d441fb42bf17a411e794"),
        ("medium.en", "medium.en", "d7440d1dc186f76616474e0ff0b3b6b879abc9d1a4926b7adfa41db2d497ab4f"),
        ("medium", "medium", "345ae4da62f9b3d59415adc60127b97c714f32e89e936602e85993674d08dcb1"),
        ("large-v1", "large-v1", "e4b87e7e0bf463eb8e6956e646f1e277e901512310def2c24bf0e11bd3c28e9a"),
        ("large-v2", "large-v2", "81f7c96c852ee8fc832187b0132e569d6c3065a3252ed18e56effd0b6a73e524"),
        ("large-v3", "large-v3", "e5b1a55b89c1367dacf97e3e19bfd829a01529dbfdeefa8caeb59b3f1b81dadb"),
        ("large", "large-v3", "e5b1a55b89c1367dacf97e3e19bfd829a01529dbfdeefa8caeb59b3f1b81dadb"),
        ("large-v3-turbo", "large-v3-turbo", "aff26ae408abcba5fbf8813c21e62b0941638c5f6eebfb145be0c9839262a19a"),
        ("turbo", "large-v3-turbo", "aff26ae408abcba5fbf8813c21e62b0941638c5f6eebfb145be0c9839262a19a"),
    )
}


def available_models() -> list[str]:
    """Return the names of the models that OpenAI published."""
    return list(_MODELS)


def load_model(name: str, device: Any = None, download_root: str | None = None, in_memory: bool = False) -> Whisper:  # noqa: ARG001 (where the file is read from changes nothing)
    """Load a model, on a CPU in float32, on a GPU in float16; `Whisper.of(stapes.load(name))` makes one of any engine.

    name: one of `available_models()`, an id on the hub, or the path of a file or folder in any of the four formats.
    device: "cpu", "cuda", "cuda:1", or None: a GPU that can be used, else the CPU.
    download_root: a folder of models, which is looked through first.
    Raises RuntimeError for an unknown name or what is no model, ValueError for a device that is not here.
    """
    device = usable_device("auto" if device is None else device)
    precision = "float32" if device == "cpu" else "auto"
    try:
        with argument_errors():
            return Whisper.of(stapes.load(name, device=device, precision=precision, model_dir=download_root))
    except stapes.ModelNotFoundError as error:
        raise RuntimeError(f"model {name} not found: {error}; available models: {available_models()}") from error
    except stapes.CheckpointError as error:
        raise RuntimeError(str(error)) from error


def _download(url: str, root: str, in_memory: bool) -> bytes | str:
    """Fetch a model's file to a folder, unless it is there, and return its path or its bytes.

    Raises RuntimeError where what was fetched has another sha256 than its address states, ValueError for other schemes
    than https.
    """
    if not url.startswith("https://"):
        raise ValueError(f"{url}: an address must begin with https://")
    from urllib.request import urlopen  # noqa: PLC0415 (15 ms, and seldom needed)

    expected, name = url.split("/")[-2:]
    target = Path(root, name)
    if not (target.is_file() and _sha256(target) == expected):
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{name}.{os.getpid()}.part")
        try:
            with urlopen(url) as source, part.open("wb") as file:  # noqa: S310 (the scheme was checked)
                while block := source.read(1 << 20):
                    file.write(block)
            if (found := _sha256(part)) != expected:
                raise RuntimeError(f"{url}: the file fetched has sha256 {found}; fetch it again")
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    return target.read_bytes() if in_memory else str(target)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
