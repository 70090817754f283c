"""Measured costs of model work: moving estimates from the calls that were made, robust to outliers.

A step costs `step_s + row_s * rows + prefill_s * tokens`: rows bring one token each, tokens are those of rows that
bring several (prompts, alignments). Medians, so that one slow call changes nothing.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass
from itertools import combinations
from statistics import median

#: calls that an estimate is made from; of steps, for each number of rows
_RECENT, _RECENT_OF_ROWS = 15, 9
#: numbers of rows that are remembered, the latest ones
_MOST_SIZES = 12
#: steps between two looks at all of it
_REFRESH_AFTER = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredCosts:
    """Seconds of model work as measured lately; None: not measured yet."""

    encode_s: float | None = None  # of a window
    prefill_s: float | None = None  # of a token of a prompt or an alignment
    step_s: float | None = None  # of a step, beside its rows
    row_s: float | None = None  # of a row in a step


class CostMeter:
    """Takes the time of each call; gives estimates."""

    def __init__(self) -> None:
        self._encodes: deque[float] = deque(maxlen=_RECENT)  # seconds per window
        self._steps: OrderedDict[int, deque[float]] = OrderedDict()  # rows -> seconds
        self._prefills: deque[tuple[int, int, float]] = deque(maxlen=_RECENT)  # rows, tokens, seconds
        self._n_new = 0
        self._fixed_s, self._row_s, self._token_s = 0.0, 0.0, 0.0

    def note_encode(self, n_windows: int, seconds: float) -> None:
        """Take the time of an `encode` call."""
        self._encodes.append(seconds / n_windows)

    def note_step(self, n_rows: int, n_tokens: int, seconds: float) -> None:
        """Take the time of a step. n_rows: that bring one token.   n_tokens: of rows that bring several."""
        if n_tokens:
            self._prefills.append((n_rows, n_tokens, seconds))
        else:
            self._steps.setdefault(n_rows, deque(maxlen=_RECENT_OF_ROWS)).append(seconds)
            self._steps.move_to_end(n_rows)
            if len(self._steps) > _MOST_SIZES:
                self._steps.popitem(last=False)
        self._n_new += 1

    @property
    def knows_steps(self) -> bool:
        """Whether a step was measured."""
        return bool(self._steps or self._prefills)

    @property
    def encode_s(self) -> float:
        """Seconds of encoding one window; 0 if that is not known yet."""
        return median(self._encodes) if self._encodes else 0.0

    def step_s(self, n_rows: int, n_tokens: int) -> float:
        """Return how many seconds a step would take. Without measurements of two sizes, rows cost all of it."""
        if self._n_new >= _REFRESH_AFTER or not self._fixed_s + self._row_s + self._token_s:
            self._estimate()
        return self._fixed_s + self._row_s * n_rows + self._token_s * n_tokens

    @property
    def measured(self) -> MeasuredCosts:
        """The estimates."""
        self._estimate()
        has_two_sizes = len(self._steps) > 1
        return MeasuredCosts(
            encode_s=self.encode_s if self._encodes else None,
            prefill_s=self._token_s if self._prefills else None,
            step_s=self._fixed_s if has_two_sizes else None,
            row_s=self._row_s if has_two_sizes else None,
        )

    def _estimate(self) -> None:
        """Make the estimates anew: the median slope between numbers of rows (Theil-Sen), and what is left."""
        self._n_new = 0
        sizes = [(n_rows, median(times)) for n_rows, times in tuple(self._steps.items())]
        slopes = [(b - a) / (n_b - n_a) for (n_a, a), (n_b, b) in combinations(sizes, 2)]
        self._row_s = max(0.0, median(slopes or [seconds / n_rows for n_rows, seconds in sizes] or [0.0]))
        self._fixed_s = max(0.0, median([seconds - self._row_s * n_rows for n_rows, seconds in sizes] or [0.0]))
        if not sizes:  # every step had a prompt so far: a row is taken to cost as much as a token
            shares = [seconds / (n_rows + n_tokens) for n_rows, n_tokens, seconds in tuple(self._prefills)]
            self._row_s = median(shares or [0.0])
        tokens = [
            (seconds - self._fixed_s - self._row_s * n_rows) / n_tokens
            for n_rows, n_tokens, seconds in tuple(self._prefills)
        ]
        self._token_s = max(0.0, median(tokens or [0.0]))
