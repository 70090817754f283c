"""`examples/ray_serve.py` as a program: requests side by side, and one that is no recording."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest

from tests.sample import SAMPLE

pytest.importorskip("ray.serve")
pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
#: Python runs a file of this name first, also in a replica's process.
SITE = """
import stapes
from stapes.testing import scripted_engine

stapes.load = lambda model, threads=1: scripted_engine(" The stapes is here.")
"""
START_S = 90


def answer(url: str, body: bytes) -> tuple[int, dict[str, str]]:
    try:
        with urlopen(Request(url, body), timeout=60) as reply:
            return reply.status, json.load(reply)
    except HTTPError as error:
        return error.code, json.load(error)


def wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while True:
        assert server.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        try:
            urlopen(f"{url}-/healthz", timeout=10).close()
            if answer(url, b"")[0] == 400:  # earlier 404: nothing is deployed
                return
        except (URLError, OSError, ValueError):
            pass
        time.sleep(0.3)


def test_requests_are_answered_side_by_side_and_rubbish_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(SITE)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    path = os.pathsep.join([str(tmp_path), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    ray = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "f" * 64, "RAY_USAGE_STATS_ENABLED": "0"}
    environment = {**os.environ, **ray, "PYTHONPATH": path}
    command = [sys.executable, "-W", "ignore", str(ROOT / "examples" / "ray_serve.py"), "--port", str(port)]
    log = tmp_path / "log"
    with log.open("wb") as file:
        server = subprocess.Popen(command, env=environment, stdout=file, stderr=file)
    try:
        url = f"http://127.0.0.1:{port}/"
        wait_for(url, server, log)
        bodies = [SAMPLE.read_bytes(), SAMPLE.read_bytes(), b"rubbish" * 100]
        with ThreadPoolExecutor(3) as pool:
            *said, (status, refused) = pool.map(lambda body: answer(url, body), bodies)
        assert [(code, words["text"]) for code, words in said] == [(200, " The stapes is here.")] * 2
        assert status == 400
        assert "check that it is audio" in refused["error"]
    finally:
        server.terminate()  # upon which it ends Ray
        server.wait()
