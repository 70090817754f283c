"""kill -9, again and again, in the middle of a run on many files: `python -m benchmarks.kills` does it more often."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

from benchmarks.kills import Kills
from tests.random_cases import cases


@pytest.mark.random
@pytest.mark.skipif(sys.platform == "win32", reason="has no kill -9")
def test_a_run_that_is_killed_again_and_again_ends_as_an_unbroken_one(tmp_path: Path) -> None:
    trial = Kills(tmp_path, n_files=4, concurrency=3, step_s=0.0)
    assert trial.kill_and_go_on("often", random.Random(0), kills=cases(3, 16)) >= cases(2, 8)
