"""Decodes one audio stream to 16-bit mono at 16 kHz, block by block, as the `ffmpeg` command does.

The command is `ffmpeg -i FILE -f s16le -ac 1 -acodec pcm_s16le -ar 16000 -`; where libav and its
documentation leave a choice, this file does what version 5.1 was seen to do. It imports PyAV, so it is
imported only when there is something to decode.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import av
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import EOFError as EndOfStream
from av.error import FFmpegError
from av.stream import Discard, Disposition

from stapes.audio.channels import CancelMeter, channel_index
from stapes.audio.convert import Converter
from stapes.audio.formats import (
    AUDIO_DECODERS,
    BEGINNINGS,
    DEMUXERS,
    KNOWN_KINDS,
    MAX_CHANNELS,
    MAX_SAMPLE_RATE,
    MIN_SAMPLE_RATE,
)
from stapes.audio.header_duration import (
    is_mp4_segment,
    is_mp4_without_index,
    is_rf64_of_unknown_length,
    present_share,
    stated_duration_s,
    stated_share,
)
from stapes.audio.pcm import SAMPLE_RATE
from stapes.audio.source import ByteSource
from stapes.audio.timestamps import Timestamps
from stapes.errors import AudioError, StapesError
from stapes.options import Audio

_GENERATE_TIMESTAMPS = 0x0001  # AVFMT_FLAG_GENPTS in libavformat/avformat.h
_TIME_BASE = 1_000_000  # AV_TIME_BASE, per second
# Containers whose header names no streams: libav finds them as it reads, 5 MB by default. Sound that is switched on
# later is looked for up to here; libav keeps in memory what it reads until then.
_STREAMS_ON_THE_WAY = ("flv", "mpegts", "mpeg")
_PROBE_BYTES = 64 << 20
_PROBE_TIME = 3600 * _TIME_BASE
_OGG_PAGE_S = 5.0  # an ogg page's time is that of its end; of flac, libav does not count back from it
_DURATION_SLACK_S = 0.25  # codecs round lengths up to their frames, and cut priming samples


_OF_SEGMENTS = (
    "a piece of a stream without its beginning, the initialisation segment; "
    "join them first: cat init.mp4 piece.m4s > whole.mp4"
)
_OF_MISSING_INDEX = (
    "an incomplete m4a or mp4: its index (moov), which is written last, is missing or cut off; "
    "copy or download it again, or repair it with the program that recorded it"
)


@dataclass
class DecodeReport:
    """What happened during `decode`, which fills it."""

    n_frames: int = 0  # decoded
    n_damaged: int = 0  # refused by the decoder, and skipped
    ended_early: str = ""  # libav's error where the file became unreadable
    stated_s: float | None = None  # see header_duration.py
    stated_share: float = 1.0  # of what is there
    present_share: float = 1.0  # of what the header counts, and libav reads
    foreign_file: str = ""  # another file that this one wanted opened, and was not
    track: str = ""  # which of several sound tracks was taken without being asked for
    timestamps: Timestamps = field(default_factory=lambda: Timestamps(None))
    cancelling: CancelMeter = field(default_factory=CancelMeter)

    def notes(self, label: str, duration_s: float, wanted: Audio) -> Iterator[str]:
        """What was odd, one sentence each. duration_s: what was decoded."""
        if self.track:
            yield f"{label}: {self.track}; --audio_track N takes another"
        if self.cancelling.cancels:
            yield (
                f"{label}: its channels cancel each other when they are mixed, in {self.cancelling.cancelled_s:.1f} of "
                f"{self.cancelling.loud_s:.1f} s; --channel left (or right) takes one alone"
            )
        for clause in self.timestamps.notes() if wanted.clock == "samples" else ():
            yield f"{label}: its {clause}; times count samples, --clock container gives those that players show"
        if wanted.clock == "container" and self.timestamps.restarted_at_s is not None:
            yield (
                f"{label}: its timestamps start again after {self.timestamps.restarted_at_s:.1f} s of sound; "
                "later times go on from there"
            )
        if self.n_damaged:
            skipped = "damaged frame was" if self.n_damaged == 1 else "damaged frames were"
            yield f"{label}: {self.n_damaged} {skipped} skipped; words may be missing there"
        if self.foreign_file:
            yield f"{label}: refers to another file, which stapes does not open: {self.foreign_file}"
        uncounted_s = (self.present_share - 1.0) * duration_s
        if uncounted_s > _DURATION_SLACK_S:
            yield (
                f"{label}: its header counts {duration_s:.1f} s of sound, and {uncounted_s:.1f} s more after them "
                "were not read; sox --ignore-length OLD.wav NEW.wav counts again"
            )
        reached_s = max(duration_s, self.timestamps.end_s)  # a header may count gaps, and a late start
        stated_s = max(self.stated_s or 0.0, self.stated_share * duration_s if duration_s else 0.0)
        if math.isinf(self.stated_share):
            yield f"{label}: cut short: its header states sound, and none follows"
        elif stated_s - reached_s > _DURATION_SLACK_S:
            yield f"{label}: cut short: {reached_s:.1f} s of the {stated_s:.1f} s that its header states"
        elif self.ended_early:
            yield f"{label}: cut short or damaged after {duration_s:.1f} s ({self.ended_early})"


def decode(
    source: ByteSource, report: DecodeReport, wanted: Audio, sample_rate: int = SAMPLE_RATE, layout: str = "mono"
) -> Iterator[memoryview]:
    """Yield the samples of one audio stream: int16, native byte order; of other layouts than mono, interleaved.

    wanted: which stream (the main one by default), and which channel.   report: counts skipped damaged frames, ...
    Raises AudioError if there is no such stream or channel, if it may not be decoded, and for whatever else libav or
    PyAV raise: what they raise on damaged files is not known in full.
    """
    try:
        yield from _decode(source, report, wanted, sample_rate, layout)
    except StapesError:
        raise
    except Exception as failure:
        source.raise_failure()
        said = " ".join(f"{type(failure).__name__}: {failure}".split())
        raise AudioError(
            f"{source.label}: the audio library failed on it ({said}); the file is probably damaged: "
            "convert it to wav or flac first"
        ) from failure


def _decode(
    source: ByteSource, report: DecodeReport, wanted: Audio, sample_rate: int, layout: str
) -> Iterator[memoryview]:
    container = _open(source, report)
    if not container.streams.audio and container.format.name in _STREAMS_ON_THE_WAY:
        container.close()
        source.seek(0)
        container = _open(source, report, {"probesize": str(_PROBE_BYTES), "analyzeduration": str(_PROBE_TIME)})
    with container:
        source.raise_failure()
        stream = _choose_stream(container, source, report, wanted.audio_track)
        report.stated_s = stated_duration_s(source, container, stream)
        report.stated_share = stated_share(source)
        report.present_share = present_share(source)
        start: Any = container.start_time  # None where no stream says when it begins
        is_ogg_flac = container.format.name == "ogg" and stream.codec_context.name == "flac"
        report.timestamps = Timestamps(
            None if start is None else start / _TIME_BASE, guessed_s=_OGG_PAGE_S if is_ogg_flac else 0.0
        )
        skip_samples = _unskipped_opus_samples(container, stream)
        converter: Converter | None = None
        for frame in _frames(container, stream, report):
            _check_frame(frame, source.label)
            report.timestamps.note(frame.time, frame.samples / frame.sample_rate)
            if wanted.channel == "mix":
                report.cancelling.note(frame)
            if converter is None or not converter.fits(frame):
                # On a change of format ffmpeg 5.1 rebuilds its filters and drops what the old ones held back.
                form = {"sample_rate": sample_rate, "layout": layout, "skip_samples": skip_samples}
                converter = _converter(frame, source.label, wanted, form)
                skip_samples = 0
            yield from converter.convert(frame)
        if converter is not None:
            yield from converter.convert(None)
    source.raise_failure()


def _open(source: ByteSource, report: DecodeReport, more: Mapping[str, str] = MappingProxyType({})) -> InputContainer:
    def open_nothing(address: str, _flags: int, _options: dict[str, str]) -> io.BytesIO:
        report.foreign_file = address
        return io.BytesIO()

    # Tags in another encoding than UTF-8 are no reason to refuse a recording; PyAV 19 has no such argument.
    tags: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
    options = {
        "format_whitelist": ",".join(sorted(DEMUXERS)),
        "codec_whitelist": ",".join(sorted(AUDIO_DECODERS)),  # holds for probing too: no video decoder runs
        "protocol_whitelist": "none",  # no protocol has this name
        **more,
    }
    if is_rf64_of_unknown_length(source):
        options["ignore_length"] = "1"
    try:
        container: InputContainer = av.open(source, mode="r", io_open=open_nothing, container_options=options, **tags)
    except (FFmpegError, ValueError) as failure:
        source.raise_failure()
        unknown = f"not a kind of file that stapes reads ({KNOWN_KINDS}); check that it is audio, or convert it first"
        raise _refusal(source, _of_damaged_header(source) or unknown) from failure
    # Without it libav may read ahead through the whole file to invent timestamps that are not used here.
    container.flags &= ~_GENERATE_TIMESTAMPS
    return container


def _refusal(source: ByteSource, reason: str) -> AudioError:
    """Make the error for a file without sound: an MP4 that was cut before its index, or else the reason given."""
    if is_mp4_without_index(source):
        reason = _OF_SEGMENTS if is_mp4_segment(source) else _OF_MISSING_INDEX
    return AudioError(f"{source.label}: {reason}")


def _of_damaged_header(source: ByteSource) -> str | None:
    source.seek(0)
    head = source.read(12)
    kinds = (kind for kind, beginning in BEGINNINGS.items() if re.match(beginning, head, re.DOTALL))
    return next(
        (
            f"begins like {kind}, but its header is damaged, cut off or was never completed; "
            "record, copy or convert it again (to a file, where a pipe was used)"
            for kind in kinds
        ),
        None,
    )


def _choose_stream(
    container: InputContainer, source: ByteSource, report: DecodeReport, track: int | None
) -> AudioStream:
    """Return the track of this number, or ffmpeg's choice: marked default, then most channels, then the first."""
    streams = container.streams.audio
    if not streams:
        kinds = sorted({str(stream.type) for stream in container.streams}) or ["nothing"]
        raise _refusal(source, f"has no sound track (it holds {', '.join(kinds)}); choose a file with sound")
    label = source.label
    tracks = f"{len(streams)} sound track{'s'[: len(streams) > 1]} ({'; '.join(map(_described, streams))})"
    if track is None:
        chosen = max(streams, key=_rank)
        if len(streams) > 1:
            report.track = f"has {tracks} and track {streams.index(chosen) + 1} is taken"
    elif track <= len(streams):
        chosen = streams[track - 1]
    else:
        raise AudioError(f"{label}: has no sound track {track}; it holds {tracks}, counted from 1")
    for other in container.streams:
        if other is not chosen:
            other.discard = Discard.all
    context = _context_of(chosen)
    if context is None or context.name not in AUDIO_DECODERS:
        name = "unknown" if context is None else context.name
        raise AudioError(f"{label}: stapes does not decode its audio codec ({name}); convert it to wav or flac first")
    context.thread_count = 1  # frames come in order and errors where they belong
    return chosen


def _described(stream: AudioStream) -> str:
    """Describe a track by its language and channels. Titles are untrusted text and not shown."""
    language, context = stream.language or "", _context_of(stream)
    n_channels = 0 if context is None else context.layout.nb_channels
    known = f"{language}, " if re.fullmatch(r"[A-Za-z]{2,3}", language) and language != "und" else ""
    return f"{known}{n_channels} channel{'s'[: n_channels != 1]}"


def _context_of(stream: AudioStream) -> AudioCodecContext | None:
    context: AudioCodecContext | None = getattr(stream, "codec_context", None)  # None: libav has no decoder
    return context


def _rank(stream: AudioStream) -> tuple[bool, int]:
    context = _context_of(stream)
    channels = 0 if context is None else context.layout.nb_channels
    return Disposition.default in stream.disposition, channels


def _frames(container: InputContainer, stream: AudioStream, report: DecodeReport) -> Iterator[AudioFrame]:
    """Yield decoded frames in order; what libav refuses is counted and skipped, as ffmpeg does."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except Exception as failure:  # PyAV has more errors than libav
            # ffmpeg takes any error of the demuxer for the end, and flushes the decoder.
            report.ended_early = getattr(failure, "strerror", None) or repr(failure)
            packet = None
        flushing = packet is None or packet.size == 0
        try:
            frames = stream.codec_context.decode(None if flushing else packet)
        except EndOfStream:
            frames = []
        except FFmpegError:
            frames = []
            # Where wav fills an odd number of bytes up to an even one, libav takes that for a packet (of GSM).
            report.n_damaged += packet is None or packet.size != 1
        report.n_frames += len(frames)
        yield from frames
        # Not one packet more: where streams appeared on the way, PyAV fails after it.
        if flushing:
            return


def _unskipped_opus_samples(container: InputContainer, stream: AudioStream) -> int:
    """Return how many samples at 48 kHz of an Opus encoder's run-in libav will leave; asked before decoding.

    OpusHead says how many to skip. Matroska says it again as CodecDelay, which older muxers got wrong by the factor
    between 48 kHz and the source's rate. FFmpeg 5.1 uses OpusHead, later versions CodecDelay.
    """
    context = stream.codec_context
    head = context.extradata or b""
    if "matroska" not in container.format.name or not head.startswith(b"OpusHead") or len(head) < 12:
        return 0
    codec_delay = context.delay  # 0: there is none, and libav falls back on OpusHead
    return max(0, int.from_bytes(head[10:12], "little") - codec_delay) if codec_delay else 0


def _converter(frame: AudioFrame, label: str, wanted: Audio, form: dict[str, Any]) -> Converter:
    channel = None
    if wanted.channel != "mix":
        channel = channel_index(frame, wanted.channel)
        if channel is None:
            raise AudioError(f"{label}: has one channel, so there is no {wanted.channel} one; leave --channel out")
    try:
        return Converter(frame, channel=channel, **form)
    except (FFmpegError, ValueError) as failure:
        raise AudioError(
            f"{label}: its {frame.layout.nb_channels} channels ({frame.layout.name}, {frame.format.name}) cannot be "
            "mixed to one; mix it down first"
        ) from failure


def _check_frame(frame: AudioFrame, label: str) -> None:
    """Refuse rates and channels that no speech has, by the decoded frame, not by the header."""
    n_channels, rate = frame.layout.nb_channels, frame.sample_rate
    if not 1 <= n_channels <= MAX_CHANNELS:
        raise AudioError(f"{label}: {n_channels} channels; stapes reads 1 to {MAX_CHANNELS}, mix it down first")
    if not MIN_SAMPLE_RATE <= rate <= MAX_SAMPLE_RATE:
        raise AudioError(f"{label}: {rate} samples per second; stapes reads {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE}")
