"""The server against clients that are slow, many, gone, or not meant to be let in; on raw sockets."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stapes import Engine
from stapes.backends.base import FloatArray
from stapes.server.config import ServerConfig
from stapes.server.errors import ApiError
from stapes.server.gate import check_sites, host_name
from stapes.server.keys import new_key
from stapes.testing import reciting, scripted_engine, small_vocabulary, tiny_spec, tone
from stapes.tokenizer import Tokenizer
from tests.audio_files import wav_bytes
from tests.server.running import HELLO, Running, bounds, running

SOUND = wav_bytes(tone(3.0) * 32_000)


def form(fields: dict[str, str] | None = None, sound: bytes = SOUND) -> bytes:
    parts = [
        f'--x\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in {"model": "base", **(fields or {})}.items()
    ]
    head = b'--x\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    return b"".join(parts) + head + sound + b"\r\n--x--\r\n"


def request(body: bytes, length: int | None = None, path: str = "/v1/audio/transcriptions", **headers: str) -> bytes:
    lines = {"host": "localhost", "content-type": "multipart/form-data; boundary=x"}
    lines |= {"content-length": str(len(body) if length is None else length)}
    lines |= {name.replace("_", "-"): value for name, value in headers.items()}
    text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {path} HTTP/1.1\r\n{text}\r\n".encode() + body


def connect(server: Running) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=20)


def read_all(connection: socket.socket) -> bytes:
    data = b""
    while part := connection.recv(65536):
        data += part
    return data


def answer(server: Running, sent: bytes) -> tuple[int, dict[str, Any]]:
    """Send, and read until the server closes or the body is complete; return the status and the body."""
    with connect(server) as connection:
        connection.sendall(sent)
        data = b""
        while not (b"\r\n\r\n" in data and _is_complete(data)):
            part = connection.recv(65536)
            if not part:
                break
            data += part
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def _is_complete(data: bytes) -> bool:
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.lower().splitlines() if line.startswith(b"content-length")]
    return bool(lengths) and len(body) >= int(lengths[0])


def get(server: Running, path: str = "/health/live") -> int:
    with connect(server) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
        return int(read_all(connection).split()[1])


def is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def until(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    ends = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < ends, "it took too long"
        time.sleep(0.01)


class Held:
    """An engine whose model says nothing until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.n_steps = 0

    def engine(self) -> Engine:
        recite = reciting(Tokenizer(tiny_spec(), small_vocabulary()), HELLO)

        def script(sound: int, tokens: tuple[int, ...]) -> FloatArray:
            self.n_steps += 1
            self.go.wait(60)
            return recite(sound, tokens)

        return scripted_engine(script)


@contextmanager
def held_server(**config: Any) -> Iterator[tuple[Running, Held]]:
    held = Held()
    with running(held.engine, **config) as server:
        try:
            yield server, held
        finally:
            held.go.set()


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(bounds=bounds(max_body_bytes=1 << 20)) as one:
        yield one


# What is refused before its body.


def test_a_body_that_is_too_large_is_refused_by_its_length_and_the_client_sees_it(server: Running) -> None:
    with connect(server) as connection:
        connection.sendall(request(b"", length=1 << 30))
        sender = threading.Thread(target=_send_quietly, args=(connection, 20 << 20))
        sender.start()  # 20 MB of it come all the same, as with clients that do not look
        data = read_all(connection)
        sender.join()
    assert data.startswith(b"HTTP/1.1 413")
    assert b'"body_too_large"' in data


def _send_quietly(connection: socket.socket, n_bytes: int) -> None:
    block = bytes(1 << 16)
    try:
        for _ in range(n_bytes // len(block)):
            connection.sendall(block)
    except OSError:
        pass


def test_a_body_that_grows_too_large_is_refused_in_the_middle(server: Running) -> None:
    status, body = answer(server, request(form(sound=bytes(2 << 20)), transfer_encoding="chunked")[:0] + chunked())
    assert (status, body["error"]["code"]) == (413, "body_too_large")
    assert server.service.spool.n_bytes == 0


def chunked() -> bytes:
    head = request(b"").replace(b"content-length: 0\r\n", b"transfer-encoding: chunked\r\n")
    data = form(sound=bytes(2 << 20))
    return head + f"{len(data):x}\r\n".encode() + data + b"\r\n0\r\n\r\n"


def test_who_expects_100_is_refused_before_it(tmp_path: Path) -> None:
    new_key(tmp_path / "keys.txt", "anna", "")
    with running(key_file=tmp_path / "keys.txt") as server, connect(server) as connection:
        connection.sendall(request(b"", length=1000, expect="100-continue"))
        started = time.monotonic()
        data = read_all(connection)
    assert data.startswith(b"HTTP/1.1 401")
    assert b"100 Continue" not in data
    assert time.monotonic() - started < 5.0


def test_a_page_under_another_name_or_of_another_site_is_refused(server: Running) -> None:
    assert answer(server, request(form(), host="evil.example"))[1]["error"]["code"] == "host_not_allowed"
    assert answer(server, request(form(), origin="https://evil.example"))[1]["error"]["code"] == "origin_not_allowed"
    assert answer(server, request(form(), origin="null"))[0] == 403
    assert answer(server, request(form(), host="127.0.0.1:1", origin="http://127.0.0.1:1"))[0] == 200


@pytest.mark.parametrize(
    ("host", "name"), [("a", "a"), ("a:80", "a"), ("[::1]:80", "::1"), ("[::1]", "::1"), ("", ""), ("a:b", "a:b")]
)
def test_names_of_hosts(host: str, name: str) -> None:
    assert host_name(host) == name


@given(st.text(max_size=30), st.text(max_size=30), st.sampled_from(["GET", "POST"]))
def test_any_host_and_origin_pass_or_are_forbidden(host: str, origin: str, method: str) -> None:
    status = 200
    try:
        check_sites({"host": host, "origin": origin}, method, ServerConfig(), has_keys=False)
    except ApiError as error:
        status = error.status
    assert status in (200, 403)
    if status == 200:
        assert host_name(host) in ("localhost", "127.0.0.1", "::1")


def test_with_keys_the_names_do_not_matter_unless_set() -> None:
    check_sites({"host": "a", "origin": "https://b"}, "POST", ServerConfig(), has_keys=True)
    with pytest.raises(ApiError):
        check_sites({"host": "a"}, "POST", ServerConfig(allow_hosts=("b",)), has_keys=True)


def test_an_allowed_page_gets_its_headers_and_its_preflight() -> None:
    with running(allow_origins=("https://page.example",)) as server, connect(server) as connection:
        connection.sendall(
            b"OPTIONS /v1/models HTTP/1.1\r\nhost: localhost\r\norigin: https://page.example\r\n"
            b"connection: close\r\n\r\n"
        )
        data = read_all(connection)
    assert data.startswith(b"HTTP/1.1 204")
    assert b"access-control-allow-origin: https://page.example" in data.lower()


def test_health_needs_no_key_and_the_rest_does(tmp_path: Path) -> None:
    new_key(tmp_path / "keys.txt", "anna", "")
    with running(key_file=tmp_path / "keys.txt") as server:
        found = {path: get(server, path) for path in ("/health/live", "/health/ready", "/v1/models", "/metrics")}
    assert found == {"/health/live": 200, "/health/ready": 200, "/v1/models": 401, "/metrics": 200}


# Too many, too slow.


def test_of_a_hundred_at_once_exactly_as_many_are_let_in_as_there_is_room_for() -> None:
    with (
        held_server(bounds=bounds(max_active=2, max_queue=8, max_connections=200)) as (server, held),
        ExitStack() as open_,
    ):
        connections = [open_.enter_context(connect(server)) for _ in range(100)]
        for one in connections:
            one.sendall(request(form(), connection="close"))
        until(lambda: server.service.metrics.rejects.labels("server_busy")._value.get() == 90)
        assert get(server) == 200
        until(lambda: bool(server.service.admission.n_active == 2))
        assert server.service.admission.n_inside == 10
        metrics = server.service.metrics.text().decode()
        assert "stapes_active 2.0" in metrics
        assert "stapes_waiting 8.0" in metrics
        held.go.set()
        answers = [read_all(one) for one in connections]
    statuses = [int(data.split()[1]) for data in answers]
    assert (statuses.count(200), statuses.count(429)) == (10, 90)
    assert all(b"retry-after: " in data.lower() for data in answers if data.split()[1] == b"429")


def test_heads_that_never_end_are_closed_and_health_answers_meanwhile() -> None:
    limits = bounds(header_timeout_s=0.5, max_connections=300)
    with running(bounds=limits) as server, ExitStack() as open_:
        connections = [open_.enter_context(connect(server)) for _ in range(200)]
        for one in connections:
            one.sendall(b"POST / HTTP/1.1\r\nhost: local")
        started = time.monotonic()
        assert get(server) == 200
        assert time.monotonic() - started < 2.0
        for one in connections:
            assert is_closed(one)
        assert time.monotonic() - started < 20.0
        until(lambda: get(server) == 200)


def test_a_full_server_closes_the_one_that_has_waited_longest_for_its_head() -> None:
    with running(bounds=bounds(max_connections=3)) as server, ExitStack() as open_:
        connections = [open_.enter_context(connect(server)) for _ in range(3)]
        time.sleep(0.1)
        assert get(server) == 200
        assert is_closed(connections[0])
        connections[1].settimeout(0.1)
        with pytest.raises(TimeoutError):
            connections[1].recv(1)


def test_a_server_full_of_requests_refuses_more_connections() -> None:
    with held_server(bounds=bounds(max_connections=2)) as (server, held), ExitStack() as open_:
        for _ in range(2):
            open_.enter_context(connect(server)).sendall(request(form()))
        until(lambda: bool(server.service.admission.n_inside == 2))
        with connect(server) as other:
            assert read_all(other).startswith(b"HTTP/1.1 503")
        held.go.set()


def test_a_slow_body_is_ended(tmp_path: Path) -> None:
    limits = bounds(body_timeout_s=0.3)
    with running(bounds=limits, spool_dir=tmp_path) as server, connect(server) as connection:
        connection.sendall(request(form()[:500], length=5000))
        data = read_all(connection)
        assert data.startswith(b"HTTP/1.1 408")
        until(lambda: not [one for one in tmp_path.rglob("*") if one.is_file()])


# Gone.


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_ends_its_work_before_the_next_step(stream: bool) -> None:
    with held_server() as (server, held):
        with connect(server) as connection:
            connection.sendall(request(form({"stream": str(stream).lower()})))
            until(lambda: held.n_steps > 0)
        until(lambda: server.service.metrics.cancels._value.get() == 1)
        n_steps = held.n_steps
        held.go.set()
        until(lambda: server.service.admission.n_inside == 0)
        time.sleep(0.1)
        assert held.n_steps <= n_steps + 2
        assert server.service.spool.n_bytes == 0


def test_a_hundred_that_go_away_at_any_moment_leave_nothing(tmp_path: Path) -> None:
    with running(spool_dir=tmp_path) as server:
        sent = request(form())
        for number in range(100):
            with connect(server) as connection:
                connection.sendall(sent[: len(sent) * (number % 10 + 1) // 10])
        until(lambda: server.service.admission.n_inside == 0)
        until(lambda: not [one for one in tmp_path.rglob("*") if one.is_file()])
        until(lambda: answer(server, sent)[0] == 200)  # the last of them may still come in
        until(lambda: bool(server.service.spool.n_bytes == 0))


def test_a_queued_client_that_goes_away_leaves_its_place() -> None:
    with held_server(bounds=bounds(max_active=1, max_queue=1)) as (server, held), ExitStack() as open_:
        open_.enter_context(connect(server)).sendall(request(form()))
        until(lambda: server.service.admission.n_active == 1)
        with connect(server) as queued:
            queued.sendall(request(form()))
            until(lambda: server.service.admission.n_inside == 2)
        until(lambda: server.service.admission.n_inside == 1)
        held.go.set()


def test_a_method_that_a_path_lacks_is_told_which_it_has(server: Running) -> None:
    found = httpx.get(f"{server.url}/v1/audio/transcriptions")
    assert (found.status_code, found.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "LOCALHOST"}, 200), ({"host": "localhost."}, 200), ({"host": "[::1]:80"}, 200),
        ({"host": "[::1].evil.com"}, 403), ({"host": "[::1"}, 403), ({"host": "localhost.evil.com"}, 403),
    ],
)  # fmt: skip
def test_hosts_are_names_of_this_machine_in_any_spelling(server: Running, headers: Any, status: int) -> None:
    assert httpx.get(f"{server.url}/v1/models", headers=headers).status_code == status


def test_an_origin_that_is_none_is_forbidden(server: Running) -> None:
    found = httpx.post(f"{server.url}/v1/audio/transcriptions", headers={"origin": "http://["})
    assert (found.status_code, found.json()["error"]["code"]) == (403, "origin_not_allowed")


def test_behind_a_proxy_metrics_need_a_key(tmp_path: Path) -> None:
    keys = tmp_path / "keys.txt"
    new_key(keys, "anna", "")
    with running(key_file=keys, trusted_proxies=("127.0.0.1",)) as one:
        assert [httpx.get(f"{one.url}{path}").status_code for path in ("/metrics", "/openapi.json")] == [401, 401]


def test_a_file_in_another_field_is_told_where_it_belongs(server: Running) -> None:
    found = httpx.post(f"{server.url}/v1/audio/transcriptions", data={"model": "base"}, files={"audio": ("a", SOUND)})
    assert found.json()["error"]["message"] == "A file belongs in the field 'file', not in 'audio'."


def test_a_path_that_is_nearly_right_gets_a_hint(server: Running) -> None:
    found = httpx.post(f"{server.url}/v1/v1/audio/transcriptions").json()["error"]
    assert (found["code"], "Did you mean /v1/audio/transcriptions?" in found["message"]) == ("unknown_url", True)


def test_a_long_value_is_not_sent_back_whole(server: Running) -> None:
    found = httpx.post(
        f"{server.url}/v1/audio/transcriptions", data={"model": "base", "beam_size": "9" * 4000}, files={"file": SOUND}
    )
    assert found.status_code == 400
    assert len(found.text) < 1000


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nhost: localhost\r\ncontent-length: -5\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"GET /" + b"a" * 100_000,
        b"POST /v1/audio/transcriptions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\n\r\nabcde",
        b"POST /v1/audio/transcriptions HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"FOO / HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET /%ff%00 HTTP/1.1\r\nhost: localhost\r\n\r\n",
    ],
)
def test_rubbish_gets_a_refusal(server: Running, sent: bytes) -> None:
    with connect(server) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        data = read_all(connection)
    assert not data or 400 <= int(data.split()[1]) < 500
    assert get(server) == 200
