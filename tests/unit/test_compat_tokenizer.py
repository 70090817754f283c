"""`whisper.tokenizer` on stapes: fields, ids and words. Equality with the original: tests/reference."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys

import pytest
import tiktoken

from stapes.compat.whisper.tokenizer import (
    LANGUAGES,
    TO_LANGUAGE_CODE,
    Tokenizer,
    get_encoding,
    get_tokenizer,
)
from stapes.testing import tiny_spec
from stapes.tokenizer import Tokenizer as OwnTokenizer

KINDS = {"english": (False, 99, 51864), "multilingual": (True, 99, 51865), "large-v3": (True, 100, 51866)}


@pytest.mark.parametrize("kind", KINDS)
def test_ids_and_text_are_those_of_the_engine(kind: str) -> None:
    multilingual, num_languages, n_vocab = KINDS[kind]
    face = get_tokenizer(multilingual, num_languages=num_languages)
    own = OwnTokenizer(tiny_spec("multilingual" if multilingual else "english", n_vocab=n_vocab))
    s = own.special
    assert face.encoding.n_vocab == n_vocab
    assert {one: name for name, one in face.special_tokens.items()} == s.names
    assert (face.eot, face.sot, face.translate, face.transcribe) == (s.eot, s.sot, s.translate, s.transcribe)
    assert (face.sot_lm, face.sot_prev, face.no_speech) == (s.sot_lm, s.sot_prev, s.no_speech)
    assert (face.no_timestamps, face.timestamp_begin) == (s.no_timestamps, s.timestamp_begin)
    assert dict(zip(face.all_language_codes, face.all_language_tokens, strict=True)) == s.languages
    assert face.non_speech_tokens == own.non_speech
    text = " It's 5 o'clock — «naïve» 中文 \n"
    ids = face.encode(text)
    assert ids == own.encode(text)
    assert face.decode([*ids, s.timestamp_begin + 54]) == text
    assert face.decode_with_timestamps([*ids, s.timestamp_begin + 54]) == text + "<|1.08|>"


def test_special_tokens_in_text() -> None:
    face = get_tokenizer(True)
    with pytest.raises(ValueError, match="disallowed"):
        face.encode("<|endoftext|>")
    assert face.encode("<|endoftext|>", allowed_special="all") == [face.eot]


def test_start_sequences() -> None:
    face = get_tokenizer(True, language="French", task="translate")
    assert (face.language, face.task) == ("fr", "translate")
    assert face.sot_sequence == (face.sot, face.language_token, face.translate)
    assert face.sot_sequence_including_notimestamps == (*face.sot_sequence, face.no_timestamps)
    assert face.language_token == face.to_language_token("fr") == face.sot + 1 + list(LANGUAGES).index("fr")
    default = get_tokenizer(True)
    assert (default.language, default.task) == ("en", "transcribe")
    assert get_tokenizer(multilingual=True, language="CASTILIAN").language == "es"
    english = get_tokenizer(False, language="fr", task="translate")
    assert (english.language, english.task, english.sot_sequence) == (None, None, (english.sot,))


def test_wrong_languages() -> None:
    for multilingual in (True, False):
        with pytest.raises(ValueError, match="Unsupported language: klingon"):
            get_tokenizer(multilingual, language="Klingon")
    with pytest.raises(ValueError, match="not in list"):
        get_tokenizer(True, language="yue")
    assert get_tokenizer(True, num_languages=100, language="yue").language == "yue"
    with pytest.raises(ValueError, match="no language"):
        _ = get_tokenizer(False).language_token
    with pytest.raises(KeyError, match="yue"):
        get_tokenizer(True).to_language_token("yue")
    with pytest.raises(FileNotFoundError, match="cl100k"):
        get_encoding("cl100k")


def test_words() -> None:
    text = " Hello, world! 中"
    english, chinese = get_tokenizer(True, language="en"), get_tokenizer(True, language="zh")
    ids = [*english.encode(text), english.eot]
    words, tokens = english.split_to_word_tokens(ids)
    assert words == [" Hello", ",", " world", "!", " 中", "<|endoftext|>"]
    assert [one for word in tokens for one in word] == ids
    assert all(type(one) is list for one in tokens)
    assert english.split_tokens_on_spaces(ids) == (words, tokens)
    assert chinese.split_to_word_tokens(ids) == english.split_tokens_on_unicode(ids)
    assert english.split_to_word_tokens([]) == ([], [])


def test_a_subclass_may_change_the_pieces() -> None:
    class Spelling(Tokenizer):
        def split_tokens_on_unicode(self, tokens):
            return ["a", " b"], [list(tokens[:1]), list(tokens[1:])]

    face = get_tokenizer(True)
    assert Spelling(face.encoding, 99, "en").split_to_word_tokens([1, 2, 3]) == (["a", " b"], [[1], [2, 3]])


def test_an_encoding_of_the_callers_own() -> None:
    names = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|zh|>", "<|translate|>", "<|transcribe|>",
             "<|laughter|>", "<|0.00|>", "<|0.02|>"]  # fmt: skip
    ranks = {bytes([one]): one for one in range(256)}
    special = {name: 256 + i for i, name in enumerate(names)}
    encoding = tiktoken.Encoding("own", pat_str=r".", mergeable_ranks=ranks, special_tokens=special)
    face = Tokenizer(encoding=encoding, num_languages=2, language="zh", task="transcribe")
    assert face.special_tokens == special
    assert face.sot_sequence == (257, 259, 261)
    assert face.all_language_codes == ("en", "zh")
    assert face.encode("<|laughter|>a", allowed_special="all") == [262, 97]
    with pytest.raises(KeyError):
        _ = face.no_timestamps


def test_the_classes_are_shaped_like_the_originals() -> None:
    names = ["encoding", "num_languages", "language", "task", "sot_sequence", "special_tokens"]
    assert [one.name for one in dataclasses.fields(Tokenizer)] == names
    face = Tokenizer(get_encoding("multilingual", 100), 100)
    assert face == Tokenizer(get_encoding("multilingual", 100), 100)
    face.language = "de"  # a plain dataclass: programs set its fields
    assert face.language_token == face.to_language_token("de")
    assert str(inspect.signature(get_encoding)).startswith("(name: 'str' = 'gpt2', num_languages: 'int' = 99)")
    kinds = [(one.name, one.kind.name) for one in inspect.signature(get_tokenizer).parameters.values()]
    assert kinds == [
        ("multilingual", "POSITIONAL_OR_KEYWORD"),
        *((name, "KEYWORD_ONLY") for name in ("num_languages", "language", "task")),
    ]
    assert get_tokenizer(True) is get_tokenizer(True)
    assert get_encoding().name == "gpt2.tiktoken"


def test_languages() -> None:
    assert list(LANGUAGES)[:3] == ["en", "zh", "de"]
    assert list(TO_LANGUAGE_CODE)[-2:] == ["castilian", "mandarin"]
    assert len(LANGUAGES) == 100
    assert len(TO_LANGUAGE_CODE) == 112


def test_importing_it_loads_nothing_heavy() -> None:
    program = (
        "import sys, stapes.compat.whisper.tokenizer, stapes.compat.whisper.audio; "
        "print([one for one in ('torch', 'av', 'tiktoken') if one in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
