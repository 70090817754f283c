"""Languages: codes, names and aliases, in the order of the vocabulary's ids."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stapes.errors import OptionError
from stapes.languages import ALIASES, CODE_OF_NAME, LANGUAGES, WITHOUT_SPACES, language_code

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


@given(spelled, style, around, around)
def test_codes_names_and_aliases_are_known_in_any_case(name: str, write: type[str], before: str, after: str) -> None:
    code = language_code(before + write(name) + after)
    assert code == (name if name in LANGUAGES else CODE_OF_NAME[name])


@given(st.text())
def test_any_other_text_is_an_option_error(text: str) -> None:
    known = text.strip().lower()
    if known in LANGUAGES or known in CODE_OF_NAME:
        assert language_code(text) in LANGUAGES
    else:
        with pytest.raises(OptionError, match="unknown language"):
            language_code(text)
