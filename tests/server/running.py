"""A server in a thread of this process, on a free port of the loopback, with scripted models."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from stapes import Engine
from stapes.server.config import Bounds, ServerConfig
from stapes.server.serve import Server, serve
from stapes.testing import scripted_engine

HELLO = [" Hello, world.", " How are you?"]


@dataclass(frozen=True, slots=True)
class Running:
    """A server that listens."""

    port: int
    server: Server

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def service(self) -> Any:
        return self.server.service


def bounds(**values: Any) -> Bounds:
    return Bounds(**{"max_connections": 64, **values})


@contextmanager
def running(load: Callable[[], Engine] = lambda: scripted_engine(HELLO), **config: Any) -> Iterator[Running]:
    """Run a server; end it, and raise what it raised."""
    values: dict[str, Any] = {"port": 0, "media_processes": 1, "bounds": bounds()} | config
    ready, found, errors = threading.Event(), list[Server](), list[BaseException]()

    def on_ready(server: Server) -> None:
        found.append(server)
        ready.set()

    def work() -> None:
        try:
            asyncio.run(serve(ServerConfig(**values), load=lambda *_: load(), on_ready=on_ready))
        except BaseException as error:
            errors.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=work, name="test server")
    thread.start()
    ready.wait(60)
    try:
        if found:
            address: Any = found[0].address
            yield Running(address[1], found[0])
    finally:
        for server in found:
            server.should_exit = True
        thread.join(60)
        assert not thread.is_alive(), "the server has not ended"
        if errors:
            raise errors[0]
