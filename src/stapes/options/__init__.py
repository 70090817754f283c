"""Every option of a transcription: its type, unit, default and one line of help, written once.

Options come in frozen groups, checked when they are made. The command line's flags and the documentation are made
from the groups' fields; `TranscribeOptions.from_keywords` takes the keywords of openai/whisper's transcribe().
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any

from stapes.errors import OptionError
from stapes.options.audio import Audio, Channel, Clock
from stapes.options.checks import option
from stapes.options.devices import DEVICES
from stapes.options.guards import NO_GUARDS, Guards, Voice
from stapes.options.method import AudioContext, Clips, Method, Mode, Words
from stapes.options.other_programs import LOAD_KEYWORDS, Face, advice
from stapes.options.rules import Context, Rules
from stapes.options.search import LADDER, Beam, Greedy, Sample, Search, Strategy, Thresholds
from stapes.options.speech import Speech, Task

__all__ = ["COMMAND_PRESET", "DEVICES", "GROUPS", "LADDER", "NO_GUARDS", "PRECISIONS", "Audio", "AudioContext", "Beam",
           "Channel", "Clips", "Clock", "Context", "Greedy", "Guards", "Method", "Mode", "Rules", "Sample", "Search",
           "Speech", "Strategy", "Task", "Thresholds", "TranscribeOptions", "Voice", "Words", "default_of", "option",
           "option_fields", "unknown_option"]  # fmt: skip

#: the precisions of a model; only the first is exact (docs/native.md, docs/gpu.md)
PRECISIONS = ("float32", "float16", "bfloat16", "int8")


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscribeOptions:
    """All options of one transcription; defaults are those of openai/whisper's transcribe(), and all guards are on."""

    speech: Speech = field(default_factory=Speech)
    search: Search = field(default_factory=Search)
    rules: Rules = field(default_factory=Rules)
    context: Context = field(default_factory=Context)
    thresholds: Thresholds = field(default_factory=Thresholds)
    clips: Clips = field(default_factory=Clips)
    words: Words = field(default_factory=Words)
    guards: Guards = field(default_factory=Guards)
    voice: Voice = field(default_factory=Voice)
    method: Method = field(default_factory=Method)
    audio: Audio = field(default_factory=Audio)

    @property
    def guards_on(self) -> Guards:
        """The active guards."""
        return NO_GUARDS if self.method.mode == "reference" else self.guards

    @classmethod
    def from_keywords(cls, keywords: Mapping[str, Any]) -> TranscribeOptions:
        """Build the groups from flat keywords, as whisper.transcribe() takes them.

        Raises OptionError for an unknown keyword or a value that cannot be.
        """
        left = dict(keywords)
        groups = {
            name: group(**{item.name: left.pop(item.name) for item in fields(group) if item.name in left})
            for name, group in GROUPS.items()
        }
        if left:
            raise OptionError(unknown_option(next(iter(left))))
        return cls(**groups)


#: name in TranscribeOptions -> class of the group, in the order of the help page
GROUPS: dict[str, Any] = {item.name: item.default_factory for item in fields(TranscribeOptions)}

#: Keywords of `whisper.transcribe()` that the window loop sets itself.
_SET_BY_LOOP = {"prompt": "the prompt of each window is made by the loop; give initial_prompt instead"}


def option_fields() -> Iterable[tuple[str, Field[Any]]]:
    """Yield (group, field) for every option; flags and documentation are made from them."""
    for name, group in GROUPS.items():
        for item in fields(group):
            yield name, item


def default_of(name: str) -> Any:
    """Return an option's default."""
    for _, item in option_fields():
        if item.name == name and item.default is not MISSING:
            return item.default
    raise KeyError(name)


def unknown_option(name: str, face: Face = "transcribe") -> str:
    """Return a sentence that says that an option is unknown, and what to give instead. face: what it was given to."""
    from difflib import get_close_matches  # noqa: PLC0415 (only on this path)

    if face == "transcribe" and name in _SET_BY_LOOP:
        return f"{name}: {_SET_BY_LOOP[name]}"
    options = [item.name for _, item in option_fields()]
    if (instead := advice(name, face, options)) is not None:
        return f"unknown option {name!r}; {instead}"
    close = get_close_matches(name, LOAD_KEYWORDS if face == "load" else options, n=1)
    page = {"load": "docs/python.md lists", "request": "/openapi.json lists"}.get(
        face, "docs/options.md and docs/python.md list"
    )
    return f"unknown option {name!r}; " + (f"did you mean {close[0]!r}?" if close else f"{page} what there is")


#: Defaults of the `stapes` command that differ from the library's, as those of the `whisper` command do.
COMMAND_PRESET: Mapping[str, Any] = {"beam_size": 5, "best_of": 5}
