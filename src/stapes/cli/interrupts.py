"""Ctrl-C without an exception. Loads nothing that takes time."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def ctrl_c_calls(handle: Callable[[], None]) -> Iterator[None]:
    """Let Ctrl-C call a function instead of raising KeyboardInterrupt.

    Only in the main thread, and where Python's own handler is in place: another program's, or a shell's setting that
    Ctrl-C is ignored, stays.
    """
    is_main = threading.current_thread() is threading.main_thread()
    is_ours = is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_ours:
        signal.signal(signal.SIGINT, lambda *_: handle())
    try:
        yield
    finally:
        if is_ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
