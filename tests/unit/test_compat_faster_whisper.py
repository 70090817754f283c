"""The interface of faster-whisper on a scripted model: shapes, laziness, names that programs replace, refusals."""

from __future__ import annotations

import dataclasses
import gc
import inspect
import itertools
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import stapes
from stapes.compat import faster_whisper
from stapes.compat.faster_whisper import BatchedInferencePipeline, WhisperModel, transcribe
from stapes.compat.faster_whisper.transcribe import Segment, TranscriptionInfo, TranscriptionOptions, Word
from stapes.compat.faster_whisper.vad import VadOptions
from stapes.compat.loading import RUN_AS_VARIABLE
from stapes.engine.engine import Engine
from stapes.errors import StapesWarning
from stapes.testing import noise, scripted_engine, silence, small_vocabulary, tiny_spec
from stapes.tokenizer import Tokenizer

TOKENIZER = Tokenizer(tiny_spec(), small_vocabulary())


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[Engine, dict[str, Any]]]]:
    """Replace `stapes.load`; yield the engines that it gives, with its arguments."""
    made: list[tuple[Engine, dict[str, Any]]] = []

    def load(model: str, **given: Any) -> Engine:
        engine = scripted_engine([" One two three.", " Four five.", " Six."])
        made.append((engine, {"model": model, **given}))
        return engine

    monkeypatch.setattr(stapes, "load", load)
    yield made
    for engine, _ in made:
        engine.close()


@pytest.fixture
def model(engines: object) -> WhisperModel:
    return WhisperModel("tiny", device="cpu", compute_type="float32")


def test_segments_come_as_they_are_decoded(model: WhisperModel) -> None:
    segments, info = model.transcribe(noise(70.0), language="en", temperature=0, word_timestamps=True)
    assert (info.language, info.language_probability, info.all_language_probs) == ("en", 1, None)
    assert (info.duration, info.duration_after_vad) == (70.0, 70.0)
    assert model.model.engine.status().submitted == 1
    first = next(iter(segments))
    rest = list(segments)
    assert [one.id for one in (first, *rest)] == list(range(1, len(rest) + 2))
    assert list(segments) == []  # as of any generator, the second time
    for one in (first, *rest):
        assert type(one) is Segment
        assert one.text.strip()
        assert one.start < one.end
        assert isinstance(one.tokens, list)
        assert one.words is not None
        assert all(type(word) is Word and word.start <= word.end for word in one.words)
        assert one.temperature == 0
    assert rest[-1].seek > 0


def test_empty_segments_are_neither_given_nor_counted(model: WhisperModel) -> None:
    sound = noise(70.0)
    options: dict[str, Any] = {"language": "en", "temperature": 0, "mode": "reference", "rules_of": "faster-whisper"}
    whole = model.model.engine.transcribe(sound, beam_size=5, best_of=5, patience=1, **options)
    segments, _ = model.transcribe(sound, language="en", temperature=0)
    assert [(one.text, one.start, one.end, one.tokens) for one in segments] == [
        (one.text, one.start_s, one.end_s, list(one.tokens)) for one in whole.segments if one.text
    ]


def test_an_iterator_that_is_dropped_ends_its_job(model: WhisperModel) -> None:
    for begin in (False, True):
        segments, _ = model.transcribe(noise(200.0), language="en", temperature=0)
        if begin:
            next(iter(segments))
        del segments
        gc.collect()
        until_s = time.monotonic() + 10
        while (status := model.model.engine.status()).running and time.monotonic() < until_s:
            time.sleep(0.01)  # the step that runs ends first
        assert (status.queued, status.running) == (0, 0)


def test_the_language_is_known_before_the_first_segment(model: WhisperModel) -> None:
    segments, info = model.transcribe(noise(40.0), temperature=0, language_detection_segments=2)
    assert info.all_language_probs is not None
    assert info.language_probability <= info.all_language_probs[0][1] or len(info.all_language_probs) == 99
    assert info.language in dict(info.all_language_probs)
    assert next(iter(segments)).id == 1
    found = model.detect_language(noise(40.0), language_detection_segments=2)
    assert (found[0], len(found[2])) == (info.language, len(info.all_language_probs))
    mel = model.feature_extractor(noise(40.0))
    assert model.detect_language(features=mel)[0] == model.model.detect_language(mel[None, :, :3000])[0][0][0][2:-2]
    with pytest.raises(AssertionError):
        model.detect_language()


def test_options_are_given_back(model: WhisperModel) -> None:
    info: Any
    _, info = model.transcribe(noise(3.0), language="en", temperature=[0.0, 0.5], vad_parameters={"threshold": 0.4})
    options = info.transcription_options
    assert options.temperatures == [0.0, 0.5]
    assert options.suppress_tokens == TOKENIZER.never_sampled((-1,))
    assert (options.beam_size, options.clip_timestamps) == (5, "0")
    assert info.vad_options == {"threshold": 0.4}  # as given: VAD was off
    _, info = model.transcribe(noise(3.0), language="en", temperature=0, suppress_tokens=[])
    assert (info.transcription_options.temperatures, info.transcription_options.suppress_tokens) == ([0], [])
    assert dataclasses.asdict(info)["language"] == "en"


def test_positional_order_and_change_of_results() -> None:
    segment = Segment(*[None] * 11)  # type: ignore[arg-type]
    segment.text = "changed"
    assert TranscriptionInfo(*[None] * 7).language is None  # type: ignore[arg-type]
    assert TranscriptionOptions(*[None] * 26).hotwords is None  # type: ignore[arg-type]
    for one in (segment, Word(0.0, 1.0, " a", 0.5)):
        with pytest.warns(DeprecationWarning, match=f"{type(one).__name__}._asdict"):
            assert one._asdict() == dataclasses.asdict(one)


def test_transcribe_is_a_plain_function(model: WhisperModel) -> None:
    names = [inspect.getargs(one.transcribe.__code__).args for one in (WhisperModel, BatchedInferencePipeline)]
    assert set(names[1]) - set(names[0]) == {"batch_size"}
    assert set(names[0]) < set(names[1])
    model.transcribe = lambda *_: "replaced"  # type: ignore[method-assign, assignment]
    model.extra = 1  # type: ignore[attr-defined]
    changed: Any = model
    assert changed.transcribe("x") == "replaced"


def test_programs_replace_decode_audio_and_tqdm(model: WhisperModel, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    class Bar:
        def __init__(self, *, total: float, disable: bool, **_: Any) -> None:
            seen.append(("total", total, disable))

        def update(self, n: float) -> None:
            seen.append(n)

        def close(self) -> None:
            seen.append("closed")

    monkeypatch.setattr(transcribe, "decode_audio", lambda file, sampling_rate: noise(65.0) if file == "it" else None)
    monkeypatch.setattr(transcribe, "tqdm", Bar)
    segments, info = model.transcribe("it", language="en", temperature=0, log_progress=True)
    list(segments)
    assert info.duration == 65.0
    assert seen[0] == ("total", 65.0, False)
    assert seen[-1] == "closed"
    assert sum(seen[1:-1]) == pytest.approx(65.0, abs=0.02)
    seen.clear()
    chunks, _ = BatchedInferencePipeline(model).transcribe(noise(20.0), language="en", vad_filter=False)
    list(chunks)
    assert seen == [("total", 1, True), 1, "closed"]


def test_speech_alone_is_decoded_and_put_back(model: WhisperModel, monkeypatch: pytest.MonkeyPatch) -> None:
    spans = [{"start": 16_000, "end": 32_000}, {"start": 80_000, "end": 112_000}]
    monkeypatch.setattr(transcribe, "get_speech_timestamps", lambda audio, options: [dict(one) for one in spans])
    sound = noise(9.0)
    segments, info = model.transcribe(sound, language="en", temperature=0, vad_filter=True, word_timestamps=True)
    assert (info.duration, info.duration_after_vad) == (9.0, 3.0)
    assert info.vad_options == VadOptions()
    joined = np.concatenate([sound[16_000:32_000], sound[80_000:112_000]])
    plain, _ = model.transcribe(joined, language="en", temperature=0, word_timestamps=True)
    for one, unmoved in itertools.zip_longest(segments, plain):
        assert one.text == unmoved.text
        assert one.words is not None
        assert unmoved.words is not None
        for word, before in zip(one.words, unmoved.words, strict=True):
            moved = 1.0 if (before.start + before.end) / 2 < 1.0 else 4.0
            assert (word.start, word.end) == pytest.approx((before.start + moved, before.end + moved))
    _, info = model.transcribe(sound, language="en", temperature=0, vad_filter=True, clip_timestamps="1,2")
    assert info.duration_after_vad == 9.0  # clips switch VAD off


def test_chunks_are_decoded_side_by_side(model: WhisperModel) -> None:
    pipeline = BatchedInferencePipeline(model=model)
    with pytest.raises(RuntimeError, match="set vad_filter to True, or give clip_timestamps"):
        pipeline.transcribe(noise(30.0), vad_filter=False)
    clips = [{"start": 0, "end": 10.5}, {"start": 20.0, "end": 29.0}, {"start": 31.25, "end": 64.0}]
    segments, info = pipeline.transcribe(
        noise(70.0), language="en", clip_timestamps=clips, batch_size=2, word_timestamps=True, temperature=(0.0, 0.2)
    )
    found = list(segments)
    assert [one.id for one in found] == [1, 2, 3]  # without timestamps, a segment for each
    assert [one.seek for one in found] == [0, 2000, 3125]
    assert found[1].start >= 20.0
    assert all(one.words is not None for one in found)
    assert info.duration_after_vad == 10.5 + 9.0 + 32.75
    options: Any = info.transcription_options
    assert (options.temperatures, options.condition_on_previous_text) == ((0.0,), False)
    assert options.clip_timestamps[0] == {"start": 0, "end": 168_000}
    nothing, info = pipeline.transcribe(silence(40.0), language="en")
    assert (list(nothing), info.duration_after_vad) == ([], 0)


def test_chunks_with_timestamps_have_several_segments(model: WhisperModel) -> None:
    segments, _ = BatchedInferencePipeline(model).transcribe(
        noise(25.0), language="en", vad_filter=False, without_timestamps=False
    )
    window = model.model.engine.decode_window(
        model_mel(model, noise(25.0)), language="en", beam_size=5, patience=1, rules_of="faster-whisper"
    )
    found = list(segments)
    tokens = [token for one in found for token in one.tokens]
    assert tokens == list(window.result.tokens[: len(tokens)])
    assert all(one.start <= one.end for one in found)


def model_mel(model: WhisperModel, sound: Any) -> Any:
    return faster_whisper.transcribe.pad_or_trim(model.feature_extractor(sound)[..., :-1])


def test_prompts_are_put_together_as_theirs(model: WhisperModel) -> None:
    tokenizer = faster_whisper.transcribe.Tokenizer(model.hf_tokenizer, True, task="transcribe", language="en")
    start = tokenizer.sot_sequence
    assert model.get_prompt(tokenizer, []) == start
    assert model.get_prompt(tokenizer, [], without_timestamps=True) == [*start, tokenizer.no_timestamps]
    before = [tokenizer.sot_prev, *tokenizer.encode(" a b"), 5, 6]
    assert model.get_prompt(tokenizer, [5, 6], hotwords=" a b ") == [*before, *start]
    with_prefix = model.get_prompt(tokenizer, [], prefix="c", hotwords="a")
    assert with_prefix == [*start, tokenizer.timestamp_begin, *tokenizer.encode(" c")]
    assert len(model.get_prompt(tokenizer, list(range(300)))) == 1 + 223 + len(start)


def test_arguments_reach_the_engine(engines: list[tuple[Engine, dict[str, Any]]], tmp_path: Path) -> None:
    WhisperModel(
        "small", compute_type="int8_float32", cpu_threads=3, download_root=str(tmp_path), local_files_only=True
    )
    WhisperModel("small", num_workers=4, device_index=[0], flash_attention=False, max_memory=5)
    first, second = (given for _, given in engines)
    assert first == {
        "model": "small", "device": "cpu", "precision": "int8", "threads": 3, "download": False,
        "model_dir": str(tmp_path),
    }  # fmt: skip
    assert (second["precision"], second["threads"], second["max_memory"]) == ("float32", None, 5)


@pytest.mark.parametrize(
    ("given", "error", "sentence"),
    [
        ({"device": "cuda"}, ValueError, "device 'cuda:0'.*; or give 'cpu'"),
        ({"device": "cuda", "device_index": [0, 0]}, ValueError, "names cuda:0 twice"),
        ({"device": "mps"}, ValueError, "unsupported device 'mps'"),
        ({"compute_type": "float16"}, ValueError, "'float16' is for GPUs"),
        ({"compute_type": "int3"}, ValueError, "unknown compute type 'int3'"),
        ({"device_index": 1}, ValueError, "device_index=1"),
        ({"files": {"config.json": b"{}"}}, NotImplementedError, "files="),
        ({"flash_attention": True}, NotImplementedError, "flash_attention=True"),
        ({"compute": "int8"}, TypeError, "unexpected keyword argument 'compute'"),
    ],
)
def test_arguments_that_cannot_be(
    engines: list[Any], given: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        WhisperModel("tiny", **given)
    assert not engines


def test_under_run_as_a_gpu_is_the_cpu(engines: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUN_AS_VARIABLE, "faster-whisper")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = WhisperModel("tiny", device="cuda", compute_type="float16")
    assert [type(one.message) for one in caught] == [StapesWarning] * 2
    assert ["cuda" in str(one.message) for one in caught] == [True, False]
    assert engines[0][1]["precision"] == "float32"
    assert model.model.device == "cpu"
    with pytest.raises(ValueError, match="unsupported device 'mps'"):
        WhisperModel("tiny", device="mps")


def test_a_model_is_unloaded_and_loaded_again(model: Any, engines: list[Any]) -> None:
    assert model.model.model_is_loaded
    model.model.unload_model()
    assert model.model.model_is_loaded is False
    with pytest.raises(RuntimeError, match=r"load_model\(\) loads it again"):
        model.transcribe(noise(1.0), language="en")
    model.model.load_model()
    model.model.load_model()
    assert len(engines) == 2
    assert model.transcribe(noise(1.0), language="en")[1].language == "en"


def test_what_cannot_be_honoured_says_why(model: WhisperModel) -> None:
    tokens: Any = SimpleNamespace(sot_sequence=[1])
    calls: list[Callable[[], object]] = [
        lambda: model.encode(np.zeros((80, 3000))),
        lambda: model.model.generate(None, [[1]]),
        lambda: model.model.align(None, [1], [2], 3),
        lambda: model.generate_segments(np.zeros((80, 3000)), tokens, tokens, False),
        lambda: model.generate_with_fallback(None, [1], tokens, tokens),
        lambda: model.add_word_timestamps([], tokens, None, 1, "", "", 0.0),
        lambda: model.find_alignment(tokens, [1], None, 1),
        lambda: transcribe.get_ctranslate2_storage(np.zeros(3)),
    ]
    for call in calls:
        with pytest.raises(NotImplementedError, match=r"stapes|transcribe"):
            call()


def test_languages_and_tasks_are_checked_at_the_call(model: WhisperModel) -> None:
    wrongs: list[dict[str, Any]] = [{"language": "xx"}, {"language": "English"}, {"task": "sing"}]
    for wrong in wrongs:
        for one in (model, BatchedInferencePipeline(model)):
            with pytest.raises(ValueError, match=next(iter(wrong.values()))):
                one.transcribe(noise(1.0), **wrong)
    with pytest.raises(ValueError, match="more than 448 together"):
        list(
            BatchedInferencePipeline(model).transcribe(noise(1.0), language="en", vad_filter=False, max_new_tokens=446)[
                0
            ]
        )


def test_small_functions() -> None:
    assert transcribe.get_compression_ratio("a" * 100) > 5
    alignment = [
        {"word": one, "tokens": [i]} for i, one in enumerate((' "', " Hello", ",", " wor", "ld", ".", '"', " ("))
    ]
    transcribe.merge_punctuations(alignment, '"(', '.,"')
    assert [one["word"] for one in alignment] == ["", ' " Hello,', "", " wor", 'ld."', "", "", " ("]
    assert [one["tokens"] for one in alignment] == [[], [0, 1, 2], [], [3], [4, 5, 6], [], [], [7]]
