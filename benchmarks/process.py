"""The benchmark's side of a worker process."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

from benchmarks.recordings import Recording

# OpenMP's threads spin for 200 ms after their last work, on cores that the next engine needs.
PAUSE_S = 0.25


class EngineError(Exception):
    """An engine could not be loaded, or its process ended early."""


class Engine:
    """One engine, loaded in its own process."""

    def __init__(
        self,
        *,
        name: str,
        precision: str,
        instruction_set: str,
        label: str,
        python: str,
        model: str,
        checkpoint: str | None,
        threads: int,
        parts: str | None,
    ) -> None:
        """Start the process and wait until the model is loaded; raises EngineError.

        parts: open it for these (`adapters.PARTS`) instead of single files.
        """
        self.name, self.precision, self.label, self.python = name, precision, label, python
        self.instruction_set = instruction_set
        self.answers: dict[Path, list[dict[str, Any]]] = {}
        self.peak_memory_mb = 0.0
        # The process runs in the checkout's root: paths that were given relative to another folder must survive.
        command = [absolute_program(python), "-m", "benchmarks.worker", name, "--model", model]
        command += ["--precision", precision, "--threads", str(threads)]
        command += ["--parts", parts] if parts is not None else []
        if checkpoint is not None:
            path = Path(checkpoint)
            command += ["--checkpoint", str(path.absolute()) if path.exists() else checkpoint]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
                cwd=Path(__file__).parents[1],
                env=environment(threads, instruction_set),
            )
        except OSError as error:
            raise EngineError(f"{python}: {error.strerror}") from error
        self.ready = self._read()
        if "error" in self.ready:
            raise EngineError(self.ready["error"])

    def transcribe(self, recording: Recording) -> dict[str, Any]:
        """Return {"seconds", "text"} or {"error"}."""
        return self.ask(path=str(recording.path.absolute()), language=recording.language)

    def measure(self, **request: Any) -> Any:
        """Ask an engine that was opened for parts for one figure; raises EngineError."""
        answer = self.ask(**request)
        if "error" in answer:
            raise EngineError(f"{self.label}: {answer['error']}")
        return answer["value"]

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send one request and wait for its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._read()

    def finish(self) -> None:
        """End the process and keep its peak memory."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self.peak_memory_mb = float(self._read()["peak_memory_mb"])
        self._process.wait()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise EngineError(f"its process ended early with exit code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def absolute_program(python: str) -> str:
    """Return a program's absolute path; a link stays a link, for it names the environment."""
    return str(Path(python).absolute()) if os.sep in python else python


def environment(threads: int, instruction_set: str = "") -> dict[str, str]:
    """Return an environment that limits every library to so many threads, and stapes to an instruction set."""
    limits = {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "OPENBLAS", "MKL")}
    forced = {"STAPES_ISA": instruction_set} if instruction_set else {}
    return as_installed() | limits | forced


def as_installed() -> dict[str, str]:
    """Return our environment, but let Python keep what it compiles, as every installation does: of a source tree that
    is compiled again, each start would take a tenth of a second more, or two.
    """
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def pause() -> None:
    """Wait until the engine that has just run leaves the cores idle."""
    time.sleep(PAUSE_S)
