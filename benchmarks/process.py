"""The benchmark's side of a worker process."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.recordings import Recording


class EngineError(Exception):
    """An engine could not be loaded, or its process ended early."""


class Engine:
    """One engine, loaded in a process of its own."""

    def __init__(
        self, *, name: str, precision: str, python: str, model: str, checkpoint: str | None, threads: int
    ) -> None:
        """Start the process and wait until the model is loaded; raises EngineError."""
        self.name, self.precision, self.python = name, precision, python
        self.answers: dict[Path, list[dict[str, Any]]] = {}
        self.peak_memory_mb = 0.0
        # The process runs in the checkout's root: paths that were given relative to another folder must survive.
        command = [str(Path(python).absolute()) if os.sep in python else python]
        command += ["-m", "benchmarks.worker", name, "--model", model]
        command += ["--precision", precision, "--threads", str(threads)]
        if checkpoint is not None:
            path = Path(checkpoint)
            command += ["--checkpoint", str(path.absolute()) if path.exists() else checkpoint]
        limits = {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "OPENBLAS", "MKL")}
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
                cwd=Path(__file__).parents[1],
                env=os.environ | limits,
            )
        except OSError as error:
            raise EngineError(f"{python}: {error.strerror}") from error
        self.ready = self._read()
        if "error" in self.ready:
            raise EngineError(self.ready["error"])

    @property
    def label(self) -> str:
        """The name that results carry."""
        return self.name if self.precision == "float32" else f"{self.name}@{self.precision}"

    def transcribe(self, recording: Recording) -> dict[str, Any]:
        """Give {"seconds", "text"} or {"error"}."""
        assert self._process.stdin is not None
        request = {"path": str(recording.path.absolute()), "language": recording.language}
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
