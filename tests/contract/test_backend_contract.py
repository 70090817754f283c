"""What every backend must do (backends/base.py). A new backend joins `BACKENDS`."""

from __future__ import annotations

import importlib.util
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stapes.audio.mel import mel_filters
from stapes.backends.base import (
    Backend,
    Best,
    Choice,
    Constraint,
    Draw,
    FloatArray,
    IdRanges,
    Probe,
    RowId,
    Top,
    WindowId,
)
from stapes.backends.handles import HandlesBackend
from stapes.backends.native.backend import NativeBackend
from stapes.backends.native.library import is_built, library, library_problem
from stapes.backends.numerics import log10_mel, token_columns
from stapes.backends.numpy.backend import NumpyBackend
from stapes.backends.rowwise import RowResult, RowStep, answers_of, batch_of, results_of, step_rows, steps_of
from stapes.backends.sampling import choose, constrain
from stapes.backends.several import SeveralBackends
from stapes.checkpoint.base import Checkpoint, ModelSpec
from stapes.errors import BackendError
from stapes.testing import ScriptedBackend, babbling, random_checkpoint, small_vocabulary, tiny_spec
from stapes.tokenizer import Tokenizer
from tests.choices import choices
from tests.random_cases import random_cases

#: logits and scores of the tiny models lie within a few units of 0, and float32 sums of 16 to 1,500 numbers in another
#: order (a matrix times one column, or times many) differ by some 1e-6 of that
TOLERANCE = 2e-5


@cache
def small_checkpoint() -> Checkpoint:
    return random_checkpoint(seed=5)


@cache
def large_v3_checkpoint() -> Checkpoint:
    """Make a model of large-v3's vocabulary and mel bins, and nothing else of its size."""
    return random_checkpoint("multilingual", spec=tiny_spec("multilingual", n_mels=128, n_vocab=51866), seed=6)


def numpy_backend(threads: int = 1, positions: int | None = None) -> Backend:
    return NumpyBackend(cut_to(positions, small_checkpoint()), threads=threads)


def cut_to(positions: int | None, checkpoint: Checkpoint) -> Checkpoint:
    """Return a model whose full windows are shorter: its positional embedding is cut."""
    if positions is None:
        return checkpoint
    spec = replace(checkpoint.spec, n_audio_ctx=positions)
    name = "encoder.positional_embedding"
    return replace(checkpoint, spec=spec, tensors={**checkpoint.tensors, name: checkpoint.tensors[name][:positions]})


def numpy_large_v3(threads: int = 1, positions: int | None = None) -> Backend:
    return NumpyBackend(cut_to(positions, large_v3_checkpoint()), threads=threads)


def native_backend(
    precision: str = "float32", isa: str | None = None, threads: int = 1, positions: int | None = None
) -> Backend:
    return NativeBackend(cut_to(positions, small_checkpoint()), threads=threads, precision=precision, isa=isa)


def native_large_v3(threads: int = 1, positions: int | None = None) -> Backend:
    return NativeBackend(cut_to(positions, large_v3_checkpoint()), threads=threads, precision="bfloat16")


def torch_backend(
    precision: str = "float32", checkpoint: Callable[[], Checkpoint] = small_checkpoint, positions: int | None = None
) -> Backend:
    from stapes.backends.torch.backend import TorchBackend  # noqa: PLC0415 (where PyTorch is installed)

    return TorchBackend(cut_to(positions, checkpoint()), TORCH_DEVICE, precision=precision)


def captured_torch_backend(positions: int | None = None) -> Backend:
    from tests.fake_gpu import backend_on_fake_gpu  # noqa: PLC0415 (as above)

    return backend_on_fake_gpu(cut_to(positions, small_checkpoint()))


def several_torch_backends(positions: int | None = None) -> Backend:

    return SeveralBackends([torch_backend(positions=positions) for _ in range(2)])


def scripted() -> Backend:
    spec = tiny_spec()
    return ScriptedBackend(spec, babbling(1, Tokenizer(spec, small_vocabulary())))


#: the device that PyTorch's backend is tested on
TORCH_DEVICE = os.environ.get("STAPES_TORCH_DEVICE", "cpu")
TORCH: dict[str, Callable[..., Backend]] = {
    "torch": torch_backend,
    "torch-float16": partial(torch_backend, "float16"),
    "torch-bfloat16": partial(torch_backend, "bfloat16"),
    "torch-large-v3": partial(torch_backend, "float32", large_v3_checkpoint),
    "torch-captured": captured_torch_backend,
    "torch-2-devices": several_torch_backends,
}
NATIVE: dict[str, Callable[..., Backend]] = {
    **{f"native-{isa}": partial(native_backend, isa=isa) for isa in (library().isa_names() if is_built() else ())},
    "native-bfloat16": partial(native_backend, "bfloat16"),
    "native-int8": partial(native_backend, "int8"),
    "native-2-threads": partial(native_backend, threads=2),
    "native-large-v3": native_large_v3,
}
BACKENDS: dict[str, Callable[..., Backend]] = {
    "numpy": numpy_backend,
    "numpy-2-threads": partial(numpy_backend, 2),
    "numpy-large-v3": numpy_large_v3,
    **NATIVE,
    **TORCH,
    "scripted": scripted,
}
NETWORKS = [name for name in BACKENDS if name != "scripted"]
#: name -> the same backend with another number of threads
THREADED: dict[str, Callable[[int], Backend]] = {
    "numpy": numpy_backend,
    "numpy-large-v3": numpy_large_v3,
    "native": lambda threads: native_backend(threads=threads),
    "native-bfloat16": lambda threads: native_backend("bfloat16", threads=threads),
    "native-int8": lambda threads: native_backend("int8", threads=threads),
    "native-large-v3": native_large_v3,
}
#: backends that compute in something else than float32
PRECISION = {
    "native-bfloat16": "bfloat16", "native-int8": "int8", "native-large-v3": "bfloat16",
    "torch-float16": "float16", "torch-bfloat16": "bfloat16",
}  # fmt: skip


def parameters(names: Iterable[str]) -> list[Any]:
    """Make parameters of names; those are skipped, and say why, whose library is not here."""
    missing = {
        "native": pytest.mark.skipif(not is_built(), reason=f"the native library is not here: {library_problem()}"),
        "torch": pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed"),
    }
    marks = {name: missing.get(name.partition("-")[0]) for name in names}
    return [pytest.param(name, marks=[mark] if mark else []) for name, mark in marks.items()]


every_backend = pytest.mark.parametrize("backend", parameters(BACKENDS), indirect=True)
every_network = pytest.mark.parametrize("backend", parameters(NETWORKS), indirect=True)


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    made = BACKENDS[request.param]()
    yield made
    made.shut_down()


#: positions of short windows, and of a full one
LENGTHS = (32, 96, 1472, 1500)


def mels(spec: ModelSpec, n: int, seed: int = 0, positions: int | None = None) -> FloatArray:
    shape = (n, spec.n_mels, 2 * (positions or spec.n_audio_ctx))
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32) * np.float32(0.5)


def window_of(backend: Backend, seed: int = 0, positions: int | None = None) -> WindowId:
    return backend.encode(mels(backend.spec, 1, seed, positions))[0]


def tokens_of(backend: Backend, n: int, seed: int = 0) -> tuple[int, ...]:
    return tuple(np.random.default_rng(seed).integers(0, backend.spec.n_vocab, n).tolist())


def ask(row: RowId, tokens: tuple[int, ...]) -> RowStep:
    """Ask for something of everything."""
    last = len(tokens) - 1
    return RowStep(
        row=row,
        tokens=tokens,
        choice=Top(4),
        probes=(Probe(0, (3, 1)),),
        logits_at=(last,),
        attention=((1, 0), (0, 1)),
    )


def next_logits(backend: Backend, row: RowId, tokens: tuple[int, ...]) -> FloatArray:
    (result,) = step_rows(backend, [RowStep(row=row, tokens=tokens, logits_at=(len(tokens) - 1,))])
    assert result.logits is not None
    logits: FloatArray = result.logits[0]
    return logits


#: how far PyTorch's numbers may lie apart that differ in their batch alone: it sums in another order in another batch.
#: In half precision a tiny random model's logits, which lie some ten apart, are rounded harder than a real one's.
IN_BATCHES = {"float32": TOLERANCE, "float16": 0.05, "bfloat16": 0.4}


def tolerance(backend: Backend) -> float:
    """How far numbers may lie apart that differ in their batch alone."""
    return IN_BATCHES[backend.info.precision] if backend.info.name == "torch" else 0.0


def assert_equal(one: FloatArray, other: FloatArray, backend: Backend) -> None:
    """Compare to the last bit, or, in PyTorch, within the tolerance."""
    if tolerance(backend):
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance(backend))
    else:
        assert one.tobytes() == other.tobytes()


def assert_same(one: RowResult, other: RowResult, backend: Backend) -> None:
    """Compare all answers as above; in half precision what is chosen among near equals may differ."""
    if backend.info.precision == "float32" or not tolerance(backend):
        assert one.ids == other.ids
    assert one.logprobs == pytest.approx(other.logprobs, rel=0, abs=tolerance(backend))
    for mine, its in zip(one.probes, other.probes, strict=True):
        assert_equal(mine.logits, its.logits, backend)
        assert mine.log_normaliser == pytest.approx(its.log_normaliser, rel=0, abs=tolerance(backend))
    for a, b in ((one.logits, other.logits), (one.attention, other.attention)):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            assert_equal(a, b, backend)


# What it says of itself.


@every_backend
def test_info_and_mel(backend: Backend, request: pytest.FixtureRequest) -> None:
    info = backend.info
    assert info.precision == PRECISION.get(request.node.callspec.params["backend"], "float32")
    assert info.precision in info.precisions
    assert info.threads >= 1
    assert min(info.weight_bytes, backend.window_bytes(backend.spec.n_audio_ctx), info.row_bytes) >= 0
    samples = np.random.default_rng(0).standard_normal(160 * 20 + 400).astype(np.float32)
    filters = mel_filters(backend.spec.n_mels)
    assert np.abs(backend.log10_mel(samples, filters) - log10_mel(samples, filters)).max() <= 1e-5


@every_network
def test_memory_is_what_the_sizes_say(backend: Backend) -> None:
    spec, info = backend.spec, backend.info
    windows = [(n, backend.window_bytes(n)) for n in LENGTHS]
    for n_positions, n_bytes in (*windows, (spec.n_text_ctx, info.row_bytes)):
        if isinstance(backend, NumpyBackend):
            assert n_bytes == 2 * spec.n_text_layer * n_positions * spec.n_text_state * 4
        elif info.name == "torch":  # a slot of whole eights holds a window of any length; a place has a spare position
            width = n_bytes // (2 * spec.n_text_layer * spec.n_text_state * (4 if info.precision == "float32" else 2))
            assert width == (449 if n_bytes == info.row_bytes else 1504)
        else:
            # Positions and the width of a head's values in whole blocks of 32; of 8 bits, a scale for each of them.
            in_bytes = info.precision == "int8" and n_bytes != info.row_bytes
            value, width = 4 if info.precision == "float32" else 2, spec.n_text_state // spec.n_text_head
            values = width + -(-width // 32) * 32
            position = spec.n_text_head * (values + 2 * 4 if in_bytes else value * values)
            assert n_bytes == spec.n_text_layer * -(-n_positions // 32) * 32 * position
    # NumPy has it all in float32; the native library keeps float16's numbers as they are where it computes in float32.
    in_float32 = isinstance(backend, NumpyBackend) or (info.name == "torch" and info.precision == "float32")
    each = 4 if in_float32 else 1 if info.precision == "int8" else 2
    assert info.weight_bytes >= each * spec.n_parameters


# Batches.


@every_backend
def test_rows_in_a_batch_equal_rows_alone_to_the_last_bit(backend: Backend) -> None:
    windows = backend.encode(mels(backend.spec, 2))
    lengths = (1, 7, 2, 30, 1)
    given_tokens = [tokens_of(backend, n, seed=n + i) for i, n in enumerate(lengths)]

    def open_all() -> list[RowId]:
        return [backend.open(windows[i % 2]) for i in range(len(lengths))]

    for later in range(2):  # the first step brings a prompt, the second one token each
        together, alone = open_all(), open_all()
        for row, tokens in zip((*together, *alone), (*given_tokens, *given_tokens), strict=True):
            if later:
                step_rows(backend, [RowStep(row=row, tokens=tokens)])
        steps = [tokens[-1:] if later else tokens for tokens in given_tokens]
        batched = step_rows(backend, [ask(row, tokens) for row, tokens in zip(together, steps, strict=True)])
        for row, tokens, found in zip(alone, steps, batched, strict=True):
            assert_same(found, step_rows(backend, [ask(row, tokens)])[0], backend)


@every_network
def test_windows_in_a_batch_equal_windows_alone_to_the_last_bit(backend: Backend) -> None:
    mel = mels(backend.spec, 3)
    together = backend.encode(mel)
    tokens = tokens_of(backend, 5)
    for i, window in enumerate(together):
        (alone,) = backend.encode(mel[i : i + 1])
        (one,) = step_rows(backend, [ask(backend.open(window), tokens)])
        (other,) = step_rows(backend, [ask(backend.open(alone), tokens)])
        assert_same(one, other, backend)


@every_backend
def test_windows_that_differ_give_other_numbers(backend: Backend) -> None:
    first, second = backend.encode(mels(backend.spec, 2))
    tokens = tokens_of(backend, 3)
    assert not np.array_equal(
        next_logits(backend, backend.open(first), tokens), next_logits(backend, backend.open(second), tokens)
    )


@pytest.mark.parametrize("name", parameters(THREADED))
def test_the_number_of_threads_changes_no_bit(name: str) -> None:
    found: list[list[RowResult]] = []
    for threads in (1, 2):
        backend = THREADED[name](threads)
        windows = [*backend.encode(mels(backend.spec, 2)), *backend.encode(mels(backend.spec, 2, positions=96))]
        rows = [backend.open(window) for window in windows for _ in range(3)]
        found.append([])
        for n in (9, 1, 1, 1):
            found[-1] += step_rows(backend, [ask(row, tokens_of(backend, n, seed=n + row)) for row in rows])
        backend.shut_down()
    for one, other in zip(*found, strict=True):
        assert_same(one, other, backend)


# One row's history.


@every_backend
def test_many_tokens_at_once_equal_one_by_one(backend: Backend) -> None:
    window, tokens = window_of(backend), tokens_of(backend, 12)
    at_once, one_by_one = backend.open(window), backend.open(window)
    (whole,) = step_rows(
        backend, [RowStep(row=at_once, tokens=tokens, logits_at=tuple(range(12)), attention=((0, 0),))]
    )
    assert whole.logits is not None
    assert whole.attention is not None
    for i, token in enumerate(tokens):
        (single,) = step_rows(backend, [RowStep(row=one_by_one, tokens=(token,), logits_at=(0,), attention=((0, 0),))])
        assert single.logits is not None
        assert single.attention is not None
        allowed = max(TOLERANCE, tolerance(backend))
        assert np.abs(single.logits[0] - whole.logits[i]).max() <= allowed
        assert np.abs(single.attention[:, 0] - whole.attention[:, i]).max() <= allowed
    assert backend.length(at_once) == backend.length(one_by_one) == 12


@every_backend
def test_a_fork_shares_the_past_and_goes_its_own_way(backend: Backend) -> None:
    window, past = window_of(backend), tokens_of(backend, 6)
    row, lone = backend.open(window), backend.open(window)
    for one in (row, lone):
        step_rows(backend, [RowStep(row=one, tokens=past)])
    fork = backend.fork(row)
    assert backend.length(fork) == 6
    (mine,) = step_rows(backend, [ask(row, (1, 2))])
    step_rows(backend, [RowStep(row=fork, tokens=(9, 8, 7))])  # leaves no trace in the row
    assert (backend.length(row), backend.length(fork)) == (8, 9)
    backend.truncate(fork, 6)
    assert_same(step_rows(backend, [ask(fork, (1, 2))])[0], mine, backend)
    assert_same(step_rows(backend, [ask(lone, (1, 2))])[0], mine, backend)
    (again,) = step_rows(backend, [ask(row, (5,))])
    backend.close(row)
    assert_same(step_rows(backend, [ask(fork, (5,))])[0], again, backend)  # and outlives it


@every_backend
def test_what_is_cut_off_is_forgotten(backend: Backend) -> None:
    window, tokens = window_of(backend), tokens_of(backend, 9)
    row, fresh = backend.open(window), backend.open(window)
    step_rows(backend, [RowStep(row=row, tokens=tokens)])
    for length in (9, 5, 5, 1, 0):
        backend.truncate(row, length)
        assert backend.length(row) == length
    found, expected = (step_rows(backend, [ask(one, tokens)])[0] for one in (row, fresh))
    assert_same(found, expected, backend)


@every_backend
def test_cutting_and_stepping_again_gives_the_same(backend: Backend) -> None:
    row = backend.open(window_of(backend))
    step_rows(backend, [RowStep(row=row, tokens=tokens_of(backend, 5))])
    (first,) = step_rows(backend, [ask(row, (4,))])
    backend.truncate(row, 5)
    assert_same(step_rows(backend, [ask(row, (4,))])[0], first, backend)


@every_backend
def test_a_row_holds_the_whole_context_and_no_more(backend: Backend) -> None:
    n_ctx = backend.spec.n_text_ctx
    row = backend.open(window_of(backend))
    step_rows(backend, [RowStep(row=row, tokens=(1,) * n_ctx)])
    assert backend.length(row) == n_ctx
    with pytest.raises(BackendError, match=str(row)):
        step_rows(backend, [RowStep(row=row, tokens=(1,))])
    with pytest.raises(BackendError):
        step_rows(backend, [RowStep(row=backend.open(window_of(backend)), tokens=(1,) * (n_ctx + 1))])


# Refusals: the caller's mistakes are named, and change nothing.


@every_backend
def test_a_row_may_not_stand_twice(backend: Backend) -> None:
    row = backend.open(window_of(backend))
    with pytest.raises(BackendError, match="twice"):
        step_rows(backend, [RowStep(row=row, tokens=(1,)), RowStep(row=row, tokens=(2,))])
    assert backend.length(row) == 0


@every_backend
def test_a_step_brings_at_least_one_token(backend: Backend) -> None:
    row = backend.open(window_of(backend))
    with pytest.raises(BackendError, match="token"):
        step_rows(backend, [RowStep(row=row, tokens=())])


@every_backend
@pytest.mark.parametrize("length", [-1, 4])
def test_a_row_cannot_be_cut_to_what_it_does_not_hold(backend: Backend, length: int) -> None:
    row = backend.open(window_of(backend))
    step_rows(backend, [RowStep(row=row, tokens=(1, 2, 3))])
    with pytest.raises(BackendError, match="3 tokens"):
        backend.truncate(row, length)
    assert backend.length(row) == 3


@every_backend
def test_windows_are_released_after_their_rows(backend: Backend) -> None:
    window = window_of(backend)
    row = backend.open(window)
    fork = backend.fork(row)
    backend.close(row)
    with pytest.raises(BackendError, match="open rows"):
        backend.release(window)
    step_rows(backend, [RowStep(row=fork, tokens=(1,))])  # still alive
    backend.close(fork)
    backend.release(window)
    with pytest.raises(BackendError):
        backend.open(window)


@every_backend
def test_a_row_that_is_not_here_is_refused_before_anything_is_stepped(backend: Backend) -> None:
    window = window_of(backend)
    row, closed = backend.open(window), backend.open(window)
    backend.close(closed)
    with pytest.raises(BackendError, match=str(closed)):
        step_rows(backend, [RowStep(row=row, tokens=(1,)), RowStep(row=closed, tokens=(1,))])
    assert backend.length(row) == 0


@every_backend
@pytest.mark.parametrize("past_end", [True, False])
def test_a_token_outside_the_vocabulary_is_refused(backend: Backend, past_end: bool) -> None:
    row = backend.open(window_of(backend))
    with pytest.raises(BackendError):
        step_rows(backend, [RowStep(row=row, tokens=(1, backend.spec.n_vocab if past_end else -1))])
    assert backend.length(row) == 0


@every_backend
def test_one_bad_row_leaves_the_others_as_they_were(backend: Backend) -> None:
    window = window_of(backend)
    good, full = backend.open(window), backend.open(window)
    step_rows(backend, [RowStep(row=full, tokens=(1,) * backend.spec.n_text_ctx)])
    with pytest.raises(BackendError):
        step_rows(backend, [RowStep(row=good, tokens=(1,)), RowStep(row=full, tokens=(1,))])
    assert backend.length(good) == 0


@every_backend
@pytest.mark.parametrize("change", [(0, 1, 0), (0, 0, 1), (0, 0, -1)])
def test_a_mel_of_another_shape_is_refused(backend: Backend, change: tuple[int, int, int]) -> None:
    shape = np.array((1, backend.spec.n_mels, 2 * backend.spec.n_audio_ctx)) + change
    with pytest.raises(BackendError):
        backend.encode(np.zeros(shape, np.float32))
    with pytest.raises(BackendError):
        backend.encode(np.zeros(shape[1:], np.float32))


@every_backend
@pytest.mark.parametrize("call", ["fork", "close", "length", "truncate", "release"])
def test_what_is_not_here_is_a_backend_error_everywhere(backend: Backend, call: str) -> None:
    gone = 12345
    with pytest.raises(BackendError, match=str(gone)):
        getattr(backend, call)(gone, *((0,) if call == "truncate" else ()))


@every_network
def test_memory_given_back_is_given_back(backend: Backend) -> None:
    assert isinstance(backend, HandlesBackend)
    for _ in range(3):
        windows = backend.encode(mels(backend.spec, 2))
        rows = [backend.open(windows[0]), backend.open(windows[1])]
        rows.append(backend.fork(rows[0]))
        for row in rows:
            backend.close(row)
        for window in windows:
            backend.release(window)
        assert (backend.handles.n_rows, backend.handles.n_windows) == (0, 0)


def test_the_scripted_backend_counts_what_is_open() -> None:
    backend = scripted()
    assert isinstance(backend, ScriptedBackend)
    window = window_of(backend)
    row = backend.open(window)
    assert backend.n_open == 2
    backend.close(row)
    backend.release(window)
    assert (backend.n_open, backend.n_encoded) == (0, 1)


# What is asked of a step.


@every_backend
def test_nothing_is_given_that_was_not_asked_for(backend: Backend) -> None:
    (result,) = step_rows(backend, [RowStep(row=backend.open(window_of(backend)), tokens=(1, 2))])
    assert result == RowResult()


@every_backend
def test_logits_come_from_the_positions_asked_for_in_their_order(backend: Backend) -> None:
    window, tokens = window_of(backend), tokens_of(backend, 6)
    (whole,) = step_rows(backend, [RowStep(row=backend.open(window), tokens=tokens, logits_at=tuple(range(6)))])
    (some,) = step_rows(backend, [RowStep(row=backend.open(window), tokens=tokens, logits_at=(5, 0, 5), choice=Best())])
    assert whole.logits is not None
    assert some.logits is not None
    assert whole.logits.shape == (6, backend.spec.n_vocab)
    assert whole.logits.dtype == np.float32
    assert_equal(some.logits, whole.logits[[5, 0, 5]], backend)
    assert some.ids == (int(whole.logits[5].argmax()),)


@every_backend
def test_probes_give_raw_logits_and_their_share_of_all(backend: Backend) -> None:
    window, tokens = window_of(backend), tokens_of(backend, 5)
    ids = (7, 3, backend.spec.n_vocab - 1)
    forbidding = Constraint(IdRanges(ids), now=((0, 100),))
    (result,) = step_rows(
        backend,
        [
            RowStep(
                row=backend.open(window),
                tokens=tokens,
                choice=Best(),
                constraint=forbidding,
                probes=(Probe(4, ids), Probe(1, ids[:1])),
                logits_at=(1, 4),
            )
        ],
    )
    assert result.logits is not None
    for found, position, wanted in zip(result.probes, (1, 0), (ids, ids[:1]), strict=True):
        raw = result.logits[position].astype(np.float64)
        assert np.isfinite(found.logits).all()
        assert_equal(found.logits, result.logits[position][list(wanted)], backend)
        shares = np.exp(raw - raw.max()) / np.exp(raw - raw.max()).sum()
        assert np.abs(found.probabilities - shares[list(wanted)]).max() <= 1e-5  # the normaliser is a float32 sum


@every_backend
def test_probes_can_be_measured_against_lower_ids_alone(backend: Backend) -> None:
    window, tokens = window_of(backend), tokens_of(backend, 5)
    for below in (1, 8, 364, None):
        probes = tuple(Probe(position, (0,), below=below) for position in range(5))
        (result,) = step_rows(
            backend, [RowStep(row=backend.open(window), tokens=tokens, probes=probes, logits_at=(0, 4))]
        )
        assert result.logits is not None
        for raw, found in zip(result.logits.astype(np.float64), (result.probes[0], result.probes[4]), strict=True):
            shares = np.exp(raw[:below] - raw[:below].max())
            assert found.probabilities[0] == pytest.approx(shares[0] / shares.sum(), abs=1e-5)


@every_backend
def test_lower_ids_that_are_none_are_refused(backend: Backend) -> None:
    row = backend.open(window_of(backend))
    for below in (0, -1, 1 << 20):
        with pytest.raises(BackendError, match="measures against ids below none of 1 to"):
            step_rows(backend, [RowStep(row=row, tokens=(1,), probes=(Probe(0, (0,), below=below),))])
        assert backend.length(row) == 0


@every_backend
def test_tokens_lie_where_the_twin_finds_them(backend: Backend) -> None:
    random = np.random.default_rng(8)
    for n_tokens, n_columns, n_before in ((5, 1500, 1), (40, 333, 4), (3, 3, 0), (6, 0, 2), (4, 1, 3)):
        scores = random.standard_normal((2, n_tokens, 1500), dtype=np.float32) * np.float32(3)
        found = backend.token_columns(scores, n_columns, n_before)
        assert found.dtype == np.int32
        assert found.tolist() == token_columns(scores, n_columns, n_before).tolist()


@every_backend
def test_logits_are_raw_whatever_the_constraint(backend: Backend) -> None:
    window = window_of(backend)
    rows = [backend.open(window) for _ in range(2)]
    constraint = Constraint(IdRanges((1, 2)), now=((5, 50),), vote_from=60)
    (bound,) = step_rows(
        backend,
        [
            RowStep(
                row=rows[0], tokens=(1,), choice=Best(), constraint=constraint, logits_at=(0,), probes=(Probe(0, (1,)),)
            )
        ],
    )
    free = next_logits(backend, rows[1], (1,))
    assert bound.logits is not None
    assert np.isfinite(bound.probes[0].logits).all()
    assert_equal(bound.logits[0], free, backend)


@every_network
def test_attention_scores_are_those_before_the_softmax(backend: Backend) -> None:
    spec, tokens = backend.spec, tokens_of(backend, 4)
    pairs = tuple((layer, head) for layer in range(spec.n_text_layer) for head in range(spec.n_text_head))
    window = window_of(backend)
    (whole,) = step_rows(backend, [RowStep(row=backend.open(window), tokens=tokens, attention=pairs)])
    (some,) = step_rows(backend, [RowStep(row=backend.open(window), tokens=tokens, attention=(pairs[3], pairs[0]))])
    assert whole.attention is not None
    assert some.attention is not None
    assert whole.attention.shape == (len(pairs), 4, spec.n_audio_ctx)
    assert whole.attention.dtype == np.float32
    assert_equal(some.attention, whole.attention[[3, 0]], backend)
    scores = whole.attention.astype(np.float64)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    assert np.abs(weights.sum(axis=-1) - 1.0).max() < 1e-12
    assert (scores < 0).any()  # not yet through a softmax
    assert (scores > 1).any()
    assert not np.array_equal(whole.attention[0], whole.attention[1])


# Parts of a window.


def part_logits(
    backend: Backend, window: WindowId, tokens: tuple[int, ...], within: tuple[int, int] | None
) -> FloatArray:
    (result,) = step_rows(
        backend, [RowStep(row=backend.open(window), tokens=tokens, logits_at=(len(tokens) - 1,), within=within)]
    )
    assert result.logits is not None
    logits: FloatArray = result.logits[0]
    return logits


@every_network
def test_a_part_that_is_the_whole_window_changes_no_bit(backend: Backend) -> None:
    window, tokens = window_of(backend), tokens_of(backend, 3)
    whole = part_logits(backend, window, tokens, None)
    assert_equal(part_logits(backend, window, tokens, (0, backend.spec.n_audio_ctx)), whole, backend)
    assert not np.array_equal(part_logits(backend, window, tokens, (0, 200)), whole)


@pytest.mark.parametrize("backend", parameters(name for name in NATIVE if name not in PRECISION), indirect=True)
def test_a_part_of_a_window_gives_what_the_twin_gives(backend: Backend) -> None:
    twin, tokens = numpy_backend(), tokens_of(backend, 4)
    window, its = window_of(backend), window_of(twin)
    for within in ((0, 1), (32, 33), (64, 1000), (1472, 1500), (0, 1500), (512, 1024)):
        expected = part_logits(twin, its, tokens, within)
        assert np.abs(part_logits(backend, window, tokens, within) - expected).max() <= TOLERANCE, within


@every_backend
def test_rows_over_parts_in_a_batch_equal_rows_alone_to_the_last_bit(backend: Backend) -> None:
    window, tokens = window_of(backend), tokens_of(backend, 2)
    parts = (None, (0, 500), (32, 500), (0, 500), (1024, 1500), None)
    steps = [RowStep(row=backend.open(window), tokens=tokens, logits_at=(1,), within=part) for part in parts]
    for part, found in zip(parts, step_rows(backend, steps), strict=True):
        assert found.logits is not None
        assert_equal(found.logits[0], part_logits(backend, window, tokens, part), backend)


@every_backend
def test_what_is_no_part_of_a_window_is_refused(backend: Backend) -> None:
    window = window_of(backend)
    for within in ((16, 100), (0, 0), (64, 32), (-32, 10), (0, 1501), (1504, 1505)):
        with pytest.raises(BackendError, match="cannot attend to positions"):
            part_logits(backend, window, (1,), within)


# Windows of any length.


@every_network
@pytest.mark.parametrize("positions", LENGTHS[:-1])
def test_a_short_window_is_a_full_one_of_a_model_with_so_many_positions(
    backend: Backend, request: pytest.FixtureRequest, positions: int
) -> None:
    mel, tokens = mels(backend.spec, 2, 3, positions), tokens_of(backend, 4)
    window_of(backend)  # a longer one leaves no trace
    windows = backend.encode(mel)
    assert [backend.positions(one) for one in windows] == [positions] * 2
    shorter = BACKENDS[request.node.callspec.params["backend"]](positions=positions)
    for window, its in zip(windows, shorter.encode(mel), strict=True):
        (found,) = step_rows(backend, [ask(backend.open(window), tokens)])
        (expected,) = step_rows(shorter, [ask(shorter.open(its), tokens)])
        assert found.attention is not None
        assert found.attention.shape == (2, len(tokens), positions)
        assert_same(found, expected, backend)
    if backend.info.name != "torch":  # where a window has a slot as large as a full one's
        assert backend.window_bytes(positions) == shorter.window_bytes(positions)
    shorter.shut_down()


@pytest.mark.parametrize("backend", parameters(name for name in NATIVE if name not in PRECISION), indirect=True)
def test_a_short_window_gives_what_the_twin_gives(backend: Backend) -> None:
    twin, tokens = numpy_backend(), tokens_of(backend, 4)
    for positions in LENGTHS:
        window, its = window_of(backend, 1, positions), window_of(twin, 1, positions)
        for part in (None, (0, 7), (0, positions), ((positions - 1) // 32 * 32, positions)):
            expected = part_logits(twin, its, tokens, part)
            assert np.abs(part_logits(backend, window, tokens, part) - expected).max() <= TOLERANCE, (positions, part)


@every_backend
def test_windows_of_several_lengths_in_a_step_equal_each_alone(backend: Backend) -> None:
    windows = [window_of(backend, 2, positions) for positions in (*LENGTHS, *reversed(LENGTHS))]
    tokens = tokens_of(backend, 5)
    alone = [step_rows(backend, [ask(backend.open(window), tokens)])[0] for window in windows]
    together = step_rows(backend, [ask(backend.open(window), tokens) for window in windows])
    for one, other in zip(together, alone, strict=True):
        assert_same(one, other, backend)
    n = len(LENGTHS)
    for one, again in zip(together[:n], reversed(together[n:]), strict=True):
        assert_same(one, again, backend)  # encoded after shorter ones, or after longer ones
    assert len({one.logits.tobytes() for one in together if one.logits is not None}) == n


@every_backend
def test_a_part_of_a_short_window_is_in_it(backend: Backend) -> None:
    window, tokens = window_of(backend, positions=96), tokens_of(backend, 2)
    whole = part_logits(backend, window, tokens, (0, 96) if backend.info.name != "scripted" else None)
    assert_equal(whole, part_logits(backend, window, tokens, None), backend)
    assert not np.array_equal(part_logits(backend, window, tokens, (64, 96)), whole)
    for within in ((0, 97), (64, 128), (96, 128), (0, 1500)):
        with pytest.raises(BackendError, match="cannot attend to positions"):
            part_logits(backend, window, tokens, within)


@every_backend
@pytest.mark.parametrize("positions", [0, 1, 31, 33, 1499, 1501, 1504, 3000])
def test_a_window_of_another_length_is_refused(backend: Backend, positions: int) -> None:
    with pytest.raises(BackendError, match=f"mel has {positions} positions a window; expected 1500, or a multiple"):
        backend.encode(np.zeros((1, backend.spec.n_mels, 2 * positions), np.float32))
    assert isinstance(backend, HandlesBackend)
    assert backend.handles.n_windows == 0


@every_backend
def test_windows_of_two_lengths_in_a_call_are_refused(backend: Backend) -> None:
    ragged = np.empty(2, dtype=object)
    ragged[:] = [mels(backend.spec, 1, positions=positions)[0] for positions in (32, 64)]
    for mel in (ragged, np.zeros((1, backend.spec.n_mels, 63), np.float32)):
        with pytest.raises(BackendError, match="expected"):
            backend.encode(mel)


# Choosing: the NumPy form against a plain reimplementation, and each backend against its own logits.


@dataclass(frozen=True)
class Plain:
    """The rules of choosing, written for slowness: lists, float64, one id at a time."""

    logits: list[float]
    constraint: Constraint

    def allowed(self) -> list[bool]:
        now = {one for start, stop in self.constraint.now for one in range(start, stop)}
        return [one not in self.constraint.permanent and one not in now for one in range(len(self.logits))]

    @staticmethod
    def shares(logits: list[float], allowed: list[bool]) -> list[float]:
        kept = [x for x, ok in zip(logits, allowed, strict=True) if ok]
        if not kept:
            return [0.0] * len(logits)
        highest = max(kept)
        weights = [np.exp(x - highest) if ok else 0.0 for x, ok in zip(logits, allowed, strict=True)]
        return [float(one / sum(weights)) for one in weights]

    def vote_margin(self) -> float | None:
        """How far the timestamps lie ahead of the best other id, in log-probability."""
        border = self.constraint.vote_from
        if border is None:
            return None
        shares = self.shares(self.logits, self.allowed())
        with np.errstate(divide="ignore"):
            above, below = np.log(sum(shares[border:])), np.log(max(shares[:border]))
        return None if np.isneginf(above) else float(above - below)

    def allowed_after_vote(self) -> list[bool]:
        margin, border = self.vote_margin(), self.constraint.vote_from
        if margin is None or border is None or margin <= 0:
            return self.allowed()
        return [ok and one >= border for one, ok in enumerate(self.allowed())]

    def choose(self, choice: Choice) -> tuple[list[int], list[float]]:
        allowed = self.allowed_after_vote()
        shares = self.shares(self.logits, allowed)
        if isinstance(choice, Draw):
            heated = self.shares([x / choice.temperature for x in self.logits], allowed)
            ids = [self._drawn(heated, u) for u in choice.uniforms]
        else:
            best_first = sorted(
                range(len(shares)), key=lambda one: (not allowed[one], -self.logits[one] if allowed[one] else 0, one)
            )
            ids = best_first[: choice.n if isinstance(choice, Top) else 1]
        with np.errstate(divide="ignore"):
            return ids, [float(np.log(shares[one])) for one in ids]

    @staticmethod
    def _drawn(shares: list[float], u: float) -> int:
        total = 0.0
        for one, share in enumerate(shares):
            total += share
            if total > u:
                return one
        return max((one for one, share in enumerate(shares) if share > 0), default=0)


def as_logits(values: list[int]) -> FloatArray:
    return (np.array(values) / 4).astype(np.float32)  # exact, and equal often


logit_lists = st.lists(st.integers(-40, 40), min_size=2, max_size=24)


@st.composite
def constraints(draw: st.DrawFn, n_vocab: int) -> Constraint:
    one = st.integers(0, n_vocab - 1)
    ranges = st.tuples(one, one).map(lambda pair: (min(pair), max(pair)))
    return Constraint(
        IdRanges(draw(st.lists(one, max_size=4))),
        now=tuple(draw(st.lists(ranges, max_size=3))),
        vote_from=draw(st.none() | st.integers(1, n_vocab - 1)),
    )


@random_cases(100, 3000)
@given(st.data(), logit_lists, choices)
def test_the_twin_chooses_as_the_plain_rules_say(data: st.DataObject, values: list[int], choice: Choice) -> None:
    logits = as_logits(values)
    constraint = data.draw(constraints(len(values)))
    plain = Plain(logits.tolist(), constraint)
    margin = plain.vote_margin()
    if margin is not None and abs(margin) < 1e-5:  # a tie of the vote: float32 may see it either way
        return
    expected_ids, expected = plain.choose(choice)
    constrained = logits.copy()
    ids, logprobs = choose(constrain(constrained, constraint), constrained, choice)
    if isinstance(choice, Draw):
        heated = plain.shares([x / choice.temperature for x in logits.tolist()], plain.allowed_after_vote())
        edges = np.cumsum(heated)
        if min(abs(edges - u).min() for u in choice.uniforms) < 1e-9:
            return
    assert list(ids) == expected_ids
    assert logprobs == pytest.approx(expected, abs=1e-5)  # float32 sums of at most 24 numbers


@given(logit_lists, st.integers(1, 30))
def test_equals_come_lowest_id_first_and_forbidden_ids_last(values: list[int], n: int) -> None:
    logits = as_logits([v % 3 for v in values])
    forbidden = IdRanges(range(0, len(values), 2))
    changed = logits.copy()
    ids, logprobs = choose(constrain(changed, Constraint(forbidden)), changed, Top(n))
    assert len(ids) == len(set(ids)) == min(n, len(values))
    assert list(zip((-one for one in logprobs), ids, strict=True)) == sorted(
        zip((-one for one in logprobs), ids, strict=True)
    )
    assert all((one in forbidden) == np.isneginf(logprob) for one, logprob in zip(ids, logprobs, strict=True))


@pytest.mark.parametrize(
    ("share_above", "outvoted"), [(0.29, False), (0.31, True)], ids=["text stands", "timestamps win"]
)
def test_timestamps_together_outvote_the_single_best_text(share_above: float, outvoted: bool) -> None:
    """One text id has 0.3, three share the rest, ten timestamps share their sum: each of them alone would lose."""
    rest = 1.0 - 0.3 - share_above
    logits = np.log(np.array([0.3, *[rest / 3] * 3, *[share_above / 10] * 10])).astype(np.float32)
    ids, logprobs = choose(constrain(logits, Constraint(vote_from=4)), logits, Best())
    assert (ids[0] >= 4) == outvoted
    if outvoted:
        assert logprobs[0] == pytest.approx(np.log(0.1), abs=1e-6)  # normalised among timestamps alone


def test_the_end_of_text_has_its_vote_against_timestamps() -> None:
    eot, begin = 3, 4
    logits = np.log(np.array([0.01, 0.01, 0.01, 0.5, 0.47])).astype(np.float32)
    changed = logits.copy()
    ids, _ = choose(constrain(changed, Constraint(vote_from=begin)), changed, Best())
    assert ids == (eot,)


@pytest.mark.parametrize("choice", [Best(), Top(3), Draw(1.0, (0.2, 0.9))], ids=lambda one: type(one).__name__)
def test_where_all_is_forbidden_numbers_stay_numbers(choice: Choice) -> None:
    logits = np.zeros(5, np.float32)
    ids, logprobs = choose(constrain(logits, Constraint(now=((0, 5),), vote_from=2)), logits, choice)
    assert all(0 <= one < 5 for one in ids)
    assert all(np.isneginf(one) for one in logprobs)


@given(st.floats(0.01, 4.0), st.integers(0, 2**31))
def test_draws_fall_with_their_probabilities(temperature: float, seed: int) -> None:
    logits = np.random.default_rng(seed).standard_normal(6).astype(np.float32)
    uniforms = tuple(((np.arange(2000) + 0.5) / 2000).tolist())
    changed = logits.copy()
    ids, _ = choose(constrain(changed, Constraint()), changed, Draw(temperature, uniforms))
    found = np.bincount(ids, minlength=6) / 2000
    weights = np.exp((logits.astype(np.float64) - logits.max()) / temperature)
    assert np.abs(found - weights / weights.sum()).max() <= 1 / 1000  # two edges, each within one of 2,000 draws


@every_backend
def test_a_step_chooses_from_its_own_logits_as_the_twin_does(backend: Backend) -> None:
    """Under what the rules of decoding forbid; a backend may leave out what cannot be chosen."""
    n_vocab, window = backend.spec.n_vocab, window_of(backend)
    begin = n_vocab - 1501
    shapes = {
        "anywhere": ((10, 90), (80, 120)),
        "opening": ((5, 6), (0, begin), (begin + 51, n_vocab)),
        "closing": ((0, 363), (begin, begin + 77)),
        "text": ((begin, n_vocab),),
        "nothing is allowed": ((0, 40), (17, n_vocab)),
    }
    choices: tuple[Choice, ...] = (Best(), Top(6), Draw(0.7, (0.1, 0.501, 0.999)))
    rows = [(tokens := tokens_of(backend, 3, seed), next_logits(backend, backend.open(window), tokens))
            for seed in range(3)]  # fmt: skip
    for (shape, now), choice, (tokens, logits) in itertools.product(shapes.items(), choices, rows):
        vote_from = begin if shape != "anywhere" else None
        constraint = Constraint(IdRanges(range(0, n_vocab, 3)), now=now, vote_from=vote_from)
        (found,) = step_rows(
            backend, [RowStep(row=backend.open(window), tokens=tokens, choice=choice, constraint=constraint)]
        )
        changed = logits.copy()
        ids, logprobs = choose(constrain(changed, constraint), changed, choice)
        assert found.ids == ids, shape
        # In int8 what is far below the best may be inexact where it decides nothing.
        tolerance = 0.01 if backend.info.precision == "int8" else TOLERANCE
        assert found.logprobs == pytest.approx(logprobs, abs=tolerance), shape


# IdRanges.


@given(st.lists(st.integers(0, 60)))
def test_id_ranges_hold_exactly_their_ids(ids: list[int]) -> None:
    made = IdRanges(ids)
    assert made.array.tolist() == sorted(set(ids))
    assert [one for start, stop in made.ranges for one in range(start, stop)] == sorted(set(ids))
    assert all(first[1] < second[0] for first, second in zip(made.ranges, made.ranges[1:], strict=False))
    assert all((one in made) == (one in set(ids)) for one in range(62))


@every_backend
@pytest.mark.parametrize("n_before", [0, 3])
def test_choices_at_several_positions_are_those_of_as_many_steps(backend: Backend, n_before: int) -> None:
    window, tokens = window_of(backend), tokens_of(backend, n_before + 6)
    n_vocab = backend.spec.n_vocab
    under = [Constraint(IdRanges(range(0, n_vocab, 2 + i)), ((5 * i, 40 * i),), n_vocab - 1501) for i in range(6)]
    together, singly = backend.open(window), backend.open(window)
    if n_before:
        step_rows(backend, [RowStep(row=one, tokens=tokens[:n_before]) for one in (together, singly)])
    other = RowStep(row=backend.open(window), tokens=tokens_of(backend, 4, seed=9), choice=Top(3))
    new = tokens[n_before:]
    step = RowStep(
        row=together, tokens=new, choice=Best(), constraint=under[5], earlier=tuple(enumerate(under[:5]))
    )  # fmt: skip
    _, found = step_rows(backend, [other, step])
    single = [
        step_rows(backend, [RowStep(row=singly, tokens=(token,), choice=Best(), constraint=constraint)])[0]
        for token, constraint in zip(new, under, strict=True)
    ]
    assert found.ids == tuple(one.ids[0] for one in single)
    assert found.logprobs == pytest.approx([one.logprobs[0] for one in single], rel=0, abs=tolerance(backend))
    assert backend.length(together) == backend.length(singly) == len(tokens)


@every_backend
def test_some_positions_may_be_without_a_choice(backend: Backend) -> None:
    window, tokens = window_of(backend), tokens_of(backend, 5)
    step = RowStep(row=backend.open(window), tokens=tokens, earlier=((1, Constraint()), (3, Constraint())))
    (found,) = step_rows(backend, [step])
    row = backend.open(window)
    first, second = (
        step_rows(backend, [RowStep(row=row, tokens=part, choice=Best())])[0] for part in (tokens[:2], tokens[2:4])
    )
    assert found.ids == first.ids + second.ids
    assert found.logprobs == pytest.approx(first.logprobs + second.logprobs, abs=1e-3)
    assert backend.length(step.row) == 5


@every_backend
def test_several_choices_are_of_the_best_in_order_and_alone(backend: Backend) -> None:
    row, free = backend.open(window_of(backend)), Constraint()
    for wrong in (
        RowStep(row=row, tokens=(1, 2, 3), choice=Top(2), earlier=((0, free),)),
        RowStep(row=row, tokens=(1, 2, 3), choice=Draw(1.0, (0.5,)), earlier=((0, free),)),
        RowStep(row=row, tokens=(1, 2, 3), choice=Best(), earlier=((1, free), (0, free))),
        RowStep(row=row, tokens=(1, 2, 3), choice=Best(), earlier=((1, free), (1, free))),
        RowStep(row=row, tokens=(1, 2, 3), choice=Best(), earlier=((0, free),), logits_at=(0,)),
        RowStep(row=row, tokens=(1, 2, 3), choice=Best(), earlier=((0, free),), attention=((0, 0),)),
        RowStep(row=row, tokens=(1, 2, 3), earlier=((3, free),)),
        RowStep(row=row, tokens=(1, 2, 3), earlier=((-1, free),)),
    ):
        with pytest.raises(BackendError):
            step_rows(backend, [wrong])
        assert backend.length(row) == 0


@st.composite
def row_steps(draw: st.DrawFn, row: int) -> RowStep:
    tokens = tuple(draw(st.lists(st.integers(0, 99), min_size=1, max_size=6)))
    last = len(tokens) - 1
    choice = draw(st.none() | choices)
    several = choice is None or choice == Best()
    earlier = draw(st.lists(st.integers(0, last - 1), unique=True).map(sorted)) if several and last else []
    probes = draw(st.lists(st.builds(Probe, st.integers(0, last), st.tuples(st.integers(0, 99))), max_size=2))
    return RowStep(
        row=RowId(row), tokens=tokens, choice=choice,
        constraint=draw(constraints(100)) if choice is not None else Constraint(),
        earlier=tuple((at, draw(constraints(100))) for at in earlier),
        probes=tuple(probes) if not earlier else (),
        within=draw(st.none() | st.just((32, 64))),
    )  # fmt: skip


def _plain(step: RowStep) -> object:
    """Return what a step says, its sets of ids by what is in them."""
    said = [(at, choice, one.permanent.ranges, one.now, one.vote_from) for at, choice, one in step.choices]
    return step.row, step.tokens, said, step.extras


@given(data=st.data(), n=st.integers(0, 5))
def test_a_step_as_arrays_says_what_its_rows_say(data: st.DataObject, n: int) -> None:
    steps = [data.draw(row_steps(row)) for row in range(n)]
    again = steps_of(batch_of(steps))
    assert [_plain(one) for one in again] == [_plain(one) for one in steps]
    results = [
        RowResult(ids=tuple(range(k, k + n)), logprobs=tuple(-0.5 * i for i in range(n)))
        for k, n in ((i, sum(_n_ids(choice) for _, choice, _ in one.choices)) for i, one in enumerate(steps))
    ]
    assert results_of(batch_of(steps), answers_of(results)) == results


def _n_ids(choice: Choice) -> int:
    return choice.n if isinstance(choice, Top) else len(choice.uniforms) if isinstance(choice, Draw) else 1


@every_backend
@pytest.mark.parametrize(
    "change",
    [
        {"token_ends": np.array([5], np.int32)},
        {"token_ends": np.array([2], np.int32)},
        {"token_ends": np.array([], np.int32)},
        {"methods": np.array([3], np.int32)},
        {"methods": np.array([-1], np.int32)},
        {"n_chosen": np.array([0], np.int32)},
        {"n_chosen": np.array([2], np.int32)},
        {"n_chosen": np.array([-1], np.int32)},
    ],
    ids=str,
)
def test_a_step_whose_arrays_do_not_fit_is_refused(backend: Backend, change: dict[str, Any]) -> None:
    row = backend.open(window_of(backend))
    step = batch_of([RowStep(row=row, tokens=(1, 2, 3), choice=Best())])
    with pytest.raises(BackendError):
        backend.step(replace(step, **change))
    assert backend.length(row) == 0
