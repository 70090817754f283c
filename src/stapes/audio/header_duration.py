"""What a file's header says of its length: only to warn of a file that was cut short.

Nothing is sized, bounded or refused by these numbers, as headers can be wrong. All functions leave the source's
position unchanged, unless they say otherwise.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

from av.audio.stream import AudioStream
from av.container import InputContainer

from stapes.audio.source import ByteSource

# Where libav reads the duration from a header that counts samples, or that is written when the file is finished.
# Elsewhere (aac, mpegts, mp3 without Xing's header) it guesses from the bit rate; an ogg's it takes from the last
# page, which a file that was cut short lacks. Of files in chunks it corrects some durations to what is there, and
# not others: see `stated_share`.
_EXACT_DURATIONS = frozenset(["ape", "flac", "mov", "matroska", "tta", "wv"])
_MAX_CHUNKS = 64  # before the samples
# A program that writes to a pipe cannot go back to its header and puts in the most that it could say: sox
# 0x7ffff000 rounded down to whole blocks, in aiff 0x7f000000; arecord 0x80000000; ffmpeg 0xffffffff; others the same
# without the header's bytes. A real length that near to one of these limits cannot be distinguished from them.
_LIMITS = (0x7F000000, 1 << 31, 1 << 32)
_NEAR = 1 << 16
_LARGEST = 1 << 62  # bytes; more is -1, or as much as 64 bits can say
_RF64_SIZE = 0xFFFFFFFF  # in the chunk itself; the true one is in "ds64"
#: boxes that such a file may begin with (ISO/IEC 14496-12; QuickTime)
_FIRST_BOXES_OF_SEGMENTS = (b"styp", b"sidx", b"moof", b"emsg")
_FIRST_BOXES = (b"ftyp", b"mdat", b"wide", b"free", b"skip", b"moov", b"pnot", *_FIRST_BOXES_OF_SEGMENTS)
_WAV = (b"RIFF", b"RF64", b"BW64")  # the last two have lengths of 64 bits
#: what may follow the samples: another chunk, or a tag of mp3's; not another file
_NO_SAMPLES = re.compile(rb"(?!RIFF)[ -~]{4}|ID3")
_BLOCK_BYTES = 1 << 16


class _Chunks(NamedTuple):  # how a kind of file is cut
    first: int  # byte at which the first chunk begins
    name_bytes: int
    size_bytes: int
    order: Literal["little", "big"]
    data: bytes  # how the name of the chunk of samples begins
    alignment: int
    own_bytes: int = 0  # of name and size, where the size counts them too
    skipped: int = 0  # bytes in the chunk of samples before them


#: first four bytes of the file -> its chunks
_KINDS = {
    **dict.fromkeys(_WAV, _Chunks(12, 4, 4, "little", b"data", 2)),
    b"FORM": _Chunks(12, 4, 4, "big", b"SSND", 2, skipped=8),
    b"caff": _Chunks(8, 4, 8, "big", b"data", 1, skipped=4),
    b"riff": _Chunks(40, 16, 8, "little", b"data", 8, own_bytes=24),  # Sony's W64
}


@contextmanager
def _unmoved(source: ByteSource) -> Iterator[None]:
    position = source.tell()
    try:
        yield
    finally:
        source.seek(position)


def stated_duration_s(source: ByteSource, container: InputContainer, stream: AudioStream) -> float | None:
    """Return the header's duration in seconds; None if it is a guess, or may be that of another, longer stream."""
    names = container.format.name.split(",")
    if len(container.streams) > 1 and "mp3" not in names:  # an mp3's second stream is its cover
        return None
    with _unmoved(source):
        is_exact = _has_frame_count(source) if "mp3" in names else not _EXACT_DURATIONS.isdisjoint(names)
    if not is_exact:
        return None
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return None if container.duration is None else container.duration / 1_000_000  # AV_TIME_BASE


def stated_share(source: ByteSource) -> float:
    """Return how many times more bytes of samples the header states than there are; infinite where there are none,
    1.0 where that is not known. For wav with RF64 and W64, aiff, caf and au, whatever their codec.
    """
    with _unmoved(source):
        size, start = _samples_of(source)
        present = source.seek(0, 2) - start
    if size is None or present >= size:
        return 1.0
    return size / present if present > 0 else math.inf


def present_share(source: ByteSource) -> float:
    """Return how many times more bytes of samples there are than a wav's header counts; 1.0 where that is not known.

    A recorder that crashed leaves the length that it wrote last; one of 32 bits starts from 0 again at 4 GiB. libav
    reads only the counted samples.
    """
    with _unmoved(source):
        source.seek(0)
        is_wav = source.read(4) in _WAV
        size, start = _samples_of(source) if is_wav else (None, 0)
        if size is None:
            return 1.0
        source.seek(start + size + size % 2)
        rest = source.read(_BLOCK_BYTES)
        if not any(rest) or _NO_SAMPLES.match(rest):
            return 1.0
        return (source.seek(0, 2) - start) / size


def is_rf64_of_unknown_length(source: ByteSource) -> bool:
    """True for RF64 whose header was never completed: libav takes its length of 0, and reads nothing."""
    with _unmoved(source):
        source.seek(0)
        return source.read(4) in _WAV[1:] and _samples_of(source)[0] is None


def is_mp4_segment(source: ByteSource) -> bool:
    """True for a piece of a stream (DASH, HLS), whose beginning is another file. Moves the source."""
    source.seek(0)
    return source.read(8)[4:] in _FIRST_BOXES_OF_SEGMENTS


def is_mp4_without_index(source: ByteSource) -> bool:
    """True for MP4 or QuickTime boxes in which "moov" is missing or cut off. Moves the source.

    Recorders write it last: after a crash or a broken copy, the sound is there but cannot be found.
    """
    end = source.seek(0, 2)
    source.seek(0)
    if source.read(8)[4:] not in _FIRST_BOXES:
        return False
    start = 0
    for _ in range(_MAX_CHUNKS):
        source.seek(start)
        head = source.read(16)
        size = int.from_bytes(head[:4], "big")
        if size == 1:  # 64 bits after the name
            size = int.from_bytes(head[8:], "big")
        if head[4:8] == b"moov":
            return start + size > end
        if size < 8 or start + size >= end:  # 0: up to the end of the file
            return True
        start += size
    return False


def _samples_of(source: ByteSource) -> tuple[int | None, int]:
    """Return how many bytes of samples the header states (None: unknown), and where they begin."""
    source.seek(0)
    head = source.read(12)
    if head[:4] == b".snd" and len(head) == 12:  # au
        return _stated(int.from_bytes(head[8:], "big")), int.from_bytes(head[4:8], "big")
    kind = _KINDS.get(head[:4])
    long_size = 0
    for name, size, start in () if kind is None else _chunks(source, kind):
        if name == b"ds64":  # EBU Tech 3306: size of the file, then of the samples
            source.seek(start + 8)
            long_size = int.from_bytes(source.read(8), "little")
        elif kind is not None and name.startswith(kind.data):
            return _stated((long_size if size == _RF64_SIZE else size) - kind.skipped), start + kind.skipped
    return None, 0


def _stated(size: int) -> int | None:
    is_placeholder = not 0 < size < _LARGEST or any(abs(size - limit) < _NEAR for limit in _LIMITS)
    return None if is_placeholder else size


def _chunks(source: ByteSource, kind: _Chunks) -> Iterator[tuple[bytes, int, int]]:
    start = kind.first
    for _ in range(_MAX_CHUNKS):
        source.seek(start)
        name, head = source.read(kind.name_bytes), source.read(kind.size_bytes)
        if len(head) < kind.size_bytes:
            return
        size = int.from_bytes(head, kind.order) - kind.own_bytes
        start += kind.name_bytes + kind.size_bytes
        yield name, size, start
        start += size + -size % kind.alignment
        if size < 0 or start > _LARGEST:
            return


def _has_frame_count(source: ByteSource) -> bool:
    """True if an mp3 begins with Xing's header, after an ID3 tag or not; libav counts by it."""
    source.seek(0)
    head = source.read(10)
    start = 0
    if head[:3] == b"ID3" and len(head) == 10:
        start = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
    source.seek(start)
    first_frame = source.read(44)  # 4 bytes of header, at most 32 + 4 of side information and checksum, the name
    return b"Xing" in first_frame or b"Info" in first_frame
