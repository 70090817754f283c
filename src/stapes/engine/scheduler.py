"""Continuous batching of many recordings: which rows run next. One bad job fails alone.

Jobs join and leave between two steps. The engine asks for a batch, runs it on the backend and returns the answer
(`account`). Knows no audio format and no decoding rule.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Final, Literal, NamedTuple
from weakref import WeakSet

import numpy as np

from stapes.backends.base import Backend, FloatArray, WindowId
from stapes.backends.batch import AnswerShare, StepBuilder
from stapes.engine.costs import CostMeter
from stapes.engine.scheduled_job import ScheduledJob
from stapes.engine.turns import EVERY_S, BackgroundTurns, in_their_turn, joining
from stapes.engine.window_reader import WindowReader
from stapes.errors import CancelledError, OptionError, OutOfDeviceMemoryError
from stapes.recording.base import WindowCost, WindowStream
from stapes.runtime.warn import warn

#: A job is due when so many windows were begun, its own included, for each window that it has: a short recording goes
#: before long ones that came earlier, and a long one is overtaken for a while only.
_DUE_AFTER = 3


#: what a unit of work is
UnitKind = Literal["vad", "encode", "step"]
#: the smallest window that is decoded: a row that keeps the prompt, and one that grows
LEAST_WINDOW: Final = WindowCost(rows=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryBound:
    """How much memory windows and rows may take, and what each takes."""

    max_bytes: int
    window_bytes: Callable[[int | None], int]  # of encoder positions; None: of a full window
    row_bytes: int  # of a row at full length
    max_windows: int

    @classmethod
    def of(cls, backend: Backend, max_bytes: int | None, max_windows: int | None = None) -> MemoryBound:
        """Return the bound for a backend.

        max_bytes: None bounds the number of windows alone.   max_windows: None takes the backend's policy.
        Raises OptionError if not even one window with one row would fit.
        """
        info, full = backend.info, backend.spec.n_audio_ctx
        bound = cls(
            max_bytes=(1 << 62) if max_bytes is None else max_bytes,
            window_bytes=lambda positions: backend.window_bytes(positions or full),
            row_bytes=info.row_bytes,
            max_windows=info.policy.windows_in_flight if max_windows is None else max_windows,
        )
        bound.check(LEAST_WINDOW)
        return bound

    def held(self, costs: Sequence[WindowCost]) -> int:
        """What windows take with all their rows."""
        return sum(self.window_bytes(cost.positions) + cost.rows * self.row_bytes for cost in costs)

    def fits(self, costs: Sequence[WindowCost], elsewhere: int = 0) -> bool:
        """Whether so many windows have room, and beside them the answers of any one of them.

        elsewhere: bytes that other engines take.
        """
        needed = elsewhere + self.held(costs) + max(cost.answer_bytes for cost in costs)
        return len(costs) <= self.max_windows and needed <= self.max_bytes

    def fits_beside_another(self, cost: WindowCost) -> bool:
        """Whether such a window has room beside a small one."""
        return self.fits([LEAST_WINDOW, cost])

    def check(self, cost: WindowCost) -> None:
        """Raise OptionError if such a window can never be admitted."""
        if not self.fits([cost]):
            needed = self.held([cost]) + cost.answer_bytes
            words = " and the times of its words" if cost.answer_bytes else ""
            rows = "1 row" if cost.rows == 1 else f"{cost.rows} rows"
            fewer = ", or search with fewer beams and samples" if cost.rows > 2 else ""
            raise OptionError(
                f"max_memory is {self.max_bytes / 1e6:,.1f} MB, and a window with {rows}{words} takes "
                f"{needed / 1e6:,.1f} MB; raise it{fewer}"
            )


@dataclass(frozen=True, slots=True)
class VadBatch:
    """A stream that needs more VAD: it runs without the backend, in a turn like any other."""

    kind: ClassVar[UnitKind] = "vad"

    job: ScheduledJob
    stream: WindowStream

    @property
    def jobs(self) -> tuple[ScheduledJob, ...]:
        """The job, as other batches have them."""
        return (self.job,)

    def run(self, _backend: Backend) -> list[None]:
        """Run VAD; the events go to the job."""
        self.job.detect_speech(self.stream)
        return []


@dataclass(frozen=True, slots=True)
class _StreamsBatch:
    """Work for several streams; stream i is of job i."""

    owners: tuple[ScheduledJob, ...]
    streams: tuple[WindowStream, ...]

    @property
    def jobs(self) -> tuple[ScheduledJob, ...]:
        """The jobs, each once."""
        return tuple(dict.fromkeys(self.owners))


@dataclass(frozen=True, slots=True)
class EncodeBatch(_StreamsBatch):
    """Windows to encode, one of each stream."""

    kind: ClassVar[UnitKind] = "encode"

    mel: FloatArray  # (windows, n_mels, frames)

    def run(self, backend: Backend) -> list[WindowId]:
        """Encode them."""
        return backend.encode(self.mel)


@dataclass(frozen=True, slots=True)
class DecodeBatch(_StreamsBatch):
    """Rows to step together, prompts (prefill) beside single tokens."""

    kind: ClassVar[UnitKind] = "step"

    n_rows: int  # of streams whose rows bring one token each
    n_tokens: int  # of all other rows

    @classmethod
    def of(cls, chosen: Sequence[Ready]) -> DecodeBatch:
        """Put the rows of streams together."""
        return cls(
            owners=tuple(one.job for one in chosen),
            streams=tuple(one.stream for one in chosen),
            n_rows=sum(one.n_rows for one in chosen),
            n_tokens=sum(one.n_tokens for one in chosen),
        )

    def run(self, backend: Backend) -> list[AnswerShare]:
        """Step them; return each stream's answers."""
        step = StepBuilder()
        for stream in self.streams:
            stream.add_to(step)
            step.end_source()
        return step.shares(backend.step(step.build()))


class Ready(NamedTuple):
    """The rows that a stream has ready."""

    job: ScheduledJob
    stream: WindowStream
    n_rows: int  # where each brings one token
    n_tokens: int  # else: of a prompt, or of a text that is aligned
    answer_bytes: int

    @classmethod
    def of(cls, job: ScheduledJob, stream: WindowStream) -> Ready:
        """Ask a stream for its rows."""
        load = stream.load()
        is_thin = load.tokens == load.rows
        return cls(
            job=job,
            stream=stream,
            n_rows=load.rows if is_thin else 0,
            n_tokens=0 if is_thin else load.tokens,
            answer_bytes=load.answer_bytes,
        )

    @property
    def is_there(self) -> bool:
        """Whether there are any."""
        return self.n_rows + self.n_tokens > 0


Batch = VadBatch | EncodeBatch | DecodeBatch
_Streams = list[tuple[ScheduledJob, WindowStream]]
#: of the rows that are ready, those to step
_Choice = Callable[[list[Ready]], list[Ready]]


class Scheduler:
    """Holds the jobs that have not ended, and forms batches of their work.

    Any thread may call `submit`; everything else is for the thread that steps. A window is admitted while its memory
    fits the bound. Waiting windows are ordered by class (interactive first), then by priority, then by when their jobs
    are due, then by arrival. Encoding comes first, so that rows share as many steps as possible, but rows that are
    ready wait for a few calls at most; the backend's policy says how many, and how many windows one call takes.
    """

    def __init__(
        self, backend: Backend, bound: MemoryBound | None = None, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        """backend: whose windows and rows are counted.   clock: of the jobs' deadlines, and of measured costs."""
        self._backend = backend
        self._policy = backend.info.policy
        self.bound = bound or MemoryBound.of(backend, None)
        self.clock = clock
        #: wakes the threads that wait for work; any thread may call it
        self.notify: Callable[[], None] = lambda: None
        #: schedulers of other engines with the same bound on memory
        self.neighbours: Callable[[], Sequence[Scheduler]] = tuple
        self.audio_s = 0.0  # of the recordings, for which windows were decoded
        self.costs = CostMeter()
        self._reader = WindowReader(backend.info.threads)
        self.held_bytes = 0  # of windows with all their rows, when `next_batch` was called last
        #: at the same time, the streams that wait for a window or for VAD, and those that hold a window
        self._waiting: _Streams = []
        self._holding: _Streams = []
        self._incoming: deque[ScheduledJob] = deque()
        self._n_windows = 0  # begun for all jobs: the clock by which jobs are due
        #: units since rows were stepped, in those of interactive jobs alone and in all others
        self._n_since_rows = {"interactive": 0, "all": 0}
        self._turns = BackgroundTurns(clock(), clock())
        #: background streams whose window gave way, until it has been decoded again
        self._gave_way: WeakSet[WindowStream] = WeakSet()
        self.jobs: list[ScheduledJob] = []

    def submit(self, job: ScheduledJob) -> None:
        """Add a job, to be admitted before the next step; any thread may call this, and it never waits."""
        job.scheduled(self.notify)
        self._incoming.append(job)
        self.notify()

    @property
    def all_jobs(self) -> list[ScheduledJob]:
        """The jobs that have not ended, whether admitted yet or not."""
        return [job for job in (*tuple(self._incoming), *self.jobs) if not job.state.ended]

    @property
    def has_interactive(self) -> bool:
        """Whether there are interactive jobs."""
        return any(job.params.interactive for job in self.all_jobs)

    def count_held_bytes(self) -> int:
        """Return what windows take with all their rows, now."""
        return self.bound.held([one.cost for job in self.jobs for one in job.streams() if one.holds_window])

    @property
    def starved_bytes(self) -> int:
        """What other engines leave free: the next window of a background job that has waited too long for its first."""
        waiting = [one for one in self._waiting if not one[0].params.interactive and not one[0].state.ended]
        if self._holding or not waiting or self.oldest_wait_s < EVERY_S:
            return 0
        return self.bound.held([min(waiting, key=_urgency)[1].cost])

    def _bytes_elsewhere(self) -> int:
        """Return what windows of other engines take of the same bound."""
        return sum(one.count_held_bytes() for one in self.neighbours())

    def _fits(self, costs: Sequence[WindowCost], kept_free: int = 0) -> bool:
        """Whether so many windows of this engine have room beside those of others."""
        return self.bound.fits(costs, self._bytes_elsewhere() + kept_free)

    @property
    def seconds_to_deadline(self) -> float | None:
        """In how many seconds the next deadline of a job is; None without one."""
        deadlines = [job.params.deadline for job in self.all_jobs if job.params.deadline is not None]
        return min(deadlines) - self.clock() if deadlines else None

    def admit(self) -> None:
        """Admit submitted jobs; end those that were cancelled or are past their deadline."""
        while self._incoming:
            job = self._incoming.popleft()
            job.waiting_since = self.clock()
            job.due = self._n_windows + _DUE_AFTER * job.n_windows_left
            job.woken = True  # one with nothing to decode is done at once
            self.jobs.append(job)
        now = self.clock()
        for job in self.jobs:
            job.end_if_cancelled(now)
            if job.woken:
                job.woken = False
                _for_each((job,), (job.report,))
        self._forget_ended()

    def end_cancelled(self, job: ScheduledJob) -> None:
        """End a cancelled job now; nothing of any other job is done."""
        job.end_if_cancelled(self.clock())
        while self._incoming and self._incoming[0].state.ended:
            self._incoming.popleft()
        self._forget_ended()

    def next_batch(self) -> Batch | None:
        """Return the next unit of work: VAD or windows to encode, else rows to step; after some of those, rows.

        While interactive jobs have work, it is theirs, but for one unit in ten.
        """
        self.admit()
        now = self.clock()
        self._look(now)
        n_interactive = sum(job.params.interactive for job in self.jobs)
        if n_interactive in (0, len(self.jobs)):
            self._turns.restart(now, encodes=True)
            return self._unit(self._waiting, _all, "all")
        if self._turns.is_due(now):
            encodes = self._turns.encode_is_due(now)
            waiting = [one for one in self._waiting if not one[0].params.interactive]
            if not encodes:
                waiting = [one for one in waiting if one[1].needs_vad]
            batch = self._unit(waiting, self._in_their_turn, "all")
            if batch is not None:
                self._turns.restart(now, encodes=isinstance(batch, EncodeBatch))
                return batch
        waiting = [one for one in self._waiting if one[0].params.interactive]
        batch = self._unit(waiting, self._urgent, "interactive")
        if batch is not None:
            self._turns.n_urgent += 1
            return batch
        if any(job.params.interactive for job, _ in self._encoding):  # their rows are next: only steps until then
            return self._decode_batch(_all)
        self._turns.restart(now, encodes=True)
        return self._unit(self._waiting, _all, "all")

    def _unit(self, waiting: _Streams, choose: _Choice, counted: str) -> Batch | None:
        """Return a unit of work.

        waiting: whose windows or VAD may be next.   choose: which of all rows that are ready are stepped.
        counted: as what it counts.
        """
        may_encode = waiting and self._n_since_rows[counted] < self._policy.encodes_before_rows
        if may_encode and len(self._encoding) <= self._policy.windows_per_encode:  # at work, and no call waits for it
            batch = self._window_batch(waiting) or self._decode_batch(choose)
        else:
            batch = self._decode_batch(choose) or self._window_batch(waiting)
        self._n_since_rows[counted] = 0 if isinstance(batch, DecodeBatch) else self._n_since_rows[counted] + 1
        return batch

    @property
    def _encoding(self) -> _Streams:
        """The windows that a device works on beside the steps."""
        return [one for one in self._holding if one[1].holds_window and not one[1].window_is_encoded]

    def _look(self, now: float) -> None:
        """Ask each job once what it has to do; `status` may read what is noted at any time."""
        self._waiting, self._holding = [], []
        for job in self.jobs:
            n_before = len(self._waiting) + len(self._holding)
            for stream in job.streams():
                if stream.holds_window:
                    self._holding.append((job, stream))
                elif stream.needs_window or stream.needs_vad:
                    self._waiting.append((job, stream))
            has_work = len(self._waiting) + len(self._holding) > n_before
            job.waiting_since = (job.waiting_since or now) if has_work else None
        self.held_bytes = self.bound.held(_costs(self._holding))

    @property
    def oldest_wait_s(self) -> float:
        """For how long the job with work has waited that was served last the longest ago; 0 if none waits."""
        since = [one for job in self.all_jobs if (one := job.waiting_since) is not None]
        return max(0.0, self.clock() - min(since)) if since else 0.0

    # Windows.

    def _window_batch(self, waiting: _Streams) -> EncodeBatch | VadBatch | None:
        """Return the most urgent windows that fit, or the stream whose next window depends on VAD.

        A job whose window cannot be read fails, and the next one is tried.
        """
        while waiting and (chosen := self._choose_windows(waiting)):
            if chosen[0][1].needs_vad:
                return VadBatch(*chosen[0])
            mels = self._reader.read(chosen)
            for (job, _), mel in zip(chosen, mels, strict=True):
                if isinstance(mel, Exception):  # of one recording: the others go on
                    job.fail(mel)
            left = [(*one, mel) for one, mel in zip(chosen, mels, strict=True) if not one[0].state.ended]
            self._forget_ended()
            if left:
                owners, streams, read = zip(*left, strict=True)
                self._n_windows += len(left)
                return EncodeBatch(owners, streams, np.stack(read))
        return None

    def _choose_windows(self, waiting: _Streams) -> _Streams:
        """Return the most urgent windows that fit, of one length, or the most urgent stream alone if it needs VAD."""
        held = [one for one in self._holding if not one[0].state.ended]
        starved = self._starved(held)
        chosen: _Streams = []
        for job, stream in sorted(waiting, key=_urgency):
            if job.state.ended:
                continue
            if stream.needs_vad:
                return chosen or [(job, stream)]
            if not self._has_room(job, stream, held, starved):
                break  # a smaller window does not overtake the most urgent one
            if chosen and stream.cost.positions != chosen[-1][1].cost.positions:
                break  # a call takes windows of one length
            chosen.append((job, stream))
            held.append((job, stream))
            if len(chosen) == self._policy.windows_per_encode:
                break
        return chosen

    def _has_room(self, job: ScheduledJob, stream: WindowStream, held: _Streams, starved: list[WindowCost]) -> bool:
        """Whether a window may be encoded beside those that are held.

        A background window leaves room for an interactive one; for an interactive one, background windows give way.
        """
        cost, costs = stream.cost, _costs(held)
        if job.params.interactive:
            kept_free = sum(one.starved_bytes for one in self.neighbours()) if costs else 0
            return self._fits([*costs, cost, *starved], kept_free) or self._make_room(cost, held, starved, kept_free)
        if not costs:
            return self._fits([cost])
        has_interactive = any(owner.params.interactive for owner, _ in held)
        reserve = [] if has_interactive or not self.bound.fits_beside_another(LEAST_WINDOW) else [LEAST_WINDOW]
        return self._fits([*costs, cost, *reserve])

    def _starved(self, held: _Streams) -> list[WindowCost]:
        """Return the window that interactive ones leave room for: of background jobs that had none for too long."""
        if not self._turns.encode_is_due(self.clock()) or not all(job.params.interactive for job, _ in held):
            return []
        waiting = [one for one in self._waiting if one[1].needs_window and not one[0].params.interactive]
        return [one.cost for _, one in sorted(waiting, key=_urgency)[:1]]

    def _make_room(self, cost: WindowCost, held: _Streams, starved: list[WindowCost], kept_free: int) -> bool:
        """Have background windows give way, the least urgent first; False, and none does, if that would not suffice.

        Those of other engines with the same bound come last.
        """
        if not self.bound.fits_beside_another(cost):
            return False
        rest, elsewhere = list(held), self._bytes_elsewhere() + kept_free
        leaving: list[tuple[Scheduler, WindowStream]] = []
        for owner in (self, *self.neighbours()):
            for one in owner.yielding():
                leaving.append((owner, one[1]))
                if owner is self:
                    rest.remove(one)
                else:
                    elsewhere -= owner.bound.held([one[1].cost])
                if self.bound.fits([*_costs(rest), cost, *starved], elsewhere):
                    for whose, stream in leaving:
                        whose.release(stream)
                    held[:] = rest
                    return True
        return False

    def yielding(self) -> _Streams:
        """Return background streams whose windows may give way, the least urgent first.

        One that has given way once keeps its place then, so that every job ends.
        """
        windows = [(job, one) for job in self.jobs if not job.params.interactive for one in job.streams()]
        may = [one for one in windows if one[1].holds_window and one[1] not in self._gave_way]
        return sorted(may, key=_urgency, reverse=True)

    def release(self, stream: WindowStream) -> None:
        """Have a stream's window give way: it is decoded again from its start."""
        stream.give_way()
        self._gave_way.add(stream)

    # Rows.

    def _decode_batch(self, choose: _Choice) -> DecodeBatch | None:
        """Return the chosen ones of the rows that are ready; of those whose answers take memory, as many as fit."""
        holding = [one for one in self._holding if one[1].holds_window and not one[0].state.ended]
        room = self.bound.max_bytes - self.bound.held(_costs(holding)) - self._bytes_elsewhere()
        ready = [one for one in (Ready.of(job, stream) for job, stream in holding) if one.is_there]
        # Steps go on beside an encoder; windows that it still works on are waited for where there is nothing else.
        encoded = [one for one in ready if one.stream.window_is_encoded]
        chosen: list[Ready] = []
        for one in choose(encoded or ready):
            # One always: a text that is resumed may be longer than expected.
            if one.answer_bytes <= room or not chosen:
                chosen.append(one)
                room -= one.answer_bytes
        return DecodeBatch.of(chosen) if chosen else None

    def _urgent(self, ready: list[Ready]) -> list[Ready]:
        """Choose interactive rows, and others that add little to the step's cost."""
        interactive, others = _by_class(ready)
        return [*interactive, *joining(interactive, others, self.costs)] if interactive else []

    def _in_their_turn(self, ready: list[Ready]) -> list[Ready]:
        """Choose interactive rows, and those of one background window at least."""
        interactive, others = _by_class(ready)
        return [*interactive, *in_their_turn(interactive, others, self.costs)] if others else []

    def account(self, batch: Batch, answer: Sequence[Any], took_s: float | None = None) -> None:
        """Give each job its part of the answer of `batch.run`. took_s: how long that took, for the measured costs."""
        now, jobs = self.clock(), batch.jobs
        for job in jobs:
            job.waiting_since = now
        if isinstance(batch, EncodeBatch):
            if took_s is not None:
                self.costs.note_encode(len(batch.owners), took_s)
            windows = zip(batch.owners, batch.streams, answer, strict=True)
            _for_each(batch.owners, [partial(self._attach, *one) for one in windows])
        elif isinstance(batch, DecodeBatch):
            if took_s is not None:
                self.costs.note_step(batch.n_rows, batch.n_tokens, took_s)
            shares = zip(batch.owners, batch.streams, answer, strict=True)
            _for_each(batch.owners, [partial(job.accept, stream, share) for job, stream, share in shares])
            jobs = tuple(job for job in jobs if job.has_news)
            if self._gave_way:
                self._gave_way -= {stream for stream in batch.streams if not stream.holds_window}
        # Callbacks come last, when every job has its part: they may cancel, or step the engine.
        done = [job.progress.done_s for job in jobs]
        _for_each(jobs, [job.report for job in jobs])
        gained = (job.progress.done_s - before for job, before in zip(jobs, done, strict=True))
        self.audio_s += sum(max(0.0, one) for one in gained)
        self._forget_ended()

    def _attach(self, job: ScheduledJob, stream: WindowStream, window: WindowId) -> None:
        """Give a window to its stream."""
        if job.state.ended:  # with another window of the batch
            self._backend.release(window)
        else:
            job.begin()
            stream.attach(window)

    def fail(self, batch: Batch, error: BaseException) -> None:
        """End the jobs of a batch that the backend could not run; windows that found no memory beside others wait."""
        if isinstance(error, OutOfDeviceMemoryError) and isinstance(batch, EncodeBatch) and self._lower_bound(batch):
            return
        for job in batch.jobs:
            job.fail(error)
        self._forget_ended()

    def _lower_bound(self, batch: EncodeBatch) -> bool:
        """Halve the number of windows that are admitted; False where there was only one."""
        n_windows = sum(one.holds_window for job in self.jobs for one in job.streams()) + len(batch.streams)
        most = min(self.bound.max_windows, n_windows) // 2
        if most == 0:
            return False
        warn(f"memory does not suffice for {n_windows} windows at once; going on with at most {most}")
        self.bound = replace(self.bound, max_windows=most)
        return True

    def end_all(self, error: BaseException) -> None:
        """End all jobs with an error."""
        for job in self.all_jobs:
            job.fail(error)
        self._incoming.clear()
        self._forget_ended()

    def _forget_ended(self) -> None:
        self.jobs = [job for job in self.jobs if not job.state.ended]
        if not self.jobs:
            self.held_bytes = 0


def _for_each(jobs: Sequence[ScheduledJob], calls: Sequence[Callable[[], None]]) -> None:
    """Make every job's call; one that raises ends its job alone. Ctrl-C is raised after the last call."""
    interruption: BaseException | None = None
    for job, call in zip(jobs, calls, strict=True):
        try:
            call()
        except Exception as error:
            job.fail(error)
        except BaseException as error:
            job.fail(CancelledError("interrupted"))
            interruption = error
    if interruption is not None:
        raise interruption


def _urgency(one: tuple[ScheduledJob, WindowStream]) -> tuple[bool, float, int]:
    """Return the key by which windows are sorted, the most urgent first."""
    job = one[0]
    return not job.params.interactive, -job.params.priority, job.due


def _costs(held: _Streams) -> list[WindowCost]:
    return [stream.cost for _, stream in held]


def _all(ready: list[Ready]) -> list[Ready]:
    return ready


def _by_class(ready: list[Ready]) -> tuple[list[Ready], list[Ready]]:
    """Return the rows of interactive jobs and all others, the most urgent first."""
    ordered = sorted(ready, key=lambda one: _urgency((one.job, one.stream)))
    n_interactive = sum(one.job.params.interactive for one in ordered)
    return ordered[:n_interactive], ordered[n_interactive:]
