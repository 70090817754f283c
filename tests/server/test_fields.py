"""Form fields -> AudioRequest: OpenAI's fields in every spelling that clients send, our options, and refusals."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stapes.options import LADDER, TranscribeOptions, option_fields
from stapes.server.errors import ApiError
from stapes.server.fields import FIELDS, OPTIONS, AudioRequest, Endpoint, audio_request

MODEL = ("model", "base")


def read(*fields: tuple[str, str], endpoint: Endpoint = "transcriptions", is_admin: bool = False) -> AudioRequest:
    return audio_request([MODEL, *fields], endpoint, is_admin=is_admin)


def refused(*fields: tuple[str, str], endpoint: Endpoint = "transcriptions") -> ApiError:
    with pytest.raises(ApiError) as caught:
        read(*fields, endpoint=endpoint)
    return caught.value


def test_without_fields_the_librarys_defaults_hold() -> None:
    wanted = read()
    assert wanted == AudioRequest(endpoint="transcriptions", model="base")
    assert wanted.options == TranscribeOptions()


@pytest.mark.parametrize(
    ("fields", "group", "name", "value"),
    [
        ([("prompt", "Ossicles.")], "context", "initial_prompt", "Ossicles."),
        ([("keywords[]", "incus"), ("keywords[]", " malleus ")], "context", "hotwords", "incus, malleus"),
        ([("keywords", "incus")], "context", "hotwords", "incus"),
        ([("hotwords", "stapes")], "context", "hotwords", "stapes"),
        ([("language", "en")], "speech", "language", "en"),
        ([("languages[]", "en"), ("languages[]", "de")], "speech", "languages", ("en", "de")),
        ([("languages", "en,de")], "speech", "languages", ("en", "de")),
        ([("temperature", "0")], "search", "temperature", LADDER),
        ([("temperature", "0.0")], "search", "temperature", LADDER),
        ([("temperature", "0.3")], "search", "temperature", (0.3,)),
        ([("temperature", "0,0.4")], "search", "temperature", (0.0, 0.4)),
        ([("beam_size", "5")], "search", "beam_size", 5),
        ([("vad", "true")], "voice", "vad", True),
        ([("loop_guard", "False")], "guards", "loop_guard", False),
        ([("clip_timestamps", "0,5")], "clips", "clip_timestamps", (0.0, 5.0)),
        ([("task", "translate")], "speech", "task", "translate"),
        ([("chunking_strategy", "auto")], "voice", "vad", False),
        ([("chunking_strategy[type]", "server_vad")], "voice", "vad", True),
        ([("chunking_strategy[type]", "server_vad"), ("chunking_strategy[threshold]", "0.4")],
         "voice", "vad_threshold", 0.4),
        ([("chunking_strategy", '{"type":"server_vad","silence_duration_ms":200}')],
         "voice", "vad_min_silence_duration_ms", 200.0),
    ],
)  # fmt: skip
def test_a_field_sets_its_option(fields: list[tuple[str, str]], group: str, name: str, value: Any) -> None:
    assert getattr(getattr(read(*fields).options, group), name) == value


@pytest.mark.parametrize("name", ["timestamp_granularities[]", "timestamp_granularities"])
def test_granularities(name: str) -> None:
    verbose = ("response_format", "verbose_json")
    word = read(verbose, (name, "word"))
    assert (word.words, word.segments, word.options.words.word_timestamps) == (True, False, True)
    both = read(verbose, (name, "word"), (name, "segment"))
    assert (both.words, both.segments) == (True, True)
    none = read(verbose)
    assert (none.words, none.segments, none.options.words.word_timestamps) == (False, True, False)


def test_logprobs_are_asked_of_the_engine_only_where_they_are_wanted() -> None:
    assert read(("include[]", "logprobs")).options.words.token_logprobs
    assert not read().options.words.token_logprobs


def test_translations_translate() -> None:
    assert read(endpoint="translations").options.speech.task == "translate"


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ([("beamsize", "3")], "beamsize", "unknown_parameter"),
        ([("vad_filter", "true")], "vad_filter", "unknown_parameter"),
        ([("suppress_regex", "a+")], "suppress_regex", "unknown_parameter"),
        ([("response_format", "xml")], "response_format", "invalid_value"),
        ([("response_format", "diarized_json")], "response_format", "invalid_value"),
        ([("known_speaker_names[]", "Anna")], "known_speaker_names", "invalid_value"),
        ([("temperature", "1.5")], "temperature", "invalid_value"),
        ([("temperature", "nan")], "temperature", "invalid_value"),
        ([("temperature", "0,0,0,0,0,0,0")], "temperature", "invalid_value"),
        ([("language", "Klingon")], "language", "invalid_value"),
        ([("language", "en"), ("languages[]", "en")], "languages", "invalid_value"),
        ([("language", "en"), ("language", "de")], "language", "invalid_value"),
        ([("keywords[]", "a<b")], "keywords", "invalid_value"),
        ([("keywords[]", "a"), ("hotwords", "b")], "keywords", "invalid_value"),
        ([("prompt", "a"), ("initial_prompt", "b")], "prompt", "invalid_value"),
        ([("timestamp_granularities[]", "word")], "response_format", "invalid_value"),
        ([("timestamp_granularities[]", "line")], "timestamp_granularities", "invalid_value"),
        ([("include[]", "usage")], "include", "invalid_value"),
        ([("include[]", "logprobs"), ("response_format", "text")], "include", "invalid_value"),
        ([("stream", "maybe")], "stream", "invalid_value"),
        ([("stream", "true"), ("response_format", "srt")], "stream", "invalid_value"),
        ([("beam_size", "9")], "beam_size", "invalid_value"),
        ([("best_of", "100")], "best_of", "invalid_value"),
        ([("beam_size", "two")], "beam_size", "invalid_value"),
        ([("clip_timestamps", ",".join(map(str, range(3000))))], "clip_timestamps", "invalid_value"),
        ([("prompt", "a" * 5000)], "prompt", "invalid_value"),
        ([("prompt", "a\0b")], "prompt", "invalid_value"),
        ([("chunking_strategy", "{")], "chunking_strategy", "invalid_value"),
        ([("chunking_strategy", '{"type":"other"}')], "chunking_strategy", "invalid_value"),
        ([("chunking_strategy", '{"a":' + "[" * 4000)], "chunking_strategy", "invalid_value"),
        ([("chunking_strategy", '{"type":"server_vad","threshold":2}')], "chunking_strategy", "invalid_value"),
        ([("chunking_strategy[type]", "server_vad"), ("vad", "false")], "chunking_strategy", "invalid_value"),
        ([("response_format", "verbose_json"), ("timestamp_granularities[]", "word"), ("word_timestamps", "false")],
         "timestamp_granularities", "invalid_value"),
        ([("include[]", "logprobs"), ("token_logprobs", "false")], "include", "invalid_value"),
        ([("known_speaker_references[]", "data:")], "known_speaker_references", "invalid_value"),
        ([("beam_size", "9" * 4000)], "beam_size", "invalid_value"),
        ([("clip_timestamps", "0,1e308")], "clip_timestamps", "invalid_value"),
        ([("chunking_strategy[type]", "server_vad"), ("chunking_strategy[x]", "1")],
         "chunking_strategy.x", "unknown_parameter"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_refused_by_its_name(fields: list[tuple[str, str]], param: str, code: str) -> None:
    error = refused(*fields)
    assert (error.status, error.param, error.code) == (400, param, code)


def test_what_translations_do_not_have_is_refused() -> None:
    for field in (("stream", "true"), ("timestamp_granularities[]", "word"), ("include[]", "logprobs")):
        assert refused(field, endpoint="translations").code == "unknown_parameter"
    assert refused(("task", "transcribe"), endpoint="translations").param == "task"


def test_a_missing_model_is_said_so() -> None:
    with pytest.raises(ApiError) as caught:
        audio_request([], "transcriptions", is_admin=True)
    assert (caught.value.param, caught.value.code) == ("model", "missing_required_parameter")


def test_priority_and_deadline_are_for_administrators() -> None:
    assert refused(("priority", "1")).status == refused(("deadline_s", "5")).status == 403
    wanted = read(("priority", "1"), ("deadline_s", "5"), is_admin=True)
    assert (wanted.priority, wanted.deadline_s) == (1, 5.0)


@pytest.mark.parametrize("value", ["1" + "0" * 30, "-1" + "0" * 4000])
def test_a_priority_fits_the_file_of_jobs(value: str) -> None:
    with pytest.raises(ApiError) as caught:
        read(("priority", value), is_admin=True)
    assert (caught.value.status, caught.value.param) == (400, "priority")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("response_fromat", "Did you mean 'response_format'?"),
        ("timestamp_granularity[]", "Did you mean 'timestamp_granularities'?"),
        ("beamsize", "Did you mean 'beam_size'?"),
        ("vad_filter", "Give vad instead."),
        ("format", "Give response_format instead."),
        ("compute_type", "Requests cannot set it; leave it out."),
        ("colour", "/openapi.json lists what there is."),
    ],
)
def test_an_unknown_field_is_told_what_to_send_instead(name: str, hint: str) -> None:
    assert refused((name, "x")).message == f"Unknown parameter: '{name}'. {hint}"


def test_every_option_but_one_can_be_set() -> None:
    assert {item.name for _, item in option_fields()} - OPTIONS.keys() == {"suppress_regex", "temperature"}


NAMES = st.sampled_from([*FIELDS, *OPTIONS, "include[]", "chunking_strategy[type]"]) | st.text(max_size=12)
VALUES = st.sampled_from(
    [
        "true",
        "0",
        "1",
        "0.5",
        "en",
        "None",
        "auto",
        "json",
        "word",
        "-1",
        "inf",
        "1e308",
        "9" * 400,
        '{"a":' + "[" * 3000,
    ]
) | st.text(max_size=20)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=6), st.sampled_from(["transcriptions", "translations"]))
def test_any_fields_give_a_request_or_a_refusal(fields: list[tuple[str, str]], endpoint: Endpoint) -> None:
    found: AudioRequest | ApiError
    try:
        found = audio_request([MODEL, *fields], endpoint, is_admin=True)
    except ApiError as error:
        found = error
    if isinstance(found, ApiError):
        assert found.status in (400, 403)
        assert found.message
    else:
        assert (found.options.search.beam_size or 0) <= 8
