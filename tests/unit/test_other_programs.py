"""Names of other Whisper programs: refused, with the name to use here."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from typing import Any

import pytest

import stapes
import stapes.output
from stapes.cli.flags import build_parser, parse
from stapes.errors import OptionError
from stapes.options import option_fields
from stapes.options.other_programs import _ADVICE, _IN_PYTHON, _RENAMED, LOAD_KEYWORDS, SHORT_FLAGS
from stapes.results import LanguageGuess, Transcript
from stapes.testing import scripted_engine, tone

OPTIONS = {item.name for _, item in option_fields()}
FLAGS = {flag for action in build_parser()._actions for flag in action.option_strings}


def message_of(call: Any, **keywords: Any) -> str:
    with pytest.raises(OptionError) as caught:
        call(**keywords)
    return str(caught.value)


@pytest.mark.parametrize(
    ("keywords", "instead"),
    [
        ({"vad_filter": True}, "give vad instead"),
        ({"vad_parameters": {"threshold": 0.5}}, "vad_threshold, vad_min_silence_duration_ms"),
        ({"log_prob_threshold": -1.0}, "give logprob_threshold instead"),
        ({"max_new_tokens": 5}, "give sample_len instead"),
        ({"batch_size": 8}, "give mode chunked instead"),
        ({"compute_type": "int8"}, "give precision instead, to load()"),
        ({"cpu_threads": 2}, "give threads instead, to load()"),
        ({"device": "cpu"}, "it belongs to load()"),
        ({"precision": "int8"}, "it belongs to load()"),
        ({"device_index": 0}, "devices are named where a model is loaded, with device: cpu, cuda or cuda:1"),
        ({"num_workers": 2}, "submit() several recordings"),
        ({"chunk_size": 30}, "chunk_length"),
        ({"log_progress": True}, "on_progress"),
        ({"output_format": "srt"}, "stapes.output.write_files()"),
        ({"diarize": True}, "has no speaker labels"),
        ({"return_timestamps": "word"}, "give word_timestamps instead"),
    ],
)
def test_every_way_to_transcribe_says_our_name(keywords: dict[str, Any], instead: str) -> None:
    engine = scripted_engine()
    for call in (engine.transcribe, engine.stream, engine.submit):
        message = message_of(call, audio=tone(1.0), **keywords)
        assert message.startswith(f"unknown option '{next(iter(keywords))}'; ")
        assert instead in message


@pytest.mark.parametrize(
    ("keywords", "instead"),
    [
        ({"compute_type": "int8"}, "give precision instead"),
        ({"cpu_threads": 2}, "give threads instead"),
        ({"model_size_or_path": "base"}, "give model instead"),
        ({"download_root": "models"}, "give model_dir instead"),
        ({"local_files_only": True}, "give download False instead"),
        ({"device_index": 0}, "devices are named where a model is loaded, with device: cpu, cuda or cuda:1"),
        ({"num_workers": 2}, "they share one engine"),
        ({"in_memory": True}, "leave it out"),
        ({"use_auth_token": "x"}, "HF_TOKEN"),
        ({"beam_size": 5}, "it belongs to transcribe()"),
        ({"vad_filter": True}, "give vad instead, to transcribe()"),
        ({"treads": 2}, "did you mean 'threads'?"),
        ({"zzzzz": 2}, "unknown option 'zzzzz'; docs/python.md lists what there is"),
    ],
)
def test_load_says_our_name_before_any_work(keywords: dict[str, Any], instead: str) -> None:
    assert instead in message_of(stapes.load, model="no such model", **keywords)


@pytest.mark.parametrize("threads", [0, -1, 2.5, "2", True])
def test_load_takes_whole_numbers_of_threads_only(threads: Any) -> None:
    assert "threads must be a whole number" in message_of(stapes.load, model="no such model", threads=threads)
    assert "max_memory must be a number" in message_of(stapes.load, model="no such model", max_memory="1 GB")


@pytest.mark.parametrize("value", [None, 3, b"base", ["base"]])
def test_load_takes_names_and_paths_only(value: Any) -> None:
    assert "model must be a name or a path, got" in message_of(stapes.load, model=value)
    if value is not None:
        assert "model_dir must be a path or None, got" in message_of(stapes.load, model="base", model_dir=value)


@pytest.mark.parametrize(
    ("words", "instead"),
    [
        (["--vad_filter", "True"], "unknown flag --vad_filter; give --vad instead"),
        (["--vad-filter=True"], "unknown flag --vad_filter; give --vad instead"),
        (["--compute_type", "int8"], "give --precision instead"),
        (["--batch-size", "8"], "give --mode chunked instead"),
        (["--model_size", "large"], "give --model instead"),
        (["--log_prob_threshold", "-1"], "give --logprob_threshold instead"),
        (["--download-root", "x"], "give --model_dir instead"),
        (["--local_files_only", "True"], "HF_HUB_OFFLINE=1"),
        (["--hf_token", "x"], "HF_TOKEN"),
        (["--diarize"], "has no speaker labels"),
        (["--align_model", "x"], "give --word_timestamps instead"),
        (["--num_workers", "2"], "give --concurrency instead"),
        (["--prompt", "Ada"], "give --initial_prompt instead"),
        (["--output-file", "x"], "give --output_dir instead"),
        (["-m", "base"], "unknown flag -m; give --model instead"),
        (["-l", "de"], "give --language instead"),
        (["-t", "4"], "give --threads instead"),
        (["-otxt"], "give -f txt instead"),
        (["-osrt"], "give -f srt instead"),
        (["-oj"], "give -f json instead"),
        (["--output-srt"], "give --output_format srt instead"),
        (["--output_json_full"], "give --output_format json instead"),
        (["-of", "x"], "give -o FOLDER instead"),
        (["-bs", "5"], "give --beam_size instead"),
    ],
)
def test_the_command_says_our_flag(words: list[str], instead: str) -> None:
    for order in (["talk.mp3", *words], [*words, "talk.mp3"]):
        message = message_of(parse, words=order)
        assert instead in message
        assert message.endswith("'stapes --help' explains every flag")
    assert parse(["--", *words]).audio == tuple(words)  # a recording may have any name


def test_a_recording_named_with_f_is_not_a_format() -> None:
    assert "name recordings without a flag" in message_of(parse, words=["-f", "talk.wav"])
    assert parse(["talk.wav", "-f", "srt"]).formats == ("srt",)


def test_what_is_said_is_there() -> None:
    assert _IN_PYTHON.keys() <= {flag.removeprefix("--") for flag in FLAGS}
    named = {*_RENAMED.values(), *(ours for text in _ADVICE.values() for ours in re.findall(r"\{(\w+)\}", text))}
    assert named <= OPTIONS | set(LOAD_KEYWORDS) | set(_IN_PYTHON)
    assert {f"--{name}" for name in named - {"download"}} <= FLAGS
    assert not (set(_RENAMED) | set(_ADVICE)) & (OPTIONS | set(LOAD_KEYWORDS))
    assert not {f"--{name}" for name in (*_RENAMED, *_ADVICE)} & FLAGS
    assert not set(SHORT_FLAGS) & FLAGS
    assert {flag.split()[0] for flag in SHORT_FLAGS.values()} <= FLAGS


def test_the_keywords_of_load_are_those_it_takes() -> None:
    assert (*LOAD_KEYWORDS, "unknown") == tuple(inspect.signature(stapes.load).parameters)


# Results.


@pytest.fixture
def transcript() -> Transcript:
    return scripted_engine().transcribe(tone(2.0), word_timestamps=True)


def test_a_result_read_as_a_dict_says_which_attribute(transcript: Transcript) -> None:
    result: Any = transcript
    segment = result.segments[0]
    word = segment.words[0]
    for one, key, ours in (
        (result, "text", "text"),
        (result, "segments", "segments"),
        (result, "language", "language"),
        (segment, "start", "start_s"),
        (segment, "end", "end_s"),
        (segment, "text", "text"),
        (word, "word", "text"),
        (word, "start", "start_s"),
    ):
        with pytest.raises(TypeError, match=rf"is no dict: take \.{ours} instead; \.to_dict\(\) is openai/whisper's"):
            one[key]
        getattr(one, ours)
    with pytest.raises(TypeError, match=r"it has \.text, \.segments, \.language"):
        result["nothing"]


def test_a_result_is_not_unpacked(transcript: Transcript) -> None:
    result: Any = transcript
    with pytest.raises(TypeError, match=r"a Transcript is one object .*: take \.segments, \.language and \.duration_s"):
        _segments, _info = result
    for use in (list, lambda one: one[0], lambda one: "text" in one, lambda one: one[:1]):
        with pytest.raises(TypeError, match="a Transcript is one object"):
            use(result)
    guess: Any = LanguageGuess(language="en", probabilities={"en": 1.0})
    with pytest.raises(TypeError, match=r"a LanguageGuess is one object .*take \.language, \.probability"):
        _language, _probability = guess
    with pytest.raises(TypeError) as caught:
        guess["language"]
    assert str(caught.value) == "a LanguageGuess is no dict: take .language instead"


@pytest.mark.parametrize(
    ("pick", "name", "ours"),
    [
        (lambda one: one.segments[0], "start", "start_s"),
        (lambda one: one.segments[0], "end", "end_s"),
        (lambda one: one.segments[0], "_asdict", "to_dict()"),
        (lambda one: one.segments[0].words[0], "word", "text"),
        (lambda one: one.segments[0].words[0], "end", "end_s"),
        (lambda one: one, "get", "to_dict()"),
        (lambda one: one, "duration", "duration_s"),
        (lambda one: one, "language_probability", "language_guess.probability"),
    ],
)
def test_an_attribute_of_other_programs_says_ours(pick: Any, name: str, ours: str, transcript: Transcript) -> None:
    one = pick(transcript)
    with pytest.raises(AttributeError, match=rf"no attribute '{name}'; take \.{re.escape(ours)} instead"):
        getattr(one, name)
    assert not hasattr(one, name)
    assert eval(f"one.{ours}", {"one": one}) is not None


@pytest.mark.parametrize("name", ["to_txt", "to_srt", "to_vtt", "to_tsv", "to_json", "save"])
def test_a_transcript_says_what_writes_it(name: str, transcript: Transcript) -> None:
    with pytest.raises(AttributeError, match=r"; take stapes\.output\.\w+\(transcript") as caught:
        getattr(transcript, name)
    assert hasattr(stapes.output, re.findall(r"stapes\.output\.(\w+)", str(caught.value))[0])


def test_a_stream_says_where_info_is() -> None:
    engine = scripted_engine()
    stream: Any = engine.stream(tone(2.0))
    for name in ("info", "language", "language_probability"):
        with pytest.raises(AttributeError, match=r"stream\.job\.language_guess after the first segment"):
            getattr(stream, name)
        assert not hasattr(stream, name)
    next(stream)
    assert stream.job.language_guess.language == stream.job.result().language
    with pytest.raises(AttributeError, match=r"take \.job\.progress\.total_s instead$"):
        _ = stream.duration
    assert stream.job.progress.total_s == 2.0
    for name in ("text", "segments"):
        with pytest.raises(AttributeError, match=r"take \.job\.result\(\) instead$"):
            getattr(stream, name)
    with pytest.raises(AttributeError, match=r"has no attribute 'nothing'$"):
        _ = stream.nothing


def test_segments_and_info_are_not_unpacked_from_a_stream() -> None:
    engine: Any = scripted_engine([" One.", " Two."])
    with pytest.raises(TypeError, match=r"a stream gives segments, and no info: .*stream\.job\.language_guess"):
        _segments, _info = engine.stream(tone(40.0))
    with pytest.raises(TypeError, match="no info"):
        exec("segments, info = engine.stream(sound)", {"engine": engine, "sound": tone(40.0)})
    (only,) = engine.stream(tone(2.0))
    first, *others = engine.stream(tone(40.0))
    assert (only.id, first.id, [one.id for one in others]) == (0, 0, [1])
    assert len(list(engine.stream(tone(40.0)))) == len(tuple(engine.stream(tone(40.0)))) == 2
    assert engine.status().running == 0  # what was refused is cancelled


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("supported_languages", "info.languages"),
        ("is_multilingual", "info.multilingual"),
        ("dims", "info.spec"),
        ("device", "info.device"),
        ("compute_type", "info.precision"),
    ],
)
def test_an_engine_says_where_a_models_values_are(name: str, ours: str) -> None:
    engine: Any = scripted_engine()
    with pytest.raises(AttributeError, match=rf"'Engine' object has no attribute '{name}'; take \.{ours} instead$"):
        getattr(engine, name)
    assert eval(f"engine.{ours}", {"engine": engine}) is not None


@pytest.mark.parametrize("name", ["text", "segments", "language"])
def test_a_job_says_where_its_text_is(name: str) -> None:
    job: Any = scripted_engine().submit(tone(2.0))
    with pytest.raises(AttributeError, match=rf"no attribute '{name}'; take \.result\(\)\.{name} inst"):
        getattr(job, name)
    assert getattr(job.result(), name)


def test_results_are_still_plain_values(transcript: Transcript) -> None:
    for one in (transcript, transcript.segments[0]):
        assert pickle.loads(pickle.dumps(one)) == copy.deepcopy(one) == one
        assert not hasattr(one, "nothing")
        with pytest.raises(AttributeError, match=r"has no attribute 'nothing'$"):
            getattr(one, "no" + "thing")


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("WhisperModel", "stapes.load(model) returns an engine"),
        ("BatchedInferencePipeline", "stapes.load(model) returns an engine"),
        ("load_model", "stapes.load(model) returns an engine"),
        ("transcribe", "stapes.load(model).transcribe(audio)"),
        ("available_models", "'stapes models' lists models"),
        ("load_audio", "transcribe() takes paths"),
        ("detect_language", "detect_language(audio)"),
        ("load_align_model", "align(audio, text)"),
        ("get_writer", "stapes.output has write_files(), to_srt()"),
        ("utils", "stapes.output has write_files(), to_srt()"),
        ("get_speech_timestamps", "stapes.find_speech(audio)"),
        ("LANGUAGES", "stapes.languages.LANGUAGES"),
    ],
)
def test_a_name_of_another_package_is_an_attribute_error_that_says_ours(name: str, instead: str) -> None:
    with pytest.raises(AttributeError) as caught:
        getattr(stapes, name)
    assert str(caught.value).startswith(f"module 'stapes' has no attribute '{name}'; ")
    assert instead in str(caught.value)
    assert not hasattr(stapes, name)
