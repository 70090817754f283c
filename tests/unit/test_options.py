"""Options: the reference's defaults, checked when they are made, without guesses."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stapes.errors import OptionError
from stapes.options import (
    COMMAND_PRESET,
    GROUPS,
    Audio,
    Beam,
    Clips,
    Context,
    Greedy,
    Guards,
    Rules,
    Sample,
    Search,
    Speech,
    Thresholds,
    TranscribeOptions,
    Voice,
    default_of,
    option_fields,
)
from stapes.output.subtitles import Layout

#: Source: openai/whisper 20250625, transcribe.py (the signature) and decoding.py (DecodingOptions).
REFERENCE_DEFAULTS: dict[str, Any] = {
    "task": "transcribe",
    "language": None,
    "temperature": (0.0, 0.2, 0.4, 0.6, 0.8, 1.0),
    "beam_size": None,
    "patience": None,
    "best_of": None,
    "length_penalty": None,
    "suppress_tokens": (-1,),
    "suppress_blank": True,
    "without_timestamps": False,
    "max_initial_timestamp": 1.0,
    "sample_len": None,
    "condition_on_previous_text": True,
    "initial_prompt": None,
    "carry_initial_prompt": False,
    "prefix": None,
    "compression_ratio_threshold": 2.4,
    "logprob_threshold": -1.0,
    "no_speech_threshold": 0.6,
    "clip_timestamps": (0.0,),
    "word_timestamps": False,
    "prepend_punctuations": "\"'“¿([{-",
    "append_punctuations": "\"'.。,，!！?？:：”)]}、",
    "hallucination_silence_threshold": None,
}
#: beside the guards and the settings of the VAD
OWN = (
    "token_logprobs",
    "seed", "mode", "audio_context", "chunk_length", "rules_of", "multilingual",
    "languages", "language_detection_segments", "language_detection_threshold",
    "suppress_text", "suppress_regex", "suppress_numerals", "hotwords", "no_repeat_ngram_size", "repetition_penalty",
    "initial_prompt_ids", "prompt_reset_on_temperature", "prefix_once",
)  # fmt: skip
NAMES = [item.name for _, item in option_fields()]

not_whole: list[Any] = [True, 1.5, "3", -1, 0, [2]]
not_number: list[Any] = [True, "0.5", math.nan, [1.0]]
not_flag: list[Any] = [0, 1, "True", None]
no_times: list[Any] = ["a", "0,b", 5.0, [None], [-1.0], [math.nan], [math.inf], "5,3", [1, 2, 9, 4]]
no_choice: list[Any] = ["centre", "", None, 1, True, ["left"], {}]
no_ladder: list[Any] = [(), [], -0.1, math.nan, math.inf, (0.0, -1.0), "0.2", (0.0, True)]
REFUSED: list[tuple[str, Any]] = [
    *(("task", one) for one in ("sing", None, "", "Transcribe", 1)),
    *(("language", one) for one in ("klingon", "", 7, ["en"])),
    *(("languages", one) for one in ("klingon", "", "en,", 7, [], [7], ("en", "klingon"))),
    *(("language_detection_segments", one) for one in (True, 1.5, "3", 0, -1, None)),
    *(("language_detection_threshold", one) for one in (*not_number, -0.1, 1.1)),
    *(("suppress_text", one) for one in (5, [7], ["a", ""])),
    *(("suppress_regex", one) for one in (5, "(", "a" * 1001, b"x")),
    *(("temperature", one) for one in no_ladder),
    *((name, one) for name in ("beam_size", "best_of") for one in not_whole),
    *(("seed", one) for one in (True, 1.5, "3", -1)),
    *(("sample_len", one) for one in (True, 1.5, "3", -1)),
    *(("length_penalty", one) for one in (*not_number, -0.1, 1.1)),
    *(("suppress_tokens", one) for one in ("a", "1,b", 5, [None], [-2], "-1,-3", ...)),
    *(
        (name, one)
        for name in (
            "suppress_blank",
            "suppress_numerals",
            "multilingual",
            "without_timestamps",
            "condition_on_previous_text",
            "carry_initial_prompt",
        )
        for one in not_flag
    ),
    *(("max_initial_timestamp", one) for one in (*not_number, -0.5, 30.5)),
    *((name, one) for name in ("initial_prompt", "hotwords", "prefix") for one in (7, b"x", ["x"])),
    *(
        (name, one)
        for name in ("compression_ratio_threshold", "logprob_threshold", "no_speech_threshold")
        for one in not_number
    ),
    *(("clip_timestamps", one) for one in no_times),
    *(("audio_track", one) for one in not_whole),
    *((name, one) for name in ("channel", "clock") for one in no_choice),
]


def test_the_defaults_are_those_of_the_reference() -> None:
    ours = {name: default_of(name) for name in NAMES}
    for own in (*OWN, *(item.name for group in (Guards, Voice, Audio) for item in dataclasses.fields(group))):
        del ours[own]
    assert ours == REFERENCE_DEFAULTS


def test_the_command_differs_as_the_whisper_command_does() -> None:
    assert COMMAND_PRESET == {"beam_size": 5, "best_of": 5}
    TranscribeOptions.from_keywords(COMMAND_PRESET)


def test_every_option_has_its_line_of_help_and_a_name_of_its_own() -> None:
    assert len(set(NAMES)) == len(NAMES)
    for _, item in option_fields():
        assert item.metadata["help"].strip(), item.name
        assert "unit" in item.metadata, item.name


def test_there_is_no_default_of_an_option_that_is_not() -> None:
    with pytest.raises(KeyError):
        default_of("beam")


@pytest.mark.parametrize(("name", "value"), REFUSED, ids=lambda one: str(one)[:24])
def test_what_cannot_be_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(OptionError, match=name.split("_", maxsplit=1)[0]):
        TranscribeOptions.from_keywords({name: value})


@pytest.mark.parametrize("value", [None, 1 + 2j, [None]])
def test_what_is_no_temperature_at_all_is_an_option_error(value: Any) -> None:
    with pytest.raises(OptionError, match="temperature"):
        TranscribeOptions.from_keywords({"temperature": value})


def test_endless_patience_is_an_option_error() -> None:
    with pytest.raises(OptionError, match="patience"):
        Search(beam_size=5, patience=math.inf)


def test_half_an_id_is_an_option_error() -> None:
    with pytest.raises(OptionError, match="suppress_tokens"):
        Rules(suppress_tokens=[1.5])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("keywords", "group", "name", "expected"),
    [
        ({"temperature": 0}, "search", "temperature", (0.0,)),
        ({"temperature": 0.4}, "search", "temperature", (0.4,)),
        ({"temperature": [0, 0.5]}, "search", "temperature", (0.0, 0.5)),
        ({"suppress_tokens": "-1"}, "rules", "suppress_tokens", (-1,)),
        ({"suppress_tokens": "1, 2,3,"}, "rules", "suppress_tokens", (1, 2, 3)),
        ({"suppress_tokens": [5, -1]}, "rules", "suppress_tokens", (5, -1)),
        ({"suppress_tokens": ""}, "rules", "suppress_tokens", ()),
        ({"suppress_tokens": None}, "rules", "suppress_tokens", ()),
        ({"suppress_tokens": []}, "rules", "suppress_tokens", ()),
        ({"clip_timestamps": "0"}, "clips", "clip_timestamps", (0.0,)),
        ({"clip_timestamps": "2.5,20,31"}, "clips", "clip_timestamps", (2.5, 20.0, 31.0)),
        ({"clip_timestamps": [3, 3]}, "clips", "clip_timestamps", (3.0, 3.0)),
        ({"clip_timestamps": "40,50,1,2"}, "clips", "clip_timestamps", (40.0, 50.0, 1.0, 2.0)),
        ({"max_initial_timestamp": None}, "rules", "max_initial_timestamp", None),
        ({"max_initial_timestamp": 0}, "rules", "max_initial_timestamp", 0),
        ({"sample_len": 0}, "rules", "sample_len", 0),
        ({"logprob_threshold": -math.inf}, "thresholds", "logprob_threshold", -math.inf),
        ({"no_speech_threshold": None}, "thresholds", "no_speech_threshold", None),
    ],
)
def test_what_the_reference_takes_is_taken(keywords: dict[str, Any], group: str, name: str, expected: Any) -> None:
    value = getattr(getattr(TranscribeOptions.from_keywords(keywords), group), name)
    assert value == expected
    assert type(value) is type(expected)


@given(st.lists(st.integers(0, 60000)))
def test_ids_mean_the_same_as_text_and_as_a_list(ids: list[int]) -> None:
    text = ",".join(map(str, ids))
    assert Rules(suppress_tokens=text).suppress_tokens == tuple(ids)  # type: ignore[arg-type]
    assert Rules(suppress_tokens=ids).suppress_tokens == tuple(ids)  # type: ignore[arg-type]


@given(st.lists(st.floats(0, 1e6)))
def test_clips_mean_the_same_as_text_and_as_a_list(times: list[float]) -> None:
    times.sort()
    text = ",".join(map(repr, times))
    assert Clips(clip_timestamps=text) == Clips(clip_timestamps=times)  # type: ignore[arg-type]
    assert Clips(clip_timestamps=times).clip_timestamps == tuple(times)  # type: ignore[arg-type]


def test_a_language_may_be_a_name_and_stays_as_it_was_written() -> None:
    speech = Speech(language=" Castilian")
    assert (speech.language, speech.language_code) == (" Castilian", "es")
    assert Speech().language_code is None


# The ways of searching.


@given(
    temperature=st.floats(0, 2),
    beam_size=st.none() | st.integers(1, 8),
    best_of=st.none() | st.integers(1, 8),
    length_penalty=st.none() | st.floats(0, 1),
)
def test_beams_search_at_zero_and_samples_above_it(
    temperature: float, beam_size: int | None, best_of: int | None, length_penalty: float | None
) -> None:
    search = Search(beam_size=beam_size, best_of=best_of, length_penalty=length_penalty)
    strategy = search.at(temperature)
    assert strategy.temperature == temperature
    assert strategy.length_penalty == length_penalty
    if temperature > 0:
        assert isinstance(strategy, Sample)
        assert strategy.n_rows == (best_of or 1)
    elif beam_size is None:
        assert isinstance(strategy, Greedy)
    else:
        assert isinstance(strategy, Beam)
        assert (strategy.size, strategy.patience, strategy.max_finished) == (beam_size, 1.0, beam_size)


@pytest.mark.parametrize(("size", "patience", "finished"), [(5, 1.0, 5), (5, 2.0, 10), (3, 0.5, 2), (2, 1.3, 3)])
def test_patience_says_how_many_rows_finish(size: int, patience: float, finished: int) -> None:
    strategy = Search(beam_size=size, patience=patience).at(0.0)
    assert isinstance(strategy, Beam)
    assert strategy.max_finished == finished


def test_patience_without_beams_is_refused_where_beams_would_be() -> None:
    with pytest.raises(OptionError, match="beam_size"):
        Search(patience=1.5)
    Search(patience=1.5, temperature=(0.5,))  # nothing is searched with beams here


def test_a_beam_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(OptionError, match="patience"):
        Search(beam_size=1, patience=0.4)


# Keywords.


@given(st.sets(st.sampled_from(NAMES)))
def test_giving_a_default_is_giving_nothing(names: set[str]) -> None:
    keywords = {name: default_of(name) for name in names}
    before = dict(keywords)
    assert TranscribeOptions.from_keywords(keywords) == TranscribeOptions()
    assert keywords == before


def test_keywords_reach_their_groups() -> None:
    keywords: dict[str, Any] = {
        "task": "translate",
        "language": "German",
        "beam_size": 4,
        "patience": 2.0,
        "prefix": "So",
        "sample_len": 9,
        "logprob_threshold": None,
        "clip_timestamps": (1.0, 2.0),
    }
    assert TranscribeOptions.from_keywords(keywords) == TranscribeOptions(
        speech=Speech(task="translate", language="German"),
        search=Search(beam_size=4, patience=2.0),
        rules=Rules(sample_len=9),
        context=Context(prefix="So"),
        thresholds=Thresholds(logprob_threshold=None),
        clips=Clips(clip_timestamps=(1.0, 2.0)),
    )


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"beam_sise": 5}, "did you mean 'beam_size'"),
        ({"zzzzzzzzz": 5}, "unknown option 'zzzzzzzzz'; docs/options.md and docs/python.md list what there is$"),
        ({"prompt": [1, 2]}, "initial_prompt"),
        ({"word_timestamp": True}, "did you mean 'word_timestamps'"),
        ({"verbose": True}, "verbose"),
        ({"keywords": "Ada"}, "give hotwords instead"),
    ],
)
def test_what_is_unknown_is_refused_with_a_way_out(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        TranscribeOptions.from_keywords(keywords)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"word_timestamps": 1}, "word_timestamps must be True or False, got 1"),
        ({"append_punctuations": None}, "append_punctuations must be text, got None"),
        ({"task": "summarise"}, "task must be one of transcribe, translate; got 'summarise'"),
        ({"language": 1}, "language must be text or None, got 1"),
        ({"hallucination_silence_threshold": -1}, "must be a number of at least 0, got -1"),
    ],
)
def test_word_options_are_checked(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        TranscribeOptions.from_keywords(keywords)


def test_option_errors_are_value_errors_too() -> None:
    with pytest.raises(ValueError, match="task"):
        Speech(task="sing")  # type: ignore[arg-type]


@pytest.mark.parametrize("group", GROUPS.values(), ids=list(GROUPS))
def test_groups_are_frozen_and_take_no_positions(group: Any) -> None:
    value = group()
    name = dataclasses.fields(value)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, name, None)
    with pytest.raises(TypeError):
        group(default_of(name))


def test_candidates_are_codes_each_once() -> None:
    assert Speech(languages="English, es,Castilian").candidates == ("en", "es")  # type: ignore[arg-type]
    assert Speech(languages=("de", "German")).candidates == ("de",)
    assert Speech().candidates is None


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"language": "fr", "languages": "en,es"}, "language 'fr' is not among languages en,es"),
        ({"language": "French", "multilingual": True}, "language 'French' says that it is known"),
    ],
)
def test_language_options_that_exclude_each_other_are_refused(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        TranscribeOptions.from_keywords(keywords)


def test_a_language_among_the_candidates_may_be_given() -> None:
    assert Speech(language="Castilian", languages=("en", "es")).language_code == "es"


def test_texts_are_cut_at_commas_or_taken_as_a_list() -> None:
    assert Rules(suppress_text="%, um").suppress_text == ("%", " um")  # type: ignore[arg-type]
    assert Rules(suppress_text=["a,b"]).suppress_text == ("a,b",)  # type: ignore[arg-type]
    assert Rules(suppress_text=None).suppress_text == ()  # type: ignore[arg-type]


# NumPy's values, and enums'.


class Tongue(enum.StrEnum):
    GERMAN = "de"


class Beams(enum.IntEnum):
    FEW = 2


AS_PYTHON: list[tuple[str, Any, Any]] = [
    ("temperature", np.float32(0.5), 0.5),
    ("temperature", np.array(0.5), 0.5),
    ("temperature", np.array([0.0, 0.5], np.float32), (0.0, 0.5)),
    ("temperature", (np.float16(0.0), np.longdouble(0.5), np.int8(1)), (0.0, 0.5, 1.0)),
    ("temperature", (one for one in np.array([0.0, 0.5])), (0.0, 0.5)),
    ("beam_size", np.int64(5), 5),
    ("beam_size", np.array(5, ">u2"), 5),
    ("beam_size", Beams.FEW, 2),
    ("seed", np.uint64(2**63), 2**63),
    ("max_initial_timestamp", np.float64(0.0), 0.0),
    ("length_penalty", np.longdouble(0.5), 0.5),
    ("no_speech_threshold", np.float32(0.25), 0.25),
    ("logprob_threshold", np.float64(-math.inf), -math.inf),
    ("word_timestamps", np.bool_(True), True),
    ("suppress_blank", np.array(False), False),
    ("vad_threshold", np.float16(0.5), 0.5),
    ("vad_min_silence_duration_ms", np.int32(500), 500),
    ("suppress_tokens", [np.int64(50), np.uint16(7)], (50, 7)),
    ("suppress_tokens", np.array([50, 7]), (50, 7)),
    ("suppress_text", np.array(["a", "b"]), ("a", "b")),
    ("clip_timestamps", (np.float32(0.5), np.int64(2)), (0.5, 2.0)),
    ("clip_timestamps", np.array([0.5, 2.0]), (0.5, 2.0)),
    ("languages", np.array(["en", "de"]), ("en", "de")),
    ("languages", [Tongue.GERMAN, np.str_("en")], ("de", "en")),
    ("language", np.str_("de"), "de"),
    ("language", np.array("de"), "de"),
    ("language", Tongue.GERMAN, "de"),
    ("task", np.str_("translate"), "translate"),
    ("mode", np.str_("chunked"), "chunked"),
    ("initial_prompt", np.str_("Ada"), "Ada"),
    ("prepend_punctuations", np.str_("-"), "-"),
]


@pytest.mark.parametrize(("name", "value", "expected"), AS_PYTHON, ids=lambda one: repr(one)[:30])
def test_numpys_values_become_pythons_at_birth(name: str, value: Any, expected: Any) -> None:
    theirs = dataclasses.asdict(TranscribeOptions.from_keywords({name: value}))
    ours = dataclasses.asdict(TranscribeOptions.from_keywords({name: expected}))
    assert json.dumps(theirs) == json.dumps(ours)  # what a journal's key is made of
    assert repr(theirs) == repr(ours)  # where NumPy's and enums' would show


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", np.float32(math.nan)),
        ("temperature", np.array([0.0, math.inf])),
        ("no_speech_threshold", np.float64(math.nan)),
        ("patience", np.float32(math.inf)),
        ("clip_timestamps", np.array([math.nan])),
        ("hallucination_silence_threshold", np.array(math.nan)),
        ("beam_size", np.float64(5.0)),
        ("beam_size", np.bool_(True)),
        ("beam_size", np.array([5])),
        ("patience", np.complex64(1)),
        ("patience", np.array([1.0, 2.0])),
        ("word_timestamps", np.int64(1)),
        ("suppress_tokens", np.array([1.5])),
        ("suppress_tokens", [np.bool_(True)]),
        ("task", np.array(["transcribe", "translate"])),
        ("language", np.array(["de", "en"])),
        ("language", np.bytes_(b"de")),
        ("mode", np.array(["chunked", "chunked"])),
        ("initial_prompt", np.array(["Ada", "Bob"])),
    ],
    ids=lambda one: repr(one)[:30],
)
def test_numpys_values_are_held_to_what_pythons_are(name: str, value: Any) -> None:
    with pytest.raises(OptionError, match=name):
        TranscribeOptions.from_keywords({name: value})


@pytest.mark.parametrize("group", GROUPS.values(), ids=list(GROUPS))
def test_every_group_makes_its_values_plain(group: Any) -> None:
    names = [item.name for item in dataclasses.fields(group) if item.default is not None]
    ours = group(**{name: np.array(default_of(name)) for name in names})
    assert repr(ours) == repr(group())
    assert names


def test_a_layouts_values_become_pythons_too() -> None:
    theirs = Layout(cue_style=np.str_("readable"), max_line_width=np.int32(30), max_chars_per_second=np.float32(20))  # type: ignore[arg-type]
    assert repr(theirs) == repr(Layout(cue_style="readable", max_line_width=30, max_chars_per_second=20.0))
    assert repr(Layout(highlight_words=np.bool_(True))) == repr(Layout(highlight_words=True))  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="highlight_words"):
        Layout(highlight_words="False")  # type: ignore[arg-type]


@pytest.mark.parametrize("values", [{"beam_size": 10**400}, {"best_of": 10**400}, {"clip_timestamps": "0,1e308"}])
def test_numbers_that_no_machine_counts_to_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(values))):
        TranscribeOptions.from_keywords(values)
