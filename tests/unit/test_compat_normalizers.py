"""The normalisers of the openai-whisper interface. tests/reference/test_compat_parts.py compares with the original."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.machinery import BuiltinImporter
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stapes import StapesWarning
from stapes.compat.whisper.normalizers import BasicTextNormalizer, EnglishTextNormalizer
from stapes.compat.whisper.normalizers.basic import (
    ADDITIONAL_DIACRITICS,
    remove_symbols,
    remove_symbols_and_diacritics,
)
from stapes.compat.whisper.normalizers.english import EnglishNumberNormalizer, EnglishSpellingNormalizer
from tests.random_cases import random_cases

NUMBERS = EnglishNumberNormalizer()
UNITS = (
    *("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


@pytest.fixture
def table(tmp_path, monkeypatch):
    path = tmp_path / "spellings.json"
    path.write_text(json.dumps({"colour": "color", "grey": "gray"}), encoding="utf-8")
    monkeypatch.setenv("STAPES_WHISPER_SPELLINGS", str(path))
    return path


def spelled(number: int, joiner: str = " and ") -> str:
    """Spell a number from 1 to 999,999."""
    thousands, rest = divmod(number, 1000)
    hundreds, below = divmod(rest, 100)
    parts = [f"{spelled(thousands, joiner)} thousand"] if thousands else []
    parts += [f"{UNITS[hundreds - 1]} hundred"] if hundreds else []
    if below >= 20:
        tens, unit = divmod(below, 10)
        last = " ".join([TENS[tens - 2], *UNITS[unit - 1 : unit]] if unit else [TENS[tens - 2]])
    else:
        last = UNITS[below - 1] if below else ""
    if last and hundreds:
        return " ".join(parts) + joiner + last
    return " ".join([*parts, last]).strip()


@random_cases(200, 5000)
@given(st.integers(2, 999_999), st.sampled_from([" ", " and "]))
def test_spelled_numbers_become_digits(number, joiner):
    assert NUMBERS(spelled(number, joiner)) == str(number)
    assert NUMBERS(f"minus {spelled(number, joiner)} percent") == f"-{number}%"
    assert NUMBERS(f"about {spelled(number, joiner)} euros each") == f"about €{number} each"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("one", "one"),
        ("ones", "ones"),
        ("twenty one", "21"),
        ("twenty first", "21st"),
        ("ninth", "ninth"),  # the one ordinal that the original does not read
        ("the seventies", "the 70s"),
        ("nineteen eighties", "1980s"),
        ("zero", "0"),
        ("twenty oh one", "2001"),
        ("double oh seven", "007"),
        ("double trouble", "double trouble"),
        ("one point five million", "1500000"),
        ("one point five thousandths", "one.5 thousandths"),
        ("three point", "3 point"),
        ("192 point 168 point 0", "192.168.0"),
        ("1.2.3 thousand", "one.2.3 1000"),
        ("two and a half", "2.5"),
        ("a day and a half later", "a day and a half later"),
        ("ham and eggs", "ham and eggs"),
        ("hundred and one", "101"),
        ("two and two", "2 and 2"),
        ("plus", "plus"),
        ("plus minus five", "-5"),
        ("five per cent", "5%"),
        ("five per day", "5 per day"),
        ("percent", "percent"),
        ("dollars", "dollars"),
        ("£2.50 m", "£2.50 m"),
        ("£2.50m", "£2.50 m"),
        ("one dollar and one cent", "$one.01"),
        ("two dollars and one cent", "$2.01"),
        ("$0.05", "¢5"),
        ("0", "0"),
        ("0 zero", "0"),  # as the original: a zero in digits is lost
        ("0 hundred", "0"),
        ("two million three hundred thousand", "2300000"),
        ("٣ hundred", "300"),
    ],
)
def test_numbers_are_read_as_the_original_does(text, expected):
    assert NUMBERS(text) == expected


def test_steps_of_the_number_normaliser_are_public():
    assert list(NUMBERS.process_words(["seven", "apples"])) == ["7", "apples"]
    assert list(NUMBERS.process_words([])) == []
    assert NUMBERS.preprocess("a4 and 10 th") == "a 4 and 10th"
    assert NUMBERS.postprocess("$2 and ¢7, 1s") == "$2.07, ones"


def test_symbols_become_spaces_and_diacritics_go_where_asked():
    assert remove_symbols("naïve: ﬁne!") == "naïve  fine "
    assert remove_symbols_and_diacritics("naïve: 5% ẞtraße", keep="%") == "naive  5% SStrasse"
    assert all(remove_symbols_and_diacritics(one) == other for one, other in ADDITIONAL_DIACRITICS.items())


def test_basic_text():
    assert BasicTextNormalizer()("[Music]  Ça (laughs) va?\n") == " ça va "
    assert BasicTextNormalizer(remove_diacritics=True)("Ça va <unk> Ł") == "ca va l"
    assert BasicTextNormalizer(split_letters=True)("你好e\u0301") == "你 好 é"
    assert BasicTextNormalizer(True).clean is remove_symbols_and_diacritics


@pytest.mark.usefixtures("table")
def test_english_text():
    normalize = EnglishTextNormalizer()
    # "o" is a zero, here too.
    assert normalize("Mr. O'Neill's colour, uh, is GREY!") == "mister 0 neill is color is gray"
    assert normalize("He's gone; she's here. Won't they've 'd?") == "he has gone she is here will not they have would"
    assert normalize("[noise] That costs $1,234.50 (laughs).") == "that costs $1234.50"
    assert normalize("100% of %, 3. Twenty-oh-one") == "100% of 32001"
    assert normalize("1,2,3 ... $ 5") == "12 3 5"


@pytest.mark.usefixtures("table")
def test_replacers_may_be_changed():
    normalize = EnglishTextNormalizer()
    normalize.replacers[r"\bthx\b"] = "thanks"
    assert normalize("Thx") == "thanks"


@pytest.mark.usefixtures("table")
def test_spellings_come_from_the_file_that_the_environment_names():
    normalize = EnglishSpellingNormalizer()
    assert normalize("grey  colours colour") == "gray colours color"
    assert normalize.mapping["grey"] == "gray"


def test_a_file_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("STAPES_WHISPER_SPELLINGS", str(tmp_path / "missing.json"))
    with pytest.raises(FileNotFoundError, match=r"missing\.json"):
        EnglishSpellingNormalizer()


def test_the_table_of_an_installed_package_is_found_beyond_a_stand_in(tmp_path, monkeypatch):
    real = tmp_path / "real" / "whisper" / "normalizers"
    stand_in = tmp_path / "stand-in" / "whisper"
    real.mkdir(parents=True)
    stand_in.mkdir(parents=True)
    (stand_in / "__init__.py").touch()
    (real.parent / "__init__.py").write_text("raise AssertionError('imported')", encoding="utf-8")
    (real / "english.json").write_text('{"tyre": "tire"}', encoding="utf-8")
    monkeypatch.delenv("STAPES_WHISPER_SPELLINGS", raising=False)
    monkeypatch.setattr(sys, "path", [str(stand_in.parent), str(real.parents[1])])
    assert EnglishSpellingNormalizer()("a tyre") == "a tire"


@pytest.mark.parametrize("has_module", [False, True])
def test_without_a_table_an_error_or_a_warning_says_where_to_get_it(monkeypatch, has_module):
    monkeypatch.delenv("STAPES_WHISPER_SPELLINGS", raising=False)
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "meta_path", [BuiltinImporter])
    monkeypatch.delitem(sys.modules, "whisper", raising=False)
    if has_module:  # without a specification, as programs' tests put one there
        monkeypatch.setitem(sys.modules, "whisper", ModuleType("whisper"))
    where = r"pip install openai-whisper.*STAPES_WHISPER_SPELLINGS"
    with pytest.raises(NotImplementedError, match=where):
        EnglishSpellingNormalizer()
    with pytest.warns(StapesWarning, match=where):
        normalise = EnglishTextNormalizer()
    assert normalise("Two colours, um, that's  all.") == "2 colours that is all"


def test_importing_the_normalisers_loads_no_packages():
    program = (
        "import sys; import stapes.compat.whisper.normalizers; "
        "print([name for name in ('torch', 'whisper') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
