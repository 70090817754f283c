"""Who is let in: so many requests in the engine, so many that wait, the rest is refused at once. For one event loop.

Audio is counted when it is decoded, by key and hour; nothing is reserved by guess.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final

from stapes.errors import OutputError
from stapes.output.files import write_whole
from stapes.server.config import Bounds
from stapes.server.errors import ApiError
from stapes.server.keys import Key

HOUR_S: Final = 3600.0
#: OpenAI's clients do not retry after a longer Retry-After
_LONGEST_WAIT_S: Final = 120
_STATE_FILE: Final = "audio-seconds.json"
#: requests whose times say how long another would wait
_RECENT: Final = 20
_LEAST_BETWEEN_WRITES_S: Final = 5.0


class Ticket:
    """A request that was let in."""

    def __init__(self, admission: Admission, key: Key | None) -> None:
        self._admission = admission
        self._key = key
        self._has_slot = False
        self._began = time.monotonic()

    async def active(self) -> None:
        """Wait for a slot, in the order of the calls."""
        await self._admission.slots.acquire()
        self._has_slot = True
        self._began = time.monotonic()
        self._admission.n_active += 1

    def count_audio(self, seconds: float) -> None:
        """Count audio for its key. Raises ApiError 429 where the key's hour is used up."""
        if self._key is not None:
            self._admission.hours.count(self._key, seconds)

    def release(self) -> None:
        """Give its slot to the next."""
        if self._has_slot:
            self._has_slot = False
            self._admission.n_active -= 1
            self._admission.times.append(time.monotonic() - self._began)
            self._admission.slots.release()


class Admission:
    """Counts requests."""

    def __init__(
        self, bounds: Bounds, *, state_dir: Path | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._bounds = bounds
        self.slots = asyncio.Semaphore(bounds.max_active)
        self.n_inside = self.n_active = 0
        self._of_keys: Counter[str] = Counter()
        self._waits: Counter[str] = Counter()
        self.times: deque[float] = deque(maxlen=_RECENT)
        self.hours = AudioHours(None if state_dir is None else state_dir / _STATE_FILE, clock=clock)

    @asynccontextmanager
    async def admit(self, key: Key | None) -> AsyncIterator[Ticket]:
        """Let a request in, until the end of the block. Raises ApiError 429 at once where there is no room."""
        if self.n_inside >= self._bounds.max_active + self._bounds.max_queue:
            raise ApiError(429, "The server is busy.", code="server_busy", retry_after_s=self.retry_after_s)
        name = "" if key is None else key.name
        if key is not None and key.max_requests is not None and self._of_keys[name] >= key.max_requests:
            raise ApiError(
                429,
                f"This key may have {key.max_requests} {'request' if key.max_requests == 1 else 'requests'} at once.",
                code="too_many_requests",
                retry_after_s=self.retry_after_s,
            )
        self.n_inside += 1
        self._of_keys[name] += 1
        ticket = Ticket(self, key)
        try:
            yield ticket
        finally:
            ticket.release()
            self.n_inside -= 1
            self._of_keys[name] -= 1
            if not self._of_keys[name]:
                del self._of_keys[name]

    @contextmanager
    def waiting_for_jobs(self, key: Key | None) -> Iterator[None]:
        """Count an answer that may wait for a job. Raises ApiError 429 where a key has too many, or all together."""
        name = "" if key is None else key.name
        most = self._bounds.max_waits if key is not None else self._bounds.max_connections
        if self._waits[name] >= most or self._waits.total() >= self._bounds.max_connections // 2:
            raise ApiError(429, "Too many answers wait for jobs.", code="too_many_waits", retry_after_s=5)
        self._waits[name] += 1
        try:
            yield
        finally:
            self._waits[name] -= 1
            if not self._waits[name]:
                del self._waits[name]

    @property
    def n_waiting(self) -> int:
        """Requests that upload or wait for a slot."""
        return self.n_inside - self.n_active

    @property
    def retry_after_s(self) -> int:
        """When there is likely to be room again: when a slot is free, by what requests took lately."""
        took_s = sum(self.times) / len(self.times) if self.times else 1.0
        return min(_LONGEST_WAIT_S, max(1, math.ceil(took_s / self._bounds.max_active)))

    def close(self) -> None:
        """Keep what was counted."""
        self.hours.write()


class AudioHours:
    """Audio seconds of each key in the last hour, kept in a file over restarts."""

    def __init__(self, path: Path | None, *, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._counted: dict[str, deque[tuple[float, float]]] = {}  # name -> (when, seconds), the oldest first
        self._written_at = -math.inf
        self._read()

    def count(self, key: Key, seconds: float) -> None:
        """Count audio of a key. Raises ApiError 429, and counts nothing, where its hour is used up."""
        now = self._clock()
        counted = self._counted.setdefault(key.name, deque())
        while counted and counted[0][0] <= now - HOUR_S:
            counted.popleft()
        used_s = sum(one for _, one in counted)
        most_s = key.audio_s_per_hour
        if most_s is not None and seconds > most_s:
            message = f"This recording has {seconds:.0f} s, and this key may have {most_s:g} s of audio an hour."
            raise ApiError(403, message, param="file", code="audio_limit_too_low")
        if most_s is not None and used_s + seconds > most_s:
            oldest_s = counted[0][0] + HOUR_S - now if counted else HOUR_S
            raise ApiError(
                429,
                f"This key may have {most_s:g} s of audio an hour, and has had {used_s:.0f} s; this recording has "
                f"{seconds:.0f} s.",
                code="audio_limit_reached",
                retry_after_s=min(_LONGEST_WAIT_S, max(1, math.ceil(oldest_s))),
            )
        counted.append((now, seconds))
        if now - self._written_at >= _LEAST_BETWEEN_WRITES_S:
            self.write()

    def write(self) -> None:
        """Write what counts still; a disk that refuses costs only the memory of a restart."""
        if self._path is None:
            return
        self._written_at = now = self._clock()
        kept = {name: [one for one in counted if one[0] > now - HOUR_S] for name, counted in self._counted.items()}
        with suppress(OutputError):
            write_whole({self._path: [json.dumps({name: one for name, one in kept.items() if one}).encode()]})

    def _read(self) -> None:
        if self._path is None:
            return
        try:
            values = json.loads(self._path.read_bytes())
            for name, counted in values.items():
                self._counted[str(name)] = deque((float(when), float(seconds)) for when, seconds in counted)
        except (OSError, ValueError, TypeError, AttributeError, RecursionError):  # a damaged one counts from now on
            self._counted = {}
