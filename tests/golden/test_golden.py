"""Every recorded transcript of the reference: tokens, times and seeks of every segment, as openai/whisper gave them.

`make golden` runs all; continuous integration runs the fixed tenth (`make golden-tenth`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.golden.cases import (
    LOOPING,
    NO_GOLDEN_FILES,
    WITHOUT_SPEECH,
    Case,
    check,
    engine_of,
    golden_cases,
    no_golden_files,
)
from tests.golden.compare import n_times

pytestmark = pytest.mark.golden

WITH_WORDS = ("words", "words_skip_silence", "tiny_en_words")


def _cases(files: Sequence[str] = ()) -> list[Any]:
    """Return all cases, or those of some files, each with the mark of its tenth."""
    if not golden_cases():
        return [pytest.param(Case("none", {}), id="none", marks=no_golden_files)]
    return [
        pytest.param(case, id=case.name, marks=[pytest.mark.tenth] if case.tenth == 0 else [])
        for case in golden_cases()
        if not files or case.file in files
    ]


@pytest.mark.filterwarnings("ignore::stapes.StapesWarning")
@pytest.mark.parametrize("case", _cases())
def test_equals_the_reference(case: Case) -> None:
    ours = engine_of(case.entry["model"]).transcribe(case.audio, **case.options)
    reason = check(case, ours)
    if reason is not None:
        pytest.xfail(reason)


@pytest.mark.filterwarnings("ignore::stapes.StapesWarning")
@pytest.mark.parametrize("case", _cases(WITH_WORDS))
def test_every_time_of_a_word_is_the_references_in_its_mode(case: Case) -> None:
    """In the default mode a window's first word begins where speech does."""
    ours = engine_of(case.entry["model"]).transcribe(case.audio, **case.options | {"mode": "reference"})
    reason = check(case, ours, "reference")
    if reason is not None:
        pytest.xfail(reason)


@pytest.mark.filterwarnings("ignore::stapes.StapesWarning")
@pytest.mark.tenth
@pytest.mark.parametrize("path", [*WITHOUT_SPEECH, *LOOPING])
def test_guards_keep_out_what_the_reference_invents(path: str) -> None:
    case = next((one for one in golden_cases() if one.file == "greedy" and one.entry["path"].startswith(path)), None)
    if case is None:
        pytest.skip(NO_GOLDEN_FILES)
    ours = engine_of(case.entry["model"]).transcribe(case.audio, **case.entry["options"])
    theirs = case.entry["result"]["text"]
    if path in WITHOUT_SPEECH:
        assert ours.text == ""
    else:
        assert ours.flags
        assert len(ours.text) < 0.8 * len(theirs)
        assert theirs.startswith(ours.text[:300])


@pytest.mark.filterwarnings("ignore::stapes.StapesWarning")
def test_of_a_hundred_times_of_words_at_most_one_differs() -> None:
    cases = [case for case in golden_cases() if case.file in WITH_WORDS]
    if not cases:
        pytest.skip(NO_GOLDEN_FILES)
    n_equal = n_all = 0
    for case in cases:
        ours = engine_of(case.entry["model"]).transcribe(case.audio, **case.options | {"mode": "reference"})
        equal, all_of_it = n_times(ours.to_dict(), case.entry["result"])
        n_equal, n_all = n_equal + equal, n_all + all_of_it
    assert n_all > 2000
    assert n_equal / n_all >= 0.99
