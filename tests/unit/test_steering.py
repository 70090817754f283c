"""Hotwords in every prompt, forbidden tokens, numbers as words."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stapes.backends.native.backend import NativeBackend
from stapes.backends.native.library import is_built
from stapes.backends.numpy.backend import NumpyBackend
from stapes.decoding.rows import penalised
from stapes.decoding.rules import DecodingRules, ids_that_repeat
from stapes.engine.engine import Engine
from stapes.errors import OptionError, StapesWarning
from stapes.options import Rules
from stapes.recording.prompts import Hotwords, prompt_limit, prompt_of
from stapes.testing import babbling, noise, random_checkpoint, scripted_engine, small_vocabulary, tiny_spec
from stapes.tokenizer import Tokenizer, suppressed
from stapes.tokenizer.suppressed import has_numeral, suppressed_by_text

N_TEXT_CTX = 448
LIMIT = prompt_limit(N_TEXT_CTX)
TOKENIZER = Tokenizer(tiny_spec(), small_vocabulary())
ids = st.lists(st.integers(0, 300), max_size=400)


# Prompts.


@settings(deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=("Cs", "Zs", "Cc", "Zl", "Zp")), min_size=1), max_size=80))
def test_hotwords_take_whole_words_up_to_half_a_prompt(words: list[str]) -> None:
    words = " ".join(words).split()
    found = Hotwords.of(" ".join(words), TOKENIZER, N_TEXT_CTX)
    kept = words[: len(words) - len(found.left_out)]
    assert len(found.tokens) <= LIMIT // 2
    assert found.tokens == tuple(TOKENIZER.encode(" " + " ".join(kept)) if kept else ())
    assert (found.n_words, list(found.left_out)) == (len(words), words[len(kept) :])


@pytest.mark.parametrize("text", [None, "", "  \n "])
def test_without_hotwords_there_are_none(text: str | None) -> None:
    assert Hotwords.of(text, TOKENIZER, N_TEXT_CTX) == Hotwords()


def test_a_word_too_long_for_a_prompt_is_left_out() -> None:
    assert Hotwords.of("a" * 500 + " b", TOKENIZER, N_TEXT_CTX) == Hotwords((), 2, ("a" * 500, "b"))


@settings(deadline=None)
@given(
    history=ids, hotwords=st.lists(st.integers(1000, 1010), max_size=LIMIT // 2), carry=st.booleans(), data=st.data()
)
def test_a_prompt_is_initial_prompt_hotwords_and_the_latest_text(
    history: list[int], hotwords: list[int], carry: bool, data: st.DataObject
) -> None:
    n_initial = data.draw(st.integers(0, min(len(history), LIMIT)))
    reset = data.draw(st.integers(0, len(history)))
    found = prompt_of(history, n_initial=n_initial, reset=reset, hotwords=hotwords, limit=LIMIT, carry=carry)
    at = found.index(hotwords[0]) if hotwords else 0
    assert found[at : at + len(hotwords)] == hotwords
    before, after = (found[:at], found[at + len(hotwords) :]) if hotwords else (found, [])
    if hotwords:
        assert after == (history[len(history) - len(after) :] if after else [])
        assert len(after) <= LIMIT - len(hotwords)
        assert before == history[:n_initial] if carry else before == history[:n_initial][n_initial - len(before) :]
        assert carry or len(found) <= LIMIT
    else:
        rest = history[max(n_initial, reset) :]
        wanted = history[:n_initial] + rest[-(LIMIT - n_initial) :] if carry else history[reset:][-LIMIT:]
        assert found == wanted  # the reference's


def test_any_number_of_hotwords_fits_and_what_does_not_is_reported_once() -> None:
    words = [f"word{i}" for i in range(500)]
    with pytest.warns(StapesWarning, match=r"of 500 words have no room in a prompt, from 'word\d+' on") as warned:
        text = scripted_engine([" a" * 90, " b"]).transcribe(
            noise(95.0), hotwords=" ".join(words), initial_prompt="c " * 300, carry_initial_prompt=True, language="en"
        )
    assert len(warned) == 1
    assert text.segments


# What is never chosen.


def texts_of(options: dict[str, Any]) -> set[str | None]:
    return {TOKENIZER.texts[one] for one in suppressed_by_text(TOKENIZER, Rules(**options))}


def test_texts_forbid_the_tokens_that_contain_them() -> None:
    assert texts_of({"suppress_text": ("he", "%")}) == {"he", " he", " the", "%", " %"}
    assert texts_of({"suppress_regex": r"^\s*(and|t)$"}) == {" and", "t", " t"}
    assert texts_of({}) == set()


def test_numerals_are_digits_and_the_signs_of_numbers() -> None:
    assert texts_of({"suppress_numerals": True}) == {
        *"0123456789%$", *(f" {one}" for one in "0123456789%$"),
    }  # fmt: skip
    assert all(map(has_numeral, ("3", " 25", "€", "٣", "½", "v2", "%")))
    assert not any(map(has_numeral, ("three", " &", "三", ".")))


@settings(deadline=None)
@given(st.sampled_from(["e", " ", "[a-z]", ".", "o|n", "(?i)A"]))
def test_no_special_token_and_no_timestamp_is_ever_forbidden_by_its_text(pattern: str) -> None:
    try:
        found = suppressed_by_text(TOKENIZER, Rules(suppress_regex=pattern))
    except OptionError:
        assert pattern == "."
        return
    assert found
    assert max(found) < TOKENIZER.special.eot


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"suppress_text": ("thank you",)}, "suppress_text: no token of this model has 'thank you' in it"),
        ({"suppress_regex": "zzz"}, "suppress_regex: no token of this model has 'zzz' in it"),
        ({"suppress_regex": "(?s)."}, "leave no text to be written"),
    ],
)
def test_what_would_do_nothing_or_leave_nothing_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        DecodingRules.make(TOKENIZER, Rules(**options), 0.02)


def test_an_expression_without_an_end_is_refused_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suppressed, "_LONGEST_SEARCH_S", 0.05)
    dashes = SimpleNamespace(texts=("-" * 66, "a"))  # the English vocabulary has such tokens
    for pattern in (r"(-|--)+a", r"(-+)(-+)(-+)(-+)(-+)(-+)\1\2\3\4\5\6a", r"(?:(?:-|--)+)+$(?<!-)"):
        with pytest.raises(OptionError, match="takes too long; repetitions inside repetitions"):
            suppressed_by_text(cast("Tokenizer", dashes), Rules(suppress_regex=pattern))
    assert suppressed_by_text(cast("Tokenizer", dashes), Rules(suppress_regex="(a+)+$")) == {1}


def test_an_expression_that_python_alone_understands_is_refused() -> None:
    with pytest.raises(OptionError, match="cannot be used"):
        suppressed_by_text(TOKENIZER, Rules(suppress_regex="a{e<}"))


def test_forbidden_texts_join_the_forbidden_ids() -> None:
    (percent,) = TOKENIZER.encode("%")
    plain, steered = (DecodingRules.make(TOKENIZER, Rules(suppress_text=texts), 0.02) for texts in ((), ("%",)))
    assert percent not in plain.permanent
    assert percent in steered.permanent
    assert TOKENIZER.special.sot in steered.permanent
    assert TOKENIZER.special.eot not in steered.permanent


# What may not come again, and what begins a window.


@given(st.lists(st.integers(0, 3), max_size=14), st.integers(1, 5), st.integers(0, 3))
def test_an_id_is_forbidden_where_it_would_repeat_a_sequence(sampled: list[int], n: int, token: int) -> None:
    later = [*sampled, token]
    ends = [tuple(later[end - n : end]) for end in range(n, len(later) + 1)]
    repeats = len(later) >= n and ends.count(ends[-1]) > 1
    assert (token in ids_that_repeat(sampled, n)) == repeats


@pytest.mark.parametrize("search", [{}, {"beam_size": 3}, {"temperature": 0.8, "best_of": 3}], ids=str)
def test_no_window_has_a_sequence_twice(search: dict[str, Any]) -> None:
    def sequences(**keywords: Any) -> list[list[tuple[int, ...]]]:
        found = scripted_engine(" the a the a the a the a").transcribe(
            noise(5.0), language="en", sample_len=30, mode="reference", compression_ratio_threshold=None,
            logprob_threshold=None, **search, **keywords,
        )  # fmt: skip
        windows = [one.result.tokens for one in found.windows]
        return [[tokens[i : i + 2] for i in range(len(tokens) - 1)] for tokens in windows]

    assert any(len(set(window)) < len(window) for window in sequences())
    without = sequences(no_repeat_ngram_size=2)
    assert any(without)
    assert all(len(set(window)) == len(window) for window in without)


def test_a_prompt_of_ids_is_the_same_as_its_text() -> None:
    ids = TOKENIZER.encode(" names: Ada")
    engine = scripted_engine(babbling(4, TOKENIZER))
    keywords: dict[str, Any] = {"language": "en", "temperature": 0.0, "sample_len": 20}
    found = engine.transcribe(noise(40.0), initial_prompt_ids=ids, **keywords)
    assert found.segments == engine.transcribe(noise(40.0), initial_prompt="names: Ada", **keywords).segments
    assert found.segments != engine.transcribe(noise(40.0), **keywords).segments
    for wrong, message in (
        ([99_999_999], "this model has"),
        ([-1], "below 0"),
        (["x"], "must be ids"),
        ([True], "ids"),
    ):
        with pytest.raises(OptionError, match=message):
            engine.transcribe(noise(1.0), initial_prompt_ids=wrong)
    with pytest.raises(OptionError, match="give one of them"):
        engine.transcribe(noise(1.0), initial_prompt_ids=ids, initial_prompt="Ada")


def test_a_prefix_may_be_for_the_first_window_alone() -> None:
    engine = scripted_engine(babbling(4, TOKENIZER))
    keywords: dict[str, Any] = {"language": "en", "temperature": 0.0, "sample_len": 20, "mode": "reference"}
    keywords |= {"condition_on_previous_text": False, "clip_timestamps": (0.0, 30.0, 30.0, 60.0)}
    never, always, once = (
        engine.transcribe(noise(65.0), **keywords, **more).windows
        for more in ({}, {"prefix": "a b"}, {"prefix": "a b", "prefix_once": True})
    )
    assert once[0].result == always[0].result != never[0].result
    second = [{one.seek: one.result for one in windows}[3000] for windows in (never, always, once)]
    assert second[0] == second[2] != second[1]


def test_a_window_has_at_most_so_much_sound() -> None:
    engine = scripted_engine(" a")
    found = engine.transcribe(noise(65.0), language="en", mode="reference", chunk_length=20, without_timestamps=True)
    assert all(one.n_frames <= 2000 for one in found.windows)
    assert len(found.windows) > 3
    whole = engine.transcribe(noise(15.0), language="en", mode="reference")
    assert engine.transcribe(noise(15.0), language="en", mode="reference", chunk_length=20) == whole
    for wrong in ({"chunk_length": 0.5}, {"chunk_length": 31}, {"chunk_length": 20, "mode": "chunked"}):
        with pytest.raises(OptionError, match="chunk_length"):
            engine.transcribe(noise(1.0), **cast("dict[str, Any]", wrong))


SEARCHES: list[dict[str, Any]] = [
    {"temperature": 0.0},
    {"temperature": 0.0, "beam_size": 3},
    {"temperature": 0.7, "best_of": 3},
]


@given(st.lists(st.floats(-9, 9, width=32), min_size=4, max_size=9), st.lists(st.integers(0, 3)), st.floats(0.5, 3))
def test_each_token_that_was_said_is_less_likely_once(values: list[float], said: list[int], penalty: float) -> None:
    logits = np.array(values, np.float32)
    found = penalised(logits, said, penalty)
    factor = np.float32(penalty)
    for i, one in enumerate(logits):
        changed = (one * factor if one < 0 else one / factor) if i in said else one
        assert found[i] == changed


@pytest.mark.parametrize("search", SEARCHES, ids=str)
def test_a_penalty_of_nothing_chooses_what_the_backend_chooses(search: dict[str, Any]) -> None:
    engine = scripted_engine(babbling(5, TOKENIZER))
    keywords: dict[str, Any] = {"language": "en", "sample_len": 25, "token_logprobs": True, **search}
    plain = engine.transcribe(noise(45.0), **keywords)
    found = engine.transcribe(noise(45.0), repetition_penalty=1.0 + 1e-12, **keywords)
    assert [one.tokens for one in found.segments] == [one.tokens for one in plain.segments]
    for ours, theirs in zip(found.segments, plain.segments, strict=True):
        assert ours.avg_logprob == pytest.approx(theirs.avg_logprob, abs=1e-5)


@pytest.mark.skipif(not is_built(), reason="the native library was not built")
@pytest.mark.parametrize("search", SEARCHES, ids=str)
def test_a_penalty_gives_the_same_in_every_backend_and_something_else_than_none(search: dict[str, Any]) -> None:
    checkpoint = random_checkpoint()
    engines = [
        Engine(checkpoint, NumpyBackend(checkpoint)),
        Engine(checkpoint, NativeBackend(checkpoint, precision="float32")),
    ]
    keywords: dict[str, Any] = {"language": "en", "sample_len": 20, "mode": "reference", "logprob_threshold": None}
    keywords |= {"compression_ratio_threshold": None, **search}
    found = [
        [one.tokens for one in engine.transcribe(noise(20.0), repetition_penalty=1.5, **keywords).segments]
        for engine in engines
    ]
    assert found[0] == found[1]
    if search["temperature"] == 0.0:  # samples of so few tokens may have nothing twice
        assert found[0] != [one.tokens for one in engines[0].transcribe(noise(20.0), **keywords).segments]
    for one in engines:
        one.close()


@pytest.mark.parametrize("wrong", [0, -1.0, None, "x", 1000, float("nan")])
def test_a_penalty_that_is_no_factor_is_refused(wrong: Any) -> None:
    with pytest.raises(OptionError, match="repetition_penalty"):
        scripted_engine().transcribe(noise(1.0), repetition_penalty=wrong)
