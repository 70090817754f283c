"""Hostile files: no other file is opened, no header is trusted, and every error is an AudioError."""

from __future__ import annotations

import io
import struct

import pytest

from stapes.audio.load import load_audio
from stapes.audio.source import ByteSource, open_source
from stapes.errors import AudioError, AudioTooLongError, StapesWarning
from tests.audio_files import encoded, tone, wav_bytes

TONE_WAV = wav_bytes((tone(16_000) * 20_000).astype("<i2"))


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        (".m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{canary}\n#EXT-X-ENDLIST\n"),
        (".mp3", "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{canary}\n#EXT-X-ENDLIST\n"),
        (".m3u", "#EXTM3U\n{canary}\n"),
        (".txt", "ffconcat version 1.0\nfile '{canary}'\n"),
        (".sdp", "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nt=0 0\nm=audio 5004 RTP/AVP 0\nc=IN IP4 127.0.0.1\n"),
        (".mpd", '<?xml version="1.0"?><MPD><Period><BaseURL>{canary}</BaseURL></Period></MPD>'),
        (".asx", '<ASX version="3.0"><ENTRY><REF HREF="{canary}"/></ENTRY></ASX>'),
        (".srt", "1\n00:00:00,000 --> 00:00:09,000\nHello\n"),
    ],
)
def test_playlists_and_their_kin_are_refused_unopened(suffix, text, tmp_path):
    canary = tmp_path / "canary.wav"
    canary.write_bytes(TONE_WAV)
    path = tmp_path / f"list{suffix}"
    path.write_text(text.replace("{canary}", str(canary)))
    with pytest.raises(AudioError, match="not a kind of file"):
        load_audio(path)


@pytest.mark.parametrize(
    "name", ["http://127.0.0.1:9/a.mp3", "data:audio/wav;base64,UklGRg==", "concat:a.wav|b.wav", "pipe:0", "file:a"]
)
def test_names_are_files_and_never_protocols(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AudioError, match=r"no such file|opens no addresses"):
        load_audio(name)


def wav_header(*, n_channels: int = 1, rate: int = 16_000, tag: int = 1, data: bytes = b"") -> bytes:
    block = 2 * n_channels
    head = struct.pack("<4sIHHIIHH", b"fmt ", 16, tag, n_channels, rate, rate * block & 0xFFFFFFFF, block, 16)
    body = b"WAVE" + head + struct.pack("<4sI", b"data", len(data)) + data
    return struct.pack("<4sI", b"RIFF", len(body)) + body


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"n_channels": 200}, "channels|not a kind"),
        ({"rate": 4_000_000}, "samples per second|not a kind"),
        ({"rate": 1}, "samples per second|not a kind"),
        ({"tag": 0x4321}, "codec|not a kind"),
        ({"n_channels": 0}, "not a kind|cannot be decoded|no sound"),
    ],
)
def test_absurd_headers_are_refused(header, words):
    with pytest.raises(AudioError, match=words):
        load_audio(wav_header(**header, data=bytes(80_000)))


def test_a_slow_header_cannot_turn_few_bytes_into_hours():
    data = wav_header(rate=100, data=bytes(200_000))  # 1000 s
    with pytest.raises(AudioTooLongError):
        load_audio(data, max_duration_s=60)


def test_a_forged_length_changes_nothing_but_the_warning():
    data = bytearray(encoded("flac"))
    at = data.index(b"fLaC") + 8 + 13  # STREAMINFO: the low 36 bits of these 5 bytes are the number of samples
    data[at] |= 0x0F
    data[at + 1 : at + 5] = b"\xff" * 4
    with pytest.warns(StapesWarning, match="cut short"):
        recording = load_audio(bytes(data))
    assert recording.n_samples == load_audio(encoded("flac")).n_samples


class Liar(io.BytesIO):
    """A file object that gives more than it was asked for."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(size) + b"\xee" * 100_000


def test_a_read_that_gives_too_much_is_cut():
    assert len(ByteSource(Liar(b"abc"), "liar").read(10)) == 10


class Failing(io.BytesIO):
    """A file object whose medium breaks after the first 8 KiB."""

    def __init__(self, data: bytes, failure: BaseException) -> None:
        super().__init__(data)
        self._failure = failure

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() > 8000:
            raise self._failure
        return super().read(min(size or 1, 4096))


def test_a_medium_that_breaks_is_an_audio_error():
    with pytest.raises(AudioError, match="reading failed: the disk is gone"):
        load_audio(Failing(TONE_WAV, OSError("the disk is gone")))


def test_an_interrupt_while_reading_is_not_swallowed():
    with pytest.raises(KeyboardInterrupt):
        load_audio(Failing(TONE_WAV, KeyboardInterrupt()))


def test_an_endless_pipe_ends(monkeypatch):
    monkeypatch.setattr("stapes.audio.source.MAX_PIPE_BYTES", 3 << 20)

    class Endless(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            return bytes(size)

    with pytest.raises(AudioError, match="save it to a file"):
        open_source(Endless())


def test_a_device_is_refused():
    with pytest.raises(AudioError, match=r"device|no such file"):
        load_audio("/dev/zero")


def test_a_channel_layout_that_cannot_be_mixed_is_refused() -> None:
    """Nine channels without a layout: libswresample knows no way to one."""
    header = b"RIFF" + (36 + 1800).to_bytes(4, "little") + b"WAVEfmt " + (16).to_bytes(4, "little")
    form = b"".join(
        value.to_bytes(size, "little") for value, size in ((1, 2), (9, 2), (16000, 4), (288000, 4), (18, 2), (16, 2))
    )
    with pytest.raises(AudioError, match="9 channels"):
        load_audio(header + form + b"data" + (1800).to_bytes(4, "little") + bytes(1800))
