"""Bad input to the drop-in faces: our errors are caught where those of the originals are.

The types beside each call are those that openai-whisper 20250625 (with PyTorch 2.13) and faster-whisper 1.2.1 (with
CTranslate2 4.8 and PyAV 18) raised for it, or the first base of them that is of Python itself.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stapes
from stapes.compat import faster_whisper, whisper
from stapes.compat.faster_whisper.tokenizer import Tokenizer
from stapes.compat.faster_whisper.vad import VadOptions
from stapes.compat.whisper.tokenizer import get_tokenizer
from stapes.compat.whisper.utils import get_writer
from stapes.testing import random_engine

SILENCE = np.zeros(16000, np.float32)
QUICK: dict[str, Any] = {"language": "en", "temperature": 0.0}

BAD_OPTIONS: tuple[tuple[str, Any, type[Exception]], ...] = (
    ("language", "xx", ValueError),
    ("language", "", ValueError),
    ("beam_size", "5", TypeError),
    ("beam_size", 2.5, TypeError),
    ("length_penalty", "x", TypeError),
    ("temperature", "x", TypeError),
    ("temperature", None, TypeError),
    ("compression_ratio_threshold", "x", TypeError),
    ("no_speech_threshold", "x", TypeError),
    ("max_initial_timestamp", "x", TypeError),
    ("suppress_tokens", 3, TypeError),
    ("clip_timestamps", "x", ValueError),
    ("clip_timestamps", 3, TypeError),
    ("clip_timestamps", None, TypeError),
)
#: of openai-whisper alone
BAD_OF_WHISPER: tuple[tuple[str, Any, type[Exception]], ...] = (
    *BAD_OPTIONS,
    ("prefix", 3, TypeError),
    ("language", ["en"], TypeError),
    ("temperature", -1, ValueError),
    ("beam_size", 0, AssertionError),
    ("patience", 2, ValueError),
    ("length_penalty", 2, ValueError),
    ("logprob_threshold", "x", TypeError),
    ("suppress_tokens", "x", ValueError),
    ("sample_len", "x", TypeError),
    ("vad_filter", True, TypeError),
    ("nonsense", 1, TypeError),
    ("log_prob_threshold", -1.0, TypeError),
)
BAD_OF_FASTER: tuple[tuple[str, Any, type[Exception]], ...] = (
    *BAD_OPTIONS,
    ("task", "sing", ValueError),
    ("task", None, ValueError),
    ("initial_prompt", 3, TypeError),
    ("log_prob_threshold", "x", TypeError),
    ("max_new_tokens", "x", TypeError),
    ("max_new_tokens", 100_000, ValueError),
    ("nonsense", 1, TypeError),
    ("logprob_threshold", -1.0, TypeError),
    ("batch_size", 8, TypeError),
)
#: what is no sound, with the errors of openai-whisper's `transcribe` and `load_audio`
NO_SOUND: tuple[tuple[Any, type[Exception], type[Exception]], ...] = (
    ("/nowhere/a.wav", RuntimeError, RuntimeError),
    ("", RuntimeError, RuntimeError),
    (None, TypeError, TypeError),
    (3, TypeError, TypeError),
    ([0.0] * 400, TypeError, TypeError),
    (b"RIFF", TypeError, RuntimeError),
    (np.float32(3), TypeError, TypeError),
    (np.zeros(16000, np.int16), RuntimeError, TypeError),
    (np.zeros(16000, np.complex64), RuntimeError, TypeError),
    (np.array(["a"] * 400), TypeError, TypeError),
)
#: the same for faster-whisper's `decode_audio`, which its `transcribe` calls
NO_FILE: tuple[tuple[Any, type[Exception]], ...] = (
    ("/nowhere/a.wav", FileNotFoundError),
    ("", FileNotFoundError),
    (None, ValueError),
    (3, ValueError),
    ([0.0] * 400, ValueError),
)


def named(value: Any) -> str:
    return f"{type(value).__name__} {str(value)[:16]}"


@pytest.fixture(scope="module")
def classic() -> whisper.Whisper:
    return whisper.Whisper.of(random_engine("multilingual"))


@pytest.fixture(scope="module")
def faster() -> faster_whisper.WhisperModel:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stapes, "load", lambda *_, **__: random_engine("multilingual"))
        return faster_whisper.WhisperModel("tiny")


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, str]:
    """Return folders and a file that are no models."""
    for name in ("empty", "others", "damaged"):
        (tmp_path / name).mkdir()
    (tmp_path / "others" / "a.txt").write_text("hello", encoding="utf-8")
    (tmp_path / "damaged" / "model.bin").write_bytes(b"abc" * 100)
    return {name: str(tmp_path / name) for name in ("empty", "others", "damaged")}


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    load = stapes.load
    monkeypatch.setattr(stapes, "load", lambda *names, **options: load(*names, **options | {"download": False}))


# openai-whisper.


@pytest.mark.parametrize(("name", "value", "error"), BAD_OF_WHISPER, ids=named)
def test_whisper_refuses_options(classic, name, value, error):
    with pytest.raises(error):
        classic.transcribe(SILENCE, **QUICK | {name: value})


@pytest.mark.parametrize(("sound", "error", "of_file"), NO_SOUND, ids=named)
def test_whisper_refuses_what_is_no_sound(classic, sound, error, of_file):
    with pytest.raises(error):
        classic.transcribe(sound, **QUICK)
    with pytest.raises(of_file):
        whisper.load_audio(sound)


def test_whisper_refuses_files_that_are_no_sound(classic, folders):
    for path in (f"{folders['others']}/a.txt", folders["empty"]):
        for call in (classic.transcribe, whisper.load_audio, whisper.log_mel_spectrogram):
            with pytest.raises(RuntimeError, match="Failed to load audio"):
                call(path)


def test_whisper_loads_in_float32(monkeypatch):
    """Where stapes itself would take the fastest precision, tokens may be other ones than the original's."""
    given: list[dict[str, Any]] = []

    def load(_: str, **options: Any) -> stapes.Engine:
        given.append(options)
        return random_engine()

    monkeypatch.setattr(stapes, "load", load)
    whisper.load_model("base")
    assert given[0]["precision"] == "float32"


def test_whisper_transcribes_an_empty_array(classic):
    assert classic.transcribe(SILENCE[:0], **QUICK) == {"text": "", "segments": [], "language": "en"}


def test_whisper_takes_no_task_for_transcribe(classic):
    assert classic.transcribe(SILENCE, task=None, **QUICK) == classic.transcribe(SILENCE, **QUICK)


@pytest.mark.usefixtures("offline")
def test_whisper_refuses_what_is_no_model(folders):
    for name in ("huge", "/nowhere/model.pt", *folders.values()):
        with pytest.raises(RuntimeError):
            whisper.load_model(name)
    with pytest.raises(TypeError):
        whisper.load_model(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        whisper.load_model("base", devise="cpu")  # type: ignore[call-arg]
    for device in ("cuda", "cpux"):
        with pytest.raises(RuntimeError, match=device):
            whisper.load_model("base", device=device)


def test_whisper_refuses_windows_and_their_options(classic):
    mel = np.zeros((80, 3000), np.float32)
    for wrong in ({"beam_size": 2, "best_of": 2}, {"best_of": 2}, {"patience": 2}, {"length_penalty": 2}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            whisper.decode(classic, mel, **wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="xx"):
        whisper.decode(classic, mel, language="xx")
    with pytest.raises(TypeError):
        whisper.decode(classic, mel, beamsize=2)
    with pytest.raises(AssertionError):
        whisper.decode(classic, mel[:, :1000])
    with pytest.raises(AssertionError):
        whisper.detect_language(classic, mel[:, :1000])
    with pytest.raises(ValueError, match="English only"):
        whisper.detect_language(whisper.Whisper.of(random_engine("english")), mel)
    with pytest.raises(AssertionError):
        whisper.log_mel_spectrogram(SILENCE, n_mels=64)


def test_whisper_refuses_names(folders):
    with pytest.raises(ValueError, match="xx"):
        get_tokenizer(True, language="xx")
    with pytest.raises(KeyError, match="doc"):
        get_writer("doc", folders["empty"])


# faster-whisper.


@pytest.mark.parametrize(("name", "value", "error"), BAD_OF_FASTER, ids=named)
def test_faster_whisper_refuses_options(faster, name, value, error):
    with pytest.raises(error):
        list(faster.transcribe(SILENCE, **QUICK | {name: value})[0])


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("language", "xx", ValueError),
        ("task", "sing", ValueError),
        ("beam_size", "5", TypeError),
        ("length_penalty", "x", TypeError),
        ("suppress_tokens", "x", TypeError),
        ("suppress_tokens", 3, TypeError),
        ("max_new_tokens", "x", TypeError),
        ("max_new_tokens", 100_000, ValueError),
        ("clip_timestamps", [{"start": 0}], KeyError),
        ("chunk_length", "x", TypeError),
        ("batch_size", 0, ValueError),
        ("batch_size", "x", TypeError),
        ("nonsense", 1, TypeError),
    ],
    ids=named,
)  # fmt: skip
def test_faster_whisper_refuses_options_of_batches(faster, name, value, error):
    pipeline = faster_whisper.BatchedInferencePipeline(faster)
    with pytest.raises(error):
        list(pipeline.transcribe(SILENCE, **QUICK | {"vad_filter": False, name: value})[0])


@pytest.mark.parametrize(("sound", "error"), NO_FILE, ids=named)
def test_faster_whisper_refuses_what_is_no_sound(faster, sound, error):
    for call in (faster.transcribe, faster_whisper.BatchedInferencePipeline(faster).transcribe):
        with pytest.raises(error):
            call(sound)
    with pytest.raises(error):
        faster_whisper.decode_audio(sound)


def test_faster_whisper_refuses_files_that_are_no_sound(faster, folders):
    for wrong in (f"{folders['others']}/a.txt", io.BytesIO(b"abc"), io.BytesIO()):
        with pytest.raises(ValueError, match=r"\w"):
            faster.transcribe(wrong)
    with pytest.raises(IsADirectoryError):
        faster.transcribe(folders["empty"])


def test_faster_whisper_transcribes_an_empty_array(faster):
    pipeline = faster_whisper.BatchedInferencePipeline(faster)
    assert list(faster.transcribe(SILENCE[:0])[0]) == []
    assert list(pipeline.transcribe(SILENCE[:0], vad_filter=False)[0]) == []
    assert faster.detect_language(SILENCE[:0])[0] in faster.supported_languages


def test_faster_whisper_refuses_long_sound_without_chunks(faster):
    with pytest.raises(RuntimeError, match="vad_filter"):
        faster_whisper.BatchedInferencePipeline(faster).transcribe(np.zeros(31 * 16000, np.float32), vad_filter=False)


@pytest.mark.usefixtures("offline")
def test_faster_whisper_refuses_what_is_no_model(folders):
    for folder in folders.values():
        with pytest.raises(RuntimeError):
            faster_whisper.WhisperModel(folder)
    for name in ("huge", "/nowhere/model", f"{folders['others']}/a.txt"):
        with pytest.raises((ValueError, RuntimeError)):
            faster_whisper.WhisperModel(name)
    for name in ("an-owner/of-nothing", "large-v1"):
        with pytest.raises(FileNotFoundError):
            faster_whisper.WhisperModel(name, local_files_only=True)
    for wrong in ((), (None,), (3,)):
        with pytest.raises(TypeError):
            faster_whisper.WhisperModel(*wrong)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"device": "gpu"}, ValueError),
        ({"device": "mps"}, ValueError),
        ({"device": "cuda"}, RuntimeError),
        ({"compute_type": "float8"}, ValueError),
        ({"compute_type": "float16"}, ValueError),
        ({"compute_type": "int8_float16"}, ValueError),
        ({"device_index": 3}, ValueError),
        ({"device_index": [0, 1]}, ValueError),
        ({"files": {}}, RuntimeError),
        ({"nonsense": 1}, TypeError),
    ],
    ids=named,
)
def test_faster_whisper_refuses_arguments_of_models(options, error):
    with pytest.raises(error):
        faster_whisper.WhisperModel("tiny", **options)


def test_faster_whisper_refuses_languages_where_there_is_one(monkeypatch):
    monkeypatch.setattr(stapes, "load", lambda *_, **__: random_engine("english"))
    model = faster_whisper.WhisperModel("tiny.en")
    with pytest.raises(RuntimeError, match="multilingual"):
        model.detect_language(SILENCE)


def test_faster_whisper_refuses_names(faster):
    for call, error in (
        (faster.detect_language, AssertionError),
        (lambda: faster.detect_language(vad=True), TypeError),
        (faster.transcribe, TypeError),
        (lambda: VadOptions(onset=1), TypeError),  # type: ignore[call-arg]
        (lambda: faster.transcribe(SILENCE, vad_filter=True, vad_parameters={"onset": 1}), TypeError),
        (lambda: faster_whisper.format_timestamp(-1.0), AssertionError),
        (lambda: faster_whisper.download_model("huge"), ValueError),
        (lambda: Tokenizer(faster.hf_tokenizer, True, task="transcribe", language="xx"), ValueError),
    ):
        with pytest.raises(error):
            call()
