"""The entry point of the command `stapes`. Everything else is imported in `main`, so that Ctrl-C ends it cleanly.

Exit codes: 0 all done; 2 something failed, the others finished; 130 Ctrl-C. If the reader closes the pipe: 0.
"""

from __future__ import annotations

import atexit
import importlib
import os
import sys
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Any

from stapes.cli.interrupts import ctrl_c_calls

if TYPE_CHECKING:
    from stapes.cli.command import Command


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line (default: the program's own) and return the exit code."""
    presses: list[None] = []
    with ctrl_c_calls(lambda: presses.append(None)):  # an import that it breaks off may leave a traceback
        from stapes.cli.commands import run  # noqa: PLC0415
    return run(sys.argv[1:] if words is None else list(words), load_engine, interrupted=bool(presses))


def program() -> int:
    """Run the program's own command line and end the process, or return the exit code where a thread is still at work.

    Python would take modules, NumPy and PyAV apart one by one before it ends; the system frees them at once.
    """
    code = main()
    if any(not thread.daemon and thread is not threading.main_thread() for thread in threading.enumerate()):
        return code
    atexit._run_exitfuncs()  # as multiprocessing does before it leaves in this way
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except (OSError, ValueError):  # Python says what is wrong when it flushes them
        return code
    os._exit(code)


def load_engine(command: Command) -> AbstractContextManager[Any]:
    """Load the model that a command asks for; tests put a scripted engine in this place."""
    from stapes import load  # noqa: PLC0415 (NumPy comes with it: not for --help)
    from stapes.cli.models import quieten_hub  # noqa: PLC0415

    quieten_hub(quiet=command.progress in ("json", "none"))
    threading.Thread(target=_import_decoder, name="stapes-import").start()
    engine: AbstractContextManager[Any] = load(
        command.model,
        device=command.device,
        precision=command.precision,
        threads=command.threads,
        max_memory=command.max_memory,
        device_memory=command.device_memory,
        model_dir=command.model_dir,
    )
    return engine


def _import_decoder() -> None:
    """Import PyAV, which takes a tenth of a second, while the model is loaded; its user reports what fails."""
    with suppress(ImportError):
        importlib.import_module("stapes.audio.decode")
