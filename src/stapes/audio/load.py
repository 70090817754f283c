"""Any recording -> samples at 16 kHz mono, in bounded memory.

Files are decoded as the reference's `ffmpeg` command decodes them; arrays stay float32, as in the reference.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import asdict
from typing import IO, TYPE_CHECKING, Any, Final, Literal, Protocol

import numpy as np
import numpy.typing as npt

from stapes.audio.arrays import array_of, check_array, rate_of
from stapes.audio.pcm import FULL_SCALE, SAMPLE_RATE, Recording, SampleWriter, recording_of_array
from stapes.audio.source import ByteSource, is_source, open_source
from stapes.errors import AudioError, AudioTooLongError, OptionError
from stapes.options import Audio, Channel, Clock
from stapes.options.checks import above_0, one_of, plain, whole
from stapes.runtime.warn import warn

if TYPE_CHECKING:
    from stapes.audio.decode import DecodeReport


class SupportsArray(Protocol):
    """What NumPy makes an array of: a torch tensor on the CPU, a column of a table."""

    def __array__(self) -> npt.NDArray[Any]: ...


AudioSource = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | npt.NDArray[np.generic] | SupportsArray
)
_N_CHANNELS: Final = {"mono": 1, "stereo": 2}
_MEMORY_LIMIT_BYTES = 32 << 20  # 17 minutes of 16-bit samples; the rest of longer recordings is in a temporary file


def load_audio(
    source: AudioSource,
    *,
    sample_rate: int | None = None,
    max_duration_s: float | None = None,
    audio_track: int | None = None,
    channel: Channel = "mix",
    clock: Clock = "samples",
    memory_limit_bytes: int = _MEMORY_LIMIT_BYTES,
    check: Callable[[], None] = lambda: None,
) -> Recording:
    """Read a recording.

    source: a path, "-" (standard input), the bytes of a file, a binary file object, or a NumPy array (n,) or what
    converts to one (`__array__`): floats with a full scale of 1, signed integers of 8 to 32 bits, or uint8. An array
    that is float32 at 16 kHz already is not copied.
    sample_rate: of an array, in Hz (16000 if left out); a file states its rate.
    max_duration_s: refuse longer ones; decoded samples are counted; no header is trusted.
    audio_track, channel, clock: of a file, see `stapes.options.Audio`. With clock "container", `Recording.spans` says
    where the samples are in the file's time.
    memory_limit_bytes: samples above it are kept in a temporary file.
    check: called with every block of a file, or of an array at another rate; what it raises ends the reading.
    Raises AudioError, AudioTooLongError or OptionError. Warns with StapesWarning (and in `Recording.warnings`) where a
    file is damaged or cut short, and where an array's values suggest another scale than its type's.
    """
    max_duration_s = plain(max_duration_s)  # a NumPy number of few bits overflows in samples
    above_0("max_duration_s", max_duration_s)
    wanted = Audio(audio_track=audio_track, channel=channel, clock=clock)
    if isinstance(source, Recording):
        raise AudioError(f"{source.name}: a recording that is loaded already; pass what it was loaded from")
    array = None if is_source(source) else array_of(source)
    if array is not None:
        if wanted.audio_track is not None or wanted.channel != "mix":
            raise OptionError("audio_track and channel choose in a file; of an array, pass the channel that is wanted")
        return _warned(_load_array(array, rate_of(sample_rate), max_duration_s, memory_limit_bytes, check))
    if sample_rate is not None:
        raise OptionError(f"sample_rate={sample_rate} is for arrays; a file says its own: leave it out")
    opened = open_source(source)
    try:
        return _warned(_load_file(opened, wanted, max_duration_s, memory_limit_bytes, check))
    finally:
        opened.close()


def _load_array(
    array: npt.NDArray[np.generic],
    rate: int,
    max_duration_s: float | None,
    memory_limit_bytes: int,
    check: Callable[[], None],
) -> Recording:
    samples, notes = check_array(array)
    name = f"array of {array.size} samples"
    if max_duration_s is not None and samples.size > max_duration_s * rate:
        raise _too_long(name, max_duration_s)
    if rate == SAMPLE_RATE:
        return recording_of_array(name, samples, warnings=notes)
    from stapes.audio.convert import resample  # noqa: PLC0415 (PyAV takes a tenth of a second to import)

    writer = SampleWriter("f4", memory_limit_bytes=memory_limit_bytes)
    try:
        for block in resample(samples, rate):
            check()
            writer.write(block)
        return writer.finish(name, warnings=notes)
    except BaseException:
        writer.discard()
        raise


def _load_file(
    source: ByteSource, wanted: Audio, max_duration_s: float | None, memory_limit_bytes: int, check: Callable[[], None]
) -> Recording:
    writer = SampleWriter("i2", memory_limit_bytes=memory_limit_bytes)
    limit = math.inf if max_duration_s is None else max_duration_s * SAMPLE_RATE

    def write(block: memoryview) -> None:
        check()
        writer.write(block)
        if writer.n_samples > limit:
            raise _too_long(source.label, max_duration_s)

    try:
        notes, spans = decode_into(source, wanted, write)
        return writer.finish(source.label, warnings=notes, spans=spans)
    except BaseException:
        writer.discard()
        raise


def load_samples(
    source: str | os.PathLike[str] | bytes | IO[bytes],
    *,
    sample_rate: int = SAMPLE_RATE,
    layout: Literal["mono", "stereo"] = "mono",
    audio_track: int | None = None,
) -> npt.NDArray[np.float32]:
    """Read a file's samples at any rate, all of them into memory: float32 (n, channels), 1.0 is full scale.

    sample_rate: the wanted one, in Hz.   layout: what the file's channels are mixed to; one channel is in both of
    stereo, 3 dB quieter.   source, audio_track, errors and warnings: as for `load_audio`.
    """
    whole("sample_rate", sample_rate)
    one_of("layout", layout, tuple(_N_CHANNELS))
    samples, wanted = bytearray(), Audio(audio_track=audio_track)
    opened = open_source(source)
    try:
        notes, _ = decode_into(opened, wanted, samples.extend, sample_rate=sample_rate, layout=layout)
    finally:
        opened.close()
    for note in notes:
        warn(note)
    return np.frombuffer(samples, np.int16).astype(np.float32).reshape(-1, _N_CHANNELS[layout]) / FULL_SCALE


def decode_into(
    source: ByteSource,
    wanted: Audio,
    write: Callable[[memoryview], None],
    *,
    sample_rate: int = SAMPLE_RATE,
    layout: str = "mono",
) -> tuple[tuple[str, ...], tuple[tuple[int, int], ...]]:
    """Decode a file to samples, int16 at 16 kHz, mono, or as wanted, and hand them to `write` block by block.

    Returns what was odd, one sentence each, and the recording's spans (`Recording`). Raises AudioError, and what
    `write` raises.
    """
    from stapes.audio.decode import DecodeReport, decode  # noqa: PLC0415 (PyAV takes a tenth of a second to import)

    report, n_samples = DecodeReport(), 0
    for block in decode(source, report, wanted, sample_rate, layout):
        write(block)
        n_samples += len(block) // (2 * _N_CHANNELS[layout])
    _refuse_if_unusable(source.label, report)
    notes = tuple(report.notes(source.label, n_samples / sample_rate, wanted))
    return notes, tuple(report.timestamps.spans(n_samples)) if wanted.clock == "container" else ()


def _warned(recording: Recording) -> Recording:
    for note in recording.warnings:
        warn(note)
    return recording


def _too_long(name: str, max_duration_s: float | None) -> AudioTooLongError:
    return AudioTooLongError(f"{name}: longer than the {max_duration_s:g} s allowed; cut it, or raise the limit")


def _refuse_if_unusable(label: str, report: DecodeReport) -> None:
    """Raise AudioError where ffmpeg gives up: over two thirds of the frames cannot be decoded (-max_error_rate)."""
    n_seen = report.n_frames + report.n_damaged
    if report.n_damaged * 3 > n_seen * 2:
        raise AudioError(f"{label}: {report.n_damaged} of {n_seen} frames cannot be decoded; the file is damaged")


def as_recording(
    audio: AudioSource | Recording,
    wanted: Audio,
    *,
    sample_rate: int | None = None,
    max_duration_s: float | None = None,
    check: Callable[[], None] = lambda: None,
) -> Recording:
    """Load audio as `load_audio` does; or return the samples of a loaded recording, whose owner closes it.

    Raises OptionError for what had to be said when it was loaded.
    """
    if not isinstance(audio, Recording):
        return load_audio(audio, sample_rate=sample_rate, max_duration_s=max_duration_s, check=check, **asdict(wanted))
    if wanted != Audio() or sample_rate is not None:
        raise OptionError(
            "audio_track, channel, clock and sample_rate are for files and arrays; a loaded recording was loaded with "
            "its own: leave them out"
        )
    if max_duration_s is not None and audio.duration_s > max_duration_s:
        raise _too_long(audio.name, max_duration_s)
    return audio.shared()
