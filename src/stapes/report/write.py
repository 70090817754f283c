"""Puts a report together and writes it: reads the recording once more, in bounded memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, get_args
from urllib.parse import quote

from stapes.audio.load import AudioSource, as_recording
from stapes.audio.pcm import Recording
from stapes.errors import OptionError
from stapes.options import Audio, Channel, Clock
from stapes.options.checks import number, plain, plain_items, require
from stapes.output.files import InputFiles, checked_target, write_whole
from stapes.report import escape
from stapes.report.page import PageSound, page_parts
from stapes.report.waveform import waveform
from stapes.results import Transcript, checked

if TYPE_CHECKING:
    from stapes.report.attention import WindowAttention

Sound = Literal["inside", "link", "none"]
_SOUNDS: Final[tuple[Sound, ...]] = get_args(Sound)
#: a longer recording's sound is left out of the page, which would have 38 MB: two hours
_MOST_INSIDE_S: Final = 7200.0


def write_report(
    transcript: Transcript,
    audio: AudioSource | Recording,
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
    model: str = "",
    sound: Sound = "inside",
    most_inside_s: float = _MOST_INSIDE_S,
    inputs: Iterable[str | os.PathLike[str]] | InputFiles = (),
    audio_track: int | None = None,
    channel: Channel = "mix",
    clock: Clock = "samples",
) -> Path:
    """Write a transcript as one HTML page, and return its path.

    transcript: best with words (`word_timestamps=True`).
    audio: the recording that was transcribed; a path, a file's bytes, samples at 16 kHz, or a loaded one.
    audio_track, channel, clock: as it was transcribed; with "container", silence is shown and played where it has gaps.
    title: None takes the recording's name.   model: a line that names model, backend and precision.
    sound: "inside" puts the recording into the page (32 kbit/s, 19 MB for an hour), unless it is longer than
    `most_inside_s`; "link" refers to the file of `audio`, which stays where it is; "none" leaves it out.
    inputs: files beside the recording that must not be replaced.
    The page is written whole or not at all. Raises OptionError, AudioError, OutputError.
    """
    checked(transcript)
    if sound not in _SOUNDS:
        raise OptionError(f"sound must be one of {', '.join(_SOUNDS)}; got {sound!r}")
    most_inside_s = plain(most_inside_s)
    require(most_inside_s is not None, "most_inside_s must be a number, got None")
    number("most_inside_s", most_inside_s, low=0)
    target, keep = Path(path), _checked(path, audio, inputs)
    with _opened(audio, Audio(audio_track=audio_track, channel=channel, clock=clock)) as recording:
        shown = Path(recording.name).name if title is None else title
        wave = waveform(recording)
        with _page_sound(recording, audio, target, sound, most_inside_s) as page_sound:
            parts = page_parts(transcript, wave, page_sound, title=shown, model=model)
            # A lone surrogate has no UTF-8 form; text from a tokenizer never holds one.
            write_whole({target: (part.encode("utf-8", errors="replace") for part in parts)}, keep)
    return target


def _checked(
    path: str | os.PathLike[str], audio: AudioSource | Recording, inputs: Iterable[str | os.PathLike[str]] | InputFiles
) -> InputFiles:
    """Return the files that must stay, the recording's among them. Raises OutputError where the path leads to one."""
    name = audio if isinstance(audio, str | os.PathLike) else getattr(audio, "name", None)
    if not isinstance(inputs, InputFiles):
        inputs = InputFiles([*inputs, *([name] if isinstance(name, str | os.PathLike | int) else [])])
    checked_target(Path(path), inputs)
    return inputs


@contextmanager
def _opened(audio: AudioSource | Recording, wanted: Audio) -> Iterator[Recording]:
    """Load a recording, laid out in the time of its transcript, and close what was loaded here."""
    with as_recording(audio, wanted) as recording:
        yield recording.laid_out()


@contextmanager
def _page_sound(
    recording: Recording, audio: AudioSource | Recording, target: Path, sound: Sound, most_inside_s: float
) -> Iterator[PageSound]:
    if sound == "link":
        yield PageSound(link=link_to(audio, target))
    elif sound == "none":
        yield PageSound(why_not="The page was written without sound.")
    elif recording.duration_s > most_inside_s:
        yield PageSound(
            why_not=f"The sound is not in the page: the recording is longer than {escape.clock(most_inside_s)}. "
            "A page that refers to the file instead (link) would play it."
        )
    else:
        from stapes.report.sound import MIME_TYPE, encode_sound  # noqa: PLC0415 (PyAV takes a tenth of a second)

        with encode_sound(recording) as file:
            yield PageSound(inside=file, mime_type=MIME_TYPE)


def link_to(audio: object, target: Path) -> str:
    """Return the URL of a recording's file, relative to the page where that can be.
    Raises OptionError where the recording is no file.
    """
    if not isinstance(audio, str | os.PathLike) or audio == "-":
        raise OptionError('a page can refer only to a file; put the sound inside, or leave it out with "none"')
    path = Path(os.fsdecode(audio)).absolute()
    try:
        relative = os.path.relpath(path, target.absolute().parent)
    except ValueError:  # another drive
        return path.as_uri()
    return "./" + quote(Path(relative).as_posix().encode("utf-8", errors="surrogateescape"))


def _checked_span(span_s: Any) -> tuple[float, float] | None:
    if span_s is None:
        return None
    try:
        first_s, end_s = plain_items(span_s)
        in_order = bool(0 <= first_s < end_s)
    except (TypeError, ValueError):
        in_order = False
    if not in_order:
        raise OptionError(f"span_s must be two times in seconds, the earlier first, got {span_s!r}")
    return first_s, end_s


def write_plot(
    transcript: Transcript,
    audio: AudioSource | Recording,
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
    span_s: tuple[float, float] | None = None,
    attentions: Sequence[WindowAttention] = (),
    inputs: Iterable[str | os.PathLike[str]] | InputFiles = (),
    audio_track: int | None = None,
    channel: Channel = "mix",
    clock: Clock = "samples",
) -> Path:
    """Draw a transcript as a PNG or SVG, as the path's suffix says, and return the path. Needs matplotlib (extra
    `plot`).

    transcript, audio, title, inputs, audio_track, channel, clock: as for `write_report`.
    span_s: the stretch to draw, from and to; None: all of it.
    attentions: of windows, from `window_attention`; each is drawn below.
    Raises OptionError, AudioError, OutputError.
    """
    checked(transcript)
    target = Path(path)
    suffix = target.suffix.lower()
    if suffix not in (".png", ".svg"):
        raise OptionError(f"{target}: a plot is a .png or an .svg; name it so")
    span_s = _checked_span(span_s)
    keep = _checked(path, audio, inputs)
    from stapes.report.figure import draw  # noqa: PLC0415 (matplotlib is an extra, and takes half a second)

    with _opened(audio, Audio(audio_track=audio_track, channel=channel, clock=clock)) as recording:
        shown = Path(recording.name).name if title is None else title
        wave = waveform(recording)
    image = BytesIO()
    draw(
        transcript,
        wave,
        image,
        title=shown,
        image_format="svg" if suffix == ".svg" else "png",
        span_s=span_s,
        attentions=attentions,
    )
    write_whole({target: [image.getvalue()]}, keep)
    return target
