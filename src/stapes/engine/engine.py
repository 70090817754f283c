"""READ FIRST. One model, ready to transcribe: transcribe, stream, submit.

The way through the four rings: a call here makes a job; `step` asks the scheduler (many recordings) for a batch;
its jobs ask their `recording.task` (one recording: the seek loop), which asks `decoding.window` (one window: prompt,
tries, result), which says what `backends` (one step of the network) is to do.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from types import TracebackType
from typing import Any, ClassVar

import numpy as np

from stapes.audio.load import AudioSource, as_recording, load_audio
from stapes.audio.pcm import Recording, recording_of_array
from stapes.backends.base import Backend, FloatArray
from stapes.backends.resources import default_max_memory
from stapes.checkpoint.base import Checkpoint
from stapes.engine.host import Host
from stapes.engine.info import Capabilities, EngineInfo, EngineStatus, describe, mismatches
from stapes.engine.job import Job, SegmentStream, stream_async, submit_async
from stapes.engine.scheduled_job import JobParams, JobState, ProgressSink, ScheduledJob
from stapes.engine.scheduler import LEAST_WINDOW, Batch, MemoryBound, Scheduler, UnitKind
from stapes.engine.tasks import TaskFactory, detection_options, tokenizer_of
from stapes.engine.thread import EngineThread, FairLock, WorkSignal
from stapes.engine.windows import (
    WindowSource,
    batch_of,
    mel_of,
    sounding_frames,
    token_ids,
    window_languages,
    window_options,
)
from stapes.errors import BackendError, CancelledError, OptionError
from stapes.options import Audio, Channel, Clock, Speech, Task, TranscribeOptions
from stapes.options.checks import above_0, plain, require
from stapes.output.writers import format_timestamp
from stapes.recording.base import BaseTask
from stapes.recording.events import EventSink, JobEvent, WindowDone
from stapes.recording.language.question import candidates_of
from stapes.recording.requests import Answer
from stapes.recording.words.attention import AttentionScores
from stapes.results import DecodedWindow, LanguageGuess, Segment, Transcript, Window, WindowResult
from stapes.runtime.hints import Hints
from stapes.runtime.printing import Printer
from stapes.runtime.processes import BoundToProcess, register, unlock_cached_properties
from stapes.runtime.warn import warn, warning_here
from stapes.tokenizer import Tokenizer
from stapes.vad.detector import OpenVadModel


class Engine(Hints, BoundToProcess):
    """One model. Any thread or asyncio task may call; one thread at a time steps the model, for all jobs at once."""

    _cannot_be_pickled = (
        "an engine cannot be pickled or copied: it holds a model's memory and this process's threads. "
        "Call stapes.load() in the other process, once; threads share an engine, and a forked child may use it too"
    )
    _others: ClassVar[Mapping[str, str]] = {
        "supported_languages": "info.languages",
        "is_multilingual": "info.multilingual",
        "dims": "info.spec",
        "device": "info.device",
        "compute_type": "info.precision",
    }

    def __init__(
        self,
        checkpoint: Checkpoint,
        backend: Backend,
        *,
        max_memory: int | None = None,
        open_vad: OpenVadModel | None = None,
        tokenizer: Tokenizer | None = None,
        host: Host | None = None,
    ) -> None:
        """Take an open checkpoint and a backend that runs it; `stapes.load` does both.

        max_memory, host: as for `load`.
        open_vad: opens a VAD model for each recording; without it, the guards that need VAD are off.
        tokenizer: the checkpoint's; None makes it.
        Raises OptionError if not one window fits, CheckpointError where the weights are not those that were published.
        """
        self._checkpoint = checkpoint
        self._backend = backend
        checkpoint.verify()  # not earlier: a package's weights are hashed while the backend packs them
        self._tokenizer = tokenizer or tokenizer_of(checkpoint)
        self._tasks = TaskFactory(checkpoint, backend, self._tokenizer, open_vad)
        self._closed = False
        self._has_own_host = host is None
        self._host = host or Host(name=f"stapes {checkpoint.name}")
        if max_memory is None:
            max_memory = self._host.max_memory
        if max_memory is None:
            max_memory = backend.info.max_memory
        if max_memory is None:
            window_bytes = backend.window_bytes(backend.spec.n_audio_ctx)
            kept_free = window_bytes + LEAST_WINDOW.rows * backend.info.row_bytes  # for an interactive job
            max_memory = default_max_memory(window_bytes) + kept_free
        self._begin(MemoryBound.of(backend, max_memory))
        self._host.add(self)
        register(self)

    def _begin(self, bound: MemoryBound) -> None:
        """Begin without jobs."""
        self._submitted = itertools.count()
        self._n_submitted = 0
        self.scheduler = Scheduler(self._backend, bound)

    def after_fork(self) -> None:
        """In a forked child: keep the weights and begin anew; jobs stay with the parent (`ScheduledJob.after_fork`).

        What a job's windows took is not given back: it is the parent's memory, of which the child copies nothing.
        """
        for owner in (Tokenizer, Checkpoint):
            unlock_cached_properties(owner)
        self._begin(self.scheduler.bound)

    # Public calls.

    def transcribe(self, audio: AudioSource | Recording, **keywords: Any) -> Transcript:
        """Transcribe a recording.

        audio: a path, "-" (standard input), a file's bytes, a binary file object, or a NumPy array (samples,), or what
        converts to one, at 16 kHz, or at `sample_rate` Hz: floats, signed integers of 8 to 32 bits, or uint8.
        keywords: those of `submit`: `verbose`, `sample_rate`, `max_duration_s`, `on_progress`, `options`, or the
        keywords of openai/whisper's transcribe() by name (docs/options.md).
        Raises AudioError, OptionError.
        """
        transcript: Transcript = _result_of(self.submit(audio, **keywords))
        return transcript

    def stream(self, audio: AudioSource | Recording, **keywords: Any) -> SegmentStream:
        """Return an iterator over segments as they are decoded: a window's come before the next window is encoded.

        Takes what `submit` takes, and checks it at once. Dropping the iterator cancels the rest.
        """
        return SegmentStream(self.submit(audio, **keywords))

    def submit(
        self,
        audio: AudioSource | Recording,
        *,
        sample_rate: int | None = None,
        max_duration_s: float | None = None,
        options: TranscribeOptions | None = None,
        interactive: bool = False,
        priority: int = 0,
        deadline_s: float | None = None,
        on_progress: ProgressSink | None = None,
        on_event: EventSink | None = None,
        resume: Sequence[Answer] = (),
        check: Callable[[], None] = lambda: None,
        verbose: bool | None = None,
        fp16: bool | None = None,  # noqa: ARG002 (accepted for those who come from openai/whisper)
        **keywords: Any,
    ) -> Job:
        """Read a recording, in the calling thread, and schedule it.

        This alone decodes nothing: the engine works while a caller waits for any of its jobs, or after `start`.
        audio: as for `transcribe`; or a Recording that was loaded already, which stays the caller's to close.
        sample_rate: of an array, in Hz.   max_duration_s: refuse longer recordings.
        options: all options at once, instead of keywords.
        interactive: whether a person waits for it: it goes before all jobs that are not, whose rows and windows then
        wait, but for one unit of work in ten (docs/architecture.md).
        priority: of the jobs of one class, higher goes first; those of one priority share the model, short ones first.
        deadline_s: the job fails with DeadlineError if it has not ended after so many seconds.
        on_progress, on_event: callbacks after every window, from the thread that works, with Progress and with events
        (recording/events.py); what they raise fails this job alone.
        resume: what `on_event` got in an earlier, interrupted run with the same recording, model and options, as
        answers (`LanguageDetected.guess`, `WindowDone.window.result`): those windows are not decoded again.
        check: called now and then while the audio is read; what it raises ends that.
        verbose: True prints each segment with its times, from the thread that works; failing output fails no job.
        fp16: accepted and without effect: the precision is chosen by `load`.
        """
        if options is not None and keywords:
            raise OptionError(f"give either options or keywords, not both (got {next(iter(keywords))})")
        if options is None:
            options = TranscribeOptions.from_keywords(keywords)
        require(isinstance(options, TranscribeOptions), f"options must be TranscribeOptions, got {options!r}")
        _check_answers(resume)
        deadline_s = plain(deadline_s)
        above_0("deadline_s", deadline_s)
        self._check_open()
        self.check_speech(options.speech)
        for message in mismatches(self._checkpoint, self.capabilities, self._tokenizer, options):
            warn(message)
        params = JobParams(
            interactive=plain(interactive),
            priority=plain(priority),
            deadline=None if deadline_s is None else self.scheduler.clock() + deadline_s,
            on_progress=on_progress,
            on_event=on_event,
        )
        params = replace(params, on_event=_printing(on_event)) if verbose else params
        recording = as_recording(
            audio, options.audio, sample_rate=sample_rate, max_duration_s=max_duration_s, check=check
        )
        return self.submit_recording(recording, options, params, resume=resume, check=check)

    def submit_recording(
        self,
        recording: Recording,
        options: TranscribeOptions,
        params: JobParams | None = None,
        *,
        resume: Sequence[Answer] = (),
        check: Callable[[], None] = lambda: None,
    ) -> Job:
        """Schedule a recording that is already loaded; the engine closes it."""
        make = partial(self._tasks.transcription, recording, options, resume, check)
        return self._schedule(recording, make, params, check, warns=params is not None and params.interactive)

    def _warn_of_room(self, task: BaseTask) -> None:
        """Warn where an interactive job may have to wait until a whole window of another job is decoded."""
        bound = self.scheduler.bound
        if not bound.fits_beside_another(task.window_cost):
            warn(
                "this engine holds one window at a time, so that no room is kept for an interactive job, which waits "
                f"until another job's present window is decoded; raise max_memory ({bound.max_bytes / 1e6:,.1f} MB)"
            )

    def align(
        self,
        audio: AudioSource,
        text: str,
        *,
        language: str | None = None,
        sample_rate: int | None = None,
        max_duration_s: float | None = None,
        audio_track: int | None = None,
        channel: Channel = "mix",
        clock: Clock = "samples",
    ) -> Transcript:
        """Find the time of every word of a text that is spoken in a recording; a segment for each sentence.

        audio: as for `transcribe`, of any length.   text: all that is said, and nothing else: its words are placed in
        their order, and what the recording does not say is squeezed in somewhere (docs/words.md).
        language, audio_track, channel, clock: as for `transcribe`.   Raises AudioError, OptionError.
        """
        require(isinstance(text, str), f"text must be a text, got {text!r}")
        speech = Speech(language=language)
        self.check_speech(speech)
        wanted = Audio(audio_track=audio_track, channel=channel, clock=clock)
        recording = load_audio(audio, sample_rate=sample_rate, max_duration_s=max_duration_s, **asdict(wanted))
        job = self._schedule(recording, partial(self._tasks.alignment, recording, text, speech))
        transcript: Transcript = _result_of(job)
        return transcript

    def detect_language(
        self,
        audio: AudioSource,
        *,
        sample_rate: int | None = None,
        max_duration_s: float | None = None,
        audio_track: int | None = None,
        channel: Channel = "mix",
        clock: Clock = "samples",
        **keywords: Any,
    ) -> LanguageGuess:
        """Return the language spoken in a recording's first 30 s, with every language's probability.

        audio_track, channel, clock: as for `transcribe`; the clock changes nothing here.
        keywords: `languages`, `language_detection_segments` and `language_detection_threshold`, as for `transcribe`.
        Raises OptionError if the model knows English only, AudioError if there is no audio.
        """
        speech = detection_options(keywords)
        self._check_multilingual()
        self.check_speech(speech)
        wanted = Audio(audio_track=audio_track, channel=channel, clock=clock)
        recording = load_audio(audio, sample_rate=sample_rate, max_duration_s=max_duration_s, **asdict(wanted))
        make = partial(self._tasks.language, recording, speech)
        job = self._schedule(recording, make, JobParams(interactive=True))
        guess: LanguageGuess = _result_of(job)
        return guess

    def decode_windows(
        self,
        windows: Sequence[WindowSource] | FloatArray,
        *,
        prompt: Sequence[int] = (),
        prefix: Sequence[int] = (),
        n_frames: Sequence[int] | None = None,
        interactive: bool = False,
        **keywords: Any,
    ) -> list[DecodedWindow]:
        """Decode windows of 30 s alone and side by side, each once: what `whisper.decode` does, without a seek loop.

        windows: each a log-mel (n_mels, 3000), or sound as for `transcribe`, of which the first 30 s count; an array
        (windows, n_mels, 3000) is a batch too.
        prompt, prefix: ids of the text before the window, and of its own beginning.   interactive: as for `submit`.
        n_frames: how many frames of each window have sound, where `word_timestamps` gives `result.timings`.
        keywords: task, language, languages, token_logprobs, word_timestamps, rules_of, and the options of searching
        and suppressing (docs/options.md); `temperature` is one number, 0 by default: no window is tried again. Above 0
        the draws depend on `seed` alone. Raises AudioError, OptionError.
        """
        options = window_options(keywords)
        self._check_open()
        self.check_speech(options.speech)
        for message in mismatches(self._checkpoint, self.capabilities, self._tokenizer, options):
            warn(message)
        make = partial(
            self._tasks.window, options=options, prompt=token_ids("prompt", prompt), prefix=token_ids("prefix", prefix)
        )
        mels = [self._window_mel(one) for one in batch_of(windows)]
        frames = sounding_frames(n_frames, len(mels))
        makes = [partial(make, mel=mel, n_frames=n) for mel, n in zip(mels, frames, strict=True)]
        return self._results_of(makes, JobParams(interactive=plain(interactive)))

    def decode_window(self, window: WindowSource, **keywords: Any) -> DecodedWindow:
        """Decode one window alone; takes what `decode_windows` takes."""
        return self.decode_windows([window], **keywords)[0]

    def detect_window_language(self, window: WindowSource, **keywords: Any) -> LanguageGuess:
        """Return the language of one window, a log-mel (n_mels, 3000) or sound.

        keywords: `languages`, as for `transcribe`. Raises OptionError if the model knows English only.
        """
        speech = window_languages(keywords)
        self._check_multilingual()
        self.check_speech(speech)
        make = partial(self._tasks.window_language, mel=self._window_mel(window), speech=speech)
        guess: LanguageGuess = self._results_of([make], JobParams(interactive=True))[0]
        return guess

    def _window_mel(self, window: WindowSource) -> FloatArray:
        return mel_of(window, self._backend.spec.n_mels, self._backend.log10_mel)

    def _results_of(self, makes: Sequence[Callable[[Recording], BaseTask]], params: JobParams) -> list[Any]:
        """Run the tasks of windows side by side; return their results."""
        jobs: list[Job] = []
        try:
            for make in makes:
                recording = recording_of_array("window", np.empty(0, np.float32))  # there is none: the log-mel is given
                jobs.append(self._schedule(recording, partial(make, recording), params))
            return [_result_of(job) for job in jobs]
        finally:
            for job in jobs:
                job.cancel()

    def _check_multilingual(self) -> None:
        if not self._tokenizer.multilingual:
            raise OptionError(f"{self._checkpoint.name} knows English only: there is nothing to detect")

    def read_attention(
        self, recording: Recording, window: Window, *, language: str, task: Task = "transcribe"
    ) -> AttentionScores:
        """Compute anew what the word times of a window were read from, for pictures of it (`stapes.report`).

        recording: stays the caller's.   window: of a transcript with word times, in the recording's clock.
        language, task: as it was decoded.
        """
        shared = recording.shared()
        make = partial(self._tasks.attention, shared, window, language, task)
        job = self._schedule(shared, make, JobParams(interactive=True))
        scores: AttentionScores = _result_of(job)
        return scores

    def model_sha256(self) -> str:
        """Return the SHA-256 of the model's sizes, vocabulary and stored weights; read in full at the first call."""
        return self._checkpoint.sha256

    def check_speech(self, speech: Speech) -> None:
        """Raise OptionError for a language or a task that this model does not know."""
        self._tokenizer.start_sequence(speech.language_code, speech.task)
        candidates_of(self._tokenizer, speech)

    # The same for asyncio.

    async def asubmit(self, audio: AudioSource | Recording, **keywords: Any) -> Job:
        """Do what `submit` does, without blocking the event loop while the audio is read."""
        return await submit_async(warning_here(self.submit), audio, **keywords)

    async def atranscribe(self, audio: AudioSource | Recording, **keywords: Any) -> Transcript:
        """Transcribe a recording; a task that is cancelled cancels its job. Takes what `submit` takes."""
        job = await self.asubmit(audio, **keywords)
        try:
            return await job.aresult()
        finally:
            job.cancel()

    async def astream(self, audio: AudioSource | Recording, **keywords: Any) -> AsyncIterator[Segment]:
        """Yield segments as they are decoded; closing the iterator cancels the rest."""
        async for segment in stream_async(await self.asubmit(audio, **keywords)):
            yield segment

    # From a recording to a job.

    def _schedule(
        self,
        recording: Recording,
        make: Callable[[], BaseTask],
        params: JobParams | None = None,
        check: Callable[[], None] = lambda: None,
        *,
        warns: bool = False,
    ) -> Job:
        """Make a task, which closes the recording, and hand it to the scheduler.

        warns: whether to warn where no room can be kept for it.
        """
        try:
            self._check_open()
            task = make()
            self.scheduler.bound.check(task.window_cost)
            if warns:
                self._warn_of_room(task)
            task.prepare(check)
        except BaseException:
            recording.close()
            raise
        job = ScheduledJob(task, params)
        self._n_submitted = next(self._submitted) + 1
        self.scheduler.submit(job)
        if self._closed:  # meanwhile: no step would end it
            self.cancel(job)
        return Job(self, job)

    # Steps of the model.

    @property
    def _lock(self) -> FairLock:
        return self._host.lock

    @property
    def _signal(self) -> WorkSignal:
        return self._host.signal

    @property
    def _thread(self) -> EngineThread:
        return self._host.thread

    def step(self) -> bool:
        """Do one unit of model work for whichever jobs are ready; False if there is none."""
        with self._lock.held():
            self._check_open()
            return self._host.step_engine(self._host.share_of(self))

    def do_unit(self) -> UnitKind | None:
        """Do what `step` does, for the host, which counts it."""
        batch = self.scheduler.next_batch()
        if batch is None:
            return None
        self._run(batch)
        return batch.kind

    def _run(self, batch: Batch) -> None:
        clock = self.scheduler.clock
        started = clock()
        try:
            answer = batch.run(self._backend)
        except Exception as error:  # the batch's jobs fail with it; all others go on
            self.scheduler.fail(batch, error)
        except BaseException:  # Ctrl-C in the middle of a step: its rows cannot be trusted any more
            self.scheduler.fail(batch, CancelledError("interrupted"))
            raise
        else:
            self.scheduler.account(batch, answer, clock() - started)

    @property
    def scheduler(self) -> Scheduler:
        """Which jobs there are, and what is done next for them."""
        return self._scheduler

    @scheduler.setter
    def scheduler(self, scheduler: Scheduler) -> None:
        """Take another scheduler, which has no jobs yet."""
        scheduler.notify = self._signal.notify
        scheduler.neighbours = partial(self._host.neighbours, self)
        self._scheduler = scheduler

    def run(self) -> None:
        """Work in this thread until no job is left; sleep while open jobs have nothing to do."""
        while True:
            seen = self._signal.count
            self._check_open()
            if not self._host.work(seen) or not self.scheduler.all_jobs:
                break

    def work(self) -> None:
        """Do one unit of model work, or wait until there may be one."""
        self._host.work(self._signal.count)

    def start(self) -> None:
        """Work in the background, in the engine's (or its host's) own thread, until no job is left.

        Waiting for a job does this too. The thread sleeps while open jobs have nothing to do.
        """
        self._check_open()
        self._thread.start()

    def works_here(self) -> bool:
        """Whether the calling thread is inside a step, in a callback: it steps on instead of waiting."""
        return self._lock.is_held_here

    def cancel(self, job: ScheduledJob) -> None:
        """End a job: now, or, while the engine steps, before its next step. What has ended stays as it is.

        Never waits: event loops and the garbage collector call this, at any moment and from any thread.
        """
        job.cancel_requested = True
        with self._lock.try_hold() as free:
            if free:
                self.scheduler.end_cancelled(job)
        job.wake()

    # State.

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer: text to ids and back."""
        return self._tokenizer

    @property
    def info(self) -> EngineInfo:
        """The model, its sizes, where it came from, and what it costs in memory."""
        return describe(self._checkpoint, self._backend, self._tokenizer)

    @property
    def capabilities(self) -> Capabilities:
        """What this model can be asked for."""
        return Capabilities.of(self._checkpoint.spec, self._tokenizer, self._backend.info.precisions)

    def status(self) -> EngineStatus:
        """How many jobs there are and in which state, what work costs, what is free, and the longest wait."""
        scheduler = self.scheduler
        states = [job.state for job in scheduler.all_jobs]
        queued = states.count(JobState.QUEUED)
        return EngineStatus(
            queued=queued,
            running=len(states) - queued,
            submitted=self._n_submitted,
            costs=scheduler.costs.measured,
            free_bytes=scheduler.bound.max_bytes - scheduler.held_bytes,
            oldest_wait_s=scheduler.oldest_wait_s,
        )

    def close(self) -> None:
        """Cancel what is left and give the memory back. The engine cannot be used after that."""
        if self._has_own_host:
            self._thread.stop()
        with self._lock.held():
            if not self._closed:
                self._closed = True
                self._host.remove(self)
                self.scheduler.end_all(CancelledError("the engine was closed"))
                self._backend.shut_down()

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        info = self.info
        return f"Engine({info.model!r}, {info.format}, {info.backend} {info.precision} on {info.device})"

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError("this engine is closed; load another")


def _result_of(job: Job) -> Any:
    """Wait for a job; an interruption cancels it."""
    deque(SegmentStream(job), maxlen=0)
    return job.wait_for_result()


def _check_answers(resume: Sequence[Answer]) -> None:
    """Raise OptionError for what is no answer of an earlier run."""
    for one in resume:
        require(
            isinstance(one, (LanguageGuess, WindowResult)),
            "resume takes the guess of each LanguageDetected and the window.result of each WindowDone, "
            f"not {type(one).__name__}",
        )


def _printing(on_event: EventSink | None) -> EventSink:
    """Return a sink that prints each segment with its times, and then calls `on_event`."""
    printer = Printer()

    def take(event: JobEvent) -> None:
        for segment in event.segments if isinstance(event, WindowDone) else ():
            start, end = format_timestamp(segment.start_s), format_timestamp(segment.end_s)
            printer.line(f"[{start} --> {end}] {segment.text}")
        if on_event is not None:
            on_event(event)

    return take
