"""The whole network of the native library against NumPy's, and what only it promises: same bits with any number of
threads, tokens at once or one by one; forks that share; threads and processes that come and go."""

from __future__ import annotations

import dataclasses
import gc
import multiprocessing
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

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
)
from stapes.backends.native.library import PRECISIONS
from stapes.backends.numpy.backend import NumpyBackend
from stapes.backends.rowwise import RowResult, RowStep, step_rows
from stapes.checkpoint.base import Checkpoint, ModelSpec
from stapes.errors import BackendError, OptionError
from stapes.testing import random_checkpoint, tiny_spec

native: Any = pytest.importorskip("stapes._native", reason="the native library was not built", exc_type=ImportError)
from stapes.backends.native.backend import ISA_VARIABLE, NativeBackend  # noqa: E402

ISAS: list[str] = native.isa_names()
each_isa = pytest.mark.parametrize("isa", ISAS)
each_precision = pytest.mark.parametrize("precision", PRECISIONS)

#: float32 sums of 16 to 1,500 numbers in another order differ by some 1e-6 of the logits' size: they lie within 20 of 0
TOLERANCE = 2e-5


def odd_spec(width: int, audio_heads: int, text_heads: int, *, n_audio_ctx: int = 50, **sizes: int) -> ModelSpec:
    return dataclasses.replace(
        tiny_spec(), n_audio_state=width, n_text_state=width, n_audio_head=audio_heads, n_text_head=text_heads,
        n_audio_ctx=n_audio_ctx, **sizes,
    )  # fmt: skip


#: no size of these is a whole number of vectors, blocks or panels
SPECS = {
    "tiny": tiny_spec(),
    "24": odd_spec(24, 3, 3),
    "20": odd_spec(20, 2, 4),
    "36": odd_spec(36, 3, 4, n_audio_ctx=33),
    "15": odd_spec(15, 5, 1, n_audio_ctx=70),
    "33": odd_spec(33, 1, 11, n_audio_ctx=1, n_mels=3, n_text_ctx=70),
    "64": odd_spec(64, 1, 2, n_audio_ctx=96, n_audio_layer=1, n_text_layer=3),
}


@cache
def checkpoint_of(name: str) -> Checkpoint:
    return random_checkpoint(spec=SPECS[name], seed=5)


@contextmanager
def opened(
    name: str = "20",
    precision: str = "float32",
    *,
    threads: int = 1,
    isa: str | None = None,
    checkpoint: Checkpoint | None = None,
) -> Iterator[NativeBackend]:
    made = NativeBackend(checkpoint or checkpoint_of(name), threads=threads, precision=precision, isa=isa)
    yield made
    made.shut_down()


def mels(spec: ModelSpec, n: int, seed: int = 0) -> FloatArray:
    shape = (n, spec.n_mels, 2 * spec.n_audio_ctx)
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32) * np.float32(0.5)


def tokens_of(spec: ModelSpec, n: int, seed: int = 0) -> tuple[int, ...]:
    return tuple(np.random.default_rng(seed).integers(0, spec.n_vocab, n).tolist())


def everything(spec: ModelSpec, row: RowId, tokens: tuple[int, ...]) -> RowStep:
    heads = tuple((layer, head) for layer in range(spec.n_text_layer) for head in range(spec.n_text_head))
    return RowStep(
        row=row, tokens=tokens, choice=Top(4), constraint=Constraint(now=((0, 9),), vote_from=spec.n_vocab - 1501),
        probes=(Probe(0, (3, 1)),), logits_at=tuple(range(len(tokens))), attention=heads,
    )  # fmt: skip


def numbers_of(backend: Backend, lengths: tuple[int, ...] = (40, 1, 1)) -> tuple[FloatArray, FloatArray]:
    """Run three rows over two windows: a prompt, then token by token. Gives all logits, and all scores, flat."""
    spec = backend.spec
    first, second = backend.encode(mels(spec, 2))
    rows = [backend.open(window) for window in (first, second, first)]
    results: list[RowResult] = []
    for n in lengths:
        results += step_rows(backend, [everything(spec, row, tokens_of(spec, n, seed=n + row)) for row in rows])
    logits = [one.logits for one in results if one.logits is not None]
    scores = [one.attention.ravel() for one in results if one.attention is not None]
    return np.concatenate(logits), np.concatenate(scores)


def bits_of(backend: Backend) -> bytes:
    return b"".join(one.tobytes() for one in numbers_of(backend, (33, 1, 5, 1)))


def logits_after(backend: Backend, row: RowId, tokens: tuple[int, ...]) -> bytes:
    (result,) = step_rows(backend, [RowStep(row=row, tokens=tokens, logits_at=(len(tokens) - 1,))])
    assert result.logits is not None
    return result.logits.tobytes()


@cache
def expected(name: str) -> tuple[FloatArray, FloatArray]:
    backend = NumpyBackend(checkpoint_of(name), threads=1)
    found = numbers_of(backend)
    backend.shut_down()
    return found


# Numbers.


def relative_error(found: FloatArray, exact: FloatArray) -> float:
    """Return the typical error, by the typical size."""
    return float(np.sqrt(np.mean((found.astype(np.float64) - exact) ** 2)) / exact.std())


@each_isa
@pytest.mark.parametrize("name", SPECS)
def test_float32_is_numpy_s(name: str, isa: str) -> None:
    logits, scores = expected(name)
    with opened(name, isa=isa) as backend:
        found_logits, found_scores = numbers_of(backend)
    # As for the lower precisions below, with float32's rounding: some ten in all typically, and the worst of 300,000
    # numbers is off by ten times as much.
    roundings = 2**-24 * (1 + float(scores.std()))
    for found, exact in ((found_logits, logits), (found_scores, scores)):
        assert relative_error(found, exact) <= 10 * roundings
        assert np.abs(found - exact).max() <= 100 * roundings * float(exact.std())
    if name == "tiny":
        assert max(np.abs(found_logits - logits).max(), np.abs(found_scores - scores).max()) <= TOLERANCE


@each_isa
@pytest.mark.parametrize(("precision", "factor"), [("bfloat16", 1.0), ("int8", 3.0)])
@pytest.mark.parametrize("name", SPECS)
def test_lower_precisions_are_near(name: str, precision: str, factor: float, isa: str) -> None:
    """Bounds are about twice what is measured.

    bfloat16 rounds by at most 2^-8, some twenty times on the way, in all directions: about 2^-8 in all. A score that is
    off by that share of its size moves its weight by as much as it is large: add it for the scores' size. int8 rounds
    to a 127th of the largest number of a row, two or three times as coarse.
    """
    logits, scores = expected(name)
    with opened(name, precision, isa=isa) as backend:
        found_logits, found_scores = numbers_of(backend)
    allowed = factor * 2**-8 * (1 + float(scores.std()))
    assert relative_error(found_logits, logits) <= allowed
    assert relative_error(found_scores, scores) <= 2 * allowed  # scores are as wrong as both their sides
    assert (found_logits.argmax(axis=1) == logits.argmax(axis=1)).mean() >= 0.85


@each_precision
def test_weights_that_float16_does_not_hold(precision: str) -> None:
    """They are kept in float32, or rounded from it."""
    published = checkpoint_of("20")
    rounded = {name: np.asarray(one, np.float32) for name, one in published.tensors.items()}
    finer = {name: one + np.float32(1e-6) * np.sign(one) for name, one in rounded.items()}
    exact = NumpyBackend(dataclasses.replace(published, tensors=finer), threads=1)
    logits, scores = numbers_of(exact)
    exact.shut_down()
    allowed = {"float32": 4e-6, "bfloat16": 2**-8, "int8": 3 * 2**-8}[precision] * (1 + float(scores.std()))
    with opened(precision=precision, checkpoint=dataclasses.replace(published, tensors=finer)) as backend:
        assert relative_error(numbers_of(backend)[0], logits) <= allowed
    with opened(precision=precision, checkpoint=dataclasses.replace(published, tensors=rounded)) as backend:
        same = bits_of(backend)
    with opened(precision=precision) as backend:
        assert bits_of(backend) == same


@each_isa
@each_precision
def test_threads_change_no_bit(isa: str, precision: str) -> None:
    found = set()
    for threads in (1, 2, 5):
        with opened("36", precision, threads=threads, isa=isa) as backend:
            found.add(bits_of(backend))
    assert len(found) == 1


@each_isa
@each_precision
@pytest.mark.parametrize("name", ["20", "36", "64"])
def test_tokens_at_once_equal_one_by_one_to_the_last_bit(name: str, isa: str, precision: str) -> None:
    with opened(name, precision, isa=isa) as backend:
        spec = backend.spec
        (window,) = backend.encode(mels(spec, 1))
        tokens = tokens_of(spec, 70)
        (whole,) = step_rows(backend, [everything(spec, backend.open(window), tokens)])
        assert whole.logits is not None
        assert whole.attention is not None
        for sizes in ((1,) * 70, (*range(2, 12), 5), (31, 1, 1, 1, 36), (32, 32, 6), (33, 37)):
            row, done = backend.open(window), 0
            for n in sizes:
                (part,) = step_rows(backend, [everything(spec, row, tokens[done : done + n])])
                assert part.logits is not None
                assert part.attention is not None
                assert part.logits.tobytes() == whole.logits[done : done + n].tobytes()
                assert np.array_equal(part.attention, whole.attention[:, done : done + n])
                done += n


def test_a_mel_may_lie_in_memory_as_it_likes() -> None:
    with opened() as backend:
        mel = mels(backend.spec, 2)
        turned = np.ascontiguousarray(mel.transpose(2, 1, 0)).transpose(2, 1, 0)
        found = []
        for one in (mel, turned, mel.astype(np.float64)):
            window = backend.encode(one)[1]  # type: ignore[arg-type]
            found.append(logits_after(backend, backend.open(window), (1, 2)))
        assert found[0] == found[1] == found[2]


# Rows: forks share what they hold in blocks of 32 positions, and copy the one that they write.


@each_precision
@pytest.mark.parametrize("length", [1, 31, 32, 33, 64, 65])
def test_a_fork_and_its_source_go_their_own_ways(precision: str, length: int) -> None:
    with opened(precision=precision) as backend:
        spec = backend.spec
        (window,) = backend.encode(mels(spec, 1))
        past = tokens_of(spec, length)

        def alone(*tokens: int) -> bytes:
            row = backend.open(window)
            found = logits_after(backend, row, past + tokens)
            backend.close(row)
            return found

        row = backend.open(window)
        step_rows(backend, [RowStep(row=row, tokens=past)])
        fork = backend.fork(row)
        # Both write the same position, by turns and then together.
        assert logits_after(backend, row, (5,)) == alone(5)
        assert logits_after(backend, fork, (6,)) == alone(6)
        assert logits_after(backend, row, (7,)) == alone(5, 7)
        assert logits_after(backend, fork, (8,)) == alone(6, 8)
        results = step_rows(backend, [RowStep(row=one, tokens=(9,), logits_at=(0,)) for one in (fork, row)])
        for result, tokens in zip(results, ((6, 8, 9), (5, 7, 9)), strict=True):
            assert result.logits is not None
            assert result.logits.tobytes() == alone(*tokens)
        backend.close(row)
        assert logits_after(backend, fork, (1,)) == alone(6, 8, 9, 1)


@each_precision
@pytest.mark.parametrize("kept", [0, 1, 20, 31, 32, 33, 63, 64])
def test_cutting_off_anywhere_leaves_no_trace(precision: str, kept: int) -> None:
    with opened(precision=precision) as backend:
        spec = backend.spec
        (window,) = backend.encode(mels(spec, 1))
        tokens = tokens_of(spec, 80)
        row = backend.open(window)
        step_rows(backend, [RowStep(row=row, tokens=tokens)])
        fork = backend.fork(row)
        after_all = logits_after(backend, backend.fork(row), (4,))
        backend.truncate(row, kept)
        late_fork = backend.fork(row)
        other = tokens_of(spec, 40, seed=9)
        expected_bits = logits_after(backend, backend.open(window), tokens[:kept] + other)
        assert logits_after(backend, row, other) == expected_bits
        assert logits_after(backend, late_fork, other) == expected_bits
        assert logits_after(backend, fork, (4,)) == after_all  # nor in what was forked before


def test_many_forks() -> None:
    with opened(threads=2) as backend:
        spec = backend.spec
        (window,) = backend.encode(mels(spec, 1))
        past = tokens_of(spec, 40)
        row = backend.open(window)
        step_rows(backend, [RowStep(row=row, tokens=past)])
        forks = [row]
        for i in range(60):  # of each other too
            forks.append(backend.fork(forks[i // 2]))
        for later in range(3):
            steps = [RowStep(row=one, tokens=(i + later,), logits_at=(0,)) for i, one in enumerate(forks)]
            results = step_rows(backend, steps)
        for i in (0, 1, 30, 60):
            logits = results[i].logits
            assert logits is not None
            assert logits.tobytes() == logits_after(backend, backend.open(window), (*past, i, i + 1, i + 2))


@each_precision
def test_the_whole_context_is_used_and_no_more(precision: str) -> None:
    with opened(precision=precision) as backend:
        n_ctx = backend.spec.n_text_ctx
        (window,) = backend.encode(mels(backend.spec, 1))
        row, other = backend.open(window), backend.open(window)
        tokens = tokens_of(backend.spec, n_ctx)
        at_once = logits_after(backend, row, tokens)
        step_rows(backend, [RowStep(row=other, tokens=tokens[:-1])])
        assert logits_after(backend, other, tokens[-1:]) == at_once
        for full in (row, other):
            with pytest.raises(BackendError, match=str(n_ctx)):
                step_rows(backend, [RowStep(row=full, tokens=(1,))])
        with pytest.raises(BackendError):
            step_rows(backend, [RowStep(row=backend.open(window), tokens=(1,) * (n_ctx + 1))])


def test_nothing_to_do() -> None:
    with opened() as backend:
        assert step_rows(backend, []) == []
        assert backend.encode(mels(backend.spec, 0)) == []


def test_windows_that_are_given_back_are_used_again_without_a_trace() -> None:
    with opened() as backend:
        spec = backend.spec
        first, second = backend.encode(mels(spec, 2))
        row, tokens = backend.open(second), tokens_of(spec, 6)
        before = logits_after(backend, row, tokens)
        backend.release(first)
        fresh = [backend.encode(mels(spec, 1, seed=seed))[0] for seed in (0, 3)]
        backend.truncate(row, 0)
        assert logits_after(backend, row, tokens) == before
        found = [logits_after(backend, backend.open(window), tokens) for window in fresh]
    with opened() as backend:
        windows = [backend.encode(mels(spec, 1, seed=seed))[0] for seed in (0, 3)]
        assert [logits_after(backend, backend.open(window), tokens) for window in windows] == found


# What is asked for.


def test_heads_may_be_asked_for_twice_and_in_any_order() -> None:
    with opened() as backend:
        row = backend.open(backend.encode(mels(backend.spec, 1))[0])
        (result,) = step_rows(backend, [RowStep(row=row, tokens=(1, 2, 3), attention=((1, 0), (0, 1), (1, 0)))])
        assert result.attention is not None
        assert result.attention[0].any()
        assert np.array_equal(result.attention[2], result.attention[0])


def test_choices_at_their_ends() -> None:
    with opened() as backend:
        spec = backend.spec
        (window,) = backend.encode(mels(spec, 1))

        def chosen(choice: Best | Draw | Top, **constraint: Any) -> RowResult:
            steps = [RowStep(row=backend.open(window), tokens=(1,), choice=choice, constraint=Constraint(**constraint))]
            return step_rows(backend, steps)[0]

        assert sorted(chosen(Top(spec.n_vocab)).ids) == list(range(spec.n_vocab))
        with pytest.raises(BackendError, match="more than the"):
            chosen(Top(spec.n_vocab + 1))
        assert chosen(Draw(1.0, ())).ids == ()
        assert chosen(Best(), vote_from=0).ids == chosen(Best()).ids == chosen(Best(), vote_from=spec.n_vocab).ids
        assert chosen(Best(), now=((-5, 3), (4, spec.n_vocab + 100))).ids == (3,)
        assert chosen(Best(), now=((9, 2),)).ids == chosen(Best()).ids  # an empty range


# The vocabulary in int8: multiplied roughly, and in full where it matters.


def changed(checkpoint: Checkpoint, **tensors: Any) -> Checkpoint:
    names = {"embedding": "decoder.token_embedding.weight", "norm": "decoder.ln.weight", "norm_bias": "decoder.ln.bias"}
    return dataclasses.replace(checkpoint, tensors={**checkpoint.tensors, **{names[k]: v for k, v in tensors.items()}})


def vocabularies() -> dict[str, Checkpoint]:
    """Logits of every kind: near each other, each of them twice, far apart, of uneven rows, all equal."""
    plain = checkpoint_of("36")
    embedding = np.asarray(plain.tensors["decoder.token_embedding.weight"])
    norm = np.asarray(plain.tensors["decoder.ln.weight"])
    half = len(embedding) // 2
    uneven = embedding * np.random.default_rng(1).choice([0.02, 1.0, 3.0], (len(embedding), 1)).astype(embedding.dtype)
    return {
        "near": plain,
        "twice": changed(plain, embedding=np.concatenate((embedding[:half], embedding[: len(embedding) - half]))),
        "sharp": changed(plain, norm=norm * 8),
        "uneven": changed(plain, embedding=uneven, norm=norm * 2),
        "equal": changed(plain, norm=norm * 0, norm_bias=norm * 0),
    }


def constraints_of(spec: ModelSpec) -> list[Constraint]:
    n, begin = spec.n_vocab, spec.n_vocab - 1501
    some = IdRanges(range(5, 90, 2))
    return [
        Constraint(),
        Constraint(some, vote_from=begin),
        Constraint(some, ((0, begin),), begin),
        Constraint(some, ((begin + 30, n), (3, 200)), begin),
        Constraint(now=((0, 77), (78, n)), vote_from=begin),
        Constraint(now=((0, n),)),
    ]


def choices_of(backend: NativeBackend, *, in_full: bool) -> list[tuple[tuple[int, ...], tuple[float, ...]]]:
    """What is chosen after 12 rows of tokens, in many ways; in full: rows whose logits are looked at as well."""
    spec, found = backend.spec, []
    (window,) = backend.encode(mels(spec, 1))
    for seed in range(12):
        row = backend.open(window)
        step_rows(backend, [RowStep(row=row, tokens=tokens_of(spec, 3, seed))])
        for choice in (Best(), Top(6), Top(spec.n_vocab)):
            for constraint in constraints_of(spec):
                fork, looked = backend.fork(row), (0,) if in_full else ()
                step = RowStep(row=fork, tokens=(seed,), choice=choice, constraint=constraint, logits_at=looked)
                (result,) = step_rows(backend, [step])
                found.append((result.ids, result.logprobs))
                backend.close(fork)
    return found


@each_isa
@pytest.mark.parametrize("kind", ["near", "twice", "sharp", "uneven", "equal"])
def test_ids_are_those_of_the_whole_product(kind: str, isa: str) -> None:
    with opened(precision="int8", isa=isa, checkpoint=vocabularies()[kind], threads=2) as backend:
        found, exact = choices_of(backend, in_full=False), choices_of(backend, in_full=True)
    for (ids, logprobs), (exact_ids, exact_logprobs) in zip(found, exact, strict=True):
        assert ids == exact_ids
        assert np.allclose(logprobs, exact_logprobs, atol=0.02)
    some_are_rough = any(one != other for (_, one), (_, other) in zip(found, exact, strict=True))
    assert some_are_rough == (kind != "equal")


@each_isa
def test_a_row_s_choice_does_not_depend_on_other_rows(isa: str) -> None:
    with opened(precision="int8", isa=isa, checkpoint=vocabularies()["sharp"]) as backend:
        spec = backend.spec
        constraint = constraints_of(spec)[1]

        def step(choice: Choice | None, seed: int, **asked: Any) -> RowStep:
            (window,) = backend.encode(mels(spec, 1, seed=seed % 2))
            tokens = tokens_of(spec, 3, seed)
            return RowStep(row=backend.open(window), tokens=tokens, choice=choice, constraint=constraint, **asked)

        def batch() -> list[RowStep]:
            return [
                step(Best(), 0), step(None, 1, logits_at=(1,)), step(Top(6), 2), step(Draw(0.7, (0.1, 0.6)), 3),
                step(None, 4), step(Best(), 5, probes=(Probe(0, (3, 1)),)), step(Best(), 6), step(Top(3), 7),
            ]  # fmt: skip

        together = step_rows(backend, batch())
        for one, result in zip(batch(), together, strict=True):
            (alone,) = step_rows(backend, [one])
            assert (alone.ids, alone.logprobs) == (result.ids, result.logprobs)


@each_isa
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf, 6e4])
def test_a_vocabulary_that_is_no_numbers_chooses_as_ever(isa: str, poison: float) -> None:
    for kind in ("near", "sharp"):
        healthy = vocabularies()[kind]
        embedding = np.asarray(healthy.tensors["decoder.token_embedding.weight"]).copy()
        for places in ([200], [embedding.shape[0] - 20], [0, 300, embedding.shape[0] - 1]):
            embedding[places, 7] = poison
            with opened(precision="int8", isa=isa, checkpoint=changed(healthy, embedding=embedding)) as backend:
                found, exact = choices_of(backend, in_full=False), choices_of(backend, in_full=True)
            assert [ids for ids, _ in found] == [ids for ids, _ in exact]
            for (_, logprobs), (_, exact_logprobs) in zip(found, exact, strict=True):
                assert np.allclose(logprobs, exact_logprobs, atol=0.02, equal_nan=True)


@each_isa
@pytest.mark.parametrize("poison", [np.nan, np.inf, 3e38])
def test_rows_that_are_no_numbers_choose_as_ever(isa: str, poison: float) -> None:
    plain = checkpoint_of("36")
    norm = np.asarray(plain.tensors["decoder.ln.weight"], np.float32).copy()
    norm[5] = poison
    with opened(precision="int8", isa=isa, checkpoint=changed(plain, norm=norm)) as backend:
        found, exact = choices_of(backend, in_full=False), choices_of(backend, in_full=True)
    assert repr(found) == repr(exact)


# Numbers that are none: they stay where they are.


@each_isa
@each_precision
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["20", "36"])
def test_a_window_that_is_no_sound_spoils_no_other(name: str, isa: str, precision: str, poison: float) -> None:
    with opened(name, precision, threads=2, isa=isa) as backend:
        before = bits_of(backend)
        spec = backend.spec
        mel = mels(spec, 2, seed=4)
        mel[0, 2, 7:20] = poison
        poisoned, healthy = backend.encode(mel)
        tokens = tokens_of(spec, 9)
        alone = logits_after(backend, backend.open(healthy), tokens)
        rows = [backend.open(window) for window in (poisoned, healthy)]
        results = step_rows(backend, [everything(spec, row, tokens) for row in rows])
        assert all(0 <= one < spec.n_vocab for result in results for one in result.ids)
        assert results[1].logits is not None
        assert results[1].logits[-1:].tobytes() == alone
    with opened(name, precision, threads=2, isa=isa) as backend:
        assert bits_of(backend) == before


@each_isa
@each_precision
@pytest.mark.parametrize("name", ["20", "36"])
def test_a_spoilt_window_leaves_no_trace(name: str, isa: str, precision: str) -> None:
    """Memory that it went through is used again."""
    with opened(name, precision, isa=isa) as backend:
        tokens = tokens_of(backend.spec, 50)
        before = logits_after(backend, backend.open(backend.encode(mels(backend.spec, 1))[0]), tokens)
    for poison in (np.nan, np.inf):
        with opened(name, precision, isa=isa) as backend:
            (spoilt,) = backend.encode(np.full_like(mels(backend.spec, 1), poison))
            row = backend.open(spoilt)
            step_rows(backend, [everything(backend.spec, row, tokens_of(backend.spec, 99))])
            backend.close(row)
            backend.release(spoilt)
            row = backend.open(backend.encode(mels(backend.spec, 1))[0])
            assert logits_after(backend, row, tokens) == before


@each_isa
@each_precision
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_end_nothing(isa: str, precision: str, poison: float) -> None:
    healthy = checkpoint_of("20")
    tensors = {name: one.copy() for name, one in healthy.tensors.items()}
    for one in tensors.values():
        one.reshape(-1)[:: max(1, one.size // 3)] = poison
    with opened(precision=precision, isa=isa, checkpoint=dataclasses.replace(healthy, tensors=tensors)) as backend:
        row = backend.open(backend.encode(mels(backend.spec, 1))[0])
        for choice in (Best(), Top(5), Draw(0.5, (0.1, 0.9))):
            (result,) = step_rows(backend, [RowStep(row=row, tokens=(1, 2), choice=choice, probes=(Probe(0, (3,)),))])
            assert all(0 <= one < backend.spec.n_vocab for one in result.ids)


# Instruction sets.


def test_an_instruction_set_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for isa in ISAS:
        monkeypatch.setenv(ISA_VARIABLE, isa)
        with opened() as backend:
            assert backend.info.isa == isa
        with opened(isa=ISAS[0]) as backend:  # an argument goes before
            assert backend.info.isa == ISAS[0]
    monkeypatch.setenv(ISA_VARIABLE, "")
    with opened() as backend:
        assert backend.info.isa == ISAS[0]


def test_an_unknown_instruction_set_is_refused_with_those_that_are_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ISA_VARIABLE, "abacus")
    with pytest.raises(OptionError, match="abacus") as caught:
        NativeBackend(checkpoint_of("20"))
    assert all(isa in str(caught.value) for isa in ISAS)


def test_info_says_what_runs() -> None:
    for precision in PRECISIONS:
        with opened("tiny", precision, threads=3) as backend:
            info = backend.info
            assert (info.name, info.device, info.precision, info.threads) == ("native", "cpu", precision, 3)
            assert info.precisions == PRECISIONS
            assert min(info.weight_bytes, backend.window_bytes(32), info.row_bytes) > 0


# Threads and processes.


def n_threads_here() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="this system does not list threads")
def test_threads_end_with_the_last_backend() -> None:
    gc.collect()
    before = n_threads_here()
    first = NativeBackend(checkpoint_of("20"), threads=3)
    second = NativeBackend(checkpoint_of("20"), threads=5)
    bits_of(first)
    bits_of(second)
    assert n_threads_here() <= before + 4  # this one works too
    first.shut_down()
    bits_of(second)
    second.shut_down()
    assert n_threads_here() <= before


def test_backends_with_other_numbers_of_threads_take_turns() -> None:
    """The threads of the larger must not help the smaller one: it has no room for them."""
    with opened(threads=2) as two, opened(threads=6) as six:
        (window,), (its_window,) = two.encode(mels(two.spec, 1)), six.encode(mels(six.spec, 1))
        row, its_row = two.open(window), six.open(its_window)
        tokens = tokens_of(two.spec, 9)
        for _ in range(100):
            assert logits_after(two, row, tokens) == logits_after(six, its_row, tokens)
            two.truncate(row, 0)
            six.truncate(its_row, 0)


@each_precision
def test_two_backends_may_work_at_once(precision: str) -> None:
    with opened(precision=precision) as backend:
        alone = bits_of(backend)
    found: list[list[bytes]] = [[], []]

    def work(mine: list[bytes]) -> None:
        for _ in range(4):
            with opened(precision=precision, threads=3) as backend:
                mine.append(bits_of(backend))

    threads = [threading.Thread(target=work, args=(mine,)) for mine in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [[alone] * 4] * 2


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_uses_its_parents_backend() -> None:
    """None of the parent's threads is there: it must neither wait for them nor for their locks."""
    context = multiprocessing.get_context("fork")
    with opened("36", threads=3) as backend:
        (window,) = backend.encode(mels(backend.spec, 1))
        row, tokens = backend.open(window), tokens_of(backend.spec, 40)
        step_rows(backend, [RowStep(row=row, tokens=tokens)])
        theirs, ours = context.Pipe(duplex=False)

        def go_on() -> None:
            (fresh,) = backend.encode(mels(backend.spec, 1))
            for one in (logits_after(backend, row, (5,)), logits_after(backend, backend.open(fresh), (*tokens, 5))):
                ours.send_bytes(one)
            backend.shut_down()

        child = context.Process(target=go_on, daemon=True)
        child.start()
        expected_bits = logits_after(backend, row, (5,))  # the parent goes on too
        try:
            for _ in range(2):
                assert theirs.poll(30), "the child hangs"
                assert theirs.recv_bytes() == expected_bits
            child.join(30)
            assert child.exitcode == 0
        finally:
            child.kill()
        assert logits_after(backend, row, (6,))


@pytest.mark.parametrize("threads", [1, 4])
def test_backends_may_come_and_go(threads: int) -> None:
    found = set()
    for _ in range(15):
        with opened(threads=threads) as backend:
            found.add(logits_after(backend, backend.open(backend.encode(mels(backend.spec, 1))[0]), (1, 2)))
    assert len(found) == 1


def test_a_spec_of_large_v3_s_vocabulary() -> None:
    spec = tiny_spec("multilingual", n_mels=128, n_vocab=51866)
    checkpoint = random_checkpoint("multilingual", spec=spec, seed=6)
    exact = NumpyBackend(checkpoint, threads=1)
    logits, _ = numbers_of(exact, (3, 1))
    exact.shut_down()
    with opened(checkpoint=checkpoint, threads=2) as backend:
        assert np.abs(numbers_of(backend, (3, 1))[0] - logits).max() <= TOLERANCE
