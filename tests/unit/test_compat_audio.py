"""`whisper.audio` on stapes: sound, log-mel, padding, and the types of errors. The numbers: tests/reference."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stapes
from stapes.audio.mel import mel_filters as own_filters
from stapes.compat.tensors import TensorLike, as_device, tensor_of
from stapes.compat.whisper import audio
from stapes.compat.whisper.audio import load_audio, log_mel_spectrogram, mel_filters, pad_or_trim
from stapes.testing import noise
from tests.audio_files import tone, wav_bytes

PATH = str(Path(__file__).parents[2] / "samples" / "stapes.flac")


@pytest.fixture(autouse=True)
def _without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)


def test_constants_and_signatures() -> None:
    names = (
        "SAMPLE_RATE", "N_FFT", "HOP_LENGTH", "CHUNK_LENGTH", "N_SAMPLES", "N_FRAMES", "N_SAMPLES_PER_TOKEN",
        "FRAMES_PER_SECOND", "TOKENS_PER_SECOND",
    )  # fmt: skip
    assert [getattr(audio, name) for name in names] == [16000, 400, 160, 30, 480000, 3000, 320, 100, 50]
    defaults: dict[Callable[..., Any], dict[str, Any]] = {
        load_audio: {"sr": 16000},
        pad_or_trim: {"length": 480000, "axis": -1},
        mel_filters: {},
        log_mel_spectrogram: {"n_mels": 80, "padding": 0, "device": None},
    }
    for function, expected in defaults.items():
        parameters = inspect.signature(function).parameters.values()
        assert {one.name: one.default for one in parameters if one.default is not one.empty} == expected


def test_a_file_is_loaded() -> None:
    samples = load_audio(PATH)
    assert samples.dtype == np.float32
    assert samples.flags.writeable
    with stapes.audio.load_audio(PATH) as recording:
        assert np.array_equal(samples, recording.read(0, recording.n_samples))
    for same in (Path(PATH), os.fsencode(PATH)):
        assert np.array_equal(load_audio(same), samples)  # type: ignore[arg-type]


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 24000, 44100, 48000])
def test_another_rate(rate: int, tmp_path: Path) -> None:
    (tmp_path / "tone.wav").write_bytes(wav_bytes(tone(16001) * 32767))
    samples = load_audio(str(tmp_path / "tone.wav"), rate)
    assert samples.dtype == np.float32
    assert samples.shape == (-(-16001 * rate // 16000),)
    middle = slice(rate // 10, -rate // 10)  # the tone's hard ends ring at any rate
    assert np.abs(samples - tone(samples.size, rate=rate))[middle].max() < 1e-3


@pytest.mark.parametrize(
    ("file", "rate", "message"),
    [("missing.wav", 16000, "no such file"), ("", 16000, "empty"), (PATH, 0, "sr must"), (PATH, 1.5, "sr must")],
)
def test_what_cannot_be_loaded(file: str, rate: Any, message: str) -> None:
    with pytest.raises(RuntimeError, match=rf"^Failed to load audio: .*{message}"):
        load_audio(file, rate)
    with pytest.raises(TypeError):
        load_audio(np.zeros(3))  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16])
def test_arrays_are_padded_and_trimmed(dtype: Any) -> None:
    array = np.arange(12, dtype=dtype).reshape(3, 4)
    assert pad_or_trim(array, 4) is array
    assert pad_or_trim(array, 2).tolist() == [[0, 1], [4, 5], [8, 9]]
    assert pad_or_trim(array, 5)[:, 3:].tolist() == [[3, 0], [7, 0], [11, 0]]
    assert pad_or_trim(array, 2, axis=0).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert pad_or_trim(array, 4, axis=0)[2:].tolist() == [[8, 9, 10, 11], [0, 0, 0, 0]]
    assert pad_or_trim(array, 0).shape == (3, 0)
    assert pad_or_trim(array, 5).dtype == pad_or_trim(array, 3).dtype == dtype
    assert not np.shares_memory(pad_or_trim(array, 2), array)
    assert pad_or_trim(array[0]).shape == (480_000,)


def test_what_stands_for_a_tensor_stays_one() -> None:
    tensor = tensor_of(np.ones((2, 3), np.float16))
    for length in (2, 3, 4):
        assert type(pad_or_trim(tensor, length)) is TensorLike
        assert pad_or_trim(tensor, length).dtype == np.float16


def test_what_cannot_be_padded() -> None:
    with pytest.raises(IndexError):
        pad_or_trim(np.zeros(3), 4, axis=1)
    with pytest.raises(AttributeError):
        pad_or_trim([1, 2], 3)


@pytest.mark.parametrize("n_mels", [80, 128])
def test_mel_filters(n_mels: int) -> None:
    filters = mel_filters("cpu", n_mels)
    assert type(filters) is TensorLike
    assert (filters.dtype, filters.shape) == (np.float32, (n_mels, 201))
    assert np.array_equal(filters, own_filters(n_mels))
    with pytest.raises(AssertionError, match="81"):
        mel_filters("cpu", 81)
    with pytest.raises(ValueError, match="cuda"):
        mel_filters("cuda", n_mels)


@pytest.mark.parametrize("n_mels", [80, 128])
def test_log_mel_of_a_path_an_array_and_a_tensor(n_mels: int) -> None:
    samples = load_audio(PATH)
    mel = log_mel_spectrogram(PATH, n_mels)
    assert type(mel) is TensorLike
    assert mel.device == as_device("cpu")
    assert np.array_equal(mel, stapes.log_mel_spectrogram(samples, n_mels))
    for same in (samples, tensor_of(samples), samples.astype(np.float64)):
        assert np.array_equal(log_mel_spectrogram(same, n_mels, device="cpu"), mel)
    longer = log_mel_spectrogram(samples, n_mels=n_mels, padding=480_000)
    assert longer.shape == (n_mels, samples.size // 160 + 3000)
    assert log_mel_spectrogram(samples, n_mels, padding=-5).shape == mel.shape


def test_a_batch_has_one_floor() -> None:
    loud, quiet = noise(1.0, seed=1), noise(1.0, seed=2, level=1e-6)
    batch = log_mel_spectrogram(np.stack([quiet, loud]))
    assert batch.shape == (2, 80, 100)
    assert np.array_equal(batch[1], log_mel_spectrogram(loud))
    assert np.ptp(batch[0]) == 0.0
    assert np.min(batch[0]) == batch.max() - 2.0
    assert log_mel_spectrogram(loud[None]).squeeze(dim=0).shape == (80, 100)


def test_short_sounds() -> None:
    assert log_mel_spectrogram(noise(1.0)[:201]).shape == (80, 1)
    assert log_mel_spectrogram(np.zeros(0, np.float32), padding=480_000).shape == (80, 3000)
    for n, padding in ((0, 0), (200, 0), (100, 100)):
        with pytest.raises(RuntimeError, match="more than 200"):
            log_mel_spectrogram(noise(1.0)[:n], padding=padding)


def test_nan_stays_nan() -> None:
    samples = noise(1.0)
    samples[500] = np.inf
    assert np.isnan(log_mel_spectrogram(samples)).all()


def test_wrong_input_of_log_mel() -> None:
    samples = noise(1.0)
    with pytest.raises(AssertionError, match="n_mels must be 80 or 128, got 64"):
        log_mel_spectrogram(samples, 64)
    for wrong in (samples.tolist(), Path(PATH), b"", None):
        with pytest.raises(TypeError, match="expected a path"):
            log_mel_spectrogram(wrong)
    with pytest.raises(TypeError):
        log_mel_spectrogram(samples, padding=1.5)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="int16"):
        log_mel_spectrogram((samples * 32767).astype(np.int16))
    with pytest.raises(RuntimeError, match="shape"):
        log_mel_spectrogram(samples.reshape(1, 1, -1))
    with pytest.raises(RuntimeError, match="Failed to load audio"):
        log_mel_spectrogram("missing.wav")
    with pytest.raises(ValueError, match="cuda"):
        log_mel_spectrogram(samples, device="cuda")
