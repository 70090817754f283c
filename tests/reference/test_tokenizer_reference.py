"""The tokenizer against the reference's: every id and every text equal."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stapes.languages import ALIASES, LANGUAGES, language_code
from stapes.tokenizer.split import split_words
from tests.reference.both import ENGLISH, LARGE_V3, MULTILINGUAL, our_tokenizer, their_tokenizer, whisper_tokenizer

pytest.importorskip("whisper")
pytestmark = pytest.mark.reference

each_vocabulary = pytest.mark.parametrize(
    "n_vocab", [ENGLISH, MULTILINGUAL, LARGE_V3], ids=["english", "multilingual", "large-v3"]
)
quick = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
SAMPLES = [
    "",
    " ",
    "  \n\t x",
    "Hello, world! It's 5 o'clock -- don't.",
    " (music) ♪♪ \n\n x [laughs] <<what>>",
    "真っ昼間なのに🎉 café",
    "שלום, مرحبا, नमस्ते, สวัสดี, 안녕",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 \U0001f469\u200d\U0001f680 e\u0301",
    "1,234.56 3/4 x=y_z #tag @name a\u00a0b\u3000c",
]
#: text that no special token's name is in: the reference refuses those
texts = st.text(max_size=60).filter(lambda text: "<|" not in text)


@each_vocabulary
def test_special_ids_are_equal(n_vocab):
    ours, theirs = our_tokenizer(n_vocab).special, their_tokenizer(n_vocab)
    names = [
        "eot",
        "sot",
        "translate",
        "transcribe",
        "sot_lm",
        "sot_prev",
        "no_speech",
        "no_timestamps",
        "timestamp_begin",
    ]
    assert {name: getattr(ours, name) for name in names} == {name: getattr(theirs, name) for name in names}
    if n_vocab != ENGLISH:
        assert dict(ours.languages) == dict(zip(theirs.all_language_codes, theirs.all_language_tokens, strict=True))


@each_vocabulary
def test_sets_of_ids_are_equal(n_vocab):
    ours, theirs = our_tokenizer(n_vocab), their_tokenizer(n_vocab)
    assert ours.non_speech == theirs.non_speech_tokens
    assert len(ours.non_speech) == (84 if n_vocab == ENGLISH else 82)
    assert list(ours.blank) == theirs.encode(" ")


@each_vocabulary
@pytest.mark.parametrize("task", ["transcribe", "translate"])
def test_transcripts_start_alike_in_every_language(n_vocab, task):
    for code in list(LANGUAGES)[: 100 if n_vocab == LARGE_V3 else 99]:
        assert our_tokenizer(n_vocab).start_sequence(code, task) == their_tokenizer(n_vocab, code, task).sot_sequence


def test_languages_have_the_same_names():
    assert LANGUAGES == whisper_tokenizer.LANGUAGES
    assert list(LANGUAGES) == list(whisper_tokenizer.LANGUAGES)
    for name, code in whisper_tokenizer.TO_LANGUAGE_CODE.items():
        assert language_code(name) == code
    assert set(ALIASES) <= set(whisper_tokenizer.TO_LANGUAGE_CODE)


@each_vocabulary
def test_every_token_reads_the_same(n_vocab):
    ours, theirs = our_tokenizer(n_vocab), their_tokenizer(n_vocab)
    for one in range(n_vocab):
        assert ours.decode([one]) == theirs.decode([one])
        assert ours.decode_with_timestamps([one]) == theirs.decode_with_timestamps([one])


@each_vocabulary
@pytest.mark.parametrize("text", SAMPLES)
def test_samples_are_encoded_alike(n_vocab, text):
    ours, theirs = our_tokenizer(n_vocab), their_tokenizer(n_vocab)
    ids = ours.encode(text)
    assert ids == theirs.encode(text)
    assert ours.decode(ids) == theirs.decode(ids) == text


@each_vocabulary
@quick
@given(text=texts)
def test_any_text_is_encoded_alike(n_vocab, text):
    ours, theirs = our_tokenizer(n_vocab), their_tokenizer(n_vocab)
    ids = ours.encode(text)
    assert ids == theirs.encode(text)
    assert ours.decode(ids) == theirs.decode(ids)


@each_vocabulary
@quick
@given(data=st.data())
def test_any_ids_read_the_same(n_vocab, data):
    ours, theirs = our_tokenizer(n_vocab), their_tokenizer(n_vocab)
    begin = ours.special.timestamp_begin
    one = st.one_of(st.integers(0, begin - 1), st.integers(begin, n_vocab - 1), st.integers(94, 255))
    ids = data.draw(st.lists(one, max_size=30))
    assert ours.decode(ids) == theirs.decode(ids)
    assert ours.decode_with_timestamps(ids) == theirs.decode_with_timestamps(ids)


def hold_words_equal(n_vocab: int, ids: list[int], language: str) -> None:
    words = split_words(our_tokenizer(n_vocab), ids, language)
    texts, tokens = their_tokenizer(n_vocab, language).split_to_word_tokens(list(ids))
    assert [one.text for one in words] == texts
    assert [list(one.ids) for one in words] == tokens


#: the reference forgets the language of an English-only model; Cantonese came with large-v3
LANGUAGES_OF = [
    (ENGLISH, "en"),
    *((MULTILINGUAL, code) for code in ("en", "fr", "ja", "zh", "th", "lo", "my")),
    *((LARGE_V3, code) for code in ("en", "ja", "yue")),
]


@pytest.mark.parametrize(("n_vocab", "language"), LANGUAGES_OF)
@pytest.mark.parametrize("text", SAMPLES)
def test_samples_fall_into_the_same_words(n_vocab, language, text):
    ids = our_tokenizer(n_vocab).encode(text)
    hold_words_equal(n_vocab, [*ids, our_tokenizer(n_vocab).special.eot], language)


@pytest.mark.parametrize("language", ["en", "ja"])
@quick
@given(text=texts)
def test_any_text_falls_into_the_same_words(language, text):
    special = our_tokenizer(MULTILINGUAL).special
    ids = our_tokenizer(MULTILINGUAL).encode(text)
    hold_words_equal(MULTILINGUAL, [*ids, special.timestamp_begin + 7, special.eot], language)


@pytest.mark.parametrize("language", ["en", "ja"])
def test_broken_characters_fall_into_the_same_words_as_long_as_the_reference_keeps_up(language):
    """Ids at random end in the middle of characters. There the reference may lose all that follows, or fail with
    IndexError; we keep every id, and deviate there only.
    """
    random = np.random.default_rng(1)
    special = our_tokenizer(MULTILINGUAL).special
    n_equal = 0
    for _ in range(300):
        ids = random.integers(0, 50256, size=int(random.integers(1, 12))).tolist()
        ids = [*(int(random.integers(94, 255)) if random.random() < 0.4 else one for one in ids), special.eot]
        words = split_words(our_tokenizer(MULTILINGUAL), ids, language)
        assert [one for word in words for one in word.ids] == ids
        try:
            texts, tokens = their_tokenizer(MULTILINGUAL, language).split_to_word_tokens(list(ids))
        except IndexError:
            continue
        n_kept = sum(map(len, tokens))
        if n_kept == len(ids):
            assert ([one.text for one in words], [list(one.ids) for one in words]) == (texts, tokens)
            n_equal += 1
        elif language == "ja":  # elsewhere the rest may belong to the last word
            n = len(texts)
            assert ([one.text for one in words[:n]], [list(one.ids) for one in words[:n]]) == (texts, tokens)
    assert n_equal > 150
