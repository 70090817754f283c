"""What a batch was begun with: `batch.json` in its output folder."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Final

from stapes.batch.place import Place
from stapes.errors import OptionError, OutputError

SETTINGS_FILE: Final = "batch.json"
_VERSION: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What every run of a batch has in common."""

    stapes: str  # the version that it was begun with
    model: str  # without a query
    model_sha256: str
    precision: str  # resolved
    options: str  # as canonical JSON
    formats: tuple[str, ...]
    digits: int  # of a key that name its shard
    version: int = _VERSION  # of the files in the folder


def read_settings(place: Place) -> Settings | None:
    """Return the settings of a batch; None where none was begun. Raises OutputError for a damaged file."""
    values = place.read_object(SETTINGS_FILE)
    if values is None:
        return None
    known = {item.name for item in fields(Settings)}
    if values.get("version") != _VERSION or set(values) != known:
        raise OutputError(
            f"{place.shown}/{SETTINGS_FILE}: was written by another version of stapes, or is damaged; use that "
            "version, or another output folder"
        )
    kinds = {"digits": int, "version": int, "formats": list}
    is_right = all(isinstance(value, kinds.get(name, str)) for name, value in values.items())
    if not is_right or not all(isinstance(name, str) for name in values["formats"]):
        raise OutputError(f"{place.shown}/{SETTINGS_FILE}: is damaged; restore it, or use another output folder")
    return Settings(**{**values, "formats": tuple(values["formats"])})


def write_settings(place: Place, settings: Settings) -> None:
    """Begin a batch."""
    place.write(SETTINGS_FILE, json.dumps(asdict(settings), indent=1).encode())


def check_agreement(place: Place, old: Settings, asked: dict[str, object]) -> None:
    """Raise OptionError where a batch was begun with other settings. asked: those that the command names."""
    for name, value in asked.items():
        begun = getattr(old, name)
        if begun != value:
            raise OptionError(
                f"{place.shown}: this batch was begun with {name} {_text(begun)}, not {_text(value)}; give the same "
                "again, or another output folder"
            )


def _text(value: object) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)
