"""An engine without a model: a recording is a text file, and says what becomes of it.

Each line is a window of 2 s and its segment; a line that begins with "!" is an event. One thread works for all jobs,
a line of each in turn. Run as a program, this file is the command `stapes` with that engine, for tests that need a
process of their own.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from stapes.errors import AudioError, CancelledError, OptionError, StapesWarning
from stapes.options import Speech, TranscribeOptions
from stapes.recording.events import EventSink, LanguageDetected, WindowDone
from stapes.results import Flag, LanguageGuess, Segment, Transcript, Window, WindowResult

#: for a test: whether no answer of an earlier run is taken
refuses_resume = False
INVENTED = Flag(guard="silence", start_s=0.5, end_s=1.25, reason="no speech here", text="Thank you.")
ENGLISH = LanguageGuess(language="en", probabilities={"en": 1.0})


class State(Enum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class Progress:
    done_s: float
    total_s: float


class Job:
    def __init__(self, source: Any, on_event: EventSink, resume: Sequence[Any]) -> None:
        if hasattr(source, "read"):
            self.source, text = "-", source.read(1 << 20).decode()
        else:
            self.source, text = source, Path(source).read_text(encoding="utf-8")
        self.lines = text.splitlines()
        self.on_event, self.resume = on_event, list(resume)
        self.n_jobs: Callable[[], int] = lambda: 1
        self.segments: list[Segment] = []
        self.state = State.QUEUED
        self.error: BaseException | None = None
        self.cancelled = False
        self._place = 0
        self._language_is_known = False
        self._callbacks: list[Callable[[Any], None]] = []
        self._changed = threading.Lock()
        total_s = 2.0 * sum(not line.startswith("!") for line in self.lines)
        self.progress = Progress(0.0, total_s)

    def step(self) -> None:
        try:
            self._step()
        except Exception as error:
            self._end(State.FAILED, error)

    def _step(self) -> None:
        if self.cancelled:
            self._end(State.FAILED, CancelledError("the job was cancelled"))
        elif not self._language_is_known:
            self._language_is_known = True
            resumed = bool(self.resume)
            guess = self.resume.pop(0) if resumed else ENGLISH
            self.on_event(LanguageDetected(guess=guess, language=guess.language, resumed=resumed))
        elif self._place == len(self.lines):
            self._end(State.DONE)
        else:
            line, self._place = self.lines[self._place], self._place + 1
            if line.startswith("!"):
                if not self.resume:
                    self.state = State.RUNNING
                    self._event(line[1:])
            else:
                self._window(f" {line}")

    def _window(self, text: str) -> None:
        number, resumed = len(self.segments), bool(self.resume)
        result = self.resume.pop(0) if resumed else window_result(text)
        if not isinstance(result, WindowResult):
            raise OptionError("what is to be resumed belongs to another recording")
        if not resumed:
            self.state = State.RUNNING
        self.segments.append(segment(number, result.text))
        window = Window(seek=200 * number, n_frames=200, next_seek=200 * number + 200, skipped=False, result=result)
        self.progress = Progress(2.0 * number + 2, self.progress.total_s)
        flags = (INVENTED,) if "!invented" in self.lines and not number else ()
        self.on_event(WindowDone(window=window, segments=(self.segments[-1],), flags=flags, resumed=resumed))

    def _end(self, state: State, error: BaseException | None = None) -> None:
        with self._changed:
            self.state, self.error = state, error
            callbacks = self._callbacks
        for call in callbacks:
            call(self)

    def when_ended(self, call: Callable[[Any], None]) -> None:
        with self._changed:
            ended = self.ended
            if not ended:
                self._callbacks.append(call)
        if ended:
            call(self)

    @property
    def ended(self) -> bool:
        return self.state in (State.DONE, State.FAILED)

    def _event(self, name: str) -> None:
        if name == "nameless error":
            raise AudioError("the recording broke off")
        if name == "not audio":
            raise AudioError(f"{self.source}: not a recording; convert it to wav or mp3 first")
        if name == "bug":
            raise ZeroDivisionError("division by zero")
        if name == "library warning":
            warnings.warn("of no interest to a user", DeprecationWarning, stacklevel=1)
        if name == "interrupt" or (name == "interrupt once" and not self._was_here()):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)  # the handler runs in the main thread, which a busy machine may keep waiting
        if name == "gather" and self.n_jobs() < 3:  # until then
            self._place -= 1
            time.sleep(0.01)
        if name == "sleep":
            time.sleep(1 if "--fast" not in sys.argv else 0.2)

    def _was_here(self) -> bool:
        mark = Path(f"{self.source}.interrupted")
        was_here = mark.exists()
        mark.touch()
        return was_here

    def result(self) -> Transcript:
        if self.error is not None:
            raise self.error
        return Transcript(
            text="".join(segment.text for segment in self.segments),
            segments=tuple(self.segments),
            language="en",
            duration_s=2.0 * len(self.segments),
            language_guess=ENGLISH,
            flags=(INVENTED,) * ("!invented" in self.lines),
            warnings=tuple(f"{self.source}: kept in the result" for line in self.lines if line == "!noted"),
        )

    def cancel(self) -> None:
        self.cancelled = True


class ScriptedEngine:
    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.options: list[TranscribeOptions] = []
        self.max_durations: list[float | None] = []
        self.most_at_once = 0
        self.closed = False
        self.info = SimpleNamespace(
            precision_measured=True,
            model="scripted", path=None, format="memory", storage="float32", spec=ScriptedSpec(), n_vocab=100,
            languages=("en", "de"), backend="scripted", device="cpu", precision="float32", isa=None,
            window_bytes=0, row_bytes=0,
        )  # fmt: skip
        self._work = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="scripted engine", daemon=True)
        self._thread.start()

    def check_speech(self, speech: Speech) -> None:
        if speech.language_code not in (None, *self.info.languages, "fr"):
            raise OptionError(f"this model does not know {speech.language_code}")

    def submit(
        self,
        audio: Any,
        *,
        max_duration_s: float | None,
        options: TranscribeOptions,
        on_event: EventSink,
        resume: Sequence[Any],
        check: Callable[[], None],
    ) -> Job:
        check()
        if resume and refuses_resume:
            raise OptionError("what is to be resumed belongs to another recording")
        job = Job(audio, on_event, resume)
        for line in job.lines[:1]:
            if line in ("!not audio", "!warning"):
                message = f"{audio}: not a recording; convert it to wav or mp3 first"
                if line == "!not audio":
                    raise AudioError(message)
                warnings.warn(StapesWarning(f"{audio}: cut short; transcribed what is there"), stacklevel=1)
        with self._work:
            self.jobs.append(job)
            job.n_jobs = lambda: len(self.jobs)
            self.options.append(options)
            self.max_durations.append(max_duration_s)
            self.most_at_once = max(self.most_at_once, sum(not one.ended for one in self.jobs))
            self._work.notify()
        return job

    def _run(self) -> None:
        while True:
            with self._work:
                self._work.wait_for(lambda: self.closed or any(not job.ended for job in self.jobs))
                if self.closed:
                    return
                jobs = [job for job in self.jobs if not job.ended]
            for job in jobs:
                job.step()

    def __enter__(self) -> ScriptedEngine:
        return self

    def __exit__(self, *_: object) -> None:
        with self._work:
            self.closed = True
            self._work.notify()
        self._thread.join(10)


@dataclass(frozen=True)
class ScriptedSpec:
    n_text_ctx: int = 448


def window_result(text: str) -> WindowResult:
    return WindowResult(
        tokens=(1, 2), text=text, avg_logprob=-0.5, no_speech_prob=0.0, temperature=0.0, compression_ratio=1.0
    )


def segment(number: int, text: str) -> Segment:
    return Segment(
        id=number,
        seek=0,
        start_s=2.0 * number,
        end_s=2.0 * number + 2,
        text=text,
        tokens=(1, 2),
        temperature=0.0,
        avg_logprob=-0.5,
        compression_ratio=1.0,
        no_speech_prob=0.0,
    )


def _load(command: object) -> Any:
    return ScriptedEngine()


def run() -> int:
    from stapes.cli import main as command  # noqa: PLC0415 (the module, whose name is that of its function)

    command.load_engine = _load
    arguments: list[Any] = [word for word in sys.argv[1:] if word != "--fast"]
    return command.main(arguments)


if __name__ == "__main__":
    # A shell's background jobs are started with Ctrl-C ignored, and so would be whatever they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(run())
