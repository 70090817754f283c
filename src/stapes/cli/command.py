"""The checked values of one command line: `Command`. flags.py reads them from words.

Opens no file and no model: whether a recording or a checkpoint exists is checked later.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from stapes.cli.help import SEE_HELP
from stapes.errors import OptionError
from stapes.options import PRECISIONS, TranscribeOptions, option_fields
from stapes.options.devices import device_names
from stapes.output.files import output_stem
from stapes.output.subtitles import Layout
from stapes.output.writers import ALL_FORMATS, format_names

#: a finer ladder of temperatures than this is a mistake
_MOST_RUNGS: Final = 1000
_MOST_MEGABYTES: Final = 1e12


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """The values of one command line."""

    audio: tuple[str, ...]
    model: str
    model_dir: str | None
    precision: str
    device: str
    threads: int | None  # None: as many as the machine has
    max_memory: int | None  # bytes; None: as `load` has it
    device_memory: int | None  # the same
    formats: tuple[str, ...]  # empty: the text goes to standard output and no file is written
    output_dir: str
    verbose: bool | None
    max_duration_s: float | None
    concurrency: int | None  # recordings at once; None: as many as is sensible
    progress: str  # one of flags.PROGRESS
    skip_existing: bool
    options: TranscribeOptions
    layout: Layout  # of subtitles
    page: tuple[object, ...] = ()  # what a page or a picture shows, beside the transcript
    output_file: str | None = None  # where the one file of the one recording goes, if that is said
    copies: Mapping[str, str] = field(default_factory=dict)  # pipe -> the file that it was copied to, to be read twice

    def targets(self, source: str) -> tuple[Path, ...]:
        """The files of one recording, a format each."""
        if self.output_file is not None:
            return (Path(self.output_file),)
        stem = output_stem(source)
        return tuple(Path(self.output_dir, f"{stem}.{name}") for name in self.formats)

    def targets_are_there(self, source: str) -> bool:
        """Whether all files of one recording are there."""
        return all(target.is_file() for target in self.targets(source))


def command_of(values: Mapping[str, Any]) -> Command:
    """Check what the flags say. Raises OptionError for anything that cannot be."""
    if "." in (values["output_format"] or ""):  # whisper.cpp names recordings with -f
        raise OptionError(
            f"-f {values['output_format']}: -f names formats, such as srt; name recordings without a flag"
        )
    if not values["audio"]:
        raise OptionError(
            f"give at least one recording, for example: stapes talk.mp3, or - for standard input; {SEE_HELP}"
        )
    threads, max_duration_s, concurrency = values["threads"] or 0, values["max_duration"], values["concurrency"]
    if threads < 0:
        raise OptionError(f"--threads must be 0 (all) or more, got {threads}")
    if max_duration_s is not None and not max_duration_s > 0:
        raise OptionError(f"--max_duration must be more than 0 seconds, got {max_duration_s:g}")
    if concurrency is not None and concurrency < 1:
        raise OptionError(f"--concurrency must be at least 1, got {concurrency}; leave it out to let stapes choose")
    to_files = values["output_format"] is not None or values["output_dir"] is not None
    if values["skip_existing"] and not to_files:
        raise OptionError("--skip_existing looks for files, and none would be written; give -f or -o too")
    if values["output_dir"] == "-":
        raise OptionError(
            "--output_dir -: files are written into a folder, and standard output gets the text where neither -f nor "
            "-o is given; for a folder of this name write ./-"
        )
    options = transcribe_options(values)
    return Command(
        **{name: values[name] for name in ("model", "model_dir", "verbose", "progress", "skip_existing")},
        audio=tuple(values["audio"]),
        precision=known_value("precision", values["precision"], ("auto", *PRECISIONS)),
        device=checked_device(values["device"]),
        threads=threads or None,
        max_memory=_bytes_of("max_memory", values["max_memory"]),
        device_memory=_bytes_of("device_memory", values["device_memory"]),
        formats=format_names(ALL_FORMATS if values["output_format"] is None else values["output_format"])
        if to_files
        else (),
        output_dir=values["output_dir"] or ".",
        max_duration_s=max_duration_s,
        concurrency=concurrency,
        options=options,
        layout=_layout(values, options),
    )


def _bytes_of(name: str, megabytes: float | None) -> int | None:
    if megabytes is not None and not 1e-6 <= megabytes <= _MOST_MEGABYTES:
        raise OptionError(f"--{name} must be more than 0 MB, and no more than there can be, got {megabytes:g}")
    return None if megabytes is None else int(megabytes * 1e6)


def checked_device(text: str) -> str:
    """Return the name of a device; whether it is here is seen when the model is loaded."""
    try:
        device_names(text)
    except OptionError as error:
        raise OptionError(f"--{error}") from None
    return text


def known_value(name: str, value: str, known: Sequence[str]) -> str:
    """Return the value of a flag. Raises OptionError for one that is not known."""
    if value not in known:
        choices = f"{', '.join(known[:-1])} or {known[-1]}"
        raise OptionError(f"--{name} {value}: this version does not know it; give {choices}, or leave --{name} out")
    return value


def transcribe_options(values: Mapping[str, Any]) -> TranscribeOptions:
    """Return the options that flags name. Raises OptionError for what cannot be."""
    keywords = {item.name: values[item.name] for _, item in option_fields()}
    increment = values["temperature_increment_on_fallback"]
    if increment is not None:
        keywords["temperature"] = temperature_ladder(keywords["temperature"], increment)
    return TranscribeOptions.from_keywords(keywords)


def temperature_ladder(first: float, increment: float) -> tuple[float, ...]:
    """Return first, first + increment, ... up to 1.0, as numpy.arange(first, 1.0 + 1e-6, increment) does.

    A first temperature above 1.0 stands alone (the reference stops with an error there).
    """
    if not increment > 0:
        raise OptionError(
            f"--temperature_increment_on_fallback must be more than 0, got {increment:g}; "
            "None tries one temperature only"
        )
    rungs = (1.0 + 1e-6 - first) / increment
    if rungs > _MOST_RUNGS:
        raise OptionError(f"--temperature_increment_on_fallback {increment:g} is too small; the usual step is 0.2")
    if not rungs > 0 or math.isinf(increment):
        return (first,)
    step = (first + increment) - first
    return tuple(first + number * step for number in range(math.ceil(rungs)))


def _layout(values: Mapping[str, Any], options: TranscribeOptions) -> Layout:
    """Read how subtitles are laid out. Raises OptionError where there are no words to lay out."""
    layout = Layout(**{item.name: values[item.name] for item in fields(Layout)})
    if layout.needing_words and not options.words.word_timestamps:
        raise OptionError(f"--{layout.needing_words[0]} requires --word_timestamps True")
    return layout
