"""Every recorded transcript of the reference: tokens, times and seeks of every segment, as openai/whisper gave them.

`make golden` runs all; continuous integration runs the fixed tenth (`make golden-tenth`).
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.golden.cases import Case, check, engine_of, golden_cases, no_golden_files

pytestmark = pytest.mark.golden


def _cases() -> list[Any]:
    if not golden_cases():
        return [pytest.param(Case("none", {}), id="none", marks=no_golden_files)]
    return [
        pytest.param(case, id=case.name, marks=[pytest.mark.tenth] if case.tenth == 0 else [])
        for case in golden_cases()
    ]


@pytest.mark.filterwarnings("ignore::stapes.StapesWarning")
@pytest.mark.parametrize("case", _cases())
def test_equals_the_reference(case: Case) -> None:
    ours = engine_of(case.entry["model"]).transcribe(case.audio, **case.entry["options"])
    reason = check(case, ours)
    if reason is not None:
        pytest.xfail(reason)
