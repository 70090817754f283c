"""Languages: codes, names and aliases, in the order of the vocabulary's ids."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stapes.errors import OptionError
from stapes.languages import (
    _HINTS,
    ALIASES,
    CODE_OF_NAME,
    LANGUAGES,
    WITHOUT_SPACES,
    code_of_token,
    language_code,
    language_title,
)
from stapes.options import Speech, TranscribeOptions

spelled = st.sampled_from(sorted({*LANGUAGES, *LANGUAGES.values(), *ALIASES}))
style = st.sampled_from([str, str.upper, str.title, str.capitalize])
around = st.sampled_from(["", " ", "\t", "\n "])


def test_a_hundred_languages_stand_in_the_order_of_their_ids() -> None:
    codes = list(LANGUAGES)
    assert len(codes) == 100
    assert codes[:3] == ["en", "zh", "de"]
    assert codes[98:] == ["su", "yue"]  # Cantonese came with large-v3


def test_names_and_aliases_never_collide() -> None:
    assert len(set(LANGUAGES.values())) == len(LANGUAGES)
    assert not set(ALIASES) & set(LANGUAGES.values())
    assert set(ALIASES.values()) <= set(LANGUAGES)
    assert not set(CODE_OF_NAME) & set(LANGUAGES)
    assert set(LANGUAGES) >= WITHOUT_SPACES


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("en", "en"),
        ("English", "en"),
        ("haitian creole", "ht"),
        ("Castilian", "es"),
        ("MANDARIN", "zh"),
        ("yue", "yue"),
    ],
)
def test_known_spellings(name: str, code: str) -> None:
    assert language_code(name) == code


@pytest.mark.parametrize(
    ("name", "code"),
    [("gsw", "gsw"), (" XX ", "xx"), ("<|gsw|>", "gsw"), ("<|zh-TW|>", "zh-TW"), ("<|EN|>", "en"), ("<|haw|>", "haw")],
)
def test_a_code_that_is_not_listed_is_taken_as_it_is_until_a_model_is_known(name: str, code: str) -> None:
    assert language_code(name) == code
    assert Speech(language=name).language_code == code
    assert Speech(languages=("en", name)).candidates == tuple(dict.fromkeys(("en", code)))


@pytest.mark.parametrize("name", ["zh-TW", "klingon", "<|en", "<||>", "<|a b|>", "<|<|>", "e", "12", ""])
def test_what_is_neither_a_code_nor_a_name_is_refused_at_birth(name: str) -> None:
    with pytest.raises(OptionError, match="unknown language"):
        language_code(name)


def test_a_language_is_named_in_english_or_by_its_code() -> None:
    titles = {"en": "English", "ht": "Haitian Creole", "gsw": "gsw", "zh-TW": "zh-TW"}
    assert {code: language_title(code) for code in titles} == titles


@given(spelled, style, around, around)
def test_codes_names_and_aliases_are_known_in_any_case(name: str, write: type[str], before: str, after: str) -> None:
    code = language_code(before + write(name) + after)
    assert code == (name if name in LANGUAGES else CODE_OF_NAME[name])


@given(st.text() | st.sampled_from(["PAN", "<|transcribe|>", "<|\u212a|>", "<|7|>", "gsw"]))
def test_any_other_text_is_an_option_error(text: str) -> None:
    known = text.strip().lower()
    if known in LANGUAGES or known in CODE_OF_NAME:
        assert language_code(text) in LANGUAGES
    elif code := code_of_token(text.strip()):
        assert language_code(text).lower() == code.lower()
    elif re.fullmatch(r"[a-z]{2,3}", known) and known not in _HINTS:
        assert language_code(text) == known
    else:
        with pytest.raises(OptionError, match="unknown language"):
            language_code(text)


@pytest.mark.parametrize(
    ("written", "code"),
    [
        *(
            (name, "zh")
            for name in ("zh-TW", "zh_Hant", "zh-Hans-CN", "cmn", "ZHO", "chi", "中文", "Chinese (Simplified)")
        ),
        *((name, "pt") for name in ("pt-br", "pt_BR.UTF-8", "por", "Brazilian Portuguese", "português")),
        *((name, "en") for name in ("en-US", "en_GB", "eng", "english-us", "US English", "Englisch")),
        *((name, "he") for name in ("iw", "iw-IL", "he-IL", "heb")),
        *((name, "jw") for name in ("jv", "jv-ID", "jav", "javanes")),
        *((name, "tl") for name in ("fil", "fil-PH", "Filipino", "tgl")),
        *((name, "no") for name in ("nb", "nb-NO", "nob", "Norwegian Bokmål")),
        *((name, "fa") for name in ("fas", "per", "Farsi", "fa_IR")),
        ("in", "id"),
        ("ji", "yi"),
        ("mo", "ro"),
        ("sr-Latn-RS", "sr"),
        ("es-419", "es"),
        ("de_DE@euro", "de"),
        ("deu", "de"),
        ("Deutsch", "de"),
        ("Swiss German", "de"),
        ("Germen", "de"),
        ("yue-HK", "yue"),
        ("jp", "ja"),
        ("ua", "uk"),
        ("हिन्दी", "hi"),
    ],
)
def test_a_tag_or_another_standards_code_is_an_error_that_says_whispers(written: str, code: str) -> None:
    with pytest.raises(OptionError) as caught:
        language_code(written)
    message = str(caught.value)
    assert message.startswith(f"unknown language {written!r}; did you mean {code!r} ({LANGUAGES[code].title()})?")
    assert "'stapes --help' and stapes.languages.LANGUAGES list all" in message
    assert language_code(code) == code
    with pytest.raises(OptionError, match=f"did you mean '{code}'"):
        TranscribeOptions.from_keywords({"language": written})
    with pytest.raises(OptionError, match=f"^languages: .*did you mean '{code}'"):
        TranscribeOptions.from_keywords({"languages": ["en", written]})


@pytest.mark.parametrize("written", ["auto", "Detect", "None"])
def test_words_for_detection_are_an_error_that_says_how_to_detect(written: str) -> None:
    with pytest.raises(OptionError, match="leave it out, or give None, to have it detected"):
        language_code(written)


@pytest.mark.parametrize("written", ["klingon", "", "  ", "x", "--", "1234", "\0", "who is it"])
def test_where_nothing_is_near_the_error_says_where_all_are_listed(written: str) -> None:
    with pytest.raises(OptionError, match=r"give a code such as 'en'.*'stapes --help' .* list all"):
        language_code(written)


def test_hints_are_of_what_is_not_known_and_give_what_is() -> None:
    assert set(_HINTS.values()) <= set(LANGUAGES)
    assert not set(_HINTS) & {*LANGUAGES, *CODE_OF_NAME}
    three_letters = {code for other, code in _HINTS.items() if len(other) == 3 and other.isascii()}
    assert three_letters >= {code for code in LANGUAGES if len(code) == 2} - {"lo"}  # its code is its name
