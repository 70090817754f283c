"""Ids by name, never by number; text that is not speech; and words that lose nothing."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stapes.checkpoint.base import VocabularyData
from stapes.errors import CheckpointError, OptionError
from stapes.languages import LANGUAGES
from stapes.testing import VocabularyName, small_vocabulary, tiny_spec
from stapes.tokenizer import Tokenizer
from stapes.tokenizer.special import AFTER_LANGUAGES, SpecialIds
from stapes.tokenizer.split import split_words
from stapes.tokenizer.vocabulary import shipped_tokens

#: name -> vocabulary, ids in all; the three kinds of published models and the one of the tests
KINDS: dict[str, tuple[VocabularyName, int]] = {
    "english": ("english", 51864),
    "multilingual": ("multilingual", 51865),
    "large-v3": ("multilingual", 51866),
    "small": ("small", tiny_spec().n_vocab),
}


@cache
def tokenizer(kind: str) -> Tokenizer:
    """Make one from the sizes alone, as for a checkpoint without a vocabulary."""
    vocabulary, n_vocab = KINDS[kind]
    spec = tiny_spec(vocabulary, n_vocab=n_vocab)
    return Tokenizer(spec, small_vocabulary() if kind == "small" else None)


each_kind = pytest.mark.parametrize("kind", KINDS)
published = pytest.mark.parametrize("kind", ["english", "multilingual", "large-v3"])


# Ids of special tokens.


@pytest.mark.parametrize(
    ("kind", "expected"),
    [  # eot, sot, translate, transcribe, sot_lm, sot_prev, no_speech, no_timestamps, first timestamp, languages
        ("english", (50256, 50257, 50357, 50358, 50359, 50360, 50361, 50362, 50363, 99)),
        ("multilingual", (50257, 50258, 50358, 50359, 50360, 50361, 50362, 50363, 50364, 99)),
        ("large-v3", (50257, 50258, 50359, 50360, 50361, 50362, 50363, 50364, 50365, 100)),
    ],
)
def test_the_layout_gives_the_published_ids(kind: str, expected: tuple[int, ...]) -> None:
    s = tokenizer(kind).special
    found = (s.eot, s.sot, s.translate, s.transcribe, s.sot_lm, s.sot_prev, s.no_speech, s.no_timestamps,
             s.timestamp_begin, len(s.languages))  # fmt: skip
    assert found == expected


@each_kind
def test_languages_follow_the_start_in_their_order(kind: str) -> None:
    special = tokenizer(kind).special
    assert list(special.languages) == list(LANGUAGES)[: len(special.languages)]
    assert list(special.languages.values()) == list(range(special.sot + 1, special.sot + 1 + len(special.languages)))
    assert special.timestamp_begin + 1501 == tokenizer(kind).n_vocab


@published
def test_no_id_of_a_published_model_is_left_out(kind: str) -> None:
    """What is decoded with them stays as it is, bit for bit."""
    one = tokenizer(kind)
    assert (one.unused, one.measured_below, one.special.n_timestamps) == ((), None, 1501)


def resolved(changes: dict[str, int | None], n_vocab: int = 1972, **stated: Any) -> SpecialIds:
    """Resolve the small vocabulary's ids with some changed, or left out (None)."""
    ids = {**small_vocabulary().special, **changes}
    vocabulary = VocabularyData(
        tokens=small_vocabulary().tokens,
        special={name: one for name, one in ids.items() if one is not None},
        **stated,
    )
    return Tokenizer(tiny_spec(n_vocab=n_vocab), vocabulary, "MODEL").special


def test_ids_are_those_that_the_checkpoint_states() -> None:
    layout = resolved({})
    swapped = resolved({"<|startofprev|>": layout.sot_lm, "<|startoflm|>": layout.sot_prev})
    assert swapped == dataclasses.replace(layout, sot_lm=layout.sot_prev, sot_prev=layout.sot_prev - 1)


def test_no_speech_is_no_captions_in_older_files() -> None:
    layout = resolved({})
    assert resolved({"<|nospeech|>": None, "<|nocaptions|>": layout.no_speech}) == layout
    moved = resolved({"<|nospeech|>": None, "<|nocaptions|>": layout.sot_lm, "<|startoflm|>": layout.no_speech})
    assert (moved.no_speech, moved.sot_lm) == (layout.sot_lm, layout.no_speech)
    assert resolved({"<|nocaptions|>": 7}) == layout  # the present name counts


def test_hebrew_has_its_old_code_in_the_tokenizers_of_english_only_models() -> None:
    layout = Tokenizer(tiny_spec("english")).special
    vocabulary = VocabularyData(tokens=shipped_tokens("english"), special={"<|iw|>": layout.languages["he"]})
    assert Tokenizer(tiny_spec("english"), vocabulary).special == layout


def test_a_language_that_a_file_lists_under_an_old_code_keeps_it() -> None:
    hebrew = small_vocabulary().special["<|he|>"]
    found = resolved({"<|he|>": None, "<|iw|>": hebrew}, languages=("<|iw|>", "<|en|>"))
    assert found.languages == {"en": 366, "iw": hebrew}
    assert resolved({"<|he|>": None, "<|iw|>": hebrew}).languages["he"] == hebrew


@given(st.sets(st.sampled_from(AFTER_LANGUAGES[:-1])))
def test_what_no_file_names_stands_before_no_timestamps_as_in_every_model(missing: set[str]) -> None:
    languages = tuple(name for name in small_vocabulary().special if name[2:-2] in LANGUAGES)
    assert resolved(dict.fromkeys(missing), languages=languages) == resolved({})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"<|endoftext|>": 5000}, r"MODEL: <\|endoftext\|> has id 5000; the model has ids 0 to 1971"),
        ({"<|endoftext|>": -1}, "has id -1"),
        ({"<|endoftext|>": 365}, r"<\|endoftext\|> and <\|startoftranscript\|> share one id, 365"),
        ({"<|transcribe|>": 363}, r"<\|transcribe\|> has id 363, which is a token of text"),
        ({"<|de|>": 367}, r"<\|zh\|> and <\|de\|> share one id, 367"),
        ({"<|endoftext|>": None}, r"does not state the ids of <\|endoftext\|>, and its 1972 ids with 364 tokens"),
        ({"<|0.00|>": 473}, r"<\|0.00\|>, has id 473, and <\|notimestamps\|> has id 470"),
        ({"<|0.00|>": 471, "<|0.04|>": 472}, r"<\|0.04\|> has id 472; counted from <\|0.00\|>, it must be 473"),
        ({"<|endoftext|>": 1971}, r"endoftext\|> has id 1971, above the first timestamp, 471"),
        ({"foo": 364, "<|endoftext|>": 367, "<|zh|>": None}, "'foo', which is text, has id 364 among the special"),
    ],
)
def test_ids_that_cannot_be_are_refused_with_the_reason(changes: dict[str, int | None], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        resolved(changes)


def test_unpublished_sizes_need_ids_that_are_stated() -> None:
    for n_vocab, n_mels in ((51866, 80), (51865, 128), (51867, 128), (51872, 80), (51863, 80), (1972, 80)):
        with pytest.raises(CheckpointError, match=f"no published model has {n_vocab} ids and {n_mels} mel bins"):
            Tokenizer(tiny_spec(n_vocab=n_vocab, n_mels=n_mels))
    with pytest.raises(
        CheckpointError, match=r"does not state the ids of .*transcribe.*the languages, and its 51866 ids"
    ):
        Tokenizer(tiny_spec(n_vocab=51866), VocabularyData(tokens=shipped_tokens("multilingual")))


def test_a_token_that_stands_twice_is_a_damaged_checkpoint() -> None:
    tokens = small_vocabulary().tokens
    with pytest.raises(CheckpointError, match="twice"):
        Tokenizer(tiny_spec(), VocabularyData(tokens=(*tokens[:-1], tokens[0])))


# What opens a transcript.


def test_a_multilingual_model_starts_with_language_and_task() -> None:
    s = tokenizer("multilingual").special
    assert tokenizer("multilingual").start_sequence("de", "translate") == (s.sot, s.languages["de"], s.translate)
    assert tokenizer("multilingual").start_sequence(None, "transcribe") == (s.sot, s.languages["en"], s.transcribe)


def test_an_english_only_model_starts_alone() -> None:
    assert not tokenizer("english").multilingual
    assert tokenizer("english").start_sequence("de", "translate") == (tokenizer("english").special.sot,)


def test_a_language_that_came_later_is_an_option_error() -> None:
    assert tokenizer("large-v3").start_sequence("yue", "transcribe")[1] == 50358
    with pytest.raises(OptionError, match="Cantonese"):
        tokenizer("multilingual").start_sequence("yue", "transcribe")


# What is never sampled.


@pytest.mark.parametrize(("kind", "n"), [("multilingual", 82), ("large-v3", 82), ("english", 84)])
def test_so_many_ids_are_not_speech(kind: str, n: int) -> None:
    assert len(tokenizer(kind).non_speech) == n
    assert len(set(tokenizer(kind).non_speech)) == n


@published
def test_signs_are_not_speech_and_words_are(kind: str) -> None:
    one = tokenizer(kind)
    for text in (" (", "[", " [", " ♪", "♪♪", " -", " '", "#", ">>", "((", "「"):
        assert one.encode(text)[0] in one.non_speech, text
    for text in (" are", " Because", " turn", "ending", "-", "'", ".", ",", "?", "!", " ", "'s"):
        assert one.encode(text)[0] not in one.non_speech, text


@each_kind
def test_suppressing_nothing_switches_all_off_specials_included(kind: str) -> None:
    assert tokenizer(kind).never_sampled(()) == ()


@each_kind
def test_any_suppressed_id_brings_the_specials_with_it(kind: str) -> None:
    one = tokenizer(kind)
    s = one.special
    steering = {s.sot, s.translate, s.transcribe, s.sot_lm, s.sot_prev, s.no_speech}
    assert set(one.never_sampled((-1,))) == steering | set(one.non_speech)
    assert set(one.never_sampled((7, 9))) == steering | {7, 9}
    assert set(one.never_sampled((7, -1))) == steering | {7} | set(one.non_speech)
    free = {*s.languages.values(), s.no_timestamps, s.eot, *range(s.timestamp_begin, one.n_vocab)}
    assert not free & set(one.never_sampled((-1,)))


@each_kind
def test_an_id_outside_the_vocabulary_is_an_option_error(kind: str) -> None:
    n_vocab = tokenizer(kind).n_vocab
    assert n_vocab - 1 in tokenizer(kind).never_sampled((n_vocab - 1,))
    with pytest.raises(OptionError, match=str(n_vocab)):
        tokenizer(kind).never_sampled((n_vocab,))


# Text.


@each_kind
def test_names_of_special_tokens_are_text_like_any_other(kind: str) -> None:
    one = tokenizer(kind)
    for name in ("<|endoftext|>", "<|startoftranscript|>", "<|0.00|>", "<|en|>", "<|notimestamps|>"):
        ids = one.encode(f" {name}")
        assert max(ids) < one.special.eot
        assert one.decode(ids) == f" {name}"


@each_kind
@given(text=st.text())
def test_text_comes_back_from_its_ids(kind: str, text: str) -> None:
    one = tokenizer(kind)
    ids = one.encode(text)
    assert all(0 <= token < one.special.eot for token in ids)
    assert one.decode(ids) == text
    assert one.decode_with_timestamps(ids) == text


@each_kind
def test_timestamps_are_written_only_where_they_are_asked_for(kind: str) -> None:
    one = tokenizer(kind)
    begin = one.special.timestamp_begin
    ids = [begin, *one.encode(" a"), begin + 54, begin + 1500]
    assert one.decode(ids) == " a"
    assert one.decode_with_timestamps(ids) == "<|0.00|> a<|1.08|><|30.00|>"


@each_kind
def test_bytes_that_are_no_text_become_the_replacement_sign(kind: str) -> None:
    one = tokenizer(kind)
    assert one.decode(one.encode("é")[:1]) in ("é", "\ufffd")
    whole = one.encode("\U0001f9bb")  # an ear, of several tokens in every vocabulary
    assert len(whole) > 1
    assert "\ufffd" in one.decode(whole[:-1])


@each_kind
def test_a_lone_space_is_the_blank(kind: str) -> None:
    assert tokenizer(kind).decode(tokenizer(kind).blank) == " "


@each_kind
@given(text=st.text(max_size=40) | st.sampled_from(["♪♪♪", " ♭", " --", "don't"]))
def test_short_texts_need_only_the_tokens_that_are_parts_of_them(kind: str, text: str) -> None:
    one = tokenizer(kind)
    assert one._encode_short([text, f" {text}"]) == [one.encode(text), one.encode(f" {text}")]


@each_kind
@given(data=st.data())
def test_ids_are_spelt_as_tiktoken_spells_them(kind: str, data: st.DataObject) -> None:
    one = tokenizer(kind)
    ids = data.draw(st.lists(st.integers(0, one.special.eot - 1)))
    assert one.decode_with_timestamps(ids) == one._encoding.decode(ids)


# Which vocabulary.


def test_a_model_without_a_vocabulary_takes_the_shipped_one_of_its_size() -> None:
    assert tokenizer("english").encode(" hello") == Tokenizer(
        tiny_spec("english"), VocabularyData(tokens=shipped_tokens("english"))
    ).encode(" hello")
    assert len(shipped_tokens("multilingual")) == 50257
    assert len(shipped_tokens("english")) == 50256
    assert tokenizer("multilingual").multilingual
    assert tokenizer("large-v3").multilingual


# Words.

sentences = st.text() | st.lists(st.sampled_from([" the", " hello", ",", " ♪", "語", "é", "!", " it's", "\n"])).map(
    "".join
)


@each_kind
@given(text=sentences, language=st.sampled_from(["en", "de", "zh", "ja", None]))
def test_words_lose_no_id_and_no_letter(kind: str, text: str, language: str | None) -> None:
    one = tokenizer(kind)
    ids = one.encode(text)
    words = split_words(one, ids, language)
    assert [token for word in words for token in word.ids] == ids
    assert "".join(word.text for word in words) == text
    assert all(word.ids for word in words)


def test_words_are_cut_at_spaces_and_punctuation() -> None:
    one = tokenizer("multilingual")
    words = split_words(one, one.encode(" Hello, world! It's é."), "en")
    assert [word.text for word in words] == [" Hello", ",", " world", "!", " It's", " é", "."]


def test_without_spaces_every_character_is_a_word() -> None:
    one = tokenizer("small")
    assert [word.text for word in split_words(one, one.encode("語学です"), "ja")] == ["語", "学", "で", "す"]
    assert [word.text for word in split_words(one, one.encode("語学です"), "en")] == ["語学です"]


def test_timestamps_and_the_end_are_words_of_their_own() -> None:
    one = tokenizer("multilingual")
    s = one.special
    ids = [s.timestamp_begin, *one.encode(" a b"), s.timestamp_begin + 50, s.eot]
    words = split_words(one, ids, "en")
    assert [word.text for word in words] == ["<|0.00|>", " a", " b", "<|1.00|>", "<|endoftext|>"]


@pytest.mark.parametrize("data", [b"\xe2\x99", b"\xe2\x99\xe2\x99\xaa"])
def test_words_of_broken_text_lose_no_id_either(data: bytes) -> None:
    one = tokenizer("small")
    assert [token for word in split_words(one, list(data), "en") for token in word.ids] == list(data)
