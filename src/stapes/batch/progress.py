"""What a batch tells while it works, as values: the command shows them in words or as JSON lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Began:
    """The manifest is read, and work begins."""

    rows: int
    model: str
    precision: str
    engine: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFailed:
    """A row has failed for good."""

    id: str
    uri: str  # without its query
    reason: str
    error: str
    tries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A line of the manifest gives no row."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """Something that is good to know, or a warning."""

    message: str
    is_warning: bool = False


@dataclass(slots=True, kw_only=True)
class Counts:
    """Counts of a batch. Told while it works, and at its end as a summary."""

    rows: int = 0  # of the manifest, without refused lines and duplicates
    done: int = 0  # of them, earlier runs included
    failed: int = 0  # the same
    refused: int = 0  # lines
    duplicates: int = 0  # rows that repeat others
    done_now: int = 0  # in this run
    audio_s: float = 0.0  # of recordings that are done, earlier runs included
    audio_now_s: float = 0.0  # in this run
    elapsed_s: float = 0.0  # of this run
    workers: Counter[str] = field(default_factory=Counter)  # worker -> rows of this run
    reasons: Counter[str] = field(default_factory=Counter)  # of rows that failed in this run
    sets: Counter[str] = field(default_factory=Counter)  # instruction set -> rows of this run
    price_per_hour: float | None = None  # of one machine
    is_last: bool = False

    @property
    def times_real_time(self) -> float:
        """Audio of this run by its time."""
        return self.audio_now_s / self.elapsed_s if self.elapsed_s else 0.0

    @property
    def machines(self) -> int:
        """How many machines have worked in this run."""
        return len({worker.rpartition(":")[0] for worker in self.workers})

    @property
    def cost(self) -> float | None:
        """What this run has cost: its machines, for as long as it took."""
        if self.price_per_hour is None:
            return None
        return self.price_per_hour * max(1, self.machines) * self.elapsed_s / 3600.0


Event = Began | RowFailed | Refused | Noted | Counts
Tell = Callable[[Event], None]
