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
    PART_POSITIONS,
    BackendInfo,
    ExtraAnswers,
    FloatArray,
    IntArray,
    LogMelKernel,
    ProbeResult,
    RowExtras,
    RowId,
    StepAnswers,
    StepBatch,
    TokenColumnsKernel,
    WindowId,
)
from stapes.backends.handles import Handles, HandlesBackend
from stapes.backends.native.library import PRECISIONS, library
from stapes.backends.native.weights import load_weights
from stapes.backends.numerics import entries
from stapes.backends.precisions import Choice
from stapes.backends.resources import usable_cores
from stapes.checkpoint.base import Checkpoint
from stapes.errors import OptionError

#: names an instruction set, instead of the best one that the processor has
ISA_VARIABLE = "STAPES_ISA"
_MOST_THREADS = 256


def log_mel_kernel(isa: str | None = None) -> LogMelKernel:
    """Return the library's log-mel, which needs no model.   isa: as for NativeBackend; raises what that raises."""
    native = library()
    chosen = choose_isa(isa or os.environ.get(ISA_VARIABLE), native.isa_names())

    def log10_mel(samples: FloatArray, filters: FloatArray) -> FloatArray:
        mel: FloatArray = native.log_mel(chosen, _contiguous(samples), _contiguous(filters))
        return mel

    return log10_mel


class NativeBackend(HandlesBackend[Any, Any]):
    """Satisfies `stapes.backends.base.Backend`."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        threads: int | None = None,
        precision: str = "float32",
        isa: str | None = None,
        chosen: Choice | None = None,
    ) -> None:
        """Pack the weights.

        threads: None uses the cores that the process may use.   precision: one of PRECISIONS.
        isa: an instruction set by name; None takes STAPES_ISA's, or the best.
        chosen: how the precision was chosen, where it was not asked for.
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
            row_bytes=self._model.row_bytes,
            precisions=PRECISIONS,
            isa=self._isa,
            precision_reason=chosen.reason if chosen else None,
            precision_measured=chosen.measured if chosen else True,
        )
        self._block_bytes: int = self._model.window_bytes(PART_POSITIONS)
        self.handles = Handles(spec)

    @property
    def log10_mel(self) -> LogMelKernel:
        return log_mel_kernel(self._isa)

    @property
    def token_columns(self) -> TokenColumnsKernel:
        native = self._native

        def token_columns(scores: FloatArray, n_columns: int, n_before: int) -> IntArray:
            cost = native.alignment_cost(_contiguous(scores), n_columns, n_before)
            return entries(native.dtw_path(cost)) if n_columns else np.zeros(len(cost), np.int32)

        return token_columns

    def window_bytes(self, positions: int) -> int:
        return -(-positions // PART_POSITIONS) * self._block_bytes

    def encode(self, mel: FloatArray) -> list[WindowId]:
        positions = self.handles.check_mel(mel)
        return [self.handles.add_window(self._model.encode(_contiguous(one)), positions) for one in mel]

    def open(self, window: WindowId) -> RowId:
        return self.handles.add_row(window, self._native.Row())

    def fork(self, row: RowId) -> RowId:
        source = self.handles.row(row)
        return self.handles.add_row(source.window, self._model.fork(source.cache, source.length), source.length)

    def shut_down(self) -> None:
        self.handles.clear()
        self._model = None

    def step(self, batch: StepBatch) -> StepAnswers:
        rows, windows, counts = self.handles.check(batch)
        ids, logprobs, extras = self._model.step(
            [row.cache for row in rows], windows, np.array([row.length for row in rows], np.int32), batch.tokens,
            batch.token_ends, batch.choice_rows, batch.choice_positions, batch.methods, batch.n_chosen,
            batch.temperatures, batch.uniforms, [one.array for one in batch.permanents], batch.permanent_of, batch.now,
            batch.now_ends, batch.vote_from,
            {index: self._question(one) for index, one in batch.extras.items()},
        )  # fmt: skip
        for row, n in zip(rows, counts, strict=True):
            row.length += n
        return StepAnswers(ids, logprobs, {index: _answers(batch.extras[index], *one) for index, one in extras.items()})

    def _question(self, extras: RowExtras) -> tuple[Any, ...]:
        probes = [(one.position, list(one.ids), one.below or self.spec.n_vocab) for one in extras.probes]
        return probes, list(extras.logits_at), _distinct(extras.attention), extras.within or (0, 0)


def _answers(
    asked: RowExtras,
    probes: Sequence[FloatArray],
    normalisers: Sequence[float],
    logits: FloatArray | None,
    attention: FloatArray | None,
) -> ExtraAnswers:
    """Return what a row asked for; each head's scores in the order, and as often, as they were asked for."""
    heads = _distinct(asked.attention)
    if attention is not None and len(heads) < len(asked.attention):
        attention = attention[[heads.index(one) for one in asked.attention]]
    found = (ProbeResult(logits=one, log_normaliser=total) for one, total in zip(probes, normalisers, strict=True))
    return ExtraAnswers(probes=tuple(found), logits=logits, attention=attention)


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
