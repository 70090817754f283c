"""Runs the server: uvicorn, signals, and what is printed at the start."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import uvicorn
from starlette.types import ASGIApp
from uvicorn.server import HANDLED_SIGNALS

from stapes.errors import StapesError
from stapes.server import logs
from stapes.server.app import create_app
from stapes.server.config import MIB, ServerConfig
from stapes.server.jobs.runner import JobRunner, jobs_of
from stapes.server.listening import open_sockets
from stapes.server.models import LoadModel
from stapes.server.protocol import check_descriptors, protocol_class
from stapes.server.service import Service


class Server(uvicorn.Server):
    """A uvicorn server that says when it listens."""

    def __init__(
        self, config: uvicorn.Config, service: Service, jobs: JobRunner | None, on_ready: Callable[[Server], None]
    ) -> None:
        super().__init__(config)
        self.service = service
        self._jobs = jobs
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        self._on_ready(self)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End: requests are answered; who waits for a job is not kept until it has ended."""
        if n_left := len(self.server_state.tasks):
            what = "one request is" if n_left == 1 else f"{n_left} requests are"
            logs.LOGGER.info("stopping: %s finished first; a second signal (Ctrl-C) ends at once", what)
        if self._jobs is not None:
            await self._jobs.stop()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take signals while it serves. uvicorn raises them again afterwards, which would end the process at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {one: signal.signal(one, self.handle_exit) for one in HANDLED_SIGNALS}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End after the requests in work; a second signal, of either kind, does not wait for them."""
        self.force_exit = self.should_exit
        super().handle_exit(sig, frame)

    @property
    def address(self) -> object:
        """Where it listens: (host, port, ...), or the path of a Unix socket."""
        return self.servers[0].sockets[0].getsockname()


async def serve(
    config: ServerConfig, *, load: LoadModel | None = None, on_ready: Callable[[Server], None] | None = None
) -> None:
    """Serve until a signal: SIGTERM or Ctrl-C ends requests in work first, a second one does not wait; SIGHUP reads
    the keys again.

    load: loads a model; None: `stapes.load`.   on_ready: called when it listens; None prints what is served.
    Raises StapesError where it cannot begin.
    """
    check_descriptors(config.bounds.max_connections)
    async with Service.opened(config, load=load) as service, jobs_of(service) as jobs:
        server = Server(uvicorn_config(config, create_app(service, jobs)), service, jobs, on_ready or _greet)
        _reload_keys_on_hangup(service)
        if config.trusted_proxies and config.key_file is None:
            logs.LOGGER.warning(
                "a proxy is trusted, but there are no keys: every client of the proxy may use the server"
            )
        sockets = open_sockets(config)
        try:
            await server.serve(sockets)
        finally:
            for one in sockets:
                one.close()
            if config.uds is not None:
                Path(config.uds).unlink(missing_ok=True)
        left = tuple(server.server_state.tasks)  # after a second signal
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
    if on_ready is None:
        logs.LOGGER.info("stopped")


def _greet(server: Server) -> None:
    config = server.service.config
    text = greeting(config, server.address, [one.id for one in server.service.models.all])
    if config.json_logs:
        logs.LOGGER.info("%s", " ".join(text.split()))
    else:
        sys.stderr.write(text)
        sys.stderr.flush()


def uvicorn_config(config: ServerConfig, app: ASGIApp) -> uvicorn.Config:
    """Return the settings of uvicorn."""
    return uvicorn.Config(
        app,
        host=config.host,
        port=config.port,
        uds=config.uds,
        root_path=config.root_path,
        http=protocol_class(config.bounds),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(config.trusted_proxies),
        forwarded_allow_ips=list(config.trusted_proxies),
        timeout_keep_alive=int(config.bounds.keep_alive_s),
    )


def greeting(config: ServerConfig, listening: object, models: list[str]) -> str:
    """Return what is printed when the server listens."""
    bounds = config.bounds
    first = models[0]
    if config.uds is not None:
        where, call = config.uds, f"curl --unix-socket {config.uds} http://localhost"
    else:
        host = f"[{config.host}]" if ":" in config.host else config.host
        port = listening[1] if isinstance(listening, tuple) else config.port
        where = f"http://{host}:{port}"
        call = f"curl {where.replace('0.0.0.0', '127.0.0.1').replace('[::]', '127.0.0.1')}"  # noqa: S104 (shown)
    key = " -H 'Authorization: Bearer KEY'" if config.key_file else ""
    return (
        f"stapes serves {', '.join(models)} at {where}\n"
        f"  requests at once: {bounds.max_active}, waiting: {bounds.max_queue}; body at most "
        f"{bounds.max_body_bytes // MIB} MiB, audio at most {_time(bounds.max_audio_s)}\n"
        f"  keys: {config.key_file or 'none needed'}\n"
        f"  jobs: {config.state_dir or 'off; --state_dir FOLDER switches them on'}\n"
        f"  try: {call}/v1/audio/transcriptions{key} -F model={first} -F file=@talk.mp3\n"
        f"  Ctrl-C stops\n"
    )


def _time(seconds: float) -> str:
    return f"{seconds / 3600:g} h" if seconds >= 3600 else f"{seconds:g} s"


def _reload_keys_on_hangup(service: Service) -> None:
    def reload() -> None:
        if service.keys is None:
            logs.LOGGER.warning("SIGHUP: there is no file of keys to read again (--key_file)")
            return
        try:
            service.keys.reload()
            logs.LOGGER.info("keys were read again: %d", len(service.keys))
        except StapesError as error:
            logs.LOGGER.error("keys could not be read again, the old ones stay: %s", error)

    if hasattr(signal, "SIGHUP"):
        with suppress(NotImplementedError, RuntimeError):  # Windows; a thread that gets no signals
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)
