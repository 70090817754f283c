"""Whole batches in a store (moto's S3): what is written there, how often, and which secrets must not be."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from urllib.request import Request, urlopen

import pytest

from tests.cluster.recordings import check_batch, write_batch, write_wav
from tests.cluster.test_kills_of_batch import check_parts, kill_tree, start_driver

pytest.importorskip("s3fs")
session = pytest.importorskip("botocore.session")
configuration = pytest.importorskip("botocore.config")
moto = pytest.importorskip("moto.server")
parquet = pytest.importorskip("pyarrow.parquet")
pytestmark = pytest.mark.cluster

N_ROWS = 60
SLEEP_S = 0.2
SIGNATURE = "X-Amz-Signature"
BUCKETS = ("recordings", "results")


class Store:
    """Moto's server, what it was asked for, and a client."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.asked: list[str] = []  # such as "PUT /results/out/run.json"

    def note(self, record: logging.LogRecord) -> bool:
        words = record.getMessage().split('"')
        self.asked += words[1:2]
        return False

    def objects(self) -> dict[str, bytes]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket="results")
        keys = [one["Key"] for page in pages for one in page.get("Contents", [])]
        return {key: self.client.get_object(Bucket="results", Key=key)["Body"].read() for key in keys}

    def signed(self, key: str) -> str:
        where = {"Bucket": "recordings", "Key": key}
        url: str = self.client.generate_presigned_url("get_object", Params=where, ExpiresIn=600)
        return url

    def uploads(self) -> set[str]:
        """Return the keys of unfinished uploads."""
        return {one["Key"] for one in self.client.list_multipart_uploads(Bucket="results").get("Uploads", [])}

    def puts(self) -> Counter[str]:
        """Return how often files of each kind were written below the output folder."""
        paths = [line.split()[1] for line in self.asked if line.startswith("PUT /results/out/")]
        return Counter("attempts" if "/attempts/" in path else path.split("/")[3] for path in paths)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store on loopback, whose address and credentials a driver finds in its environment."""
    server = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    signing = configuration.Config(signature_version="s3v4")
    found = Store(session.Session().create_client("s3", config=signing))
    log = logging.getLogger("werkzeug")
    log.addFilter(found.note)
    for bucket in BUCKETS:
        found.client.create_bucket(Bucket=bucket)
    yield found
    urlopen(Request(f"http://{host}:{port}/moto-api/reset", method="POST")).close()
    found.client.close()
    server.stop()
    log.removeFilter(found.note)


class Refusing(BaseHTTPRequestHandler):
    """Refuses every address, and repeats it."""

    def do_GET(self) -> None:
        self.send_response(403, f"SignatureDoesNotMatch {self.path}")
        self.end_headers()
        self.wfile.write(self.path.encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def refusing() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def upload(store: Store, folder: Path, refusing: str) -> tuple[Path, set[str], list[str]]:
    """Put recordings into the store; return a manifest, the ids that must fail, and the signatures in it."""
    manifest, bad = write_batch(folder, N_ROWS, every=15)
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    for row in rows:
        path = Path(row["path"])
        if path.is_file():
            store.client.put_object(Bucket="recordings", Key=path.name, Body=path.read_bytes())
        row["path"] = f"s3://recordings/{path.name}"
    signed = {
        "signed": store.signed("1.wav"),
        "signed, not there": store.signed("gone.wav"),
        "signed, refused": f"{refusing}/1.wav?X-Amz-Credential=key&{SIGNATURE}={'5ecre7' * 10}",
    }
    rows += [{"id": name, "path": uri} for name, uri in signed.items()]
    manifest.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    signatures = [uri.partition(f"{SIGNATURE}=")[2].partition("&")[0] for uri in signed.values()]
    assert all(len(one) >= 60 for one in signatures)
    return manifest, bad | set(signed) - {"signed"}, signatures


def rows_done(log: Path) -> int:
    told = [line.split()[0] for line in log.read_text().splitlines() if line.replace(" ", "").isdigit()]
    return int(told[-1]) if told else 0


def saved(store: Store, folder: Path) -> str:
    """Copy the output folder to a disk; return all that is in it, Parquet files also as text."""
    texts = []
    for key, data in store.objects().items():
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        texts += [key, data.decode("latin-1")]
        if key.endswith(".parquet"):
            texts.append(str(parquet.read_table(path).to_pylist()))
    return "\n".join(texts)


@pytest.mark.parametrize("formats", [("json",), ("parquet",)], ids=lambda one: one[0])
def test_a_batch_in_a_store_goes_on_after_a_kill_and_tells_no_secret(
    store: Store, refusing: str, tmp_path: Path, formats: tuple[str, ...]
) -> None:
    manifest, bad, signatures = upload(store, tmp_path / "in", refusing)
    values = {"manifest": str(manifest), "out": "s3://results/out", "workers": 2, "formats": formats, "chunk_rows": 4}
    log = tmp_path / "log"
    driver = start_driver(values, SLEEP_S, log)
    deadline = time.monotonic() + 120
    while rows_done(log) < 8:
        assert driver.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
    kill_tree(driver)
    before = rows_done(log)
    for key in ("out/transcripts/00/cut.json", "out2/not ours"):
        store.client.create_multipart_upload(Bucket="results", Key=key)
    assert start_driver(values, SLEEP_S, log).wait(120) == 0, log.read_text()
    assert before < N_ROWS - 10
    assert rows_done(log) == N_ROWS + 3 - len(bad)
    assert store.uploads() == {"out2/not ours"}

    text = saved(store, tmp_path / "saved")
    out = tmp_path / "saved" / "out"
    if formats == ("json",):
        texts = {unquote(stem): said for stem, said in check_batch(out, N_ROWS + 3, bad).items()}
    else:
        check_parts(out, N_ROWS + 3, bad)
        parts = [parquet.read_table(path).to_pylist() for path in (out / "transcripts").iterdir()]
        texts = {row["id"]: row["text"] for part in parts for row in part}
    assert texts["row 7"] == " 2.250 seconds."
    assert texts["signed"] == texts["row 1"]
    told = text + log.read_text()
    assert "may not be read; check the credentials" in told
    assert [one for one in (SIGNATURE, *signatures) if one in told] == []
    puts = store.puts()
    assert puts["transcripts"] <= (N_ROWS + 3) * 1.3
    assert puts["ledger"] + puts["attempts"] < 2 * N_ROWS


def test_a_recording_that_never_comes_fails_while_others_are_done(store: Store, tmp_path: Path) -> None:
    rows = []
    for number in range(6):
        write_wav(tmp_path / f"{number}.wav", 1.0)
        rows.append({"id": str(number), "path": str(tmp_path / f"{number}.wav")})
    with socket.create_server(("127.0.0.1", 0)) as silent:  # connections wait in its queue
        rows.insert(2, {"id": "silent", "path": f"http://127.0.0.1:{silent.getsockname()[1]}/a.wav"})
        manifest, log = tmp_path / "manifest.jsonl", tmp_path / "log"
        manifest.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        values = {"manifest": str(manifest), "out": "s3://results/out", "chunk_rows": 7, "fetch_timeout_s": 1.0}
        assert start_driver(values, 0.0, log).wait(120) == 0, log.read_text()
    saved(store, tmp_path / "saved")
    check_batch(tmp_path / "saved" / "out", 7, {"silent"})
    (failed,) = [
        row
        for path in (tmp_path / "saved" / "out" / "ledger").glob("*.parquet")
        for row in parquet.read_table(path).to_pylist()
        if row["state"] == "failed"
    ]
    assert (failed["reason"], failed["tries"]) == ("FetchError", 3)
    assert failed["error"].endswith("sent nothing for 1 s")
