"""The command `stapes` with a model that gives random text, the same for the same sound: for tests that end processes.

    python -m benchmarks.scripted_command AUDIO... [flags of stapes]

STAPES_ENCODED names a file to which a line is added for every window that is encoded: its sound's checksum, and when.
STAPES_STEP_S makes every step of the decoder last longer, in seconds.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
import zlib
from typing import Any

from stapes.backends.base import FloatArray, StepAnswers, StepBatch, WindowId
from stapes.checkpoint.base import Checkpoint
from stapes.engine.engine import Engine
from stapes.testing import ScriptedBackend, babbling, small_vocabulary, tiny_spec
from stapes.tokenizer import Tokenizer


class LoggingBackend(ScriptedBackend):
    """Logs which windows it encodes, and takes extra time."""

    _log = os.environ.get("STAPES_ENCODED")
    _step_s = float(os.environ.get("STAPES_STEP_S", "0"))

    def encode(self, mel: FloatArray) -> list[WindowId]:
        """Log the windows, then encode them."""
        if self._log:
            lines = "".join(f"{zlib.crc32(one.tobytes()):08x} {time.time()}\n" for one in mel)
            with open(self._log, "a", encoding="ascii") as file:  # noqa: PTH123 (as plain as may be)
                file.write(lines)
        return super().encode(mel)

    def step(self, batch: StepBatch) -> StepAnswers:
        """Step, with a delay."""
        time.sleep(self._step_s)
        return super().step(batch)


def _load(_: object) -> Any:
    spec = tiny_spec()
    checkpoint = Checkpoint(
        name="scripted", path=None, format="memory", storage="float32", spec=spec, tensors={},
        vocabulary=small_vocabulary(),
    )  # fmt: skip
    script = babbling(0, Tokenizer(spec, checkpoint.vocabulary))
    return Engine(checkpoint, LoggingBackend(spec, script))


def main() -> int:
    """Run the command."""
    command: Any = importlib.import_module("stapes.cli.main")
    command.load_engine = _load
    code: int = command.main()
    return code


if __name__ == "__main__":
    # A shell starts background jobs with Ctrl-C ignored, and their children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())
