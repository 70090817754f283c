"""`stapes serve`: flags, keys, the greeting, signals."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from stapes.cli import serve as command
from stapes.cli.serve import config_of
from stapes.errors import OptionError
from stapes.server.config import MIB, ServerConfig
from stapes.server.keys import KeyFile
from stapes.server.listening import open_sockets
from stapes.server.serve import greeting, serve
from stapes.server.service import Service
from stapes.testing import scripted_engine
from tests.cli.running import runner
from tests.server.test_defence import form, read_all, request


def config(*words: str) -> ServerConfig:
    return config_of(command.parser().parse_args(list(words)))


def test_without_flags_base_is_served_to_this_machine() -> None:
    assert config() == ServerConfig()


def test_flags_become_the_configuration(tmp_path: Path) -> None:
    words = "--model a --model b --alias x=b --allow_model c --unload_after 60 --max_body 3 --max_active 2 --port 0"
    found = config(*words.split(), "--state_dir", str(tmp_path), "--max_memory", "100", "--json_logs", "True")
    assert (found.models, found.allowed_models, found.aliases) == (("a", "b"), ("c",), {"x": "b"})
    assert (found.unload_after_s, found.port, found.state_dir, found.json_logs) == (60.0, 0, tmp_path, True)
    assert (found.bounds.max_body_bytes, found.bounds.max_active, found.max_memory) == (3 * MIB, 2, 100 * MIB)
    found = config("--device", "cuda:1", "--precision", "float16", "--device_memory", "8000")
    assert (found.device, found.precision, found.device_memory) == ("cuda:1", "float16", 8000 * MIB)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--host", "0.0.0.0"], "can be reached from other machines, and no keys are set"),
        (["--alias", "x"], "write NAME=MODEL"),
        (["--max_active", "0"], "--max_active must be a whole number of at least 1"),
        (["--max_body", "0"], "--max_body must be"),
        (["--port", "99999"], "--port must be from 0 to 65535"),
        (["--device", "tpu"], "--device 'tpu' is not in this version; there are: cpu, cuda, mps, auto"),
        (["--device_memory", "0"], "--device_memory must be a number above 0, got 0"),
        (["--max_memory", "-1"], "--max_memory must be a number above 0, got"),
        (["--root_path", "stt"], "--root_path must begin with /"),
        (["--trusted_proxy", "foo"], "--trusted_proxy must be an address or a network"),
        (["--allow_origin", "foo"], "--allow_origin must be like https://example.org"),
        (["--allow_host", "http://x"], "--allow_host must be a name"),
        (["--key_limits", "requests=1"], "--key_limits goes with --new_key"),
        (["--nonsense"], "'stapes serve --help' explains every flag"),
        (["--new_key", "anna"], "--key_file FILE"),
        (["--prot", "1"], "did you mean --port"),
        (["--port", "http"], "give a whole number"),
    ],
)
def test_a_wrong_flag_is_said_in_a_sentence(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = runner(capsys)("serve", *words)
    assert (code, out, len(err)) == (2, [], 1)
    assert message in err[0]


def test_a_new_key_is_printed_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "keys.txt"
    code, out, err = runner(capsys)("serve", "--new-key", "anna", "--key-file", str(path), "--key-limits", "requests=1")
    assert (code, len(out)) == (0, 1)
    assert "added the key anna" in err[0]
    found = KeyFile.load(path).match(out[0])
    assert found is not None
    assert found.max_requests == 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems have fewer protections")
def test_check_prints_what_holds_here(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = runner(capsys)("serve", "--check")
    assert code == 0
    assert "  opening a file: yes" in out
    assert out[-1] == "Keys: none; only programs on this machine can connect"


def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(command, "find_spec", lambda name: None if name == "uvicorn" else find(name))
    code, _, err = runner(capsys)("serve")
    assert code == 2
    assert "pip install 'stapes[server]'" in err[0]


def test_the_greeting_has_a_line_to_try(tmp_path: Path) -> None:
    text = greeting(ServerConfig(), ("127.0.0.1", 8000), ["base"])
    assert "curl http://127.0.0.1:8000/v1/audio/transcriptions -F model=base -F file=@talk.mp3" in text
    text = greeting(ServerConfig(host="::1", key_file=tmp_path / "keys.txt"), ("::1", 1234, 0, 0), ["base"])
    assert "http://[::1]:1234" in text
    assert "Authorization: Bearer KEY" in text
    assert "--unix-socket /run/a.sock" in greeting(ServerConfig(uds="/run/a.sock"), "/run/a.sock", ["base"])


def test_the_command_without_serve_imports_nothing_of_the_server() -> None:
    program = (
        "import sys\n"
        "from stapes.cli.main import main\n"
        "main(['--version']); import stapes.cli.runner, stapes.engine.engine\n"
        "print([one for one in ('starlette', 'uvicorn', 'msgspec', 'prometheus_client') if one in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


# Signals, in a process.

PROGRAM = """
import asyncio, sys
from stapes.server.config import ServerConfig
from stapes.server.serve import serve
from tests.server.test_defence import Held
held = Held()
def on_ready(server):
    print(server.address[1], flush=True)
    asyncio.get_running_loop().run_in_executor(None, lambda: (sys.stdin.readline(), held.go.set()))
asyncio.run(serve(ServerConfig(port=0, media_processes=1), load=lambda *_: held.engine(), on_ready=on_ready))
"""


def served(work: Callable[[subprocess.Popen[str], socket.socket], None]) -> int:
    """Run a server whose engine is held, with a request in work; return its exit code."""
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "src")])}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True, env=environment,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdout:
        port = int(process.stdout.readline())
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(request(form(), connection="close"))
            threading.Event().wait(0.5)
            work(process, connection)
        with suppress(BrokenPipeError):  # what was written when the process had ended
            process.stdin.close()
        return process.wait(20)


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
def test_a_first_signal_drains() -> None:
    def work(process: subprocess.Popen[str], connection: socket.socket) -> None:
        process.send_signal(signal.SIGTERM)
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        assert read_all(connection).startswith(b"HTTP/1.1 200")

    assert served(work) == 0


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
def test_a_second_signal_does_not_wait() -> None:
    def work(process: subprocess.Popen[str], connection: socket.socket) -> None:
        process.send_signal(signal.SIGTERM)
        threading.Event().wait(0.5)
        process.send_signal(signal.SIGTERM)
        answer = read_all(connection)
        assert answer.startswith(b"HTTP/1.1 503")
        assert b'"code":"server_stopping"' in answer
        with suppress(BrokenPipeError):  # it has ended
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()

    assert served(work) == 0


def test_what_clients_sent_is_not_in_the_log() -> None:
    program = (
        "import warnings\n"
        "from stapes.server import logs\n"
        "from stapes.testing import scripted_engine, tone\n"
        "logs.set_up(as_json=False)\n"
        "scripted_engine().transcribe(tone(1.0), hotwords='secret ' * 500)\n"
        "warnings.warn('shown')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "secret" not in done.stderr
    assert "shown" in done.stderr


def test_a_port_that_is_in_use_is_said_so() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config_of_it = ServerConfig(port=taken.getsockname()[1], media_processes=1)
        with pytest.raises(OptionError, match="it is in use"):
            asyncio.run(serve(config_of_it, load=lambda *_: scripted_engine()))


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs Unix sockets")
def test_a_socket_that_was_left_is_replaced_and_anything_else_is_not(tmp_path: Path) -> None:
    place = tmp_path / "a.sock"
    with open_sockets(ServerConfig(uds=str(place)))[0] as first:
        first.listen()
        with pytest.raises(OptionError, match="another server listens there"):
            open_sockets(ServerConfig(uds=str(place)))
    with open_sockets(ServerConfig(uds=str(place)))[0] as second:
        second.listen()
        assert place.stat().st_mode & 0o777 == 0o666
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(OptionError, match="a file that is no socket is there"):
        open_sockets(ServerConfig(uds=str(file)))
    assert file.read_text() == "mine"
    with pytest.raises(OptionError, match="nowhere does not exist"):
        open_sockets(ServerConfig(uds=str(tmp_path / "nowhere" / "a.sock")))


@pytest.mark.parametrize(
    ("host", "message"), [("nosuch.invalid", "no host of that name"), ("192.0.2.1", "this machine has no such address")]
)
def test_an_address_that_is_not_here_is_said_so(host: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        open_sockets(ServerConfig(host=host, port=0))


def test_what_the_server_writes_is_for_its_user_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def served(config_of_it: ServerConfig) -> None:
        async with Service.opened(config_of_it, load=lambda *_: scripted_engine()):
            (tmp_path / "state" / "text").write_text("said")

    monkeypatch.setattr("stapes.server.serve.serve", served)
    monkeypatch.setattr("stapes.server.logs.set_up", lambda **_: None)
    before = os.umask(0o022)
    try:
        assert runner(capsys)("serve", "--state_dir", str(tmp_path / "state"), "--media_processes", "1")[0] == 0
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o077 for path in (tmp_path / "state", *(tmp_path / "state").rglob("*"))}
    assert modes == {0}


def test_config_errors_are_option_errors() -> None:
    with pytest.raises(OptionError):
        config("--model", "a", "--port", "-1")
    values: dict[str, Any] = {"models": ()}
    with pytest.raises(OptionError):
        ServerConfig(**values)
