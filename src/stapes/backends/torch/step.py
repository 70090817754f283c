"""A step in PyTorch: rows with one new token together in place, all others in blocks of like rows, then the choices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from stapes.backends.base import (
    BEST,
    DRAW,
    ExtraAnswers,
    FloatArray,
    IntArray,
    ProbeResult,
    RowExtras,
    StepAnswers,
    StepBatch,
)
from stapes.backends.handles import Row
from stapes.backends.torch.arithmetic import exact
from stapes.backends.torch.choices import ForbiddenIds, choose, constrain
from stapes.backends.torch.decoder import (
    END,
    FORBIDDEN,
    N_RANGES,
    PLACE,
    TOKENS,
    VOTE,
    Block,
    Decoder,
)
from stapes.backends.torch.device import Device
from stapes.backends.torch.graphs import Bucket, OneTokenSteps, bucket_for
from stapes.backends.torch.memory import DeviceMemory, RowCache, aligned
from stapes.backends.torch.weights import Weights
from stapes.checkpoint.base import ModelSpec

_NOTHING: Final = RowExtras()
#: windows that a bucket may have for each one with a row: beyond it, a gather of those few costs less
_MOST_IDLE: Final = 4


@dataclass(slots=True, eq=False)
class _RowWork:
    """What one row of a step brings and asks for."""

    index: int
    cache: RowCache
    start: int
    tokens: list[int]
    positions: int  # of its window
    extras: RowExtras
    choices: list[int] = field(default_factory=list)  # indices into the step's

    @property
    def seen(self) -> tuple[int, int]:
        """The positions of its window that it attends to."""
        return self.extras.within or (0, self.positions)

    @property
    def end(self) -> int:
        """How many tokens it holds afterwards."""
        return self.start + len(self.tokens)

    @property
    def is_thin(self) -> bool:
        """Whether it brings one token and asks for a choice at most."""
        asked = self.extras
        is_plain = not (asked.probes or asked.logits_at or asked.attention)
        return len(self.tokens) == 1 and len(self.choices) <= 1 and is_plain


class _Choices:
    """A step's choices: their constraints as numbers, and their answers."""

    def __init__(self, batch: StepBatch, forbidden: ForbiddenIds, n_vocab: int) -> None:
        rows = forbidden.rows_of(batch.permanents)
        self.forbidden = [rows[one] for one in batch.permanent_of.tolist()]
        self.votes = [n_vocab if one < 0 else one for one in batch.vote_from.tolist()]
        self.positions = batch.choice_positions.tolist()
        self.methods, self.n_chosen = batch.methods.tolist(), batch.n_chosen.tolist()
        self.temperatures = batch.temperatures.tolist()
        now, ends = batch.now.ravel().tolist(), batch.now_ends.tolist()
        #: forbidden ranges of each choice: first id, end, first id, end ...
        self.now: list[list[int]] = [now[2 * a : 2 * b] for a, b in zip([0, *ends[:-1]], ends, strict=False)]
        self.uniforms: list[list[float]] = []
        drawn, begin = batch.uniforms.tolist(), 0
        for method, n in zip(self.methods, self.n_chosen, strict=True):
            end = begin + n if method == DRAW else begin
            self.uniforms.append(drawn[begin:end])
            begin = end
        self._ends = np.cumsum(batch.n_chosen)
        self.ids = np.zeros(int(batch.n_chosen.sum()), np.int32)
        self.logprobs = np.zeros(len(self.ids), np.float32)
        self._open: dict[int, Any] = {}  # choices that wait for their logits (n_vocab,) to be chosen from

    def fits_a_graph(self, choice: int) -> bool:
        """Whether a captured step can answer it."""
        return bool(self.methods[choice] == BEST) and len(self.now[choice]) <= 2 * N_RANGES

    def as_numbers(self, choice: int) -> list[int]:
        """Return what `Block` has of a choice, from FORBIDDEN on."""
        now = self.now[choice]
        return [self.forbidden[choice], self.votes[choice], *now, *[0] * (2 * N_RANGES - len(now))]

    def answer_best(self, which: npt.NDArray[np.int64], found: FloatArray) -> None:
        """Take the best id of some choices and its log-probability, (2, choices)."""
        at = self._ends[which] - 1
        self.ids[at] = found[0].astype(np.int32)
        self.logprobs[at] = found[1]

    def answer(self, choice: int, found: FloatArray) -> None:
        """Take ids and log-probabilities, (2, n)."""
        end = self._ends[choice]
        begin = end - self.n_chosen[choice]
        self.ids[begin:end] = found[0].astype(np.int32)
        self.logprobs[begin:end] = found[1]

    def add(self, choice: int, logits: Any) -> None:
        """Take the raw logits (n_vocab,) to choose from."""
        self._open[choice] = logits

    @property
    def are_open(self) -> bool:
        """Whether there are choices whose logits were added."""
        return bool(self._open)

    def choose(self, forbidden: ForbiddenIds, device: Device) -> None:
        """Answer the choices whose logits were added, those of one kind together."""
        kinds: dict[tuple[int, int], list[int]] = {}
        for choice in self._open:
            kinds.setdefault((self.methods[choice], self.n_chosen[choice]), []).append(choice)
        for (method, n), mine in kinds.items():
            if n == 0:
                continue
            most = max(2, *(len(self.now[one]) for one in mine))
            now = [self.now[one] + [0] * (most - len(self.now[one])) for one in mine]
            logits = torch.stack([self._open[one] for one in mine])
            table = forbidden.table[device.whole_numbers([self.forbidden[one] for one in mine])]
            votes = device.whole_numbers([self.votes[one] for one in mine])
            masked, total = constrain(logits, table, device.whole_numbers(now).unflatten(1, (-1, 2)), votes)
            heat, uniforms = [self.temperatures[one] for one in mine], [self.uniforms[one] for one in mine]
            found = device.download(choose(masked, total, method, n, heat, uniforms))
            for index, choice in enumerate(mine):
                self.answer(choice, found[:, index])


class Steps:
    """Runs steps over one device's memory."""

    def __init__(
        self, spec: ModelSpec, decoder: Decoder, weights: Weights, memory: DeviceMemory, device: Device
    ) -> None:
        self._spec, self._decoder, self._weights, self._memory, self._device = spec, decoder, weights, memory, device
        self._forbidden = ForbiddenIds(spec.n_vocab, device.torch)
        self.one_token = OneTokenSteps(decoder, weights, memory, self._forbidden, device)

    def run(self, batch: StepBatch, rows: Sequence[Row[RowCache]], positions: Sequence[int]) -> StepAnswers:
        """Run a step that was checked; rows keep their lengths.   positions: of each row's window."""
        choices = _Choices(batch, self._forbidden, self._spec.n_vocab)
        works = _works(batch, rows, positions)
        extras: dict[int, ExtraAnswers] = {}
        thin, others = list[_RowWork](), list[_RowWork]()
        for one in works:
            (thin if one.is_thin else others).append(one)
        blocks = self._in_place(thin, others)
        self._memory.settle()
        for bucket, cells in blocks:
            self._run_in_place(bucket, cells, choices)
        for alike in _alike(others):
            for work, answers in self._run_block(alike, choices):
                extras[work.index] = answers
        if choices.are_open:
            with exact(self._device.torch):
                choices.choose(self._forbidden, self._device)
        return StepAnswers(choices.ids, choices.logprobs, extras)

    # Rows with one token, in place.

    def _in_place(self, thin: Sequence[_RowWork], others: list[_RowWork]) -> list[tuple[Bucket, list[_RowWork | None]]]:
        """Return buckets with their cells; rows that are better gathered are added to the others.

        Windows with one row and windows with several have buckets of their own.
        """
        self._memory.move_down()
        windows: dict[int, list[_RowWork]] = {}
        for one in thin:
            windows.setdefault(one.cache.slot.index, []).append(one)
        found: list[tuple[Bucket, list[_RowWork | None]]] = []
        for several in (False, True):
            mine = {slot: rows for slot, rows in windows.items() if (len(rows) > 1) == several}
            if not mine:
                continue
            rows = [one for its in mine.values() for one in its]
            most = max(len(its) for its in mine.values())
            bucket = bucket_for(max(mine) + 1, max(one.end for one in rows), most, self._spec.n_text_ctx)
            if bucket is None or len(mine) * _MOST_IDLE < bucket[0]:
                others += rows
                continue
            n_windows, length, n_rows = min(bucket[0], self._memory.n_slots), *bucket[1:]
            cells: list[_RowWork | None] = [None] * (n_windows * n_rows)
            for slot, its in mine.items():
                cells[slot * n_rows : slot * n_rows + len(its)] = its
            found.append(((n_windows, length, n_rows), cells))
            if not several:
                self._memory.put_first(one.cache for one in rows)
        return found

    def _run_in_place(self, bucket: Bucket, cells: Sequence[_RowWork | None], choices: _Choices) -> None:
        numbers = self._numbers(cells, 1)
        if bucket[2] == 1:
            numbers[:, PLACE] = np.arange(len(cells))
        asked = [(cell, choice) for cell, work in enumerate(cells) if work is not None for choice in work.choices]
        fitting = [one for one in asked if choices.fits_a_graph(one[1])]
        if fitting:
            at, which = np.array(fitting).T
            numbers[at, FORBIDDEN:TOKENS] = [choices.as_numbers(choice) for _, choice in fitting]
        answers, logits = self.one_token.run(numbers, bucket)
        if fitting:
            choices.answer_best(which, answers[:, at])
        if len(fitting) < len(asked):  # copied, as the next block overwrites them
            others = [one for one in asked if not choices.fits_a_graph(one[1])]
            picked = logits[self._device.whole_numbers([cell for cell, _ in others])]
            for (_, choice), row in zip(others, picked.unbind(0), strict=True):
                choices.add(choice, row)

    def _numbers(self, cells: Sequence[_RowWork | None], n_tokens: int) -> IntArray:
        """Return what `Block` has of cells. Those that hold no row see one position of a window, so that what they
        compute are numbers.
        """
        numbers = np.zeros((len(cells), TOKENS + n_tokens), np.int32)
        numbers[:, END] = 1
        numbers[:, VOTE] = self._spec.n_vocab
        held = [(cell, work) for cell, work in enumerate(cells) if work is not None]
        row_index = self._memory.row_index
        numbers[[cell for cell, _ in held], : PLACE + 1] = [
            (work.start, len(work.tokens), *work.seen, row_index(work.cache.place)) for _, work in held
        ]
        for cell, work in held:
            numbers[cell, TOKENS : TOKENS + len(work.tokens)] = work.tokens
        return numbers

    # All others.

    def _run_block(self, works: Sequence[_RowWork], choices: _Choices) -> Iterable[tuple[_RowWork, ExtraAnswers]]:
        """Run rows of about as many tokens by plain calls; yield the answers to those that asked for extras."""
        windows: dict[int, list[_RowWork]] = {}
        for work in works:
            windows.setdefault(work.cache.slot.index, []).append(work)
        slots = sorted(windows)
        n_rows, n_tokens = max(map(len, windows.values())), max(len(one.tokens) for one in works)
        cells: list[_RowWork | None] = []
        for slot in slots:
            cells += [*windows[slot], *[None] * (n_rows - len(windows[slot]))]
        block = Block(
            numbers=self._device.upload(self._numbers(cells, n_tokens)),
            slots=self._slots(slots),
            n_rows=n_rows,
            length=min(max(one.start for one in works) + n_tokens, self._spec.n_text_ctx),
            n_positions=aligned(max(one.positions for one in works)),
            in_place=False,
            attention=works[0].extras.attention,
        )
        held = [(cell, work) for cell, work in enumerate(cells) if work is not None]
        wanted = [(cell, at) for cell, work in held for at in _positions(work, choices)]
        with exact(self._device.torch):
            hidden, scores = self._decoder.run(block)
            logits = self._logits(hidden, wanted)
        found = dict(zip(wanted, logits, strict=True))
        for cell, work in held:
            for choice in work.choices:
                choices.add(choice, found[cell, choices.positions[choice]])
            if work.extras != _NOTHING:
                seen = None if scores is None else scores[:, cell, : len(work.tokens), : work.positions]
                yield (
                    work,
                    _extra_answers(work.extras, {at: row for (of, at), row in found.items() if of == cell}, seen),
                )

    def _slots(self, slots: Sequence[int]) -> Any:
        """Return windows that lie side by side as a slice, which needs no gather."""
        if slots[-1] - slots[0] == len(slots) - 1:
            return slice(slots[0], slots[-1] + 1)
        return self._device.whole_numbers(slots)

    def _logits(self, hidden: Any, wanted: Sequence[tuple[int, int]]) -> Sequence[Any]:
        """Return the logits (n_vocab,) after each (cell, new token)."""
        if not wanted:
            return ()
        cells, positions = self._device.whole_numbers(wanted).unbind(1)
        rows: Sequence[Any] = self._weights.logits(hidden[cells, positions]).unbind(0)
        return rows


def _works(batch: StepBatch, rows: Sequence[Row[RowCache]], positions: Sequence[int]) -> list[_RowWork]:
    tokens, begin = batch.tokens.tolist(), 0
    works: list[_RowWork] = []
    for index, (row, end) in enumerate(zip(rows, batch.token_ends.tolist(), strict=True)):
        extras = batch.extras.get(index, _NOTHING)
        works.append(_RowWork(index, row.cache, row.length, tokens[begin:end], positions[index], extras))
        begin = end
    for choice, owner in enumerate(batch.choice_rows.tolist()):
        works[owner].choices.append(choice)
    return works


def _alike(works: Sequence[_RowWork]) -> list[list[_RowWork]]:
    """Return rows in groups: of about as many tokens, and with the same attention wanted."""
    groups: dict[tuple[int, tuple[tuple[int, int], ...]], list[_RowWork]] = {}
    for one in works:
        groups.setdefault((len(one.tokens).bit_length(), one.extras.attention), []).append(one)
    return list(groups.values())


def _positions(work: _RowWork, choices: _Choices) -> list[int]:
    """Return the positions after which a row needs logits."""
    asked = (choices.positions[one] for one in work.choices)
    return sorted({*asked, *work.extras.logits_at, *(one.position for one in work.extras.probes)})


def _extra_answers(asked: RowExtras, logits: Mapping[int, Any], scores: Any) -> ExtraAnswers:
    probes = []
    for one in asked.probes:
        raw = logits[one.position]
        found = torch.cat((raw[list(one.ids)], torch.logsumexp(raw[: one.below], 0)[None])).cpu().numpy()
        probes.append(ProbeResult(logits=found[:-1], log_normaliser=float(found[-1])))
    return ExtraAnswers(
        probes=tuple(probes),
        logits=torch.stack([logits[at] for at in asked.logits_at]).cpu().numpy() if asked.logits_at else None,
        attention=None if scores is None else scores.cpu().numpy(),
    )
