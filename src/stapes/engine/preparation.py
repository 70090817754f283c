"""Threads that prepare recordings for asyncio: decoding of audio, the log-mel maximum, passes of VAD.

One thread, and so one core at most, for all engines of the process. A source that may block, as a pipe or an upload
does, is read in a thread of another executor: it waits more than it computes.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np

from stapes.audio.pcm import Recording
from stapes.runtime.processes import register

#: sources that may block, and are read at the same time
_MOST_BLOCKING: Final = 32


class Preparation:
    """Makes its executors when they are first needed."""

    def __init__(self) -> None:
        self.after_fork()
        register(self)

    def after_fork(self) -> None:
        """Have no threads yet; a forked child has none of the parent's."""
        self._computing: ThreadPoolExecutor | None = None
        self._blocking: ThreadPoolExecutor | None = None

    def executor(self, audio: Any) -> ThreadPoolExecutor:
        """Return where to prepare a recording, in the thread of an event loop.

        audio: as for `Engine.submit`.
        """
        if isinstance(audio, (Recording, bytes, bytearray, memoryview, np.ndarray)) or _is_file(audio):
            if self._computing is None:
                self._computing = ThreadPoolExecutor(1, thread_name_prefix="stapes-prepare")
            return self._computing
        if self._blocking is None:
            self._blocking = ThreadPoolExecutor(_MOST_BLOCKING, thread_name_prefix="stapes-read")
        return self._blocking


def _is_file(audio: Any) -> bool:
    """Whether it is the path of an ordinary file; a named pipe may block."""
    return isinstance(audio, (str, os.PathLike)) and Path(audio).is_file()


preparation: Final = Preparation()
