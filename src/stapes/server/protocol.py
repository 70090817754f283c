"""Connections: how many, how long a head may take, how long an answer may wait for its reader.

Extends uvicorn's protocol in Python; its version is pinned below the next minor release for that.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from stapes.errors import OptionError
from stapes.server.config import Bounds

#: descriptors beside the connections: files, pipes, the engine's
_SPARE_DESCRIPTORS: Final = 128
#: a client that reads nothing of its answer for so long is gone
WRITE_TIMEOUT_S: Final = 30.0
_FULL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 1\r\ncontent-type: application/json\r\n"
    b"content-length: 110\r\n\r\n"
    b'{"error":{"message":"Too many connections.","type":"server_error","param":null,"code":"too_many_connections"}}'
)


def check_descriptors(n_connections: int) -> None:
    """Have the system allow as many open files as there may be connections. Raises OptionError where it refuses."""
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415 (not on Windows)

    needed = n_connections + _SPARE_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        if hard != resource.RLIM_INFINITY and hard < needed:
            raise OptionError(
                f"{n_connections} connections need {needed} open files, and this system allows {hard}; "
                "raise it (ulimit -n), or give a lower --max_connections"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


class Connections:
    """The connections of a server: those that wait for a head, in the order in which they began to, and the others."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self._waiting: dict[Protocol, None] = {}
        self._others: set[Protocol] = set()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._others)

    def make_room(self) -> bool:
        """Close the connection that has waited longest for its head, if all are taken; False if none waits."""
        if len(self) < self.bounds.max_connections:
            return True
        if not self._waiting:
            return False
        next(iter(self._waiting)).transport.abort()
        return True

    def wait(self, one: Protocol) -> None:
        """Note that a connection waits for a head."""
        self._others.discard(one)
        self._waiting.setdefault(one)

    def work(self, one: Protocol) -> None:
        """Note that a connection has a request."""
        self._waiting.pop(one, None)
        self._others.add(one)

    def remove(self, one: Protocol) -> None:
        """Forget a connection."""
        self._waiting.pop(one, None)
        self._others.discard(one)


class Protocol(H11Protocol):
    """A connection with deadlines. `shared`: set by `protocol_class`."""

    shared: Connections

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._is_refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head, or refuse."""
        has_room = self.shared.make_room()
        super().connection_made(transport)
        if not has_room:
            self._is_refused = True
            transport.write(_FULL)
            transport.close()
            return
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop(self._head_timer)
        self._stop(self._write_timer)
        self.shared.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes, and see whether they complete a head."""
        if self._is_refused:
            return
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._await_head()
        else:
            self._stop(self._head_timer)
            self._head_timer = None
            self.shared.work(self)

    def on_response_complete(self) -> None:
        """Wait for the next head."""
        super().on_response_complete()
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self.shared.wait(self)  # uvicorn closes it if nothing comes

    def pause_writing(self) -> None:
        """Begin to wait for the reader."""
        super().pause_writing()
        self._stop(self._write_timer)
        self._write_timer = self.loop.call_later(WRITE_TIMEOUT_S, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on, as the reader has read."""
        self._stop(self._write_timer)
        super().resume_writing()

    def _await_head(self) -> None:
        self.shared.wait(self)
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.shared.bounds.header_timeout_s, self.transport.abort)

    @staticmethod
    def _stop(timer: asyncio.TimerHandle | None) -> None:
        if timer is not None:
            timer.cancel()


def protocol_class(bounds: Bounds) -> type[Protocol]:
    """Return the protocol of one server's connections."""
    return type("BoundedProtocol", (Protocol,), {"shared": Connections(bounds)})
