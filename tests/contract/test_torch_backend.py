"""What is PyTorch's alone: graphs, memory, the program's settings, several devices; with a fake GPU for a real one."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stapes.backends.base import BEST, DRAW, TOP, Best, Choice, Constraint, Draw, IdRanges, RowId, Top, WindowId
from stapes.backends.numpy.backend import NumpyBackend
from stapes.backends.rowwise import RowStep, step_rows
from stapes.backends.sampling import choose as choose_in_numpy
from stapes.backends.sampling import constrain as constrain_in_numpy
from stapes.backends.several import SeveralBackends
from stapes.engine.engine import Engine
from stapes.engine.scheduled_job import JobState
from stapes.errors import BackendError, OutOfDeviceMemoryError
from stapes.testing import noise, random_checkpoint
from tests.random_cases import random_cases

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from stapes.backends.torch import arithmetic, graphs  # noqa: E402 (where PyTorch is installed)
from stapes.backends.torch.arithmetic import exact  # noqa: E402
from stapes.backends.torch.backend import TorchBackend  # noqa: E402
from stapes.backends.torch.choices import ForbiddenIds, choose, constrain  # noqa: E402
from stapes.backends.torch.device import Device  # noqa: E402
from stapes.backends.torch.graphs import bucket_for  # noqa: E402
from tests.fake_gpu import FakeGpu, backend_on_fake_gpu, fake_gpu  # noqa: E402

CHECKPOINT = random_checkpoint(seed=5)
SPEC = CHECKPOINT.spec
TOLERANCE = 2e-5


def mels(n: int, seed: int = 0, positions: int = SPEC.n_audio_ctx) -> Any:
    shape = (n, SPEC.n_mels, 2 * positions)
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32) * np.float32(0.5)


# Any history gives what the NumPy backend gives.


@dataclass
class Twins:
    """A NumPy and a PyTorch backend with the same windows and rows."""

    other: TorchBackend
    numpy: NumpyBackend = field(default_factory=lambda: NumpyBackend(CHECKPOINT, threads=1))
    windows: list[tuple[WindowId, WindowId]] = field(default_factory=list)
    rows: list[tuple[int, RowId, RowId]] = field(default_factory=list)  # each with its window

    def encode(self, n: int, seed: int, positions: int) -> None:
        mel = mels(n, seed, positions)
        self.windows += zip(self.numpy.encode(mel), self.other.encode(mel), strict=True)

    def encode_and_open(self, n: int, positions: int = 32) -> None:
        """Begin with so many windows and a row over each."""
        self.encode(n, 3, positions)
        for window in range(n):
            self.open(window)

    def open(self, window: int) -> None:
        its, others = self.windows[window]
        self.rows.append((its, self.numpy.open(its), self.other.open(others)))

    def fork(self, row: int) -> None:
        window, its, others = self.rows[row]
        self.rows.append((window, self.numpy.fork(its), self.other.fork(others)))

    def close(self, row: int) -> None:
        _, its, others = self.rows.pop(row)
        self.numpy.close(its)
        self.other.close(others)

    def release(self, window: int) -> None:
        its, others = self.windows.pop(window)
        for index in [i for i, (of, _, _) in enumerate(self.rows) if of == its][::-1]:
            self.close(index)
        self.numpy.release(its)
        self.other.release(others)

    def step(self, wanted: Sequence[tuple[int, tuple[int, ...], Choice]]) -> None:
        asked = [(self.rows[row][1:], tokens, choice) for row, tokens, choice in wanted]
        found = [
            step_rows(backend, [RowStep(row=one[side], tokens=tokens, choice=choice) for one, tokens, choice in asked])
            for backend, side in ((self.numpy, 0), (self.other, 1))
        ]  # fmt: skip
        for one, other in zip(*found, strict=True):
            assert one.ids == other.ids
            assert other.logprobs == pytest.approx(one.logprobs, abs=TOLERANCE)


CHOICES: tuple[Choice, ...] = (Best(), Best(), Best(), Top(3), Draw(0.8, (0.3, 0.7)))


@random_cases(25, 400)
@given(st.data())
def test_any_history_gives_what_the_numpy_backend_gives(data: st.DataObject) -> None:
    twins = Twins(backend_on_fake_gpu(CHECKPOINT))
    twins.encode(2, 0, 96)
    for turn in range(data.draw(st.integers(5, 25))):
        kinds = ["encode", "open", "fork", "close", "release", "step", "step", "step"]
        kind = data.draw(st.sampled_from(kinds))
        if kind == "encode" and len(twins.windows) < 9:
            twins.encode(data.draw(st.integers(1, 3)), turn, data.draw(st.sampled_from([32, 96])))
        elif kind == "open" and twins.windows:
            twins.open(data.draw(st.integers(0, len(twins.windows) - 1)))
        elif kind in ("fork", "close") and twins.rows:
            getattr(twins, kind)(data.draw(st.integers(0, len(twins.rows) - 1)))
        elif kind == "release" and twins.windows:
            twins.release(data.draw(st.integers(0, len(twins.windows) - 1)))
        elif kind == "step" and twins.rows:
            chosen = data.draw(st.lists(st.integers(0, len(twins.rows) - 1), min_size=1, unique=True))
            n_tokens = st.sampled_from([1, 1, 1, 2, 5])
            twins.step([
                (row, tuple(range(turn, turn + data.draw(n_tokens))), data.draw(st.sampled_from(CHOICES)))
                for row in chosen
            ])  # fmt: skip


def test_windows_move_to_low_slots_and_keep_what_they_hold() -> None:
    """Nine windows in slots 0 to 8, of which the last two stay: their rows go on in a bucket of two."""
    backend = backend_on_fake_gpu(CHECKPOINT)
    twins = Twins(backend)
    twins.encode_and_open(9, 96)
    twins.step([(row, (row, 5), Best()) for row in range(9)])
    twins.step([(row, (7,), Best()) for row in range(9)])
    for _ in range(7):
        twins.release(0)
    with patch.object(backend._running.one_token, "run", wraps=backend._running.one_token.run) as run:
        twins.step([(row, (8,), Best()) for row in range(2)])
    assert run.call_args.args[1] == (2, 64, 1)


def test_a_window_among_many_is_gathered() -> None:
    """One row of sixteen windows: a call of its own reads one window, where the bucket would read all."""
    backend = backend_on_fake_gpu(CHECKPOINT)
    twins = Twins(backend)
    twins.encode_and_open(16)
    with patch.object(backend._running.one_token, "run", wraps=backend._running.one_token.run) as run:
        twins.step([(11, (8,), Best())])
        assert run.call_count == 0
        twins.step([(row, (8,), Best()) for row in range(4, 16)])
        assert run.call_args.args[1] == (16, 64, 1)


# Graphs.


def test_a_bucket_is_captured_when_it_was_met_before_and_replayed_from_then_on() -> None:
    with fake_gpu() as gpu:
        backend = TorchBackend(CHECKPOINT, "cuda:0")
    twins = Twins(backend)
    twins.encode_and_open(1)
    for length in range(70):
        twins.step([(0, (length,), Best())])
    assert [one.bucket for one in backend.captures] == [(1, 64, 1), (1, 128, 1)]
    assert gpu.n_replays == 70 - 2 * graphs._CAPTURE_AFTER
    backend.capture_graphs = False
    twins.step([(0, (5,), Best())])
    assert gpu.n_replays == 70 - 2 * graphs._CAPTURE_AFTER
    twins.encode(2, 1, 32)  # larger tensors: what was captured reads the old ones
    backend.capture_graphs = True
    for length in range(5):
        twins.step([(0, (length,), Best())])
    assert [one.bucket for one in backend.captures[2:]] == [(1, 128, 1)]


def test_a_graph_serves_any_constraint_and_choice() -> None:
    backend = backend_on_fake_gpu(CHECKPOINT)
    numpy = NumpyBackend(CHECKPOINT, threads=1)
    rows = [(one, one.open(one.encode(mels(1))[0])) for one in (numpy, backend)]
    begin = SPEC.n_vocab - 1501
    sets = [IdRanges(range(0, SPEC.n_vocab, 2 + i)) for i in range(3)]
    nows = [(), ((0, begin),), ((5, 9), (70, 300)), tuple((40 * i, 40 * i + 20) for i in range(7))]
    choices: tuple[Choice, ...] = Best(), Top(5), Draw(1.5, (0.2, 0.999))
    cases = itertools.product(sets, nows, (None, begin), choices)
    for number, (permanent, now, vote, choice) in enumerate(cases):
        under = Constraint(permanent, now, vote)
        one, other = (
            step_rows(backend, [RowStep(row=row, tokens=(number,), choice=choice, constraint=under)])[0]
            for backend, row in rows
        )
        assert one.ids == other.ids, (number, choice, under)
        assert other.logprobs == pytest.approx(one.logprobs, abs=TOLERANCE)
    assert backend.captures


def test_the_least_used_graph_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "_MOST_GRAPHS", 2)
    backend = backend_on_fake_gpu(CHECKPOINT)
    twins = Twins(backend)
    twins.encode_and_open(4)
    for n in (1, 2, 4, 1):
        for _ in range(3):
            twins.step([(row, (n,), Best()) for row in range(n)])
    assert [one.bucket[0] for one in backend.captures] == [1, 2, 4, 1]


def test_steps_go_on_where_nothing_can_be_captured() -> None:
    with fake_gpu() as gpu:
        backend = TorchBackend(CHECKPOINT, "cuda:0")
    gpu.capture = lambda compute, pool: (_ for _ in ()).throw(RuntimeError("capture failed"))  # type: ignore[method-assign]
    twins = Twins(backend)
    twins.encode_and_open(1)
    twins.step([(0, (1,), Best())])
    twins.step([(0, (1,), Best())])
    with pytest.warns(match="steps on cpu are slower: they could not be captured as graphs: capture failed"):
        twins.step([(0, (1,), Best())])
    twins.step([(0, (1,), Best())])
    assert not backend.captures


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ((1, 1, 1), (1, 64, 1)), ((3, 65, 1), (4, 128, 1)), ((128, 300, 2), (128, 448, 5)), ((5, 448, 5), (8, 448, 5)),
        ((129, 1, 1), None), ((1, 1, 6), None),
    ],
)  # fmt: skip
def test_buckets(asked: tuple[int, int, int], expected: tuple[int, int, int] | None) -> None:
    assert bucket_for(*asked, 448) == expected
    assert bucket_for(1, 40, 1, 48) == (1, 48, 1)


# Memory.


def test_encoding_waits_for_nothing_and_steps_wait_for_their_windows() -> None:
    with fake_gpu() as gpu:
        backend = TorchBackend(CHECKPOINT, "cuda:0")
    first, second = backend.encode(mels(2))
    assert gpu.waited == []
    step_rows(backend, [RowStep(row=backend.open(first), tokens=(1,))])
    assert len(gpu.waited) == 1
    backend.release(second)  # its slot may be written by another window only after this one
    assert len(gpu.waited) == 2


def test_rows_step_on_while_another_window_is_encoded() -> None:
    with fake_gpu() as gpu:
        backend = TorchBackend(CHECKPOINT, "cuda:0")
    engine = Engine(CHECKPOINT, backend)
    first = engine.submit(noise(3.0, seed=1), sample_len=30, language="en", temperature=0.0)
    while not backend.handles.n_rows:
        engine.step()
    engine.step()
    gpu.is_behind = True
    second = engine.submit(noise(3.0, seed=2), sample_len=30, language="en", temperature=0.0)
    for _ in range(6):
        engine.step()
    (begun,) = [one for one in backend.handles.memories() if one.ready is not None]
    assert gpu.waited.count(begun.ready) == 0  # six units, and no step has waited for it
    while first.state is not JobState.DONE:
        engine.step()
    second.result()  # nothing else is left: steps wait
    alone = Engine(CHECKPOINT, NumpyBackend(CHECKPOINT, threads=1))
    for job, seed in ((first, 1), (second, 2)):
        expected = alone.transcribe(noise(3.0, seed=seed), sample_len=30, language="en", temperature=0.0)
        assert job.result().text == expected.text


def test_tensors_that_grow_wait_for_what_is_written_to_them() -> None:
    with fake_gpu() as gpu:
        backend = TorchBackend(CHECKPOINT, "cuda:0")
    backend.encode(mels(1, positions=32))
    backend.encode(mels(2, positions=32))
    assert len(gpu.waited) == 1


class Scarce:
    """Lets a device make tensors of so many bytes at most."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._zeros = torch.zeros

    def __call__(self, *shape: Any, **keywords: Any) -> Any:
        made = self._zeros(*shape, **keywords)
        if made.numel() * made.element_size() > self.most:
            raise torch.OutOfMemoryError("no more")
        return made


def test_where_memory_grows_scarce_it_grows_by_what_is_needed_and_then_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = backend_on_fake_gpu(CHECKPOINT)
    backend.encode(mels(4))
    layer_bytes = backend.window_bytes(SPEC.n_audio_ctx) // SPEC.n_text_layer
    monkeypatch.setattr(torch, "zeros", Scarce(5 * layer_bytes + backend.info.row_bytes))
    (fifth,) = backend.encode(mels(1, 7))  # eight slots have no room, five have
    with pytest.raises(OutOfDeviceMemoryError) as caught:
        backend.encode(mels(1))
    assert "the memory of cpu does not suffice" in str(caught.value)
    assert "beside 5 windows" in str(caught.value)
    assert backend.handles.n_windows == 5
    monkeypatch.undo()
    twin = NumpyBackend(CHECKPOINT, threads=1)
    row, its = backend.open(fifth), twin.open(twin.encode(mels(1, 7))[0])
    one, other = (
        step_rows(side, [RowStep(row=of, tokens=(3,), choice=Best())])[0] for side, of in ((backend, row), (twin, its))
    )
    assert one.ids == other.ids


def test_windows_that_cannot_be_encoded_together_are_encoded_in_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    backend, whole = backend_on_fake_gpu(CHECKPOINT), TorchBackend._fill
    sizes: list[int] = []

    def fill(self: TorchBackend, mel: Any, slots: Any) -> None:
        sizes.append(len(mel))
        if len(mel) > 2:
            raise torch.OutOfMemoryError("too much")
        whole(self, mel, slots)

    monkeypatch.setattr(TorchBackend, "_fill", fill)
    assert len(set(backend.encode(mels(5, positions=32)))) == 5
    assert sizes == [5, 2, 3, 1, 2]
    monkeypatch.setattr(TorchBackend, "_fill", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("none at all")))
    with pytest.raises(OutOfDeviceMemoryError, match="beside 5 windows"):
        backend.encode(mels(3, positions=32))
    assert backend.handles.n_windows == 5


def test_a_step_without_memory_is_tried_again_without_graphs_and_then_fails() -> None:
    backend = backend_on_fake_gpu(CHECKPOINT)
    row = backend.open(backend.encode(mels(1, positions=32))[0])
    steps, run = backend._running, backend._running.run
    with patch.object(steps, "run", Once(run)):
        (found,) = step_rows(backend, [RowStep(row=row, tokens=(1,), choice=Best())])
    assert len(found.ids) == backend.length(row) == 1
    with (
        patch.object(steps, "run", side_effect=torch.OutOfMemoryError("for ever")),
        pytest.raises(OutOfDeviceMemoryError, match="does not suffice"),
    ):
        step_rows(backend, [RowStep(row=row, tokens=(1,), choice=Best())])
    assert backend.length(row) == 1


class Once:
    """Fails once for lack of memory."""

    def __init__(self, run: Callable[..., Any]) -> None:
        self._run, self._failed = run, False

    def __call__(self, *arguments: Any) -> Any:
        if not self._failed:
            self._failed = True
            raise torch.OutOfMemoryError("once")
        return self._run(*arguments)


def test_windows_take_half_of_what_is_free_or_what_device_memory_leaves() -> None:
    backend = backend_on_fake_gpu(CHECKPOINT)
    assert backend.info.max_memory == FakeGpu().total // 2
    assert Engine(CHECKPOINT, backend).scheduler.bound.max_bytes == FakeGpu().total // 2
    bounded = backend_on_fake_gpu(CHECKPOINT, device_memory=2_000_000_000)
    bound = bounded.info.max_memory
    assert bound is not None
    assert 0 < bound < 2_000_000_000 - 700_000_000 - bounded.info.weight_bytes
    with pytest.raises(BackendError, match=r"device_memory is 700 MB; on cpu, weights, context and workspaces take"):
        backend_on_fake_gpu(CHECKPOINT, device_memory=700_000_000)
    with fake_gpu(total=1000), pytest.raises(OutOfDeviceMemoryError, match="of 0 MB, 0 MB are free"):
        TorchBackend(CHECKPOINT, "cuda:0")
    assert TorchBackend(CHECKPOINT).info.max_memory is None


def test_beams_stay_within_the_bound() -> None:
    """Rows have places beside the first ones of slots; slots that are free make room for them."""
    backend = backend_on_fake_gpu(CHECKPOINT)
    window, row = backend.window_bytes(SPEC.n_audio_ctx), backend.info.row_bytes
    memory = backend._memory
    memory.most_bytes = bound = 8 * (window + 2 * row)
    memory.capacity = 8
    greedy = [backend.open(one) for one in backend.encode(mels(8, positions=32))]
    step_rows(backend, [RowStep(row=one, tokens=(1,)) for one in greedy])
    assert memory.held_bytes <= bound
    for one in greedy:
        backend.close(one)
    for window_id in list(backend.handles._windows)[1:]:
        backend.release(window_id)
    (left,) = backend.handles._windows
    first = backend.open(left)
    step_rows(backend, [RowStep(row=first, tokens=(3, 4))])
    forks = [first, *(backend.fork(first) for _ in range(19))]
    assert window + 20 * row <= memory.held_bytes <= bound
    found = step_rows(backend, [RowStep(row=one, tokens=(5,), choice=Best()) for one in forks])
    twin = NumpyBackend(CHECKPOINT, threads=1)
    its = twin.open(twin.encode(mels(8, positions=32)[:1])[0])
    (expected,) = step_rows(twin, [RowStep(row=its, tokens=(3, 4, 5), choice=Best())])
    assert {one.ids for one in found} == {expected.ids}


def test_slots_that_are_given_up_are_given_up_before_rows_are_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no room even for that, what is left is usable."""
    twins = Twins(backend_on_fake_gpu(CHECKPOINT))
    memory = twins.other._memory
    twins.encode_and_open(8)
    twins.step([(row, (row, 5), Best()) for row in range(8)])
    for _ in range(6):
        twins.release(2)
    while memory._free_extras:
        twins.fork(0)
    memory.most_bytes = 1  # from here on, no more than is needed
    whole = memory._zeros

    def zeros(shape: tuple[int, ...]) -> Any:
        if len(shape) == 6:
            raise torch.OutOfMemoryError("no rows")
        return whole(shape)

    monkeypatch.setattr(memory, "_zeros", zeros)
    with pytest.raises(OutOfDeviceMemoryError):
        twins.other.fork(twins.rows[0][2])
    monkeypatch.undo()
    twins.step([(row, (9,), Best()) for row in range(len(twins.rows))])
    twins.encode(3, 4, 32)
    for window in range(2, 5):
        twins.open(window)
    twins.step([(row, (row,), Best()) for row in range(len(twins.rows))])


def test_an_interrupted_encode_leaves_no_slot_taken() -> None:
    backend = backend_on_fake_gpu(CHECKPOINT)
    with (
        patch("stapes.backends.torch.backend.encode", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        backend.encode(mels(2, positions=32))
    assert len(backend.encode(mels(2, positions=32))) == 2
    assert backend._memory.n_slots == 2


@pytest.mark.parametrize("prompt", [0, 200])
@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_a_window_that_is_no_number_leaves_nothing_behind(precision: str, prompt: int) -> None:
    """Its slot and its rows' places are taken by others, which see less of them."""
    backend = backend_on_fake_gpu(CHECKPOINT, precision)
    clean = backend_on_fake_gpu(CHECKPOINT, precision)
    odd = backend.open(backend.encode(np.full((1, SPEC.n_mels, 2 * SPEC.n_audio_ctx), np.nan, np.float32))[0])
    step_rows(backend, [RowStep(row=odd, tokens=(1,) * (prompt + 1), choice=Best())])
    (window,) = backend.handles._windows
    backend.close(odd)
    backend.release(window)
    answers = []
    for one in (backend, clean):
        row = one.open(one.encode(mels(1, 1, 32))[0])
        answers.append(step_rows(one, [RowStep(row=row, tokens=(2, 3), choice=Top(3), logits_at=(1,))])[0])
    assert answers[0].ids == answers[1].ids
    assert answers[0].logits is not None
    assert np.isfinite(answers[0].logits).all()


# Failures.


def test_a_lost_device_is_named_once_and_refused_from_then_on(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = backend_on_fake_gpu(CHECKPOINT)
    row = backend.open(backend.encode(mels(1, positions=32))[0])
    with (
        patch.object(backend._running, "run", side_effect=torch.AcceleratorError("illegal address", 700)),
        pytest.raises(BackendError, match="cpu failed; start the program anew to use it again"),
    ):
        step_rows(backend, [RowStep(row=row, tokens=(1,))])
    for call in (lambda: backend.encode(mels(1)), lambda: step_rows(backend, [RowStep(row=row, tokens=(1,))])):
        with pytest.raises(BackendError, match="start the program anew"):
            call()


def test_a_device_that_is_lost_while_it_encodes_fails_the_step_and_nothing_else() -> None:
    with fake_gpu() as gpu:
        backend = TorchBackend(CHECKPOINT, "cuda:0")
    engine = Engine(CHECKPOINT, backend)
    jobs = [engine.submit(noise(3.0, seed=seed), sample_len=9, language="en", temperature=0.0) for seed in range(3)]
    lost = torch.AcceleratorError("illegal address", 700)
    with patch.object(gpu, "is_past", side_effect=lost), patch.object(gpu, "wait", side_effect=lost):
        engine.run()
    for job in jobs:
        with pytest.raises(BackendError, match="start the program anew"):
            job.result()
    assert backend.handles.n_windows == 0


def test_memory_that_libraries_lack_counts_as_memory_that_pytorch_lacks() -> None:
    backend = backend_on_fake_gpu(CHECKPOINT)
    failing = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
    with (
        patch("stapes.backends.torch.backend.encode", side_effect=failing),
        pytest.raises(OutOfDeviceMemoryError, match="does not suffice"),
    ):
        backend.encode(mels(2, positions=32))
    assert len(backend.encode(mels(2, positions=32))) == 2  # it is not lost


def test_a_forked_child_is_told_what_to_do() -> None:
    backend = backend_on_fake_gpu(CHECKPOINT)
    backend.after_fork()
    with pytest.raises(BackendError, match="load it in the child, or start the child with multiprocessing"):
        backend.encode(mels(1))
    on_cpu = TorchBackend(CHECKPOINT)
    on_cpu.after_fork()  # where nothing stays with the parent
    assert len(on_cpu.encode(mels(1, positions=32))) == 1


# What the program around it has set.


@pytest.fixture
def settings_of_the_program() -> Iterator[None]:
    matmul, conv = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    before = matmul.fp32_precision, conv.fp32_precision, matmul.allow_fp16_reduced_precision_reduction
    matmul.fp32_precision, conv.fp32_precision = "tf32", "tf32"
    matmul.allow_fp16_reduced_precision_reduction = True
    yield
    matmul.fp32_precision, conv.fp32_precision, matmul.allow_fp16_reduced_precision_reduction = before


@pytest.mark.usefixtures("settings_of_the_program")
def test_products_are_exact_whatever_the_program_has_set_and_its_settings_come_back() -> None:
    matmul, conv, seen = torch.backends.cuda.matmul, torch.backends.cudnn.conv, []

    def settings() -> tuple[Any, ...]:
        reduced = matmul.allow_fp16_reduced_precision_reduction, matmul.allow_bf16_reduced_precision_reduction
        return matmul.fp32_precision, conv.fp32_precision, torch.is_autocast_enabled("cpu"), *reduced

    backend, real = TorchBackend(CHECKPOINT), torch.matmul

    def noting(*arguments: Any, **keywords: Any) -> Any:
        seen.append((*settings(), torch.is_inference_mode_enabled()))
        return real(*arguments, **keywords)

    with torch.autocast("cpu", dtype=torch.bfloat16), patch.object(torch, "matmul", noting):
        before = settings()
        row = backend.open(backend.encode(mels(1, positions=32))[0])
        (one,) = step_rows(backend, [RowStep(row=row, tokens=(1, 2), logits_at=(1,))])
        (two,) = step_rows(backend, [RowStep(row=row, tokens=(3,), choice=Best())])
        assert settings() == before
    assert set(seen) == {("ieee", "ieee", False, False, False, True)}
    assert {torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction_split_k} == {True}  # split sums are exact
    twin = NumpyBackend(CHECKPOINT, threads=1)
    its = twin.open(twin.encode(mels(1, positions=32))[0])
    (expected,) = step_rows(twin, [RowStep(row=its, tokens=(1, 2), logits_at=(1,))])
    assert one.logits is not None
    assert expected.logits is not None
    assert np.abs(one.logits - expected.logits).max() <= TOLERANCE
    assert two.ids == step_rows(twin, [RowStep(row=its, tokens=(3,), choice=Best())])[0].ids


def test_settings_come_back_where_one_of_them_cannot_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    before = [read() for read, _, _ in arithmetic._SETTINGS]

    def refuse(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(arithmetic, "_SETTINGS", [*arithmetic._SETTINGS, (lambda: 1, refuse, 2)])
    with pytest.raises(KeyboardInterrupt), exact(torch.device("cpu")):
        pass
    monkeypatch.undo()
    assert [read() for read, _, _ in arithmetic._SETTINGS] == before


def test_settings_come_back_after_a_failure() -> None:
    backend, before = TorchBackend(CHECKPOINT), torch.backends.cuda.matmul.fp32_precision
    with patch("stapes.backends.torch.backend.encode", side_effect=KeyError), pytest.raises(KeyError):
        backend.encode(mels(1))
    assert torch.backends.cuda.matmul.fp32_precision == before


def test_weights_come_from_a_file_that_cannot_be_written() -> None:
    tensors = {name: array.copy() for name, array in CHECKPOINT.tensors.items()}
    for array in tensors.values():
        array.flags.writeable = False
    backend = TorchBackend(replace(CHECKPOINT, tensors=tensors), precision="float16")
    assert backend.info.weight_bytes == pytest.approx(2 * SPEC.n_parameters, rel=0.1)


# Choosing.


@random_cases(100, 3000)
@given(st.data(), st.lists(st.integers(-40, 40), min_size=2, max_size=24))
def test_tensors_choose_as_numpy_does(data: st.DataObject, values: list[int]) -> None:
    n_vocab, one = len(values), st.integers(0, len(values) - 1)
    logits = (np.array(values) / 4).astype(np.float32)
    ranges = st.tuples(one, one).map(lambda pair: (min(pair), max(pair)))
    constraint = Constraint(
        IdRanges(data.draw(st.lists(one, max_size=4))),
        now=tuple(data.draw(st.lists(ranges, min_size=1, max_size=3))),
        vote_from=data.draw(st.none() | one.filter(bool)) if n_vocab > 1 else None,
    )
    method = data.draw(st.sampled_from([BEST, TOP, DRAW]))
    n = data.draw(st.integers(1, n_vocab)) if method == TOP else 1
    uniform = data.draw(st.floats(0, 0.999))
    choice: Choice = Best() if method == BEST else Top(n) if method == TOP else Draw(0.7, (uniform,))
    table = ForbiddenIds(n_vocab, torch.device("cpu"))
    rows = table.rows_of([constraint.permanent])
    vote = n_vocab if constraint.vote_from is None else constraint.vote_from
    masked, total = constrain(
        torch.tensor(logits)[None], table.table[rows], torch.tensor([constraint.now]), torch.tensor([vote])
    )
    ids, logprobs = choose(masked, total, method, n, [0.7], [[uniform]])[:, 0].numpy()
    changed = logits.copy()
    expected_ids, expected = choose_in_numpy(constrain_in_numpy(changed, constraint), changed, choice)
    if method == DRAW and ids.tolist() != list(
        expected_ids
    ):  # the number lies on an edge, which sums may see either way
        weights = np.exp((changed.astype(np.float64) - changed.max()) / 0.7)
        assert np.abs(np.cumsum(weights) / weights.sum() - uniform).min() < 1e-9
        return
    if n_vocab > 1 and np.isneginf(masked.numpy()[0]).tolist() != np.isneginf(changed).tolist():  # a tie of the vote
        return
    assert ids.astype(int).tolist() == list(expected_ids)
    assert logprobs == pytest.approx(expected, abs=1e-5)


def test_sets_of_forbidden_ids_are_kept_and_told_apart() -> None:
    table = ForbiddenIds(50, torch.device("cpu"))
    sets = [IdRanges([number % 50, (number // 50) % 50]) for number in range(200)]
    for begin in (0, 10, 50, 0, 120):
        some = sets[begin : begin + 30]
        for one, row in zip(some, table.rows_of(some), strict=True):
            assert torch.nonzero(table.table[row]).ravel().tolist() == sorted(set(one.array.tolist()))
    assert table.version == 0
    assert table.rows_of([IdRanges([3]), IdRanges([3])])[0] == table.rows_of([IdRanges([3])])[0]
    for one, row in zip(sets, table.rows_of(sets), strict=True):  # more in one step than the table has rows
        assert torch.nonzero(table.table[row]).ravel().tolist() == sorted(set(one.array.tolist()))
    assert table.version == 1


# Several devices, and whole recordings.


def test_windows_go_to_the_device_with_the_fewest_and_rows_with_them() -> None:
    parts = [TorchBackend(CHECKPOINT) for _ in range(2)]
    several = SeveralBackends(parts)
    windows = several.encode(mels(3, positions=32))
    assert sorted(one.handles.n_windows for one in parts) == [1, 2]
    several.release(windows[0])
    several.encode(mels(2, positions=32))
    assert [one.handles.n_windows for one in parts] == [2, 2]
    assert several.info.device == "cpu,cpu"
    assert several.info.weight_bytes == 2 * parts[0].info.weight_bytes


def test_what_one_device_cannot_encode_no_other_keeps() -> None:
    parts = [TorchBackend(CHECKPOINT) for _ in range(2)]
    several = SeveralBackends(parts)
    with (
        patch.object(parts[1], "encode", side_effect=OutOfDeviceMemoryError("full")),
        pytest.raises(OutOfDeviceMemoryError, match="full"),
    ):
        several.encode(mels(4, positions=32))
    assert [one.handles.n_windows for one in parts] == [0, 0]
    assert len(several.encode(mels(4, positions=32))) == 4


def test_no_device_is_left_at_work_by_an_interruption() -> None:
    parts = [TorchBackend(CHECKPOINT) for _ in range(2)]
    several = SeveralBackends(parts)
    with (
        patch.object(parts[1], "encode", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        several.encode(mels(2, positions=32))
    assert [one.handles.n_windows for one in parts] == [0, 0]
    several.shut_down()
    with pytest.raises(BackendError, match="this backend was shut down"):
        several.encode(mels(2, positions=32))


def test_threads_at_once_all_compute_exactly_and_the_program_gets_its_settings_back() -> None:
    matmul = torch.backends.mkldnn.matmul
    before, matmul.fp32_precision = matmul.fp32_precision, "bf16"
    try:
        first, second = exact(torch.device("cpu")), exact(torch.device("cpu"))
        with ThreadPoolExecutor(1) as other:
            first.__enter__()
            other.submit(second.__enter__).result()
            first.__exit__(None, None, None)
            assert matmul.fp32_precision == "ieee"
            other.submit(second.__exit__, None, None, None).result()
        assert matmul.fp32_precision == "bf16"
    finally:
        matmul.fp32_precision = before


OPTIONS: tuple[dict[str, Any], ...] = (
    {"temperature": 0.0},
    {"temperature": 0.0, "beam_size": 3},
    {"temperature": (0.0, 0.6), "best_of": 3, "seed": 4},
    {"temperature": 0.0, "word_timestamps": True},
)


@pytest.mark.parametrize("several", [False, True])
def test_recordings_at_once_give_the_numpy_backends_text(several: bool) -> None:
    numpy = Engine(CHECKPOINT, NumpyBackend(CHECKPOINT, threads=1))
    ours = [backend_on_fake_gpu(CHECKPOINT) for _ in range(2 if several else 1)]
    engine = Engine(CHECKPOINT, SeveralBackends(ours) if several else ours[0])
    sounds = [noise(seconds, seed=seed) for seed, seconds in enumerate((3.0, 40.0, 12.0, 65.0))]
    cases = list(itertools.product(sounds, OPTIONS))
    jobs = [engine.submit(sound, sample_len=20, mode="reference", **options) for sound, options in cases]
    found = [job.result() for job in jobs]
    for (sound, options), one in zip(cases, found, strict=True):
        expected = numpy.transcribe(sound, sample_len=20, mode="reference", **options)
        assert one.to_dict()["text"] == expected.to_dict()["text"], options
        assert [each.tokens for each in one.segments] == [each.tokens for each in expected.segments]
    assert sum(len(one.captures) for one in ours) > 2


def test_a_device_without_graphs_is_one_whose_calls_are_done() -> None:
    device = Device("cpu")
    values = np.arange(6, dtype=np.int32).reshape(2, 3)
    assert device.download(device.upload(values)).tolist() == values.tolist()
    into = torch.zeros((2, 3), dtype=torch.int32)
    device.upload(values, into)
    assert into.tolist() == values.tolist()
    assert device.memory() is None
    assert device.mark() is None
