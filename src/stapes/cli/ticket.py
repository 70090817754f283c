"""One recording on its way through a command: which it is, and how far it has come. Plain values."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stapes.cli.output import shown_name
from stapes.writers import output_stem

if TYPE_CHECKING:
    from stapes.cli.journal import JournalEntry
    from stapes.recording.events import JobEvent


@dataclass(slots=True, kw_only=True, eq=False)
class Ticket:
    """A recording's place in a command."""

    number: int  # 1, 2, ... in the order of the command line
    count: int
    source: str
    entry: JournalEntry | None = None  # None: not journaled
    job: Any = None  # once it is in the engine
    duration_s: float = 0.0
    resumed_s: float = 0.0  # of audio known from an earlier run
    n_resumed: int = 0  # windows known from an earlier run
    n_windows: int = 0
    done_s: float = 0.0
    began_s: float = 0.0  # on the clock of time.monotonic
    begun: bool = False  # those who watch were told of it
    events: deque[JobEvent] = field(default_factory=deque)  # of which they were not told yet
    language_is_told: bool = False
    warned: set[str] = field(default_factory=set)

    @property
    def name(self) -> str:
        """What people call it."""
        return shown_name(self.source)

    @property
    def stem(self) -> str:
        """The name of its files, without suffix."""
        return output_stem(self.source)
