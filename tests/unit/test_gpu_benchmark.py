"""The check and the benchmark for GPUs: what they count, choose and print, and a whole run on the CPU."""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks import gpu_check
from benchmarks.gpu import (
    SHAPES,
    Deadline,
    Device,
    Peaks,
    Point,
    Setup,
    captured,
    constraint_at,
    decode,
    encoder_operations,
    joined,
    measure,
    measure_point,
    measure_shape,
    permanent_of,
    random_weights,
    step_bytes,
)
from benchmarks.gpu_check import (
    BUDGETS,
    FAILED,
    NOT_RUN,
    PARTLY,
    PASSED,
    QUICK_BUDGETS,
    TOLERANCE,
    join_pieces,
    judged,
    limit_of,
    scaled,
    selection,
    split,
    weights_in,
    write_atomically,
)
from benchmarks.gpu_steps import apart, buckets, contract_verdict, errors_of, errors_sentence, graphs_sentence, not_run
from benchmarks.gpu_table import HEAD, TARGETS, aligned_table, report_of, rows_of
from benchmarks.roofline import Network
from stapes.audio.load import load_audio
from stapes.backends.base import StepAnswers, StepBatch
from stapes.backends.numpy.backend import NumpyBackend
from stapes.testing import noise, random_checkpoint, tiny_spec
from tests.corpus import corpus_folder, needs_corpus

ROOT = Path(__file__).parents[2]
POINT = Point(
    windows=64, tokens=110, encode_s=0.4, encode_from_samples_s=0.5, prompt_s=0.01, step_s=0.004, decode_s=0.5,
    finite=True, first_decode_s=2.0,
)  # fmt: skip
WITH_NUMPY = Setup(device="cpu", precision="float32", backend="numpy", quick=True)


# Sizes, and what follows from them.


def test_work_is_that_of_the_benchmark_of_steps() -> None:
    base, network = SHAPES["base"], Network()
    assert encoder_operations(base) == network.linear_operations + network.attention_operations
    ours = step_bytes(base, windows=8, depth=43, value_bytes=2)
    assert ours == network.step_bytes("bfloat16", depth=43, rows=8)


def test_turbo_is_large_v3_with_four_layers_in_its_decoder() -> None:
    large, turbo = SHAPES["large-v3"], SHAPES["turbo"]
    assert replace(large, n_text_layer=4) == turbo
    assert 1.54e9 < large.n_parameters < 1.55e9
    assert 0.80e9 < turbo.n_parameters < 0.82e9
    # 31 MB a window of turbo, 246 MB of large-v3: what a step reads of each further window
    for spec, megabytes in ((turbo, 30.7), (large, 245.8)):
        one, two = (step_bytes(spec, windows=n, depth=0, value_bytes=2) for n in (1, 2))
        assert (two - one) / 1e6 == pytest.approx(megabytes, abs=0.1)


def test_a_share_of_the_roofline_is_the_least_time_over_the_time_taken() -> None:
    spec = SHAPES["base"]
    point = replace(POINT, windows=2, encode_s=1.0, step_s=0.5)
    peaks = Peaks(tera_operations=encoder_operations(spec) / 1e12, gigabytes=1.0)
    shares = peaks.shares(spec, point, value_bytes=2)
    assert shares["encode"] == 2.0
    n_bytes = step_bytes(spec, windows=2, depth=3 + 55, value_bytes=2)
    assert shares["step"] == round(n_bytes / 1e9 / 0.5, 4)


def test_times_real_time_count_log_mel_encoder_and_all_tokens() -> None:
    assert POINT.windows_per_s == 64
    assert POINT.times_real_time == 64 * 30
    assert POINT.as_json()["times_real_time"] == 1920.0
    assert POINT.times_without_log_mel == pytest.approx(64 * 30 / 0.9)


@pytest.mark.parametrize(
    ("shape", "windows", "speed", "verdict"),
    [
        ("turbo", 1, 239.9, "misses 240, aim 600"),
        ("turbo", 1, 240, "reaches 240, aim 600"),
        ("turbo", 128, 3000, "reaches the aim of 3000"),
        ("large-v3", 64, 1399, "reaches 1000, aim 1400"),
    ],
)
def test_a_verdict_names_what_must_be_reached_and_the_aim(shape: str, windows: int, speed: float, verdict: str) -> None:
    (target,) = (one for one in TARGETS if (one.shape, one.windows) == (shape, windows))
    assert target.verdict(speed) == verdict


def test_random_weights_of_a_large_model_are_made_at_once_and_are_finite() -> None:
    spec = SHAPES["turbo"]
    checkpoint = random_weights("turbo", spec)
    assert set(checkpoint.tensors) == set(random_checkpoint(spec=replace(tiny_spec(), n_text_layer=4, n_audio_layer=32,
                                                                          n_audio_head=2)).tensors)  # fmt: skip
    embedding = checkpoint.tensors["decoder.token_embedding.weight"]
    assert embedding.shape == (spec.n_vocab, spec.n_text_state)
    assert embedding.dtype == np.float16
    assert embedding.flags.c_contiguous
    assert np.isfinite(embedding).all()
    assert 0.02 < float(embedding[:1000].std(dtype=np.float64)) < 0.035
    assert (checkpoint.tensors["encoder.blocks.3.attn_ln.weight"] == 1).all()
    other = checkpoint.tensors["encoder.blocks.3.attn.query.weight"]
    assert np.shares_memory(other, embedding)


def test_constraints_are_those_of_a_transcript_with_timestamps() -> None:
    spec = SHAPES["base"]
    permanent, begin = permanent_of(spec), spec.n_vocab - 1501
    first, later = (constraint_at(number, spec, permanent) for number in (0, 7))
    assert first.now == ((0, begin),)  # a transcript opens with a time
    assert later.now == ((begin, begin + 8),)  # times never fall
    assert first.vote_from == later.vote_from == begin
    assert first.permanent is later.permanent
    assert len(permanent.ranges) > 80


# Measuring, on NumPy.


def test_a_point_is_measured_through_the_contract() -> None:
    backend = NumpyBackend(random_checkpoint(), threads=1)
    point = measure_point(backend, 3, 5, Device(WITH_NUMPY), rounds=1)
    assert (point.windows, point.tokens, point.finite) == (3, 5, True)
    assert 0 < point.step_s <= point.decode_s
    assert point.times_real_time > 0
    assert len(backend.handles) == 0


def test_every_step_of_a_decoded_row_counts() -> None:
    backend = NumpyBackend(random_checkpoint(), threads=1)
    (window,) = backend.encode(np.zeros((1, 80, 3000), np.float32))
    rows = [backend.open(window)]
    for _ in range(2):  # it begins anew each time
        seconds, finite = decode(backend, rows, 6)
        assert len(seconds) == 6
        assert finite
        assert backend.length(rows[0]) == 3 + 5
    backend.shut_down()


def test_a_part_that_fails_leaves_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the device is gone\nand more")

    monkeypatch.setattr("benchmarks.gpu.measure_base", fail)
    *_, found = measure(WITH_NUMPY, [noise(1.0)], 60.0, tmp_path)
    assert found["base"] == {"not_run": "RuntimeError: the device is gone"}
    assert [one["windows"] for one in found["shapes"]["tiny"]["points"]] == [1, 2]
    assert not_run(found) == ["base end to end"]
    found["base"] = {"samples": {}, "files": {"cut_short": "not all"}}
    assert not_run(found) == ["all of base from files"]
    json.dumps(found)


def test_a_number_of_windows_is_left_out_if_it_would_take_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]

    def slow(_backend: object, windows: int, *_: object) -> Point:
        clock[0] += windows
        return replace(POINT, windows=windows)

    monkeypatch.setattr("benchmarks.gpu.measure_point", slow)
    monkeypatch.setattr("benchmarks.gpu.WINDOWS", (1, 16, 64, 128))
    monkeypatch.setattr("benchmarks.gpu.SHAPES", {"turbo": tiny_spec()})
    monkeypatch.setattr("benchmarks.gpu.time.perf_counter", lambda: clock[0])
    monkeypatch.setattr("benchmarks.gpu.time.monotonic", lambda: clock[0])
    kept: list[dict[str, Any]] = []
    measure_shape(replace(WITH_NUMPY, quick=False), "turbo", None, Deadline(180.0), kept.append)
    # Those with a target first; 1 and 128 take 129 s, 16 is no less than a quarter of 128, and 64 would be too long.
    assert [(one["windows"], "not_run" in one) for one in kept[-1]["points"]] == [
        (1, False), (16, False), (64, True), (128, False),
    ]  # fmt: skip


def test_what_there_is_no_time_for_is_not_run_and_says_so(tmp_path: Path) -> None:
    *_, found = measure(WITH_NUMPY, [], 0.0, tmp_path)
    assert not_run(found) == ["tiny at 1", "tiny at 2", "base end to end"]
    assert "not run: no time was left" in report_of(found, "float32")
    assert "not run: there are no recordings in English" in report_of(found, "float32")


def test_recordings_are_joined_each_beginning_with_another() -> None:
    pieces = [np.full(16000 * n, n, np.float32) for n in (1, 2, 3)]
    made = joined(pieces, jobs=3, seconds=4.0)
    assert [len(one) / 16000 for one in made] == [6, 5, 4]
    assert [one[0] for one in made] == [1, 2, 3]


# The table.


def figures(device: str = "NVIDIA H200") -> dict[str, Any]:
    point = POINT.as_json() | {"used_mb": 1234.0, "roofline": {"encode": 0.5, "step": 0.25}}
    return {
        "device": {"device": device, "torch": "2.13.0"},
        "tokens": 110,
        "log_mel": "NumPy",
        "peaks": {"tera_operations": 750.0, "gigabytes": 4300.0},
        "shapes": {
            "large-v3": {
                "points": [point, {"windows": 128, "not_run": "no time was left"}],
                "captures": {"graphs": 3, "seconds": 1.5, "megabytes": 20.0},
            },
            "turbo": {"not_run": "BackendError: no memory"},
        },
        "base": {"samples": {"times_real_time": 900.0}, "files": {"times_real_time": 800.0, "cut_short": "cut"}},
    }


def test_the_table_names_the_device_and_puts_targets_beside_figures() -> None:
    text = report_of(figures(), "float16")
    assert text.startswith("NVIDIA H200, torch 2.13.0, float16; 110 tokens a window of 30 s; log-mel: NumPy\n")
    assert "H100" in text  # the note: another device than the targets'
    assert "reaches the aim of 1400" in text
    assert "large-v3: 3 graphs captured in 1.5 s" in text
    for row in rows_of(figures()):
        assert len(row) == len(HEAD)
    assert "This device is another one" not in report_of(figures("NVIDIA H100 80GB HBM3"), "float16")


def test_a_cpu_is_not_judged() -> None:
    text = report_of(figures("CPU"), "float32")
    assert "reaches" not in text
    assert "H100" not in text


def test_numbers_that_are_not_finite_are_shouted() -> None:
    found = figures()
    found["shapes"]["large-v3"]["points"][0]["finite"] = False
    assert "NOT FINITE" in report_of(found, "float16")


def test_columns_are_aligned() -> None:
    lines = aligned_table(("a", "b"), [("long", "x"), ("1", "a longer text")]).splitlines()
    assert lines[0].index("b") == lines[2].index("x") == lines[3].index("a longer")


# The run: budgets, verdicts, files.


def test_all_budgets_fit_six_minutes_and_the_quick_ones_a_minute() -> None:
    assert sum(BUDGETS.values()) <= 350
    assert sum(QUICK_BUDGETS.values()) < 60
    assert list(BUDGETS) == list(QUICK_BUDGETS)
    assert scaled({"a": 1.0, "b": 3.0}, 8.0) == {"a": 2.0, "b": 6.0}
    assert scaled(BUDGETS, None) == BUDGETS


def test_a_step_gets_what_the_steps_before_it_left() -> None:
    budgets = {"a": 10.0, "b": 20.0, "c": 30.0}
    assert limit_of("a", budgets, 60.0) == 10
    assert limit_of("b", budgets, 58.0) == 28  # the first took 2
    assert limit_of("c", budgets, 31.0) == 31
    assert limit_of("a", budgets, 40.0) == 0


def test_an_ended_or_failed_process_keeps_what_it_had_found() -> None:
    found = {"verdict": PARTLY, "says": ["half"], "figures": {"a": 1}}
    ended = judged(found, None, "")
    assert ended == {"verdict": PARTLY, "says": ["half", "ended at its time limit"], "figures": {"a": 1}}
    assert judged({}, 1, "Traceback\nRuntimeError: CUDA error\n")["says"][-1] == "RuntimeError: CUDA error"
    assert judged(found, 1, "x")["verdict"] == FAILED
    assert judged({"verdict": FAILED}, None, "")["verdict"] == FAILED
    assert judged({"verdict": PASSED, "says": []}, 0, "") == {"verdict": PASSED, "says": []}
    assert judged({}, 0, "")["verdict"] == FAILED


def test_a_step_that_hangs_is_ended_with_what_it_has_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sleeper = "import subprocess; subprocess.run(['sleep', '60'])"
    monkeypatch.setattr(gpu_check, "MARGIN_S", 0.0)
    monkeypatch.setattr(gpu_check, "command_of", lambda *_: [sys.executable, "-c", sleeper])
    found = gpu_check.run_step("golden", argparse.Namespace(folder=tmp_path, device="cpu", quick=True), 0.5, tmp_path)
    assert (found["verdict"], found["says"]) == (PARTLY, ["ended at its time limit"])
    assert found["seconds"] < 10


@pytest.mark.parametrize(("failing", "not_begun"), [("contract", 0), ("device", 4)])
def test_a_step_that_fails_leaves_the_next_ones_unless_there_is_no_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, not_begun: int
) -> None:
    def step(name: str, *_: object) -> dict[str, Any]:
        return {"verdict": FAILED if name == failing else PASSED, "says": [], "seconds": 1.0}

    monkeypatch.setattr(gpu_check, "run_step", step)
    output = tmp_path / "gpu.json"
    arguments = argparse.Namespace(
        quick=True, seconds=None, precision="float16", backend="torch", device="cuda:0", only=None, output=output
    )
    result = gpu_check.run_all(arguments, tmp_path)
    verdicts = [one["verdict"] for one in result["steps"].values()]
    assert verdicts.count(FAILED) == 1
    assert verdicts.count(NOT_RUN) == not_begun
    assert json.loads(output.read_text(encoding="utf-8"))["steps"] == result["steps"]
    assert failing in gpu_check.summary(result)


def test_recordings_are_taken_from_every_folder_within_the_time() -> None:
    durations = {"a/1": 10.0, "a/2": 8.0, "a/too long": 100.0, "b/1": 20.0, "c/1": 5.0, "c/2": 4.0}
    assert selection(durations, count=4, seconds=60.0) == ["b/1", "a/1", "c/1", "a/2"]
    assert selection(durations, count=9, seconds=180.0) == ["b/1", "a/1", "c/1", "a/2", "c/2"]
    assert selection(durations, count=2, seconds=16.0) == ["a/1", "c/1"]
    assert selection({}, count=2, seconds=16.0) == []


def test_weights_in_pieces_are_joined_if_their_hash_is_right(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"abcdefgh")
    (tmp_path / "two").write_bytes(b"ij")
    split([tmp_path / "one", tmp_path / "two"], tmp_path, "model.bin", piece_bytes=4)
    pieces = sorted(tmp_path.glob("model.bin.part-*"))
    assert [one.read_bytes() for one in pieces] == [b"abcd", b"efgh", b"ij"]
    assert join_pieces(tmp_path) == [tmp_path / "model.bin"]
    assert (tmp_path / "model.bin").read_bytes() == b"abcdefghij"
    assert join_pieces(tmp_path) == []  # it is there
    (tmp_path / "model.bin").unlink()
    pieces[1].unlink()
    with pytest.raises(ValueError, match=r"model\.bin: its pieces do not have the hash"):
        join_pieces(tmp_path)
    assert not (tmp_path / "model.bin").exists()
    (tmp_path / "model.bin.sha256").unlink()
    with pytest.raises(ValueError, match=r"model\.bin\.sha256 is missing"):
        join_pieces(tmp_path)


def test_weights_are_found_by_content(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no weights", encoding="utf-8")
    (tmp_path / "model.bin.part-00").write_bytes(b"PK\x03\x04")
    assert weights_in(tmp_path) == "base"
    (tmp_path / "some.weights").write_bytes(b"PK\x03\x04")
    assert weights_in(tmp_path) == str(tmp_path / "some.weights")


def test_a_result_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    write_atomically({"a": 1}, path)
    write_atomically({"a": 2}, path)
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": 2}
    assert list(tmp_path.iterdir()) == [path]


@needs_corpus
@pytest.mark.weights
def test_a_folder_is_prepared_and_opens_again(tmp_path: Path) -> None:
    corpus = corpus_folder()
    assert corpus is not None
    gpu_check.prepare(corpus, tmp_path)
    assert all(path.stat().st_size <= 60 << 20 for path in tmp_path.rglob("*"))
    manifest, golden = gpu_check.chosen_recordings(tmp_path, quick=False)
    assert 15 <= len(manifest) <= 20
    assert list(manifest) == list(golden)
    for path in manifest:
        with load_audio(tmp_path / "audio" / path) as recording:
            assert recording.n_samples
    join_pieces(tmp_path)
    assert weights_in(tmp_path) in (str(tmp_path), str(tmp_path / "model.bin"))


# The steps.


def test_a_contract_run_is_read_whole_and_cut_short() -> None:
    tests = "tests/contract/test_backend_contract.py::test_a[torch] PASSED [ 50%]\n"
    tests += "tests/contract/test_backend_contract.py::test_b[torch] SKIPPED [100%]\n"
    assert contract_verdict(f"{tests}1 passed, 1 skipped in 1.0s", 0)["verdict"] == PASSED
    assert contract_verdict(tests, None)["verdict"] == PARTLY
    assert contract_verdict("", None)["verdict"] == NOT_RUN
    assert contract_verdict("no tests ran", 5)["verdict"] == NOT_RUN
    parallel = "[gw1] [ 50%] FAILED tests/contract/test_backend_contract.py::test_c[torch] \n"
    failed = contract_verdict(f"{tests}{parallel}E   assert 1 == 2\nFAILED tests/x.py::test_c - assert\n", 1)
    assert failed["verdict"] == FAILED
    assert failed["counts"] == {"passed": 1, "failed": 1, "error": 0, "skipped": 1}
    assert "E   assert 1 == 2" in failed["says"]
    assert contract_verdict("INTERNALERROR> boom", 3)["verdict"] == FAILED


def test_errors_are_counted_against_golden_texts_and_against_people() -> None:
    golden = {"a": " One two three.", "b": " Four five.", "loop": " la la la la"}
    texts = {"a": " One two tree.", "b": " Four five.", "loop": " la"}
    manifest = {
        "a": {"language": "en", "wer_ok": True, "reference": "one too three"},
        "b": {"language": "en", "wer_ok": False, "reference": "four five six"},
        "loop": {"language": "en", "wer_ok": True, "reference": "la"},
    }
    found = errors_of(texts, golden, manifest, {"loop"})
    assert (found["texts"], found["changed"]) == (3, 2)
    assert (found["words"], found["edits"]) == (5, 1)
    assert (found["judged_words"], found["errors"], found["golden_errors"]) == (3, 2, 1)
    assert "too few words to decide" in errors_sentence(found)
    assert "0.3: yes)" in errors_sentence(found | {"errors": 1})
    assert "0.3: no)" in errors_sentence(found | {"errors": 400, "judged_words": 20_000})


def answers(ids: list[int], logprobs: list[float]) -> StepAnswers:
    return StepAnswers(np.array(ids, np.int32), np.array(logprobs, np.float32))


def test_choices_are_compared_by_what_a_plain_call_gives_the_same_ids() -> None:
    plainly = answers([1, 2, 5, 6], [-1.0, -1.25, -0.5, -3.0])  # the two best of two rows
    assert apart(plainly, plainly, 2) == 0
    assert apart(answers([1, 5], [-1.0, -0.5]), plainly, 2) == 0
    assert apart(answers([2, 5], [-1.25, -0.5]), plainly, 2) == 0.25  # the second best was taken for the best
    assert apart(answers([1, 6], [-1.0, -0.5]), plainly, 2) == 2.5
    assert apart(answers([1, 9], [-1.0, -0.5]), plainly, 2) == 2.5  # at most -3 there
    assert apart(answers([1, 2, 5, 6], [-1.0, -1.5, -0.5, -3.0]), plainly, 2) == 0.25
    assert apart(answers([1, 5], [float("nan"), -0.5]), plainly, 2) == float("inf")


class Replaying(NumpyBackend):
    """Captures what a bucket of one row gives at its third step; a stale graph gives it again whatever comes later."""

    def __init__(self, *, stale: bool) -> None:
        super().__init__(random_checkpoint(), threads=1)
        self.captures: list[SimpleNamespace] = []
        self.capture_graphs = True
        self._stale, self._steps, self._kept = stale, 0, StepAnswers(np.zeros(0, np.int32), np.zeros(0, np.float32))

    def step(self, batch: StepBatch) -> StepAnswers:
        answers = super().step(batch)
        if not self.capture_graphs or len(batch.tokens) > len(batch.rows):
            return answers
        self._steps += 1
        if self._steps == 3:
            self._kept = answers
            self.captures.append(SimpleNamespace(bucket=(8, 64, 1), seconds=0.5, bytes=2_000_000))
        is_same_kind = self._steps > 3 and len(answers.ids) == len(self._kept.ids)
        return self._kept if self._stale and is_same_kind else answers


@pytest.mark.parametrize("stale", [False, True])
def test_a_graph_that_replays_old_tokens_is_found(stale: bool) -> None:
    backend = Replaying(stale=stale)
    bucket = next(buckets(backend, 8, Deadline(60.0)))
    assert bucket["bucket"] == (8, 64, 1)
    assert bucket["captured"]
    assert captured(backend) == {"graphs": 1, "seconds": 0.5, "megabytes": 2.0}
    assert (bucket["difference"] > TOLERANCE["float16"]) == stale
    assert (bucket["other_ids"] > 0) == stale
    assert bucket["choices"] == 8


def test_buckets_without_a_graph_are_named() -> None:
    bucket = {"bucket": (1, 64, 1), "difference": 0.001, "other_ids": 0, "captured": True}
    found = {"buckets": [bucket], "wanted": 64, "largest": 0.001, "other_ids": 1, "choices": 7}
    captures = {"graphs": 1, "seconds": 0.5, "megabytes": 3.0}
    assert "1 of 64 buckets" in graphs_sentence("float16", found | {"captures": captures})
    assert "WITHOUT" not in graphs_sentence("float16", found | {"captures": captures})
    plain = found | {"captures": captures, "buckets": [bucket | {"captured": False}]}
    assert "WITHOUT A GRAPH: 1 buckets, the first (1, 64, 1)" in graphs_sentence("float16", plain)
    assert "PLAIN CALLS ONLY" in graphs_sentence("float16", found | {"captures": {}})
    assert "not run" in graphs_sentence("float16", found | {"buckets": [], "captures": {}})


def test_a_deadline_ends() -> None:
    assert Deadline(0).left_s == 0
    assert 50 < Deadline(60).left_s <= 60


@pytest.mark.reference
@needs_corpus
def test_the_whole_check_runs_on_the_cpu(tmp_path: Path) -> None:
    output = tmp_path / "gpu.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_check", str(corpus_folder()), "--device", "cpu", "--quick",
         "--seconds", "150", "--precision", "float32", "--output", str(output)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(output.read_text(encoding="utf-8"))
    assert list(result["steps"]) == list(BUDGETS)
    assert result["steps"]["golden"]["engine"] == {"backend": "torch", "device": "cpu", "isa": None}
    verdicts = {name: step["verdict"] for name, step in result["steps"].items()}
    # Only the contract suite may need more time than there is.
    assert verdicts.pop("contract") in (PASSED, PARTLY)
    assert set(verdicts.values()) == {PASSED}
    assert result["steps"]["graphs"]["figures"]["float32"]["largest"] == 0  # plain calls, twice
    assert "times real time" in done.stdout


def test_hashes_are_written_as_the_usual_tools_write_them(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(b"xyz")
    split([tmp_path / "w"], tmp_path, "w.bin")
    line = (tmp_path / "w.bin.sha256").read_text(encoding="utf-8")
    assert line == f"{hashlib.sha256(b'xyz').hexdigest()}  w.bin\n"
