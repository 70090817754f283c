"""The same with version 2 of OpenAI's client, which is in a folder of its own (`make test` installs it)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.random_cases import THOROUGH

CLIENT = Path(sys.prefix) / "openai-2"
ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not (CLIENT / "openai").is_dir(), reason="version 2 of OpenAI's client is not in this environment")
def test_version_2_passes_what_the_newest_passes() -> None:
    environment = {**os.environ, "PYTHONPATH": str(CLIENT), "PYTEST_ADDOPTS": ""}

    def run(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, *words],
            cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    assert run("-c", "import openai; print(openai.__version__)").startswith("2.")
    chosen = [] if THOROUGH else ["-k", "json or stream"]
    run("-m", "pytest", "-n", "0", "-p", "no:cacheprovider", "-q", "tests/server/test_official_client.py", *chosen)
