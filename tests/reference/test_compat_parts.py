"""The pure parts of the openai-whisper interface against the original: normalisers, writers, alignment helpers."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import io
import itertools
import random
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from stapes.compat.whisper import timing, utils
from stapes.compat.whisper.normalizers import basic, english
from tests.random_cases import cases

torch = pytest.importorskip("torch")
their_timing = pytest.importorskip("whisper.timing")
their_utils = pytest.importorskip("whisper.utils")
their_basic = pytest.importorskip("whisper.normalizers.basic")
their_english = pytest.importorskip("whisper.normalizers.english")
pytestmark = pytest.mark.reference

MODULES = [(utils, their_utils), (timing, their_timing), (basic, their_basic), (english, their_english)]


def outcome(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call, and return the result or the type of the error."""
    try:
        return function(*args, **kwargs)
    except Exception as error:
        return type(error)


# Names.


def defined(module: ModuleType) -> dict[str, Any]:
    """Return the public functions and classes of a module."""
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    }


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    return [(one.name, one.kind, one.default) for one in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize(("ours", "theirs"), MODULES, ids=lambda module: module.__name__)
def test_names_and_signatures_are_the_originals(ours, theirs):
    for name, value in defined(theirs).items():
        mine = getattr(ours, name)
        if not inspect.isclass(value):
            assert parameters(mine) == parameters(value), name
            continue
        assert parameters(mine) == parameters(value), name
        assert [base.__name__ for base in mine.__mro__] == [base.__name__ for base in value.__mro__]
        for method, function in inspect.getmembers(value, inspect.isfunction):
            if not method.startswith("__") or method == "__call__":
                assert parameters(getattr(mine, method)) == parameters(function), f"{name}.{method}"
        for attribute in ("extension", "always_include_hours", "decimal_marker"):
            assert getattr(mine, attribute, None) == getattr(value, attribute, None), name


# Normalisers.

MORE_WORDS = (
    *(
        "5",
        "12",
        "100",
        "0",
        "00",
        "3.5",
        "0.36",
        "007",
        "3.0",
        "2.",
        ".5",
        "1.2.3",
        "1,000",
        "٣",
        "４２",
        "²",
        "-3",
        "+4",
    ),
    *("£2.50m", "$5", "€0.07", "¢7", "1", "1s", "10th", "21st", "b747", "m25", "foo", "ninth", "half", "per cent"),
    *("twenty-oh-one", "o'neill's", "and a half", "and  a half"),
)
FEW_WORDS = (
    *("o", "two", "ten", "fifty", "fifths", "twentieth", "hundred", "thousands", "million", "minus", "dollar", "cents"),
    *("per", "percent", "and", "double", "point", "0", "7", "2.5", "x"),
)
PIECES = (
    *(
        "Mr.",
        "mrs",
        "St",
        "Prof.",
        "won't",
        "CAN'T",
        "he's",
        "been",
        "gone",
        "I'd",
        "done",
        "y'all",
        "gotta",
        "hmm",
        "um",
    ),
    *("[x]", "(y)", "<z", ">", "a)", "(", "colour", "mobilisation", "Œuvre", "ß", "ﬁ", "日本", "e\u0301", "İ", "RC232"),
    *("...", "..", ",", ".", "%", "50%", "$", "$$", "¢", "#", "&", "-", "'", " '", "1,2,3,4", "10km"),
    *("\n", "\t", "\u3000", "½", "👍🏽", "\u200b", "\u0301", "\x1c"),
)


def random_texts(seed: int, count: int) -> list[str]:
    chance = random.Random(seed)
    words = [*sorted(their_english.EnglishNumberNormalizer().words), *MORE_WORDS]

    def text() -> str:
        pieces = chance.choice([words, [*words, *PIECES * 3]])
        gaps = chance.choice([[" "], [" ", "", "  ", "-", ", ", ". "]])
        return "".join(chance.choice(pieces) + chance.choice(gaps) for _ in range(chance.randint(0, 10)))

    return [text() for _ in range(count)]


# The original leaves its table open; read it where no warning shows.
with warnings.catch_warnings():
    warnings.simplefilter("ignore", ResourceWarning)
    THEIR_ENGLISH, THEIR_SPELLING = their_english.EnglishTextNormalizer(), their_english.EnglishSpellingNormalizer()

NORMALIZERS: list[tuple[Any, Any]] = [
    (english.EnglishNumberNormalizer(), their_english.EnglishNumberNormalizer()),
    (english.EnglishSpellingNormalizer(), THEIR_SPELLING),
    (english.EnglishTextNormalizer(), THEIR_ENGLISH),
    *(
        (basic.BasicTextNormalizer(*flags), their_basic.BasicTextNormalizer(*flags))
        for flags in itertools.product([False, True], repeat=2)
    ),
    (basic.remove_symbols, their_basic.remove_symbols),
    (basic.remove_symbols_and_diacritics, their_basic.remove_symbols_and_diacritics),
]


def test_values_are_the_originals():
    assert basic.ADDITIONAL_DIACRITICS == their_basic.ADDITIONAL_DIACRITICS
    assert utils.system_encoding == their_utils.system_encoding
    ours, theirs = english.EnglishTextNormalizer(), THEIR_ENGLISH
    assert ours.ignore_patterns == theirs.ignore_patterns
    assert list(ours.replacers.items()) == list(theirs.replacers.items())
    assert ours.standardize_spellings.mapping == theirs.standardize_spellings.mapping


@pytest.mark.parametrize(("ours", "theirs"), NORMALIZERS)
def test_random_texts_become_the_same(ours, theirs):
    for text in random_texts(1, cases(5000, 100_000)):
        assert ours(text) == theirs(text), repr(text)


def test_steps_of_the_number_normaliser_give_the_same():
    (ours, theirs), *_ = NORMALIZERS
    for text in random_texts(2, cases(5000, 100_000)):
        words = text.split()
        assert list(ours.process_words(list(words))) == list(theirs.process_words(list(words))), repr(text)
        assert ours.preprocess(text) == theirs.preprocess(text), repr(text)
        assert ours.postprocess(text) == theirs.postprocess(text), repr(text)


def test_sequences_of_number_words_become_the_same():
    (ours, theirs), *_ = NORMALIZERS
    words = sorted(theirs.words)
    for sequence in itertools.chain(
        itertools.product(words, repeat=2), itertools.product(FEW_WORDS, repeat=cases(3, 4))
    ):
        assert ours(" ".join(sequence)) == theirs(" ".join(sequence)), sequence


def test_every_character_becomes_the_same():
    characters = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    text = " a".join(characters)
    assert basic.remove_symbols(text) == their_basic.remove_symbols(text)
    assert basic.remove_symbols_and_diacritics(text, "%$") == their_basic.remove_symbols_and_diacritics(text, "%$")


# Helpers and writers.

TEXTS = (
    "",
    " ",
    "a",
    " Hello,",
    " world",
    "!",
    "--",
    "-->",
    "--->",
    "\n",
    " two\nlines",
    "x\n",
    "\t",
    " 你好",
    "<u>",
    " w" * 40,
)


def random_result(chance: random.Random) -> dict[str, Any]:
    """Return a result whose segments have words, have none, or are bare."""
    kind, time = chance.choice(["words", "plain", "bare"]), 0.0
    segments: list[dict[str, Any]] = []
    for number in range(chance.randint(0, 6)):
        words: list[dict[str, Any]] = []
        start = time
        for _ in range(chance.randint(0, 7)):
            time += chance.choice([0, 0.1, 0.0004, 1.7, 3.1, 40.0, 3599.0])
            end = time + chance.choice([0.0, 0.2, 0.0004, 2.0])
            words.append({"word": chance.choice(TEXTS), "start": time, "end": end, "probability": chance.random()})
            time = end
        segment: dict[str, Any] = {"start": start, "end": time, "text": "".join(word["word"] for word in words)}
        if kind != "bare":
            segment = {"id": number, "seek": 0, **segment, "tokens": [number], "avg_logprob": -0.1}
        segments.append({**segment, "words": words} if kind == "words" else segment)
    return {"text": "".join(one["text"] for one in segments), "segments": segments, "language": "en"}


def random_options(chance: random.Random) -> dict[str, Any]:
    values: dict[str, list[Any]] = {
        "max_line_width": [None, 0, 1, 5, 12, 42, 1000],
        "max_line_count": [None, 0, 1, 2, 3],
        "highlight_words": [False, True],
        "max_words_per_line": [None, 0, 1, 2, 5],
    }
    return {name: chance.choice(some) for name, some in values.items() if chance.random() < 0.6}


def written(module: Any, name: str, result: dict[str, Any], *more: Any, **options: Any) -> str:
    file = io.StringIO()
    module.get_writer(name, "").write_result(result, file, *more, **options)
    return file.getvalue()


@pytest.mark.parametrize("name", ["txt", "vtt", "srt", "tsv", "json"])
def test_random_results_are_written_alike(name):
    chance = random.Random(name)
    for _ in range(cases(3000, 50_000)):
        result, options, keywords = random_result(chance), random_options(chance), random_options(chance)
        before = copy.deepcopy(result)
        expected = outcome(written, their_utils, name, result, options, **keywords)
        assert outcome(written, utils, name, result, options, **keywords) == expected
        assert result == before
        expected = outcome(written, their_utils, name, result, **keywords)
        assert outcome(written, utils, name, result, **keywords) == expected


@pytest.mark.parametrize("name", ["talk.mp3", "a/b.c/talk.new.wav", "talk.", ".talk", "..talk", "a/", "talk"])
def test_files_have_the_same_names(tmp_path, name):
    found = []
    for module in (utils, their_utils):
        folder = tmp_path / module.__name__
        folder.mkdir()
        module.get_writer("all", str(folder))(random_result(random.Random(3)), name, {"max_line_width": 9})
        found.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert len(found[0]) == 5
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "segments",
    [
        [],
        [{"start": 1.0, "end": 2.0}],
        [{"start": 1.0, "end": 2.0, "words": []}],
        [{"start": 1.0, "end": 2.0, "words": []}, {"start": 2, "end": 4, "words": [{"start": 2.5, "end": 3}]}],
    ],
)
def test_start_and_end_are_the_same(segments):
    assert outcome(utils.get_start, segments) == outcome(their_utils.get_start, segments)
    assert outcome(utils.get_end, segments) == outcome(their_utils.get_end, segments)
    result = {"segments": segments}
    assert outcome(written, utils, "srt", result) == outcome(written, their_utils, "srt", result)


def test_helpers_give_the_same_results_and_errors():
    texts: list[Any] = ["True", "False", "true", "", "None", "1", "-2.5", "nan", "1e3", " 7 ", "x", "é" * 50, "\ud800"]
    numbers: list[Any] = [-1, -0.0, 0, 1, 2.5, 59.9995, 3599.9996, 360000, 0.0005, 0.0015, float("nan"), float("inf")]
    for name in ("str2bool", "optional_int", "optional_float", "compression_ratio", "make_safe"):
        for text in texts:
            ours, theirs = outcome(getattr(utils, name), text), outcome(getattr(their_utils, name), text)
            assert repr(ours) == repr(theirs), (name, text)  # by text, as nan is not equal to itself
    for number in numbers:
        for more in ((), (True,), (False, ","), (True, ",")):
            assert outcome(utils.format_timestamp, number, *more) == outcome(
                their_utils.format_timestamp, number, *more
            )
    for pair in itertools.product([0, 1, 2, 7, 480000, 2.5, -4], repeat=2):
        assert outcome(utils.exact_div, *pair) == outcome(their_utils.exact_div, *pair)


# Alignment.


def random_matrix(seed: int) -> Any:
    chance = np.random.default_rng(seed)
    matrix = chance.standard_normal(chance.integers(1, (40, 160)))
    if seed % 3 == 0:
        matrix = np.round(matrix)  # ties
    if seed % 10 == 0:
        matrix[chance.random(matrix.shape) < 0.1] = chance.choice([np.inf, -np.inf, np.nan])
    return matrix.astype(np.float32 if seed % 2 else np.float64)


@pytest.mark.filterwarnings("ignore:invalid value encountered in add:RuntimeWarning")
def test_random_matrices_have_the_same_path():
    for seed in range(cases(200, 5000)):
        matrix = random_matrix(seed)
        expected = their_timing.dtw_cpu(matrix)
        found = timing.dtw_cpu(matrix)
        assert found.dtype == expected.dtype
        assert (found == expected).all(), seed
        tensor = torch.from_numpy(matrix)
        assert (timing.dtw(tensor) == their_timing.dtw(tensor)).all(), seed


def test_random_steps_lead_back_the_same_way():
    chance = np.random.default_rng(0)
    for _ in range(200):
        trace = chance.choice(
            np.array([0, 1, 2, 2, 7], np.float32), chance.integers(1, 7, 2), p=[0.3, 0.3, 0.2, 0.1, 0.1]
        )
        if trace.size > 1:
            expected = outcome(their_timing.backtrace, trace.copy())
            assert np.array_equal(outcome(timing.backtrace, trace), expected)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("shape", [(1,), (3,), (10,), (1, 15), (4, 5), (4, 5, 34), (2, 3, 4, 50)])
def test_random_tensors_are_filtered_alike(shape, dtype):
    for width in (1, 3, 5, 7, 13, 2, 0, -3):
        tensor = torch.randn(*shape).to(getattr(torch, dtype))
        if width == 5:
            tensor[..., -1] = torch.nan
        expected, found = (outcome(one.median_filter, tensor, width) for one in (their_timing, timing))
        if isinstance(expected, type):
            assert found == expected
        else:
            torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
            array = outcome(timing.median_filter, tensor.double().numpy(), width)
            np.testing.assert_array_equal(array, expected.double().numpy())


def test_random_punctuation_is_merged_alike():
    chance = random.Random(0)
    words = ["", " ", "a", " b", " (", "(", ' "', '"', ".", " .", ". ", "!?", " “", "”", "--", " -"]
    for _ in range(3000):
        texts = [chance.choice(words) for _ in range(chance.randint(0, 8))]
        merged = []
        for module in (timing, their_timing):
            alignment = [module.WordTiming(text, [i], i, i + 1, 0.5) for i, text in enumerate(texts)]
            module.merge_punctuations(alignment, "\"'“¿([{-", "\"'.。,，!！?？:：”)]}、")
            merged.append([dataclasses.astuple(one) for one in alignment])
        assert merged[0] == merged[1], texts
