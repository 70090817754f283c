"""Choices after several tokens of one step equal those of as many steps, on every recorded window: ids and log-
probabilities, bit for bit.

`make golden` runs all windows; continuous integration those of a fixed tenth of the transcripts.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import pytest

from stapes.audio.load import load_audio
from stapes.audio.mel import N_FRAMES, LogMel
from stapes.backends.base import Backend, Best, Constraint, IdRanges, RowId
from stapes.backends.rowwise import RowStep, step_rows
from stapes.engine.engine import Engine
from tests.golden.cases import Case, engine_of, golden_cases, no_golden_files

pytestmark = pytest.mark.golden

#: most tokens of a step
LONGEST_BLOCK = 9
#: (id, log-probability) of each choice
Chosen = list[tuple[int, float]]


def _cases() -> list[Any]:
    if not golden_cases():
        return [pytest.param(None, "", id="none", marks=no_golden_files)]
    return [
        pytest.param(
            case,
            precision,
            id=f"{case.name}-{precision}",
            marks=[pytest.mark.tenth] if case.tenth == 2 and precision == "int8" else [],
        )
        for case in golden_cases()
        for precision in ("float32", "int8")
    ]


def _windows(case: Case) -> Iterator[tuple[int, list[int]]]:
    """Yield each recorded window's first frame and tokens."""
    for seek, segments in groupby(case.entry["result"]["segments"], lambda one: one["seek"]):
        yield seek, [token for one in segments for token in one["tokens"]]


def _constraint(engine: Engine, random_: random.Random) -> Constraint:
    """Return one of the kinds that decoding has: free, text only, times only, and with the vote of timestamps."""
    n_vocab, begin = engine.info.spec.n_vocab, engine._tokenizer.special.timestamp_begin
    now = random_.choice(((), ((begin, n_vocab),), ((0, begin - 1),)))
    return Constraint(IdRanges([0, 50]), now, random_.choice((None, begin)))


def _in_blocks(
    backend: Backend, row: RowId, tokens: Sequence[int], under: Sequence[Constraint], lengths: Iterator[int]
) -> Chosen:
    """Return the choice after each token; a step takes as many tokens as the next length says."""
    chosen: Chosen = []
    start = 0
    while start < len(tokens):
        end = min(start + next(lengths), len(tokens))
        step = RowStep(
            row=row, tokens=tuple(tokens[start:end]), choice=Best(), constraint=under[end - 1],
            earlier=tuple(enumerate(under[start : end - 1])),
        )  # fmt: skip
        (found,) = step_rows(backend, [step])
        chosen.extend(zip(found.ids, found.logprobs, strict=True))
        start = end
    return chosen


@pytest.mark.filterwarnings("ignore::stapes.StapesWarning")
@pytest.mark.parametrize(("case", "precision"), _cases())
def test_choices_of_one_step_equal_those_of_single_steps(case: Case, precision: str) -> None:
    engine = engine_of(case.entry["model"], precision)
    backend, result = engine._backend, case.entry["result"]
    task = case.entry["options"].get("task", "transcribe")
    start = engine._tokenizer.start_sequence(result["language"], task)
    random_ = random.Random(case.name)
    with load_audio(case.audio) as recording:
        log_mel = LogMel(recording, backend.spec.n_mels, kernel=backend.log10_mel)
        for seek, of_window in _windows(case):
            (window,) = backend.encode(log_mel.window(seek, min(N_FRAMES, log_mel.content_frames - seek))[None])
            tokens = [*start, *of_window][: backend.spec.n_text_ctx]
            under = [_constraint(engine, random_) for _ in tokens]
            together, singly = backend.open(window), backend.open(window)
            lengths = iter(lambda: random_.randint(1, LONGEST_BLOCK), 0)
            found = _in_blocks(backend, together, tokens, under, lengths)
            assert found == _in_blocks(backend, singly, tokens, under, iter(lambda: 1, 0)), (case.name, seek)
            assert len(found) == len(tokens)
            backend.close(together)
            backend.close(singly)
            backend.release(window)
