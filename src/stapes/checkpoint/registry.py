"""The names that people know models by, and where each is published. Knows names, not files."""

from __future__ import annotations

import re
from dataclasses import dataclass

from stapes.errors import ModelNotFoundError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95}", re.ASCII)


@dataclass(frozen=True, slots=True)
class KnownModel:
    """One published model."""

    name: str
    hub_id: str
    n_parameters: int  # as published, rounded to millions
    languages: str
    other_hub_ids: tuple[str, ...] = ()  # the same weights in another format: used where cached, never fetched
    aliases: tuple[str, ...] = ()


def _openai(name: str, millions: int, languages: str, *, hub: str = "", aliases: tuple[str, ...] = ()) -> KnownModel:
    return KnownModel(
        name,
        f"openai/whisper-{hub or name}",
        millions * 1_000_000,
        languages,
        (f"Systran/faster-whisper-{name}",),
        aliases,
    )


def _distil(name: str, millions: int) -> KnownModel:
    other = name.replace("distil-", "faster-distil-whisper-")
    others = (f"Systran/{other}",)
    return KnownModel(name, f"distil-whisper/{name}", millions * 1_000_000, "English", others)


_MANY = "99 languages"
#: Source of sizes: https://github.com/openai/whisper/blob/c0d2f62/README.md and the model cards on the hub.
KNOWN: tuple[KnownModel, ...] = (
    _openai("tiny", 39, _MANY),
    _openai("tiny.en", 39, "English"),
    _openai("base", 74, _MANY),
    _openai("base.en", 74, "English"),
    _openai("small", 244, _MANY),
    _openai("small.en", 244, "English"),
    _openai("medium", 769, _MANY),
    _openai("medium.en", 769, "English"),
    _openai("large-v1", 1550, _MANY, hub="large"),
    _openai("large-v2", 1550, _MANY),
    _openai("large-v3", 1550, "100 languages", aliases=("large",)),
    KnownModel(
        "turbo",
        "openai/whisper-large-v3-turbo",
        809_000_000,
        "100 languages",
        ("mobiuslabsgmbh/faster-whisper-large-v3-turbo",),
        ("large-v3-turbo",),
    ),
    _distil("distil-small.en", 166),
    _distil("distil-medium.en", 394),
    _distil("distil-large-v2", 756),
    _distil("distil-large-v3", 756),
    KnownModel(
        "distil-large-v3.5",
        "distil-whisper/distil-large-v3.5",
        756_000_000,
        "English",
        ("distil-whisper/distil-large-v3.5-ct2",),
    ),
)


def known_models() -> tuple[KnownModel, ...]:
    """Give every model that has a name of its own, small ones first."""
    return KNOWN


def model_named(name: str) -> KnownModel | None:
    """Give the model of this name or alias; None if it is no such name."""
    return next((model for model in KNOWN if name == model.name or name in model.aliases), None)


def is_hub_id(text: str) -> bool:
    """Tell whether a text has the form owner/name."""
    return _HUB_ID.fullmatch(text) is not None and ".." not in text and "--" not in text


def no_such_model(text: str) -> ModelNotFoundError:
    """Make the error for a text that is no path and no name; it says what is close and what there is."""
    if text.startswith((".", "/", "~")) or "\\" in text or text.count("/") > 1:
        return ModelNotFoundError(f"{text!r:.200}: no such file or folder; check the path")
    import difflib  # noqa: PLC0415 (needed for this error only)

    names = [name for model in KNOWN for name in (model.name, *model.aliases)]
    close = difflib.get_close_matches(text.lower(), names, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    return ModelNotFoundError(
        f"{text!r:.200}: no such file or folder, and no model of this name.{hint} Known names: "
        f"{', '.join(names)}; or give an owner/name on the Hugging Face hub, or the path of a checkpoint"
    )
