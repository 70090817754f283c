"""Headers with and without the length of the sound, and files that end before their index."""

from __future__ import annotations

import io
import struct
import warnings
from typing import IO, cast

import numpy as np
import pytest

from stapes.audio.load import load_audio
from stapes.errors import AudioError, StapesWarning
from tests.audio_files import encoded, muxed, tone, wav_bytes
from tests.unit.test_audio_load import Pipe

RAMP = np.arange(-8000, 8000, dtype=np.int16)  # one second
#: what programs write where they cannot go back: nothing, ffmpeg, sox, sox in blocks of 6 bytes, arecord, others
PLACEHOLDERS = [0, 0xFFFFFFFF, 0x7FFFF000, 0x7FFFEFFC, 0x80000000, 0x7FFFFF00, 0x7FFFFFFF, 0x7FFFFFDB, 0xFFFFFFDB,
                0xFFFFF000]  # fmt: skip


def wav(data_size: int, n_samples: int = RAMP.size, *, fact: int | None = None) -> bytes:
    head = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, 16_000, 32_000, 2, 16)
    if fact is not None:
        head += b"fact" + struct.pack("<II", 4, fact)
    data = RAMP[:n_samples].astype("<i2").tobytes()
    riff_size = min(0xFFFFFFFF, data_size + 4 + len(head) + 8)
    return b"RIFF" + struct.pack("<I", riff_size) + b"WAVE" + head + b"data" + struct.pack("<I", data_size) + data


def rf64(data_size: int, n_samples: int = RAMP.size) -> bytes:
    ds64 = b"ds64" + struct.pack("<IQQQI", 28, data_size + 72, data_size, data_size // 2, 0)
    head = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, 16_000, 32_000, 2, 16)
    data = RAMP[:n_samples].astype("<i2").tobytes()
    return b"RF64\xff\xff\xff\xffWAVE" + ds64 + head + b"data\xff\xff\xff\xff" + data


def w64(data_size: int, n_samples: int = RAMP.size) -> bytes:
    def guid(name: bytes) -> bytes:
        return name + bytes.fromhex("f3acd3118cd100c04f8edb8a")

    head = guid(b"fmt ") + struct.pack("<QHHIIHH", 40, 1, 1, 16_000, 32_000, 2, 16)
    body = guid(b"wave") + head + guid(b"data") + struct.pack("<Q", (data_size + 24) & 0xFFFFFFFFFFFFFFFF)
    body += RAMP[:n_samples].astype("<i2").tobytes()
    return b"riff" + bytes.fromhex("2e91cf11a5d628db04c10000") + struct.pack("<Q", len(body) + 24) + body


def aiff(data_size: int, n_samples: int = RAMP.size) -> bytes:
    rate = bytes.fromhex("400cfa00000000000000")  # 16000 in 80 bits
    head = b"COMM" + struct.pack(">IHIH", 18, 1, data_size // 2, 16) + rate
    body = (
        b"AIFF" + head + b"SSND" + struct.pack(">III", data_size + 8, 0, 0) + RAMP[:n_samples].astype(">i2").tobytes()
    )
    return b"FORM" + struct.pack(">I", min(data_size + 46, 0xFFFFFFFF)) + body


def au(data_size: int, n_samples: int = RAMP.size) -> bytes:
    head = struct.pack(">4sIIIII", b".snd", 24, data_size, 3, 16_000, 1)
    return head + RAMP[:n_samples].astype(">i2").tobytes()


def caf(data_size: int, n_samples: int = RAMP.size) -> bytes:
    desc = struct.pack(">4sqd4sIIIII", b"desc", 32, 16_000.0, b"lpcm", 0, 2, 1, 1, 16)
    stated = -1 if data_size == -1 else data_size + 4
    data = struct.pack(">4sqI", b"data", stated, 0) + RAMP[:n_samples].astype(">i2").tobytes()
    return b"caff\0\1\0\0" + desc + data


def int16_of(data: bytes) -> np.ndarray:
    with load_audio(data) as recording:
        return recording.read(0, recording.n_samples) * 32768


@pytest.mark.parametrize("size", PLACEHOLDERS, ids=hex)
@pytest.mark.parametrize("fact", [None, 0x3FFFF800])
def test_a_wav_from_a_pipe_is_whole_whatever_stands_for_its_length(size: int, fact: int | None) -> None:
    np.testing.assert_array_equal(int16_of(wav(size, fact=fact)), RAMP)  # a warning would be an error here
    assert load_audio(cast(IO[bytes], Pipe(wav(size, fact=fact)))).warnings == ()


UNKNOWN = [rf64(0), rf64(0xFFFFFFFF), au(0xFFFFFFFF), au(0x7FFFF000), caf(-1), aiff(0x7F000000),
           aiff(0x7EFFFFFE)]  # fmt: skip


@pytest.mark.parametrize("data", UNKNOWN, ids=range(len(UNKNOWN)))
def test_its_siblings_are_whole_too(data: bytes) -> None:
    np.testing.assert_array_equal(int16_of(data), RAMP)


@pytest.mark.parametrize("make", [wav, rf64, w64, aiff, au, caf])
def test_a_file_that_is_whole_does_not_warn_and_one_cut_short_says_how_much_is_missing(make) -> None:
    np.testing.assert_array_equal(int16_of(make(32_000)), RAMP)
    with pytest.warns(StapesWarning, match=r"cut short: 0\.5 s of the 1\.0 s that its header states"):
        samples = int16_of(make(32_000, 8000))
    np.testing.assert_array_equal(samples, RAMP[:8000])


@pytest.mark.parametrize("make", [wav, rf64, aiff, au, caf])
def test_a_file_that_ends_with_its_header_says_so(make) -> None:
    with pytest.warns(StapesWarning, match="cut short: its header states sound, and none follows"):
        assert load_audio(make(32_000, 0)).n_samples == 0


@pytest.mark.parametrize("make", [wav, rf64])
def test_sound_after_the_length_that_a_wav_states_is_reported(make) -> None:
    with pytest.warns(StapesWarning, match=r"header counts 0\.4 s of sound, and 0\.6 s more after them were not read"):
        samples = int16_of(make(12_800))
    np.testing.assert_array_equal(samples, RAMP[:6400])


def test_a_second_wav_after_the_first_is_reported() -> None:
    with pytest.warns(StapesWarning, match=r"counts 1\.0 s of sound, and 1\.0 s more"):
        assert load_audio(wav(32_000) + wav(32_000)).n_samples == RAMP.size


@pytest.mark.parametrize(
    "following", [b"LIST\x10\x27\0\0" + bytes(10_000) + b"x", bytes(20_000), b"ID3\4" + b"\xff" * 20_000]
)
def test_what_else_may_follow_sound_is_not_taken_for_sound(following: bytes) -> None:
    np.testing.assert_array_equal(int16_of(wav(32_000) + following), RAMP)


def test_a_wav_that_also_counts_its_samples_is_not_said_to_be_longer_than_it_was() -> None:
    with pytest.warns(StapesWarning, match=r"0\.5 s of the 1\.0 s"):
        load_audio(wav(32_000, 8000, fact=16_000))


@pytest.mark.parametrize("size", [3 << 30, (1 << 31) + (1 << 20), (1 << 31) - (1 << 20), (1 << 32) - (1 << 20)])
def test_a_large_length_that_is_no_placeholder_is_believed(size: int) -> None:
    with pytest.warns(StapesWarning, match="cut short"):
        load_audio(wav(size))


def test_chunks_that_lead_nowhere_end() -> None:
    loop = b"RIFF\xff\xff\xff\x7fWAVE" + b"junk\0\0\0\0" * 10_000
    for data in (
        loop,
        b"riff" + bytes(200),
        b"FORM\0\0\1\0AIFF" + b"COMM" + b"\xff" * 50,
        b"caff\0\1\0\0" + b"\xff" * 90,
    ):
        with pytest.raises(AudioError), warnings.catch_warnings():
            load_audio(data)


def with_moov_at_the_end(codec: str = "mp4") -> bytes:
    data = encoded("m4a", 2.0) if codec == "mp4" else muxed([(0.0, tone(32_000))], container_name="mov")
    assert data.index(b"moov") > data.index(b"mdat")
    return data


def cut_before_index(data: bytes) -> bytes:
    return data[: data.index(b"moov") - 4]


def cut_in_index(data: bytes) -> bytes:
    return data[: data.index(b"moov") + 40]


def cut_in_sound(data: bytes) -> bytes:
    return data[: data.index(b"mdat") + 2000]


def never_ended(data: bytes) -> bytes:
    at = data.index(b"mdat")
    return data[: at - 4] + bytes(4) + data[at : data.index(b"moov") - 4]


def zeros_for_index(data: bytes) -> bytes:
    at = data.index(b"moov") - 4
    return data[:at] + bytes(len(data) - at)


def older_quicktime(data: bytes) -> bytes:
    return cut_before_index(data)[int.from_bytes(data[:4], "big") :]


@pytest.mark.parametrize("codec", ["mp4", "mov"])
@pytest.mark.parametrize(
    "cut", [cut_before_index, cut_in_index, cut_in_sound, never_ended, zeros_for_index, older_quicktime]
)
def test_an_mp4_without_its_index_is_said_to_be_incomplete(cut, codec) -> None:
    with pytest.raises(AudioError, match=r"incomplete m4a or mp4: its index \(moov\)") as caught:
        load_audio(io.BytesIO(cut(with_moov_at_the_end(codec))))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("brand", [b"styp", b"sidx", b"moof", b"emsg"])
def test_a_piece_of_a_stream_is_not_said_to_lack_its_end(brand: bytes) -> None:
    piece = b"\0\0\0\x18" + brand + bytes(16) + b"\0\0\0\x10moof" + bytes(8) + b"\0\0\0\x18mdat" + bytes(16)
    with pytest.raises(AudioError, match="a piece of a stream without its beginning"):
        load_audio(piece)


def uncompleted_w64() -> bytes:
    data = w64(32_000)
    return data[:16] + bytes(8) + data[24:]  # sox, to a pipe


def uncompleted_aiff() -> bytes:
    data = aiff(0)
    return data[:4] + bytes(4) + data[8:]  # ffmpeg, to a pipe


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (uncompleted_w64(), "a w64"),
        (uncompleted_aiff(), "an aiff"),
        (wav(32_000)[:40], "a wav"),
        (caf(32_000)[:40], "a caf"),
        (b"ID3\4\0\0\0\0\x07\x76" + bytes(1014), "an mp3"),
        (b"OggS" + bytes(2000), "an ogg"),
        (b"\x1aE\xdf\xa3" + bytes(2000), "a webm or mkv"),
    ],
)
def test_a_damaged_header_is_not_said_to_be_another_kind_of_file(data: bytes, kind: str) -> None:
    with pytest.raises(AudioError, match=f"begins like {kind}, but its header is damaged") as caught:
        load_audio(data)
    assert "not a kind of file" not in str(caught.value)


@pytest.mark.parametrize("n_blocks", [2, 3])
def test_the_byte_that_fills_a_wav_of_gsm_up_is_no_damage(n_blocks: int) -> None:
    # Blocks of 65 bytes, as sox and Asterisk write them: the size of an odd number of them counts one byte more.
    head = b"fmt " + struct.pack("<IHHIIHHHH", 20, 0x31, 1, 8000, 1625, 65, 0, 2, 320)
    data = bytes(65 * n_blocks + n_blocks % 2)
    body = b"WAVE" + head + b"fact" + struct.pack("<II", 4, 320 * n_blocks)
    body += b"data" + struct.pack("<I", len(data)) + data
    recording = load_audio(b"RIFF" + struct.pack("<I", len(body)) + body)
    assert (recording.n_samples, recording.warnings) == (640 * n_blocks, ())


def test_other_files_are_not_taken_for_an_mp4() -> None:
    for data in (b"\0\0\0\x18ftyp" + b"\0\0\0\x08moov", b"This is free text, not a recording.\n" * 40, bytes(4000)):
        with pytest.raises(AudioError) as caught:
            load_audio(data)
        assert ("incomplete" in str(caught.value)) == (b"ftyp" in data)
    whole = wav_bytes(RAMP)
    assert load_audio(whole).n_samples == RAMP.size
