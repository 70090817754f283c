"""The recorded transcripts again, as one engine gives them to many at once: each as the reference gave it.

`make golden` runs all, a tenth of them in each batch; continuous integration runs one batch (`make golden-tenth`),
of another tenth than the one that it runs alone.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import pytest

from stapes.backends.native.library import is_built
from stapes.engine.engine import Engine
from stapes.engine.job import Job
from stapes.engine.scheduled_job import JobState
from stapes.errors import CancelledError
from tests.golden.cases import NO_GOLDEN_FILES, Case, check, engine_of, golden_cases, no_golden_files

pytestmark = pytest.mark.golden

#: of a batch; each is cancelled before so many steps
N_CANCELLED, MOST_STEPS = 4, 400
#: recordings that the other precisions get
LONGEST_S = 6.0


def _companies() -> list[Any]:
    if not golden_cases():
        return [pytest.param(0, id="none", marks=no_golden_files)]
    return [pytest.param(tenth, marks=[pytest.mark.tenth] if tenth == 1 else []) for tenth in range(10)]


def _others() -> list[Case]:
    """Return some recordings for the inexact precisions: of every set of options one, a short one."""
    chosen: dict[str, list[Case]] = {}
    for case in golden_cases():
        last = case.entry["result"]["segments"][-1:]
        if case.entry["model"] == "base" and last and last[0]["end"] < LONGEST_S:
            chosen.setdefault(case.file, []).append(case)
    return [case for cases in chosen.values() for case in cases[:1]]


@pytest.mark.filterwarnings("ignore::stapes.StapesWarning")
@pytest.mark.parametrize("tenth", _companies())
def test_equals_the_reference_in_random_batches(tenth: int) -> None:
    shuffled = random.Random(tenth)
    cases = [case for case in golden_cases() if case.tenth == tenth]
    shuffled.shuffle(cases)
    differing: list[str] = []
    for model in sorted({case.entry["model"] for case in cases}):
        members = [case for case in cases if case.entry["model"] == model]
        for case, job in _in_batch(engine_of(model), members, shuffled):
            reason = check(case, job.result())
            if reason is not None:
                differing.append(f"{case.name}: {reason}")
    if differing:
        pytest.xfail("\n".join(differing))


@pytest.mark.skipif(not is_built(), reason="the native library was not built")
@pytest.mark.filterwarnings("ignore::stapes.StapesWarning")
@pytest.mark.parametrize("precision", ["bfloat16", pytest.param("int8", marks=pytest.mark.tenth)])
def test_other_precisions_give_in_a_batch_what_they_give_alone(precision: str) -> None:
    members = _others()
    if not members:
        pytest.skip(NO_GOLDEN_FILES)
    engine = engine_of("base", precision)
    alone = {case.name: engine.transcribe(case.audio, **case.options) for case in members}
    for case, job in _in_batch(engine, members, random.Random(3)):
        assert job.result() == alone[case.name], case.name  # floats included


def _in_batch(engine: Engine, cases: list[Case], shuffled: random.Random) -> Iterable[tuple[Case, Job]]:
    """Submit all at once, some of them twice; the second ones are cancelled on their way."""
    doomed = shuffled.choices(cases, k=N_CANCELLED)
    order = [(case, False) for case in cases] + [(case, True) for case in doomed]
    shuffled.shuffle(order)
    jobs = [(case, ends, engine.submit(case.audio, **case.options)) for case, ends in order]
    moments = sorted(shuffled.randrange(MOST_STEPS) for _ in doomed)
    ending = [job for _, ends, job in jobs if ends]
    step = 0
    while engine.step():
        step += 1
        while moments and moments[0] <= step:
            del moments[0]
            ending.pop().cancel()
    for _, ends, job in jobs:
        if ends and job.state is JobState.CANCELLED:
            with pytest.raises(CancelledError):
                job.result()
    assert engine.status().running == engine.status().queued == 0
    return [(case, job) for case, ends, job in jobs if not (ends and job.state is JobState.CANCELLED)]
