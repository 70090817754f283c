"""Choosing on the device: constraints as tensors, for all rows at once. The rules are those of `backends.sampling`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch

from stapes.backends.base import BEST, DRAW, IdRanges

#: different sets of permanently forbidden ids that are kept; those of jobs with the same options are equal
_N_SETS: Final = 64
_RANGES_AT_ONCE: Final = 4


class ForbiddenIds:
    """Sets of forbidden ids as rows of one table, (sets, n_vocab) bool, kept from step to step.

    `version` counts how often the table was replaced.
    """

    def __init__(self, n_vocab: int, device: Any) -> None:
        self._n_vocab, self._device = n_vocab, device
        self._rows: dict[tuple[tuple[int, int], ...], int] = {}  # by what is in a set
        self._known: dict[int, tuple[IdRanges, int]] = {}  # by identity, which is cheaper to look up
        self.version = 0
        self.table = torch.zeros((_N_SETS, n_vocab), dtype=torch.bool, device=device)

    def rows_of(self, sets: Sequence[IdRanges]) -> list[int]:
        """Return each set's row."""
        if len(self._known) + len(sets) > 4 * len(self.table) or len(self._rows) + len(sets) > len(self.table):
            self._rows.clear()
            self._known.clear()
            if len(sets) > len(self.table):
                self.version += 1
                shape = (2 * len(sets), self._n_vocab)
                self.table = torch.zeros(shape, dtype=torch.bool, device=self._device)
        return [self._row(one) for one in sets]

    def _row(self, ids: IdRanges) -> int:
        known = self._known.get(id(ids))
        if known is not None:
            return known[1]
        row = self._rows.get(ids.ranges)
        if row is None:
            row = self._rows[ids.ranges] = len(self._rows)
            self.table[row] = False
            self.table[row, torch.as_tensor(ids.array, device=self._device)] = True
        self._known[id(ids)] = ids, row  # the set itself too: its identity is not given to another one
        return row


def constrain(logits: Any, forbidden: Any, now: Any, vote: Any) -> tuple[Any, Any]:
    """Return logits under constraints, -inf where an id may not come, and the log of their summed exponentials.

    logits: (n, n_vocab) float32.   forbidden: (n, n_vocab) bool, changed in place.
    now: (n, ranges, 2) forbidden ranges, half-open.   vote: (n,) as in `StepBatch.vote_from`; n_vocab: no vote.
    """
    ids = torch.arange(logits.shape[1], device=logits.device)
    for ranges in now.split(_RANGES_AT_ONCE, dim=1):  # each takes (n, ranges, n_vocab) bytes, some times over
        forbidden |= ((ids >= ranges[:, :, :1]) & (ids < ranges[:, :, 1:])).any(1)
    masked = logits.masked_fill(forbidden, -torch.inf)
    is_upper = ids >= vote[:, None]
    best_lower = masked.masked_fill(is_upper, -torch.inf).amax(1)
    highest = masked.amax(1)
    highest = torch.where(highest == -torch.inf, 0.0, highest)  # all is forbidden: numbers stay numbers
    exponentials = torch.exp(masked - highest[:, None])
    sum_upper = (exponentials * is_upper).sum(1)
    is_outvoted = torch.log(sum_upper) + highest > best_lower
    total = torch.log(torch.where(is_outvoted, sum_upper, exponentials.sum(1))) + highest
    return masked.masked_fill_(is_outvoted[:, None] & ~is_upper, -torch.inf), total


def best(logits: Any, total: Any) -> Any:
    """Return the best ids and their log-probabilities as float32 (2, n): ids are far below 2 ** 24.
    logits, total: as `constrain` returns them. Of equals the lowest id.
    """
    ids = logits.argmax(1)
    return torch.stack((ids.float(), _log_probabilities(logits, total, ids[:, None])[:, 0]))


def choose(
    logits: Any, total: Any, method: int, n: int, temperatures: Sequence[float], uniforms: Sequence[Sequence[float]]
) -> Any:
    """Return n ids for each row and their log-probabilities as float32 (2, rows, n).

    logits, total: as `constrain` returns them.   method: BEST, DRAW or TOP, of all rows.
    temperatures: of each row; uniforms: n for each row; of draws.
    """
    if method == BEST:
        return best(logits, total)[:, :, None]
    ids = _draw(logits, temperatures, uniforms) if method == DRAW else _top(logits, total, n)
    return torch.stack((ids.float(), _log_probabilities(logits, total, ids)))


def _log_probabilities(logits: Any, total: Any, ids: Any) -> Any:
    found = logits.gather(1, ids)
    return torch.where(found == -torch.inf, found, found - total[:, None])


def _draw(logits: Any, temperatures: Sequence[float], uniforms: Sequence[Sequence[float]]) -> Any:
    heat = torch.tensor(temperatures, dtype=torch.float64, device=logits.device)[:, None]
    highest = logits.amax(1, keepdim=True)
    highest = torch.where(highest == -torch.inf, 0.0, highest)
    weights = torch.exp((logits.double() - highest.double()) / heat)
    cumulated = weights.cumsum(1)
    wanted = torch.tensor(uniforms, dtype=torch.float64, device=logits.device) * cumulated[:, -1:]
    found = torch.searchsorted(cumulated, wanted, right=True)
    # Rounding may carry a number past the end; the last id with any weight is meant.
    ids = torch.arange(logits.shape[1], device=logits.device)
    return torch.minimum(found, torch.where(weights > 0, ids, 0).amax(1, keepdim=True))


def _top(logits: Any, total: Any, n: int) -> Any:
    """Return the n best by log-probability, of equals the lower id first, which `topk` does not promise: it is given
    whole numbers in the same order, their ids in the lower half.
    """
    ids = torch.arange(logits.shape[1], device=logits.device)
    values = torch.where(logits == -torch.inf, logits, logits - total[:, None]) + 0.0  # -0 as 0
    bits = values.view(torch.int32).long()
    ordered = torch.where(bits >= 0, bits, bits ^ 0x7FFFFFFF)
    keys = (ordered << 32) | (logits.shape[1] - 1 - ids)
    return logits.shape[1] - 1 - (keys.topk(min(n, logits.shape[1]), dim=1).values & 0xFFFFFFFF)
