"""What stands before the application: request ids, Host and Origin, keys; what answers errors, and logs.

All of it comes before a body is read. An answer that comes before its request's body is written whole; then the body is
read and thrown away for a moment, so that the client sees the answer, and not a broken connection.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stapes.server.config import LOOPBACK, ServerConfig
from stapes.server.errors import ApiError, api_error_of
from stapes.server.keys import Key, KeyFile
from stapes.server.logs import LOGGER
from stapes.server.service import Service

#: how much of a refused body is read, and for how long
MAX_DRAINED_BYTES, MAX_DRAIN_S = 32 << 20, 2.0
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_BRACKETED: Final = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]+)?")
_OPEN_TO_ALL: Final = ("/health/live", "/health/ready")
_OPEN_ON_LOOPBACK: Final = ("/metrics", "/openapi.json")
#: what a request gets that a second signal ends
STOPPING: Final = ApiError(503, "The server is stopping.", code="server_stopping", retry_after_s=1)
CLIENT_GONE: Final = 499  # nginx's number for a client that has gone


def key_of(scope_headers: Mapping[str, str], path: str, config: ServerConfig, keys: KeyFile | None) -> Key | None:
    """Return the key of a request; None where none is needed. Raises ApiError 401."""
    is_behind_proxy = bool(config.trusted_proxies or config.root_path)
    is_open = path in _OPEN_TO_ALL or (config.is_loopback and not is_behind_proxy and path in _OPEN_ON_LOOPBACK)
    if keys is None or is_open:
        return None
    kind, _, token = scope_headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not token.strip():
        raise ApiError(401, "A key is needed: Authorization: Bearer KEY.", code="missing_api_key")
    key = keys.match(token.strip())
    if key is None:
        raise ApiError(401, "This key is not known.", code="invalid_api_key")
    return key


def check_sites(headers: Mapping[str, str], method: str, config: ServerConfig, *, has_keys: bool) -> None:
    """Refuse what a web page sends through its visitor's browser. Raises ApiError 403.

    A page can post forms to 127.0.0.1 (Origin names the page), and read answers after its own name was made to lead
    here (Host has that name). With keys neither helps it, so that both are checked only where they were set.
    """
    host = headers.get("host", "")
    if (not has_keys or config.allow_hosts) and config.uds is None:
        name = host_name(host)
        if name not in (*LOOPBACK, config.host, *config.allow_hosts):
            raise ApiError(
                403,
                f"The host {name[:100]!r} is not allowed; start the server with --allow_host NAME to allow one.",
                code="host_not_allowed",
            )
    origin = headers.get("origin")
    if origin is None or method in _SAFE_METHODS or (has_keys and not config.allow_origins):
        return
    if origin not in config.allow_origins and origin.partition("://")[2] != host:
        raise ApiError(
            403, f"Pages of {origin[:100]!r} may not use this server; --allow_origin allows them.",
            code="origin_not_allowed",
        )  # fmt: skip


def host_name(host: str) -> str:
    """Return the name in a Host header, in lower case, without its port: of `[::1]:8000`, `::1`."""
    if match := _BRACKETED.fullmatch(host):
        return match[1].lower()
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdecimal() else host).lower().removesuffix(".")


def request_id(headers: Mapping[str, str]) -> str:
    """Return the client's request id, if it is a plain one, or a new one."""
    given = headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else f"req_{secrets.token_hex(16)}"


def cors_headers(origin: str | None, config: ServerConfig) -> list[tuple[bytes, bytes]]:
    """Return what lets a page of an allowed origin read the answer."""
    if origin is None or origin not in config.allow_origins:
        return []
    return [(b"access-control-allow-origin", origin.encode("latin-1", "replace")), (b"vary", b"Origin")]


_PREFLIGHT: Final = [
    (b"access-control-allow-methods", b"GET, POST, DELETE"),
    (b"access-control-allow-headers", b"authorization, content-type, x-request-id, idempotency-key"),
    (b"access-control-max-age", b"600"),
]


class Gate:
    """The outermost application."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, whatever happens."""
        if scope["type"] != "http":
            return
        headers = _text_headers(scope["headers"])
        exchange = _Exchange(headers, self._service.config, scope, receive, send)
        try:
            await self._pass(headers, scope, exchange)
        except ClientDisconnect:
            exchange.status = CLIENT_GONE
        except asyncio.CancelledError:  # the server ends at once: the client is told
            exchange.error = "server_stopping"
            if not exchange.status:
                await exchange.refuse(STOPPING)
        except Exception as error:
            await self._answer_error(error, exchange)
        finally:
            self._note(scope, exchange)

    async def _pass(self, headers: Mapping[str, str], scope: Scope, exchange: _Exchange) -> None:
        service, path = self._service, scope["path"].removeprefix(scope.get("root_path", ""))
        check_sites(headers, scope["method"], service.config, has_keys=service.keys is not None)
        if scope["method"] == "OPTIONS" and cors_headers(headers.get("origin"), service.config):
            await exchange.respond(204, b"", _PREFLIGHT)
            return
        key = key_of(headers, path, service.config, service.keys)
        length = headers.get("content-length", "")
        most = service.config.bounds.max_body_bytes
        if length.isdigit() and int(length[:20]) > most:
            raise ApiError(413, f"The body is larger than {most >> 20} MiB.", code="body_too_large")
        exchange.key = key
        scope.setdefault("state", {}).update(key=key, request_id=exchange.id, noted=exchange.noted)
        await self._app(scope, exchange.receive, exchange.send)

    async def _answer_error(self, error: Exception, exchange: _Exchange) -> None:
        answer = api_error_of(error)
        exchange.error = answer.code or type(error).__name__
        if answer.status >= 500:
            LOGGER.error("%s", type(error).__name__, exc_info=error, extra={"request_id": exchange.id})
        if not exchange.status and answer.status in (401, 403, 408, 413, 429):
            self._service.metrics.rejects.labels(exchange.error).inc()
        if not exchange.status:
            await exchange.refuse(answer)

    def _note(self, scope: Scope, exchange: _Exchange) -> None:
        self._service.metrics.requests.labels(str(exchange.status)).inc()
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        level = "debug" if path.startswith(("/health/", "/metrics")) else "info"
        getattr(LOGGER, level)(
            "request",
            extra={
                "request_id": exchange.id,
                "method": scope["method"],
                "path": scope["path"][:200],
                "status": exchange.status,
                "seconds": round(time.monotonic() - exchange.began, 4),
                "key": exchange.key.name if exchange.key else None,
                "client": (scope.get("client") or (None,))[0],
                **exchange.noted,
                "error": exchange.error,
            },
        )


class _Exchange:
    """One request and its answer."""

    def __init__(
        self, headers: Mapping[str, str], config: ServerConfig, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self.id = request_id(headers)
        self.began = time.monotonic()
        self.status = 0  # 0: no answer has begun
        self.key: Key | None = None
        self.error: str | None = None
        self.noted: dict[str, object] = {}  # by handlers, for the log: model, audio_s, warnings
        self._more = [(b"x-request-id", self.id.encode()), *cors_headers(headers.get("origin"), config)]
        self._receive = receive
        self._send = send
        self._is_head = scope["method"] == "HEAD"
        self._has_body = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
        self._waits_for_100 = "100-continue" in headers.get("expect", "").lower()
        self._body_is_read = False

    async def receive(self) -> Message:
        """Receive from the client."""
        self._waits_for_100 = False
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._body_is_read = True
        return message

    async def send(self, message: Message) -> None:
        """Send to the client, with our headers."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": [*message.get("headers", []), *self._more]}
        await self._send(message)

    async def respond(self, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        """Send a whole answer; then read and throw away what is left of a body for a moment."""
        await self._start(status, body, headers)
        await self._send({"type": "http.response.body", "body": body, "more_body": True})
        await self._drain()
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _start(self, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]]) -> None:
        length = [] if status == 204 else [(b"content-length", str(len(body)).encode())]
        closes = [(b"connection", b"close")] if self._has_body and not self._body_is_read else []
        await self.send({"type": "http.response.start", "status": status, "headers": [*length, *closes, *headers]})

    async def refuse(self, error: ApiError) -> None:
        """Send an error."""
        headers: list[tuple[bytes, bytes]] = [(b"content-type", b"application/json")]
        if error.retry_after_s is not None:
            headers.append((b"retry-after", str(error.retry_after_s).encode()))
        if error.status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        if error.allowed:
            headers.append((b"allow", error.allowed.encode()))
        await self.respond(error.status, msgspec.json.encode(error.to_dict()), headers)

    async def _drain(self) -> None:
        if not self._has_body or self._body_is_read or self._waits_for_100:
            return
        n_bytes = 0
        try:
            async with asyncio.timeout(MAX_DRAIN_S):
                while n_bytes < MAX_DRAINED_BYTES:
                    message: dict[str, Any] = dict(await self.receive())
                    n_bytes += len(message.get("body", b""))
                    if message["type"] == "http.disconnect" or not message.get("more_body", False):
                        break
        except TimeoutError:
            pass


def _text_headers(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return headers by their names in lower case; of repeated ones, the first."""
    found: dict[str, str] = {}
    for name, value in headers:
        found.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))
    return found
