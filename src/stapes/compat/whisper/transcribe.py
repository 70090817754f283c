"""Transcription of whole recordings, as `whisper.transcribe` of openai-whisper 20250625 has it.

In float32 (on a GPU in float16, as the original) and without guards: the tokens are the original's.
"""

from __future__ import annotations

import runpy
import sys
from collections import deque
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

import stapes
from stapes.compat.loading import argument_errors, under_run_as, usable_device
from stapes.compat.whisper.audio import (
    FRAMES_PER_SECOND,
    HOP_LENGTH,
    N_FRAMES,
    N_SAMPLES,
    SAMPLE_RATE,
    log_mel_spectrogram,
    pad_or_trim,
    sound_of,
)
from stapes.compat.whisper.decoding import DecodingOptions, DecodingResult
from stapes.compat.whisper.timing import add_word_timestamps
from stapes.compat.whisper.tokenizer import LANGUAGES, TO_LANGUAGE_CODE, get_tokenizer
from stapes.compat.whisper.utils import (
    exact_div,
    format_timestamp,
    get_end,
    get_writer,
    make_safe,
    optional_float,
    optional_int,
    str2bool,
)
from stapes.options import option_fields
from stapes.runtime.printing import Printer

if TYPE_CHECKING:  # the engine takes a tenth of a second to import
    from stapes import JobEvent

__all__ = [
    "FRAMES_PER_SECOND", "HOP_LENGTH", "LANGUAGES", "N_FRAMES", "N_SAMPLES", "SAMPLE_RATE", "TO_LANGUAGE_CODE",
    "DecodingOptions", "DecodingResult", "add_word_timestamps", "cli", "exact_div", "format_timestamp", "get_end",
    "get_tokenizer", "get_writer", "log_mel_spectrogram", "make_safe", "optional_float", "optional_int",
    "pad_or_trim", "str2bool", "tqdm", "transcribe",
]  # fmt: skip


tqdm: Any  # of __getattr__


def __getattr__(name: str) -> Any:
    """Import tqdm, which takes a tenth of a second, when it is first asked for. Programs may replace it here."""
    if name != "tqdm":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import tqdm  # type: ignore[import-untyped]  # noqa: PLC0415

    return globals().setdefault(name, tqdm)


#: decode options that the loop over windows sets itself, and one without effect
_LEFT_OUT: Final = ("prompt", "fp16", "temperature")
#: what the command `whisper` does where nothing is said, and `stapes` does not
_COMMAND_DEFAULTS: Final = (
    (("--model",), "turbo"),
    (("--output_format", "-f"), "all"),
    (("--output_dir", "-o"), "."),
    (("--mode",), "reference"),
    (("--verbose",), "True"),
)


def transcribe(
    model: Any,
    audio: Any,
    *,
    verbose: bool | None = None,
    temperature: float | tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0),
    compression_ratio_threshold: float | None = 2.4,
    logprob_threshold: float | None = -1.0,
    no_speech_threshold: float | None = 0.6,
    condition_on_previous_text: bool = True,
    initial_prompt: str | None = None,
    carry_initial_prompt: bool = False,
    word_timestamps: bool = False,
    prepend_punctuations: str = "\"'“¿([{-",
    append_punctuations: str = "\"'.。,，!！?？:：”)]}、",
    clip_timestamps: str | list[float] = "0",
    hallucination_silence_threshold: float | None = None,
    **decode_options: Any,
) -> dict[str, Any]:
    """Return a recording's "text", "segments" and "language".

    audio: a path, or samples at 16 kHz as an array or a tensor.   verbose: True prints segments as they are decoded,
    False shows a progress bar, None neither.   decode_options: fields of DecodingOptions, and options of stapes by
    name (docs/options.md). Raises RuntimeError for a file or samples that cannot be read, TypeError for an unknown
    option or what is no sound, ArgumentError for a value that cannot be.
    """
    given = dict(locals())
    for name in ("model", "audio", "verbose", "decode_options"):
        del given[name]
    options = {"mode": "reference", **given, **_checked(decode_options)}
    source = audio if isinstance(audio, str) else sound_of(audio)
    events: deque[JobEvent] = deque()
    try:
        with argument_errors():
            stream = model.engine.stream(source, on_event=events.append, **options)
    except stapes.AudioError as error:
        raise RuntimeError(f"Failed to load audio: {error}") from error
    detects = model.is_multilingual and options.get("language") is None
    printer = Printer() if verbose else None
    if printer and detects:
        printer.line("Detecting the language from the first 30 seconds; `language` names it")
    content_frames = round(stream.job.progress.total_s * SAMPLE_RATE) // HOP_LENGTH  # whole frames, as windows end
    tqdm = sys.modules[__name__].tqdm  # the module: programs replace tqdm.tqdm
    with tqdm.tqdm(total=content_frames, unit="frames", disable=verbose is not False) as bar:
        for _ in stream:
            _report(events, bar, content_frames, printer)
        _report(events, bar, content_frames, printer)
    result: dict[str, Any] = stream.job.result().to_dict()
    return result


def _checked(decode_options: Mapping[str, Any]) -> dict[str, Any]:
    """Return decode options without those that have no effect here. Raises TypeError for an unknown name."""
    known = {item.name for item in fields(DecodingOptions)} | {item.name for _, item in option_fields()}
    for name in decode_options:
        if name not in known:
            raise TypeError(f"transcribe() got an unexpected keyword argument {name!r}")
    kept = {name: value for name, value in decode_options.items() if name not in _LEFT_OUT}
    return {name: value for name, value in kept.items() if (name, value) != ("task", None)}


def _report(events: deque[JobEvent], bar: Any, bar_end: int, printer: Printer | None) -> None:
    """Print what has been decoded, and move the bar on."""
    while events:
        event = events.popleft()
        if isinstance(event, stapes.WindowDone):
            bar.update(min(bar_end, event.window.next_seek) - event.window.seek)
            for one in event.segments:
                times = f"[{format_timestamp(one.start_s)} --> {format_timestamp(one.end_s)}]"
                if printer:
                    printer.line(make_safe(f"{times} {one.text}"))
        elif printer and event.language is not None:
            printer.line(f"Detected language: {LANGUAGES.get(event.language, event.language).title()}")


def cli() -> None:
    """Run the command `whisper`: `stapes` in mode reference, with the original's defaults."""
    words = sys.argv[1:]
    names = {word.partition("=")[0] for word in words}
    for flags, value in _COMMAND_DEFAULTS:
        if names.isdisjoint(flags):
            words += [flags[0], value]
    if names.isdisjoint(("--help", "-h", "--version")):
        words += _computing(words)
    sys.argv[1:] = words
    runpy.run_module("stapes", run_name="__main__")


def _computing(words: list[str]) -> list[str]:
    """Return flags to add: a GPU that cannot be used is the CPU, with a warning under `run-as`; float32 on the CPU."""
    named = [
        value or "".join(words[place + 1 : place + 2])
        for place, (name, _, value) in enumerate(word.partition("=") for word in words)
        if name == "--device"
    ]
    device = named[-1] if named else "auto"
    if device == "auto" or (under_run_as() and device.startswith("cuda")):
        device = usable_device(device)
    precision = [] if any(word.startswith("--precision") for word in words) else ["--precision", "float32"]
    if device.startswith("cuda"):
        return []
    return [*(["--device", device] if named else []), *precision]
