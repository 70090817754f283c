"""Loading: every kind of source gives the same samples, and every oddity one sentence."""

from __future__ import annotations

import gc
import gzip
import io
import os
import subprocess
import sys
import types
import warnings
import zipfile
from typing import Any, cast

import numpy as np
import pytest

from stapes.audio.load import load_audio
from stapes.errors import AudioError, AudioTooLongError, OptionError, StapesWarning
from tests.audio_files import EVERYDAY, encoded, tone, video, wav_bytes

RAMP = np.arange(-8000, 8000, dtype=np.int16)  # one second in which no two samples are alike
RAMP_WAV = wav_bytes(RAMP)


class Pipe(io.RawIOBase):
    """A file object that gives a few bytes at a time and cannot seek."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._file.read(min(size, 777))


def samples_of(source, **options) -> np.ndarray:
    with load_audio(source, **options) as recording:
        return recording.read(0, recording.n_samples).copy()


def as_source(how: str, data: bytes, tmp_path, monkeypatch):
    path = tmp_path / "ramp.wav"
    path.write_bytes(data)
    if how == "standard input":
        monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=Pipe(data)))
        return "-"
    return {
        "string": str(path),
        "path": path,
        "bytes": data,
        "bytearray": bytearray(data),
        "memoryview": memoryview(data),
        "file object": io.BytesIO(data),
        "pipe": Pipe(data),
    }[how]


@pytest.mark.parametrize(
    "how", ["string", "path", "bytes", "bytearray", "memoryview", "file object", "pipe", "standard input"]
)
def test_every_kind_of_source_gives_the_same_samples(how, tmp_path, monkeypatch):
    samples = samples_of(as_source(how, RAMP_WAV, tmp_path, monkeypatch))
    assert samples.dtype == np.float32
    np.testing.assert_array_equal(samples, RAMP / np.float32(32768))


def test_a_file_object_is_read_from_its_start_and_stays_open():
    file = io.BytesIO(RAMP_WAV)
    file.seek(0, io.SEEK_END)
    assert len(samples_of(file)) == RAMP.size
    assert not file.closed


def test_an_mp4_with_its_index_at_the_end_comes_through_a_pipe():
    data = encoded("m4a")
    assert data.index(b"moov") > data.index(b"mdat")
    np.testing.assert_array_equal(samples_of(Pipe(data)), samples_of(data))


@pytest.mark.parametrize("kind", EVERYDAY)
def test_everyday_formats_keep_length_pitch_and_loudness(kind):
    samples = samples_of(encoded(kind))
    assert len(samples) == pytest.approx(16_000, abs=2500)  # mp3, aac and mpegts carry padding
    spectrum = np.abs(np.fft.rfft(samples[4000:12_000]))
    assert np.argmax(spectrum) * 2 == pytest.approx(440, abs=4)
    assert np.sqrt(np.mean(samples[4000:12_000] ** 2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.06)


def test_the_sound_of_a_video_is_read_and_its_pictures_are_not():
    assert len(samples_of(video(with_sound=True))) == pytest.approx(16_000, abs=2100)


def test_stereo_is_averaged_and_antiphase_cancels():
    left = (tone(8000) * 20_000).astype(np.int16)
    same = samples_of(wav_bytes(np.repeat(left, 2), n_channels=2))
    np.testing.assert_array_equal(same, left / np.float32(32768))
    against = np.column_stack([left, -left]).ravel()
    with pytest.warns(StapesWarning, match=r"cancel each other when they are mixed, in 0\.5 of 0\.5 s; --channel left"):
        assert np.abs(samples_of(wav_bytes(against, n_channels=2))).max() <= 1 / 32768


@pytest.mark.parametrize("n_samples", [0, 1, 2, 159])
def test_tiny_recordings_are_recordings(n_samples):
    assert len(samples_of(wav_bytes(RAMP[:n_samples]))) == n_samples


def test_blocks_equal_the_whole_in_memory_and_in_a_file():
    in_memory = load_audio(RAMP_WAV)
    in_file = load_audio(RAMP_WAV, memory_limit_bytes=1000)
    whole = in_memory.read(0, RAMP.size)
    assert len(whole) == in_file.n_samples == RAMP.size
    for recording in (in_memory, in_file):
        blocks = [recording.read(at, at + 777) for at in range(0, RAMP.size, 777)]
        np.testing.assert_array_equal(np.concatenate(blocks), whole)
        assert recording.duration_s == 1.0
        assert recording.read(RAMP.size, RAMP.size + 5).size == 0
        recording.close()
        recording.close()
        with pytest.raises(ValueError, match="closed"):
            recording.read(0, 1)


@pytest.mark.skipif(sys.platform == "win32", reason="an open file has a name there until it is closed")
def test_temporary_files_have_no_name_and_vanish_without_close(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    recording = load_audio(RAMP_WAV, memory_limit_bytes=1000)
    assert recording.read(5, 6)[0] == RAMP[5] / 32768
    assert list(tmp_path.iterdir()) == []
    del recording
    gc.collect()  # a file left open would warn here, and warnings are errors


def test_float_arrays_are_neither_copied_nor_rounded():
    samples = tone(1000) * 1.7  # louder than full scale, as the reference takes it
    recording = load_audio(samples)
    assert np.shares_memory(recording.read(0, 1000), samples)
    np.testing.assert_array_equal(recording.read(0, 1000), samples)
    np.testing.assert_array_equal(samples_of(samples.astype(np.float64)), samples)
    with pytest.raises(ValueError, match="read-only"):
        recording.read(0, 10)[0] = 1.0


def test_int16_arrays_are_scaled_like_files():
    np.testing.assert_array_equal(samples_of(RAMP), samples_of(RAMP_WAV))


@pytest.mark.parametrize("rate", [8000, 22_050, 48_000])
def test_arrays_at_other_rates_are_resampled(rate):
    samples = samples_of(tone(rate, rate=rate), sample_rate=rate)
    assert len(samples) == pytest.approx(16_000, abs=2)
    np.testing.assert_allclose(samples[200:-200], tone(16_000)[200 : len(samples) - 200], atol=2e-3)
    assert samples_of(np.zeros(0, np.float32), sample_rate=rate).size == 0


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((2, 100), np.float32), "shape"),
        (np.array(["a"]), "loudness"),
        (np.zeros(10, np.int64), "signed integers of 8 to 32 bits"),
        (np.array([0.0, np.nan]), "NaN"),
        (np.array([np.inf], np.float32), "NaN or infinity"),
        (np.array([None]), "loudness"),
        (np.array([1e300]), "NaN or infinity"),
    ],
)
def test_arrays_that_are_no_audio_say_why(array, words):
    with pytest.raises(AudioError, match=words):
        load_audio(array)


@pytest.mark.parametrize("rate", [-1, 1, 10**7])
def test_impossible_rates_of_arrays_are_refused(rate):
    with pytest.raises(AudioError, match="sample_rate"):
        load_audio(np.zeros(10, np.float32), sample_rate=rate)


def test_a_rate_is_for_arrays_only_and_a_limit_is_positive():
    with pytest.raises(OptionError, match="leave it out"):
        load_audio(RAMP_WAV, sample_rate=8000)
    with pytest.raises(OptionError, match="above 0"):
        load_audio(RAMP_WAV, max_duration_s=0)


@pytest.mark.parametrize("source", [RAMP_WAV, RAMP, RAMP / np.float32(32768), encoded("mp3"), encoded("ogg")])
def test_too_long_is_refused_and_says_how_long_is_allowed(source):
    assert len(samples_of(source, max_duration_s=1.5)) > 15_000
    with pytest.raises(AudioTooLongError, match=r"0\.5 s allowed"):
        load_audio(source, max_duration_s=0.5)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("no/such/file.wav", r"no/such/file\.wav: no such file"),
        ("https://example.org/a.mp3", "opens no addresses"),
        (
            "https://me:pw@example.org/a b.mp3?token=[1]*#t=3",
            r"^https://example\.org/a b\.mp3: stapes opens no addresses",
        ),
        ("a\0b", "not a file name"),
        (b"", "empty"),
        (b"This is a letter, not a recording.\n" * 40, "not a kind of file"),
        (video(with_sound=False), "no sound track"),
        (12, "cannot read audio from int"),
        (None, "cannot read audio from NoneType"),
        (io.StringIO("text"), "a text file object.*'rb'"),
        ("", "the name of the file is empty"),
    ],
)
def test_what_is_no_recording_is_refused_in_one_sentence(source, words):
    with pytest.raises(AudioError, match=words) as caught:
        load_audio(source)
    assert "\n" not in str(caught.value)


def test_files_in_archives_are_binary_whatever_their_mode_is_called(tmp_path):
    archive = tmp_path / "archive.zip"
    with zipfile.ZipFile(archive, "w") as writer:
        writer.writestr("ramp.wav", RAMP_WAV)
    with zipfile.ZipFile(archive) as reader, reader.open("ramp.wav") as file:
        assert file.mode == "r"
        np.testing.assert_array_equal(samples_of(file), RAMP / np.float32(32768))
    with gzip.open(io.BytesIO(gzip.compress(RAMP_WAV))) as file:
        np.testing.assert_array_equal(samples_of(file), RAMP / np.float32(32768))


def test_a_file_that_was_opened_as_text_is_refused(tmp_path):
    class Text:  # knows neither io's classes nor a mode with a "b"
        mode = "r"

        def read(self, size: int = -1) -> str:
            return "text"[:size]

    (tmp_path / "talk.wav").write_bytes(RAMP_WAV)
    with (tmp_path / "talk.wav").open(encoding="latin-1") as text:
        for file in (text, Text()):
            with pytest.raises(AudioError, match="a text file object"):
                load_audio(cast(Any, file))


def test_a_folder_and_a_forbidden_file_are_named(tmp_path):
    with pytest.raises(AudioError, match="is a folder"):
        load_audio(tmp_path)
    path = tmp_path / "secret.wav"
    path.write_bytes(RAMP_WAV)
    path.chmod(0)
    try:
        path.open("rb").close()
    except PermissionError:
        with pytest.raises(AudioError, match="no permission"):
            load_audio(path)


@pytest.mark.parametrize(("kind", "share"), [("wav", 0.6), ("flac", 0.6), ("mp3", 0.613), ("aac", 0.613)])
def test_a_file_cut_short_keeps_what_is_there_and_warns(kind, share):
    data = encoded(kind, 2.0)
    with pytest.warns(StapesWarning):
        recording = load_audio(data[: int(len(data) * share)])
    assert 0.3 * 32_000 < recording.n_samples < 0.8 * 32_000
    assert any("cut short" in note or "damaged" in note for note in recording.warnings)
    np.testing.assert_allclose(recording.read(0, 9000), samples_of(data)[:9000], atol=1e-4)


def test_damage_in_the_middle_is_skipped_and_counted():
    data = bytearray(encoded("mp3", 3.0))
    data[len(data) // 2 : len(data) // 2 + 2000] = bytes(2000)
    with pytest.warns(StapesWarning):
        recording = load_audio(bytes(data))
    assert "damaged frames were skipped" in recording.warnings[0]
    assert 2.5 < recording.duration_s < 3.1


def test_libav_writes_nothing_to_standard_error(capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for kind in EVERYDAY:
            data = encoded(kind)
            try:
                load_audio(data[: len(data) // 2] + b"\xff" * 1000)
            except AudioError:
                continue
    assert capfd.readouterr().err == ""


def test_importing_the_loader_imports_no_decoder():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    code = "import sys, stapes.audio.load, stapes.audio.mel; sys.exit('av' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0


@pytest.mark.parametrize("source", [RAMP_WAV, RAMP.astype(np.float32) / 32768])
def test_reading_can_be_broken_off(source) -> None:
    class EnoughError(Exception):
        pass

    def check() -> None:
        raise EnoughError

    with pytest.raises(EnoughError):
        load_audio(source, check=check, sample_rate=8000 if isinstance(source, np.ndarray) else None)
