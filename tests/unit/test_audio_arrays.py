"""Arrays as recordings: what each type's full scale is, what is refused, and what converts to an array."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stapes.audio.load import load_audio
from stapes.errors import AudioError, AudioTooLongError, OptionError, StapesError, StapesWarning
from tests.audio_files import tone, wav_bytes

RAMP = np.arange(-8000, 8000, dtype=np.int16)


def samples_of(source: Any, **options: Any) -> np.ndarray:
    with load_audio(source, **options) as recording:
        return recording.read(0, recording.n_samples).copy()


@pytest.mark.parametrize("order", ["<", ">", "="])
@pytest.mark.parametrize("kind", ["i1", "i2", "i4", "f2", "f4", "f8"])
def test_any_byte_order_gives_the_same_samples(kind: str, order: str) -> None:
    native = np.array([0, 1, -1, 64, -128 if kind[0] == "i" else -1], kind)
    scale = 2.0 ** (8 * int(kind[1]) - 1) if kind[0] == "i" else 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StapesWarning)
        found = samples_of(native.astype(order + kind))
        loud = samples_of(np.array([64.0], kind).astype(order + kind))
    assert found.dtype == np.dtype(np.float32)
    np.testing.assert_array_equal(found, (native.astype(np.float64) / scale).astype(np.float32))
    assert loud[0] == 64 / scale


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32])
def test_full_scale_of_integers_is_half_their_range(dtype: Any) -> None:
    limits = np.iinfo(dtype)
    found = samples_of(np.array([limits.min, 0, limits.max // 2 + 1, limits.max], dtype))
    np.testing.assert_array_equal(found, np.array([-1.0, 0.0, 0.5, limits.max / -float(limits.min)], np.float32))


def test_bytes_of_8_bits_are_read_as_a_wav_file_of_8_bits_is() -> None:
    values = np.arange(256, dtype=np.uint8)
    header = bytearray(wav_bytes(np.zeros(128, np.int16)))
    header[32:36] = b"\1\0\x08\0"  # block of 1 byte, samples of 8 bits
    header[28:32] = (16_000).to_bytes(4, "little")
    np.testing.assert_array_equal(samples_of(values), samples_of(bytes(header[:44]) + values.tobytes()))


def test_int32_that_holds_16_bits_is_read_as_it_is_and_warns() -> None:
    with pytest.warns(StapesWarning, match=r"between -8000 and 7999.*astype\(numpy\.int16\)"):
        recording = load_audio(RAMP.astype(np.int32))
    assert len(recording.warnings) == 1
    np.testing.assert_array_equal(recording.read(0, RAMP.size), RAMP / np.float32(2**31))
    for quiet in (np.zeros(100, np.int32), np.zeros(0, np.int32), RAMP.astype(np.int32) << 16, np.array([2**15])):
        samples_of(quiet.astype(np.int32))  # a warning would be an error here


def test_floats_on_the_scale_of_16_bits_warn() -> None:
    with pytest.warns(StapesWarning, match="loudest sample is 8000.*divide it by 32768"):
        samples_of(RAMP.astype(np.float32))
    assert samples_of(tone(100) * 8).max() > 2  # louder than full scale, as the reference takes it


@pytest.mark.parametrize("dtype", ["?", "c8", "c16", "u2", "u4", "u8", "i8", "M8[s]", "U4", "S4", "O"])
def test_what_has_no_full_scale_is_refused(dtype: str) -> None:
    with pytest.raises(AudioError, match=r"loudness.*signed integers of 8 to 32 bits"):
        load_audio(np.zeros(10, dtype))


def test_float32_at_16_khz_is_not_copied_even_read_only_or_from_another_library() -> None:
    samples = tone(1000)
    samples.flags.writeable = False
    assert np.shares_memory(load_audio(samples).read(0, 1000), samples)
    assert np.shares_memory(load_audio(Tensor(samples)).read(0, 1000), samples)


class Tensor:
    """What a tensor of another library looks like to NumPy."""

    def __init__(self, values: Any, failure: Exception | None = None) -> None:
        self._values, self._failure = values, failure

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if self._failure is not None:
            raise self._failure
        values: np.ndarray = self._values if dtype is None else self._values.astype(dtype)
        return values


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.uint8])
def test_what_converts_to_an_array_is_one(dtype: Any) -> None:
    values = (RAMP / 32768).astype(dtype) if np.dtype(dtype).kind == "f" else RAMP.astype(dtype)
    np.testing.assert_array_equal(samples_of(Tensor(values)), samples_of(values))
    np.testing.assert_array_equal(samples_of(Tensor(values), sample_rate=8000), samples_of(values, sample_rate=8000))


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (Tensor(None, TypeError("can't convert cuda:0 device type tensor")), "Tensor does not convert.*cuda.*cpu"),
        (Tensor(None, RuntimeError("requires grad")), "requires grad"),
        (
            Tensor(None, TypeError("Got unsupported ScalarType BFloat16")),
            r"\.detach\(\)\.float\(\)\.cpu\(\)\.numpy\(\)",
        ),
        (Tensor("text"), "Tensor does not convert"),
        (Tensor(np.array([None])), "array of numbers"),
        (Tensor(np.zeros((2, 100), np.float32)), "shape"),
        (np.float32(0.5), "cannot read audio from float32"),
        (Tensor, "cannot read audio from type"),
    ],
)
def test_what_does_not_convert_says_why(tensor: Any, words: str) -> None:
    with pytest.raises(AudioError, match=words):
        load_audio(tensor)


def test_paths_bytes_and_files_come_before_arrays(tmp_path: Path) -> None:
    class ArrayFile(io.BytesIO, Tensor):
        pass

    class ArrayPath:
        def __fspath__(self) -> str:
            return str(tmp_path / "ramp.wav")

        __array__ = Tensor.__array__

    class ArrayBytes(bytes):
        __array__ = Tensor.__array__

    (tmp_path / "ramp.wav").write_bytes(wav_bytes(RAMP))
    for source in (ArrayFile(wav_bytes(RAMP)), ArrayPath(), ArrayBytes(wav_bytes(RAMP))):
        np.testing.assert_array_equal(samples_of(source), RAMP / np.float32(32768))


def test_a_tensor_of_torch_is_a_recording() -> None:
    torch = pytest.importorskip("torch")
    samples = tone(1000)
    tensor = torch.from_numpy(samples)
    assert np.shares_memory(load_audio(tensor).read(0, 1000), samples)
    np.testing.assert_array_equal(samples_of(torch.from_numpy(RAMP)), samples_of(RAMP))
    with pytest.raises(AudioError, match="does not convert"):
        load_audio(tensor.clone().requires_grad_())


@pytest.mark.parametrize("rate", [16_000, np.int32(16_000), np.uint16(16_000), 16_000.0, np.float64(16_000), None])
def test_whole_rates_of_any_type_are_taken(rate: Any) -> None:
    samples = tone(1000)
    assert np.shares_memory(load_audio(samples, sample_rate=rate).read(0, 1000), samples)


@pytest.mark.parametrize("rate", [True, False, np.True_, 16_000.5, float("nan"), float("inf"), "16000", [16_000], 1j])
def test_what_is_no_rate_is_refused(rate: Any) -> None:
    with pytest.raises(OptionError, match="sample_rate must be a whole number"):
        load_audio(tone(10), sample_rate=rate)


@pytest.mark.parametrize("rate", [0, 0.0, np.int64(0), -16_000, 99, 10**30])
def test_no_rate_stands_for_another(rate: Any) -> None:
    with pytest.raises(StapesError, match=r"sample_rate=.*: expected 100 to 768000"):
        load_audio(tone(10), sample_rate=rate)


@pytest.mark.parametrize("limit", ["60", True, float("nan"), 0, -1, [60], 1j])
def test_what_is_no_limit_is_refused(limit: Any) -> None:
    with pytest.raises(OptionError, match="max_duration_s must be a number above 0"):
        load_audio(tone(10), max_duration_s=limit)


@pytest.mark.parametrize("limit", [60, 0.5, np.float32(2), np.int16(2), float("inf")])
def test_limits_of_any_number_type_are_taken(limit: Any) -> None:
    assert samples_of(tone(10), max_duration_s=limit).size == 10


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int16, np.float16])
def test_a_limit_of_few_bits_is_as_long_as_it_says(kind: Any) -> None:
    assert samples_of(tone(6 * 16_000), max_duration_s=kind(7)).size == 6 * 16_000
    with pytest.raises(AudioTooLongError, match="the 5 s allowed"):
        load_audio(tone(6 * 16_000), max_duration_s=kind(5))
