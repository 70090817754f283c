"""Many recordings at once through an engine on the native library: in every precision and on every instruction set
here, each gets the numbers that it gets alone, to the last bit."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest

from stapes.backends.native.library import PRECISIONS
from stapes.engine.engine import Engine
from stapes.engine.scheduler import MemoryBound, Scheduler
from stapes.errors import CancelledError
from stapes.results import Transcript
from stapes.testing import noise, random_checkpoint, tiny_spec

native: Any = pytest.importorskip("stapes._native", reason="the native library was not built", exc_type=ImportError)
from stapes.backends.native.backend import NativeBackend  # noqa: E402

#: sizes that are no whole vectors
SPEC = dataclasses.replace(tiny_spec(), n_audio_state=20, n_text_state=20, n_audio_head=2, n_text_head=4)
CHECKPOINT = random_checkpoint(spec=SPEC, seed=2)
#: (seconds, options): forks, beams, temperature fallback, prompts of many lengths, several windows, chunks
JOBS: tuple[tuple[float, dict[str, Any]], ...] = (
    (4.0, {}),
    (30.5, {"language": "en", "temperature": 0.0}),
    (9.0, {"temperature": (0.0, 0.7), "best_of": 5, "seed": 3}),
    (2.0, {"beam_size": 4, "temperature": 0.0, "language": "de"}),
    (20.0, {"initial_prompt": "word " * 70, "language": "en", "temperature": (0.0, 0.9), "best_of": 2}),
    (40.0, {"mode": "chunked", "language": "en", "temperature": 0.0}),
    (12.0, {"initial_prompt": "So", "beam_size": 2, "patience": 2.0, "temperature": 0.0}),
    (1.0, {"without_timestamps": True, "language": "ja", "task": "translate", "temperature": (0.4,), "best_of": 3}),
)


def submit(engine: Engine, place: int, **keywords: Any) -> Any:
    seconds, options = JOBS[place]
    return engine.submit(noise(seconds, seed=place), **{"sample_len": 12, **options, **keywords})


def in_batch(engine: Engine) -> list[Transcript]:
    """Submit all at random steps, and some of them twice; the second ones are cancelled at random steps."""
    shuffled = random.Random(6)
    engine.scheduler = Scheduler(engine._backend, MemoryBound.of(engine._backend, None, max_windows=5))
    arrivals = [(shuffled.randrange(25), place, False) for place in range(len(JOBS))]
    arrivals += [(shuffled.randrange(25), place, True) for place in range(0, len(JOBS), 3)]
    jobs, ending = {}, []
    working, step = True, 0
    while working or step < 25:
        for at, place, ends in arrivals:
            if at == step and ends:
                ending.append((step + shuffled.randrange(1, 20), submit(engine, place)))
            elif at == step:
                jobs[place] = submit(engine, place)
        for at, job in ending:
            if at == step:
                job.cancel()
        working = engine.step()
        step += 1
    assert any(isinstance(job.error, CancelledError) for _, job in ending)
    return [jobs[place].result() for place in range(len(JOBS))]


def kinds() -> list[Any]:
    """Return every precision on every instruction set; the slow, plain one has one precision by default."""
    return [
        pytest.param(precision, isa, marks=[pytest.mark.slow] if isa == "portable" and precision != "float32" else [])
        for precision in PRECISIONS
        for isa in native.isa_names()
    ]


@pytest.mark.parametrize(("precision", "isa"), kinds())
def test_recordings_in_a_batch_equal_each_alone_to_the_last_bit(precision: str, isa: str) -> None:
    backend = NativeBackend(CHECKPOINT, threads=1, precision=precision, isa=isa)
    with Engine(CHECKPOINT, backend) as engine:
        alone = [submit(engine, place).result() for place in range(len(JOBS))]
        assert len({result.text for result in alone}) > len(JOBS) // 2  # there is something to compare
        assert in_batch(engine) == alone
        assert len(backend.handles) == 0
