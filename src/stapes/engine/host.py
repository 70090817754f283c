"""Several engines on one device: one thread steps them all, fair by audio seconds, within one bound on memory.

An engine that is loaded without a host has one of its own. Knows nothing of models.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from stapes.engine.scheduler import Scheduler, UnitKind
from stapes.engine.thread import EngineThread, FairLock, WorkSignal
from stapes.engine.turns import BackgroundTurns
from stapes.errors import BackendError
from stapes.options.checks import number, plain, whole
from stapes.runtime.processes import BoundToProcess

#: how much the latest windows count in an engine's measured audio seconds per second of work
_NEW_SHARE = 0.3


class HostedEngine(Protocol):
    """What a host needs of an engine."""

    @property
    def scheduler(self) -> Scheduler:
        """The engine's jobs."""

    def do_unit(self) -> UnitKind | None:
        """Do one unit of work, with the host's lock held; return what it was, None if there is none."""

    def close(self) -> None:
        """Cancel what is left and give the memory back."""


@dataclass(slots=True, eq=False)
class Share:
    """How much audio an engine's work was for; what its unfinished windows are for is estimated."""

    engine: HostedEngine
    audio_s: float = 0.0  # that was decoded, or as much as others had when it came
    busy_s: float = 0.0  # of work since a window ended
    audio_per_busy_s: float = 1.0
    idle: bool = True

    @property
    def served_s(self) -> float:
        """What engines are compared by."""
        return self.audio_s + self.busy_s * self.audio_per_busy_s

    def note(self, busy_s: float, audio_s: float) -> None:
        """Take a unit of work: how long it took, and for how much audio it ended windows."""
        self.busy_s += busy_s
        if audio_s > 0.0:
            if self.busy_s > 0.0:
                self.audio_per_busy_s += _NEW_SHARE * (audio_s / self.busy_s - self.audio_per_busy_s)
            self.audio_s, self.busy_s = self.audio_s + audio_s, 0.0


class Host(BoundToProcess):
    """One device for several engines: `stapes.load(..., host=host)`.

    Its engines share a thread that steps them, fair by audio seconds, interactive jobs of any engine first; the CPU
    threads; and, where `max_memory` is given, one bound on the memory of their windows and rows.
    """

    _cannot_be_pickled = (
        "a host cannot be pickled or copied: it holds this process's threads. Make one in the other process, and load "
        "the models there"
    )

    def __init__(
        self,
        *,
        threads: int | None = None,
        max_memory: int | None = None,
        name: str = "stapes host",
        on_unit: Callable[[UnitKind, float], None] | None = None,
    ) -> None:
        """threads: cores for each of its engines, which take turns; None uses those that the process may use.

        max_memory: most bytes that windows and rows of all its engines may take together, beside their weights; None:
        each engine has its own bound, as `load` describes it.   name: of the thread.
        on_unit: called after each unit of work, from the thread that works, with its kind ("encode", "step", "vad") and
        its seconds; for measurements, and must not raise.
        Raises OptionError.
        """
        threads, max_memory = plain(threads), plain(max_memory)
        whole("threads", threads)
        number("max_memory", max_memory, low=0)
        self.threads = threads
        self.max_memory = max_memory
        self._on_unit = on_unit
        self.lock = FairLock()
        self.signal = WorkSignal()
        self.thread = EngineThread(self._work_on, self.signal, name)
        self._shares: tuple[Share, ...] = ()
        self._at_work: Share | None = None  # the last one
        self._turns = BackgroundTurns(0.0, 0.0)
        self._closed = False

    @property
    def engines(self) -> tuple[HostedEngine, ...]:
        """The engines that were loaded on it and are not closed."""
        return tuple(share.engine for share in self._shares)

    def add(self, engine: HostedEngine) -> None:
        """Take an engine, while others work. Raises BackendError if the host is closed."""
        if self._closed:
            raise BackendError("this host is closed; make another")
        with self.lock.held():
            self._shares = (*self._shares, Share(engine))

    def remove(self, engine: HostedEngine) -> None:
        """Forget an engine that is closed."""
        self._shares = tuple(share for share in self._shares if share.engine is not engine)
        self.signal.notify()

    def neighbours(self, engine: HostedEngine) -> list[Scheduler]:
        """Return the schedulers of the other engines that share a bound on memory with one."""
        return [one.scheduler for one in self.engines if one is not engine] if self.max_memory is not None else []

    # Work.

    def step(self) -> bool:
        """Do one unit of work for one of the engines; False if there is none."""
        with self.lock.held():
            return any(self.step_engine(share) for share in self._in_order())

    def step_engine(self, share: Share) -> bool:
        """Do one unit of an engine's work, and note what it was for."""
        scheduler = share.engine.scheduler
        before_s, audio_s = scheduler.clock(), scheduler.audio_s
        self._at_work = share
        kind = share.engine.do_unit()
        if kind is None:
            share.idle = True
            return False
        if share.idle:  # what it did not ask for while it had nothing to do is not made up for
            share.idle = False
            others = [one.served_s for one in self._shares if not one.idle and one is not share]
            share.audio_s += max(0.0, min(others, default=0.0) - share.served_s)
        took_s = scheduler.clock() - before_s
        share.note(took_s, scheduler.audio_s - audio_s)
        if self._on_unit is not None:
            self._on_unit(kind, took_s)
        return True

    def share_of(self, engine: HostedEngine) -> Share:
        """Return the share of an engine. Raises BackendError where it is not here."""
        for share in self._shares:
            if share.engine is engine:
                return share
        raise BackendError("this engine is closed; load another")

    def _in_order(self) -> list[Share]:
        """Return the engines with jobs: those with interactive ones first, but for one unit in ten, then by audio."""
        shares = [share for share in self._shares if share.engine.scheduler.all_jobs]
        if len(shares) < 2:
            return shares
        interactive = {id(one) for one in shares if one.engine.scheduler.has_interactive}
        now = time.perf_counter()
        waits = 0 < len(interactive) < len(shares)
        theirs = waits and self._turns.is_due(now)
        if theirs or not waits:
            self._turns.restart(now, encodes=True)
        else:
            self._turns.n_urgent += 1
        return sorted(shares, key=lambda one: ((id(one) in interactive) == theirs, one.served_s))

    def work(self, seen: int) -> bool:
        """Do one unit of work, or wait until the signal's count is not `seen` any more; False if no job is left."""
        if self.step():
            return True
        schedulers = [share.engine.scheduler for share in self._shares]
        if not any(one.all_jobs for one in schedulers):
            return False
        deadlines = [left for one in schedulers if (left := one.seconds_to_deadline) is not None]
        self.signal.wait(seen, min(deadlines, default=None))
        return True

    def _work_on(self, seen: int) -> bool:
        """Work in the host's thread, where no caller would see an exception."""
        try:
            return self.work(seen)
        except Exception as error:  # our own mistake: no caller may wait for ever
            with self.lock.held():
                if self._at_work is not None:
                    self._at_work.engine.scheduler.end_all(error)
            return True
        except BaseException:  # an interruption has ended the jobs that it met; the others go on
            return True

    def close(self) -> None:
        """Close its engines and end its thread; no engine can be loaded on it after that."""
        self._closed = True
        self.thread.stop()
        for engine in self.engines:
            engine.close()

    def __enter__(self) -> Host:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
