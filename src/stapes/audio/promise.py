"""How long a file's header says the recording is, where that is a fact: to warn of a file that was cut short.

Nothing is sized, bounded or refused by these numbers: headers lie.
"""

from __future__ import annotations

from collections.abc import Iterator

from av.audio.stream import AudioStream
from av.container import InputContainer

from stapes.audio.source import ByteSource

# Where libav reads the duration from a header that counts samples, or that is written when the file is finished.
# Elsewhere (aac, mpegts, mp3 without Xing's header) it guesses from the bit rate; an ogg's it takes from the last
# page, which a file that was cut short lacks. A wav's it shortens to what is there: see _promised_share.
_EXACT_DURATIONS = frozenset(["aiff", "ape", "au", "caf", "flac", "mov", "matroska", "tta", "w64", "wav", "wv"])
_UNKNOWN_SIZES = (0, 0xFFFFFFFF)  # what a recorder writes that cannot go back to correct its header
_MAX_CHUNKS = 64  # of a wav before its samples


def promised_duration_s(source: ByteSource, container: InputContainer, stream: AudioStream) -> float | None:
    """The header's duration in seconds; None if it is a guess, or may be that of another, longer stream.

    Leaves the source where it was.
    """
    names = container.format.name.split(",")
    if len(container.streams) > 1 and "mp3" not in names:  # an mp3's second stream is its cover
        return None
    position = source.tell()
    try:
        is_exact = _has_frame_count(source) if "mp3" in names else not _EXACT_DURATIONS.isdisjoint(names)
        share = _promised_share(source) if "wav" in names else 1.0
    finally:
        source.seek(position)
    if not is_exact:
        return None
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base) * share
    return None if container.duration is None else container.duration / 1_000_000  # AV_TIME_BASE


def _promised_share(source: ByteSource) -> float:
    """How many times more bytes of samples a wav file promises than it holds: 1.0 where nothing is missing."""
    for name, size, start in _wav_chunks(source):
        if name == b"data" and size not in _UNKNOWN_SIZES:
            present = source.seek(0, 2) - start
            return size / present if 0 < present < size else 1.0
    return 1.0


def _wav_chunks(source: ByteSource) -> Iterator[tuple[bytes, int, int]]:
    """Name, size and start of each chunk of a RIFF file."""
    start = 12  # "RIFF", size, "WAVE"
    for _ in range(_MAX_CHUNKS):
        source.seek(start)
        head = source.read(8)
        if len(head) < 8:
            return
        size = int.from_bytes(head[4:], "little")
        yield head[:4], size, start + 8
        start += 8 + size + size % 2  # chunks begin at even places


def _has_frame_count(source: ByteSource) -> bool:
    """True if an mp3 begins with Xing's header, behind an ID3 tag or not; libav counts by it."""
    source.seek(0)
    head = source.read(10)
    start = 0
    if head[:3] == b"ID3" and len(head) == 10:
        start = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
    source.seek(start)
    first_frame = source.read(44)  # 4 bytes of header, at most 32 + 4 of side information and checksum, the name
    return b"Xing" in first_frame or b"Info" in first_frame
