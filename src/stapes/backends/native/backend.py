"""The network in the native library, for CPUs: one call for each window and for each step (docs/native.md).

Turns the contract's objects into the library's and back, and refuses calls that the library does not check.
Source of the network: openai/whisper model.py at c0d2f62.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from stapes.backends.base import (
    BackendInfo,
    Best,
    Draw,
    FloatArray,
    IntArray,
    LogMelKernel,
    ProbeResult,
    RowId,
    StepAnswers,
    StepBatch,
    TokenColumnsKernel,
    WindowId,
)
from stapes.backends.handles import Handles, HandlesBackend
from stapes.backends.native.library import library
from stapes.backends.native.weights import load_weights
from stapes.backends.numerics import entries
from stapes.backends.resources import usable_cores
from stapes.backends.rowwise import RowResult, RowStep, answers_of, steps_of
from stapes.checkpoint.base import Checkpoint
from stapes.errors import OptionError
from stapes.options import PRECISIONS

#: names an instruction set, instead of the best one that the processor has
ISA_VARIABLE = "STAPES_ISA"
_MOST_THREADS = 256


class NativeBackend(HandlesBackend[Any, Any]):
    """Satisfies `stapes.backends.base.Backend`."""

    def __init__(
        self, checkpoint: Checkpoint, threads: int | None = None, precision: str = "float32", isa: str | None = None
    ) -> None:
        """Pack the weights.

        threads: None uses the cores that the process may use.   precision: one of PRECISIONS.
        isa: an instruction set by name; None takes STAPES_ISA's, or the best.
        Raises OptionError for a set that this machine lacks, BackendError if there is not enough memory.
        """
        native = library()
        self.spec = checkpoint.spec
        self._isa = choose_isa(isa or os.environ.get(ISA_VARIABLE), native.isa_names())
        self._threads = min(threads or usable_cores(), _MOST_THREADS)
        self._native = native
        spec = self.spec
        sizes = [spec.n_mels, spec.n_audio_ctx, spec.n_audio_state, spec.n_audio_head, spec.n_audio_layer]
        sizes += [spec.n_vocab, spec.n_text_ctx, spec.n_text_head, spec.n_text_layer]
        self._model = native.Model(sizes, precision, self._isa, self._threads)
        load_weights(self._model, checkpoint.tensors, spec)
        self.info: BackendInfo = BackendInfo(
            name="native",
            device="cpu",
            precision=precision,
            threads=self._threads,
            weight_bytes=self._model.weight_bytes,
            window_bytes=self._model.window_bytes,
            row_bytes=self._model.row_bytes,
            precisions=PRECISIONS,
            isa=self._isa,
        )
        self.handles = Handles(spec)

    @property
    def log10_mel(self) -> LogMelKernel:
        native, isa = self._native, self._isa

        def log10_mel(samples: FloatArray, filters: FloatArray) -> FloatArray:
            mel: FloatArray = native.log_mel(isa, _contiguous(samples), _contiguous(filters))
            return mel

        return log10_mel

    @property
    def token_columns(self) -> TokenColumnsKernel:
        native = self._native

        def token_columns(scores: FloatArray, n_columns: int, n_before: int) -> IntArray:
            cost = native.alignment_cost(_contiguous(scores), n_columns, n_before)
            return entries(native.dtw_path(cost)) if n_columns else np.zeros(len(cost), np.int32)

        return token_columns

    def encode(self, mel: FloatArray) -> list[WindowId]:
        self.handles.check_mel(mel)
        return [self.handles.add_window(self._model.encode(_contiguous(one))) for one in mel]

    def open(self, window: WindowId) -> RowId:
        return self.handles.add_row(window, self._native.Row())

    def fork(self, row: RowId) -> RowId:
        source = self.handles.row(row)
        return self.handles.add_row(source.window, self._model.fork(source.cache, source.length), source.length)

    def shut_down(self) -> None:
        self.handles.clear()
        self._model = None

    def step(self, batch: StepBatch) -> StepAnswers:
        self.handles.check(batch)
        turns = [one.turns for one in steps_of(batch)]
        answers: list[list[RowResult]] = [[] for _ in turns]
        for number in range(max(map(len, turns), default=0)):  # a row's choices, one after another
            going = [i for i, one in enumerate(turns) if number < len(one)]
            requests = [self._request(turns[i][number]) for i in going]
            self._model.step(requests)
            for i, request in zip(going, requests, strict=True):
                step = turns[i][number]
                self.handles.row(step.row).length += len(step.tokens)
                answers[i].append(self._answer(step, request))
        return answers_of([RowResult.joined(one) for one in answers])

    def _request(self, step: RowStep) -> Any:
        row, within = self.handles.row(step.row), step.within or (0, self.spec.n_audio_ctx)
        window = self.handles.window(row.window)
        request = self._native.Request(row.cache, window, row.length, list(step.tokens), within)
        if step.choice is not None:
            self._choose(request, step)
        if step.probes or step.logits_at or step.attention:
            probes = [(one.position, list(one.ids), one.below or self.spec.n_vocab) for one in step.probes]
            request.look(probes, list(step.logits_at), _distinct(step.attention), self.spec.n_audio_ctx)
        return request

    def _choose(self, request: Any, step: RowStep) -> None:
        choice, constraint, n_vocab = step.choice, step.constraint, self.spec.n_vocab
        now = [(max(first, 0), min(last, n_vocab)) for first, last in constraint.now]
        vote_from = -1 if constraint.vote_from is None else constraint.vote_from
        if isinstance(choice, Best):
            how: tuple[str, int, float, list[float]] = ("best", 1, 1.0, [])
        elif isinstance(choice, Draw):
            how = ("draw", len(choice.uniforms), choice.temperature, list(choice.uniforms))
        else:
            assert choice is not None
            how = ("top", min(choice.n, n_vocab), 1.0, [])
        request.choose(*how, constraint.permanent.array, now, vote_from)

    def _answer(self, step: RowStep, request: Any) -> RowResult:
        probes = tuple(
            ProbeResult(logits=request.probe_logits(i), log_normaliser=request.probe_normalisers[i])
            for i in range(len(step.probes))
        )
        return RowResult(
            ids=tuple(request.ids),
            logprobs=tuple(request.logprobs),
            probes=probes,
            logits=request.logits() if step.logits_at else None,
            attention=self._attention(step, request) if step.attention else None,
        )

    def _attention(self, step: RowStep, request: Any) -> FloatArray:
        """Return each head's scores in the order, and as often, as they were asked for."""
        heads = _distinct(step.attention)
        scores: FloatArray = request.attention(self.spec.n_audio_ctx)
        return scores if len(heads) == len(step.attention) else scores[[heads.index(one) for one in step.attention]]


def _distinct(heads: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    return list(dict.fromkeys(heads))


def choose_isa(wanted: str | None, usable: Sequence[str]) -> str:
    """Return the set that is asked for, or the best. Raises OptionError if it is not usable."""
    if not wanted:
        return usable[0]
    if wanted not in usable:
        raise OptionError(f"{ISA_VARIABLE} asks for {wanted!r}; this machine has: {', '.join(usable)}")
    return wanted


def _contiguous(values: FloatArray) -> FloatArray:
    return np.ascontiguousarray(values, dtype=np.float32)
