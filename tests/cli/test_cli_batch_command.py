"""`stapes batch`: its flags, its lines, its exit codes, and how it stops."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stapes.batch import driver
from stapes.batch.manifest import KINDS
from stapes.cli import batch
from stapes.cli.batch import json_options, read_request
from stapes.cli.commands import run
from stapes.cli.flags import parse
from stapes.errors import OptionError
from stapes.options import TranscribeOptions
from tests.cluster.recordings import write_batch

ROOT = Path(__file__).parents[2]
LOAD = "tests.cluster.engines:load"


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    real = driver.run_batch
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "src")]))
    monkeypatch.setattr(driver, "run_batch", lambda request, tell: real(replace(request, load=LOAD), tell))


def stapes(*words: str) -> int:
    return run(["batch", *words], load_engine)


def load_engine(_: object) -> Any:
    pytest.fail("only workers load an engine")


@pytest.mark.usefixtures("scripted")
def test_a_manifest_becomes_files_lines_and_a_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest, bad = write_batch(tmp_path / "in", 60, every=2)
    with manifest.open("a") as file:
        file.write("[]\n")
    out = str(tmp_path / "out")
    assert stapes(str(manifest), "-o", out, "--price_per_hour", "3600", "--workers", "2") == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "stapes: 60 recordings, base in float32, engine local"
    assert sum(line.endswith("(AudioError)") for line in lines) == 20
    assert "stapes: further failures are in the output folder: 'stapes batch status OUT' counts them" in lines
    assert any(line.startswith("stapes: line 61 is refused: ") for line in lines)
    done, here, cost = lines[-3:]
    assert (
        done
        == f"stapes: {60 - len(bad)} of 60 recordings done, {len(bad)} failed (AudioError {len(bad)}), 1 lines refused"
    )
    assert here.startswith("stapes: this run: 0.01 hours of audio in ")
    assert here.endswith("2 workers on 1 machine")
    assert cost.startswith("stapes: cost of this run: ")
    assert stapes("status", out) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "base in float32, as json, stapes 0.1.0"
    assert shown[1].startswith(f"rows: {60 - len(bad)} done, {len(bad)} failed;")
    assert "refused lines of the manifest: 1 (refused.jsonl)" in shown
    assert shown[-1] == f"  and {len(bad) - 20} more; --failures {len(bad)} shows all"
    assert stapes("status", out, "--json") == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["rows"]["done"], values["reasons"]) == (60 - len(bad), {"AudioError": len(bad)})


@pytest.mark.usefixtures("scripted")
def test_json_lines_have_the_same_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest, bad = write_batch(tmp_path / "in", 20, every=10)
    assert stapes(str(manifest), "-o", str(tmp_path / "out"), "--progress", "json") == 2
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert events[0] == {"event": "batch_start", "rows": 20, "model": "base", "precision": "float32", "engine": "local"}
    failed = [one for one in events if one["event"] == "row_failed"]
    assert {one["id"] for one in failed} == bad
    assert set(failed[0]) == {"event", "id", "uri", "reason", "error", "tries"}
    summary = events[-1]
    assert (summary["event"], summary["done"], summary["failed"]) == ("batch_summary", 18, 2)
    assert summary["failures"] == {"AudioError": 2}
    assert summary["sets"] == {"sleeping": 18}


def test_flags_give_the_options_that_the_command_for_files_has(tmp_path: Path) -> None:
    request, progress = read_request(["m.csv", "-o", "out", "--language", "de", "--word-timestamps", "True"])
    assert progress == "auto"
    options = TranscribeOptions.from_keywords(dict(request.options))
    assert options == parse(["a.wav", "--language", "de", "--word-timestamps", "True"]).options
    again = TranscribeOptions.from_keywords(
        {"temperature": (0.0, 0.5), "suppress_tokens": (1, 2), "languages": "de,en"}
    )
    assert TranscribeOptions.from_keywords(json_options(again)) == again
    request, _ = read_request(["-", "-o", "s3://b/out", "-f", "parquet", "--engine", "ray", "--address", "auto"])
    assert (request.manifest, request.formats, request.engine, request.address) == ("-", ("parquet",), "ray", "auto")


def test_the_choices_of_flags_are_those_of_the_library() -> None:
    """They are written twice, as the library loads NumPy, and a page of help does not."""
    assert tuple(driver.ENGINES) == batch._ENGINES
    assert batch._KINDS == KINDS


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["m.csv"], "give the folder of the outputs: stapes batch MANIFEST -o OUT"),
        (["m.csv", "-o", "o", "-f", "parquet,json"], "parquet holds all of a transcript: give it alone"),
        (["m.csv", "-o", "o", "-f", "doc"], "unknown output format 'doc'"),
        (["m.csv", "-o", "o", "--workers", "0"], "--workers must be at least 1, got 0"),
        (["m.csv", "-o", "o", "--price_per_hour", "0"], "--price_per_hour must be more than 0, got 0"),
        (["m.csv", "-o", "o", "--precision", "int4"], "--precision int4: this version does not know it"),
        (["m.csv", "-o", "o", "--retrie"], "unknown flag --retrie"),
        (["m.csv", "-o", "o", "--engine", "slurm"], "--engine: invalid choice"),
    ],
)
def test_bad_flags_are_one_sentence(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert stapes(*words) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("\n") == 1


def test_the_help_page_fits_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert stapes("--help") == 0
    page = capsys.readouterr().out
    assert "--retry_failed" in page
    assert max(map(len, page.splitlines())) <= 60


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(driver, "find_spec", lambda name: None if name == "pyarrow" else object())
    assert stapes(str(tmp_path / "m.csv"), "-o", str(tmp_path / "out")) == 2
    assert stapes("status", str(tmp_path / "out")) == 2
    sentence = "stapes: stapes batch needs the package pyarrow: pip install 'stapes[batch]'\n"
    assert capsys.readouterr().err == sentence * 2
    monkeypatch.setattr(driver, "find_spec", lambda name: None if name == "ray" else object())
    with pytest.raises(OptionError, match=r"needs the package ray: pip install 'stapes\[ray\]'"):
        driver.check_packages("ray")


STOPPABLE = """
import sys
from dataclasses import replace
from stapes.batch import driver
real = driver.run_batch
driver.run_batch = lambda request, tell: real(replace(request, load="tests.cluster.engines:load"), tell)
from stapes.cli.main import main
if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_batch_goes_on(tmp_path: Path, sent: int, code: int) -> None:
    manifest, bad = write_batch(tmp_path / "in", 24, every=12)
    script, out = tmp_path / "stoppable.py", tmp_path / "out"
    script.write_text(STOPPABLE)
    command = [sys.executable, str(script), "batch", str(manifest), "-o", str(out), "--batch_size", "3"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}
    slow = {**environment, "STAPES_TEST_SLEEP": "0.2"}
    with subprocess.Popen(command, env=slow, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not list(out.rglob("*.json")) or not list((out / "ledger").rglob("attempts/*.parquet")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(1.0)
        process.send_signal(sent)
        assert process.stderr is not None
        shown = process.stderr.read()
    assert process.returncode == code, shown
    assert shown.splitlines()[-1] == "stapes: stopped; the same command goes on where it was"
    assert "Traceback" not in shown
    ended = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 2, ended.stderr
    assert f"{24 - len(bad)} of 24 recordings done, {len(bad)} failed" in ended.stderr
    assert not list(out.rglob(".tmp-*/*"))
    assert batch.run_batch_command(["status", str(out)]) == 0
