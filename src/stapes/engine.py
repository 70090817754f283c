"""READ FIRST. One model, ready to transcribe: load, transcribe, stream, submit.

The way through the four rings: a call here makes a job; `step` asks the scheduler (many recordings) for a batch;
its jobs ask their `recording.task` (one recording: the seek loop), which asks `decoding.window` (one window: prompt,
tries, result), which says what `backends` (one step of the network) is to do.
"""

from __future__ import annotations

import os
import sys
import threading
import warnings
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from stapes.audio.load import AudioSource, load_audio
from stapes.audio.mel import LogMel
from stapes.audio.pcm import Recording
from stapes.backends.base import Backend
from stapes.backends.selecting import open_backend
from stapes.checkpoint.base import Checkpoint
from stapes.engine_info import Capabilities, EngineInfo, EngineStatus, describe
from stapes.errors import BackendError, CancelledError, OptionError, StapesWarning
from stapes.languages import LANGUAGES
from stapes.options import PRECISIONS, TranscribeOptions
from stapes.recording.language import language_guess, language_step
from stapes.recording.task import RecordingTask
from stapes.results import LanguageGuess, Segment, Transcript
from stapes.scheduler import Batch, JobState, Progress, ProgressSink, ScheduledJob, Scheduler
from stapes.tokenizer import Tokenizer
from stapes.writers import format_timestamp

DEVICES = ("cpu",)


def load(
    model: str | os.PathLike[str] = "base",
    *,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    download: bool = True,
    backend: str = "auto",
) -> Engine:
    """Load a model.

    model: a name ("base", "large-v3", "turbo"), a hub id ("openai/whisper-small"), or a path to a Hugging Face or
    CTranslate2 folder, an OpenAI .pt or a ggml .bin.
    device: "cpu", or "auto", which is the same in this version.
    precision: "float32", exact; "bfloat16" and "int8", faster and nearly the same; "auto" picks the fastest that was
    measured to be as good for this model on this machine, else float32 (docs/native.md).
    threads: cores to use; None uses those that the process may use.
    download: whether a model that is not here may be fetched from the hub.
    backend: "native", "numpy", or "auto": the native library where it was built, else NumPy.
    Raises ModelNotFoundError, CheckpointError, OptionError, or BackendError if memory does not suffice.
    """
    from stapes.checkpoint.find import find_checkpoint  # noqa: PLC0415 (not needed by engines made in memory)

    _one_of("device", device, DEVICES)
    _one_of("precision", precision, PRECISIONS)
    if threads is not None and threads < 1:
        raise OptionError(f"threads must be at least 1, or None for all cores; got {threads}")
    checkpoint = find_checkpoint(model, download=download)
    return Engine(checkpoint, open_backend(checkpoint, name=backend, precision=precision, threads=threads))


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in (*known, "auto"):
        raise OptionError(f"{name} {value!r} is not in this version; there are: {', '.join(known)}, auto")


class Engine:
    """One model. Any thread may call; the model works for one caller at a time, for all jobs at once."""

    def __init__(self, checkpoint: Checkpoint, backend: Backend) -> None:
        """Take an open checkpoint and a backend that runs it; `load` does both.

        Raises CheckpointError where the weights turn out not to be what they should be.
        """
        self._checkpoint = checkpoint
        self._backend = backend
        checkpoint.verify()  # not earlier: a package's weights are hashed while the backend packs them
        self._tokenizer = Tokenizer(checkpoint.spec, checkpoint.vocabulary)
        self._lock = threading.RLock()
        self._n_submitted = 0
        self._closed = False
        self._running = False  # a batch is on its way through the backend
        self.scheduler = Scheduler(backend)

    # What people call.

    def transcribe(
        self,
        audio: AudioSource,
        *,
        verbose: bool | None = None,
        fp16: bool | None = None,  # noqa: ARG002 (accepted for those who come from openai/whisper)
        **keywords: Any,
    ) -> Transcript:
        """Transcribe a recording.

        audio: a path, "-" (standard input), a file's bytes, a binary file object, or a NumPy array (samples,) of
        floats at 16 kHz, or at `sample_rate` Hz.
        verbose: True prints each segment with its times as it is decoded; False and None print nothing.
        fp16: accepted and without effect: the precision is chosen by `load`.
        keywords: those of `submit`: `sample_rate`, `max_duration_s`, `on_progress`, `options`, or the keywords of
        openai/whisper's transcribe() by name (docs/options.md).
        Raises AudioError, OptionError.
        """
        job = self.submit(audio, **keywords)
        for segment in SegmentStream(job):
            if verbose:
                start, end = format_timestamp(segment.start_s), format_timestamp(segment.end_s)
                sys.stdout.write(f"[{start} --> {end}] {segment.text}\n")
        return job.result()

    def stream(self, audio: AudioSource, **keywords: Any) -> SegmentStream:
        """Give segments as they are decoded: a window's are given before the next window is encoded.

        Takes what `submit` takes, and checks it now, before the first segment is asked for. Whoever stops asking
        cancels the rest.
        """
        return SegmentStream(self.submit(audio, **keywords))

    def detect_language(
        self, audio: AudioSource, *, sample_rate: int | None = None, max_duration_s: float | None = None
    ) -> LanguageGuess:
        """Tell which language is spoken in a recording's first 30 s, with every language's probability.

        Raises OptionError if the model knows English only, AudioError if there is no audio.
        """
        if not self._tokenizer.multilingual:
            raise OptionError(f"{self._checkpoint.name} knows English only: there is nothing to detect")
        with load_audio(audio, sample_rate=sample_rate, max_duration_s=max_duration_s) as recording:
            mel = LogMel(recording, self._backend.spec.n_mels, kernel=self._backend.log10_mel).opening()
        with self._lock:
            self._check_open()
            (window,) = self._backend.encode(mel[None])
            row = self._backend.open(window)
            try:
                (result,) = self._backend.step([language_step(row, self._tokenizer)])
            finally:
                self._backend.close(row)
                self._backend.release(window)
        return language_guess(result.probes[0], self._tokenizer)

    def submit(
        self,
        audio: AudioSource,
        *,
        sample_rate: int | None = None,
        max_duration_s: float | None = None,
        on_progress: ProgressSink | None = None,
        options: TranscribeOptions | None = None,
        **keywords: Any,
    ) -> Job:
        """Put a recording into the schedule; the job is worked on while anyone waits for any job.

        audio: as for `transcribe`.   sample_rate: of an array, in Hz.   max_duration_s: refuse longer recordings.
        on_progress: called with Progress after every window, from the thread that works.
        options: all options at once, instead of keywords.
        """
        if options is not None and keywords:
            raise OptionError(f"give either options or keywords, not both (got {next(iter(keywords))})")
        options = options or TranscribeOptions.from_keywords(keywords)
        self._check_open()
        self._warn_of_mismatch(options)
        recording = load_audio(audio, sample_rate=sample_rate, max_duration_s=max_duration_s)
        return self.submit_recording(recording, options, on_progress)

    def submit_recording(
        self, recording: Recording, options: TranscribeOptions, on_progress: ProgressSink | None = None
    ) -> Job:
        """Put samples that are already loaded into the schedule; the engine closes them."""
        try:
            with self._lock:
                self._check_open()
                job = ScheduledJob(RecordingTask(recording, self._backend, self._tokenizer, options), on_progress)
                self.scheduler.admit(job)
                self._n_submitted += 1
        except BaseException:
            recording.close()
            raise
        return Job(self, job)

    # The heart.

    def step(self) -> bool:
        """Do one unit of model work for whichever jobs are ready; False if there is none."""
        with self._lock:
            self._check_open()
            batch = self.scheduler.next_batch()
            if batch is not None:
                self._run(batch)
            return batch is not None

    def _run(self, batch: Batch) -> None:
        self._running = True
        try:
            answer = batch.run(self._backend)
        except Exception as error:  # the batch's jobs fail with it; all others go on
            self.scheduler.fail(batch, error)
        except BaseException:  # Ctrl-C in the middle of a step: its rows cannot be trusted any more
            self.scheduler.fail(batch, CancelledError("interrupted"))
            raise
        else:
            self.scheduler.account(batch, answer)
        finally:
            self._running = False

    def run(self) -> None:
        """Work until no job is left."""
        while self.step():
            pass

    def abandon(self, job: ScheduledJob) -> None:
        """End a job that nobody waits for: now, or, in the middle of a step, before the next one.

        Never waits: the garbage collector calls this, at any moment and from any thread.
        """
        job.abandoned = True
        if self._lock.acquire(blocking=False):
            try:
                if not self._running:
                    self.scheduler.cancel(job)
            finally:
                self._lock.release()

    def cancel(self, job: ScheduledJob) -> None:
        """End a job between two steps; a job that has ended stays as it is."""
        with self._lock:
            self.scheduler.cancel(job)

    # What it is.

    @property
    def info(self) -> EngineInfo:
        """The model, its sizes, where it came from, and what it costs in memory."""
        return describe(self._checkpoint, self._backend.info, self._tokenizer)

    @property
    def capabilities(self) -> Capabilities:
        """What this model can be asked for."""
        return Capabilities.of(self._checkpoint.spec, self._tokenizer, self._backend.info.precisions)

    def status(self) -> EngineStatus:
        """How many jobs there are, and in which state."""
        with self._lock:
            states = [job.state for job in self.scheduler.jobs]
        queued = states.count(JobState.QUEUED)
        return EngineStatus(queued=queued, running=len(states) - queued, submitted=self._n_submitted)

    def close(self) -> None:
        """Cancel what is left and give the memory back. The engine cannot be used after that."""
        with self._lock:
            for job in list(self.scheduler.jobs):
                self.scheduler.cancel(job)
            if not self._closed:
                self._closed = True
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

    def _warn_of_mismatch(self, options: TranscribeOptions) -> None:
        """Say so where a model cannot do what is asked; the transcription goes on, as in the reference."""
        name, speech = self._checkpoint.name, options.speech
        if speech.task == "translate" and not self.capabilities.translates:
            why = "knows English only" if not self._tokenizer.multilingual else "was not trained to translate"
            warnings.warn(f"{name} {why}: the text will be in the spoken language", StapesWarning, stacklevel=4)
        if not self._tokenizer.multilingual and speech.language_code not in (None, next(iter(LANGUAGES))):
            warnings.warn(
                f"{name} knows English only; language {speech.language!r} has no effect", StapesWarning, stacklevel=4
            )


class SegmentStream(Iterator["Segment"]):
    """A job's segments as they are decoded. Closing it, or dropping it, cancels what is left of the job."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._segments = iter(job)

    def __next__(self) -> Segment:
        try:
            return next(self._segments)
        except BaseException:  # the end, a failure, or Ctrl-C: nobody waits any more
            self.close()
            raise

    def close(self) -> None:
        """Cancel the job, if it has not ended."""
        self.job.cancel()

    def __del__(self) -> None:
        """Nobody can ask for more."""
        self.job.abandon()


class Job:
    """A recording that has been submitted. Iterate over it for segments; `result` gives the whole."""

    def __init__(self, engine: Engine, job: ScheduledJob) -> None:
        self._engine = engine
        self._job = job

    @property
    def state(self) -> JobState:
        """Where it stands: queued, running, done, failed or cancelled."""
        return self._job.state

    @property
    def progress(self) -> Progress:
        """How much of the recording is done."""
        return self._job.progress

    @property
    def language_guess(self) -> LanguageGuess | None:
        """Which language was detected; None if it was given, or is not known yet."""
        return self._job.language_guess

    def __iter__(self) -> Iterator[Segment]:
        """Give segments as windows end, working for all jobs meanwhile. Raises what made the job fail."""
        while True:
            while self._job.segments:
                yield self._job.segments.popleft()
            if self._job.state.ended:
                break
            self._engine.step()
        if self._job.error is not None:
            raise self._job.error

    def result(self) -> Transcript:
        """Work until this job has ended, and give its transcript. Raises what made it fail."""
        while not self._job.state.ended:
            self._engine.step()
        if self._job.error is not None:
            raise self._job.error
        if self._job.transcript is None:
            raise CancelledError("the job was cancelled")
        return self._job.transcript

    def abandon(self) -> None:
        """End the job as soon as may be, without waiting."""
        self._engine.abandon(self._job)

    def cancel(self) -> None:
        """End the job now: `result` and iteration raise CancelledError. Nothing happens if it has ended."""
        self._engine.cancel(self._job)
