"""How many recordings an engine works on at once, and how many threads read them. No result depends on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from stapes.engine.info import EngineInfo
    from stapes.options import TranscribeOptions

#: recordings at once, however small their windows: more rows gain little from shared weights
MOST_AT_ONCE: Final = 16
#: the same on GPUs, where the engine bounds the memory of windows itself
_MOST_ON_GPUS: Final = 128
_MOST_READERS: Final = 8
#: in chunked mode one recording fills a batch, and another is read at the same time
_CHUNKED_AT_ONCE: Final = 2
#: what the windows of recordings at once may take where nothing is asked for
_MEMORY_BYTES: Final = 4 << 30


def default_concurrency(info: EngineInfo, options: TranscribeOptions, count: int) -> int:
    """Return how many recordings to work on at once: as many as there are, 16 at most, and windows in 4 GiB; on a GPU
    128 at most.
    """
    if info.device != "cpu" and options.method.mode != "chunked":
        return min(count, _MOST_ON_GPUS)
    window_bytes = info.window_bytes + (options.search.most_rows + 1) * info.row_bytes
    fitting = _MEMORY_BYTES // window_bytes if window_bytes else MOST_AT_ONCE
    most = _CHUNKED_AT_ONCE if options.method.mode == "chunked" else MOST_AT_ONCE
    return max(1, min(count, most, fitting))


def reading_threads(info: EngineInfo, concurrency: int) -> int:
    """Return how many threads read recordings: one, as a CPU has enough to do; for a GPU several, since one decodes
    compressed audio some hundred times faster than it is spoken.
    """
    return 1 if info.device == "cpu" else max(1, min(info.threads, concurrency, _MOST_READERS))
