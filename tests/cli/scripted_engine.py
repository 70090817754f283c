"""An engine without a model: a recording is a text file, and says what becomes of it.

Segments stand one per line, 2 s each; a line that begins with "!" is an event. Run as a program, this file is
the command `stapes` with that engine, for tests that need a process of their own.
"""

from __future__ import annotations

import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stapes.errors import AudioError, StapesWarning
from stapes.options import TranscribeOptions
from stapes.results import LanguageGuess, Segment, Transcript


@dataclass(frozen=True)
class Progress:
    done_s: float
    total_s: float


class Job:
    def __init__(self, source: str, on_progress: Callable[[Progress], None]) -> None:
        text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
        self.source, self.lines, self.on_progress = source, text.splitlines(), on_progress
        self.segments: list[Segment] = []
        self.cancelled = False

    def __iter__(self) -> Iterator[Segment]:
        for line in self.lines:
            if line.startswith("!"):
                self._event(line[1:])
                continue
            number = len(self.segments)
            self.segments.append(segment(number, f" {line}"))
            self.on_progress(Progress(2.0 * number + 2, 2.0 * len(self.lines)))
            yield self.segments[-1]

    @property
    def language_guess(self) -> None:
        return None

    def _event(self, name: str) -> None:
        if name == "not audio":
            raise AudioError(f"{self.source}: not a recording; convert it to wav or mp3 first")
        if name == "nameless error":
            raise AudioError("the recording broke off")
        if name == "bug":
            raise ZeroDivisionError("division by zero")
        if name == "warning":
            warnings.warn(StapesWarning(f"{self.source}: cut short; transcribed what is there"), stacklevel=1)
        if name == "library warning":
            warnings.warn("of no interest to a user", DeprecationWarning, stacklevel=1)
        if name == "interrupt":
            raise KeyboardInterrupt
        if name == "sleep":
            time.sleep(1 if "--fast" not in sys.argv else 0.2)

    def result(self) -> Transcript:
        text = "".join(segment.text for segment in self.segments)
        noted = tuple(f"{self.source}: kept in the result" for line in self.lines if line == "!noted")
        guess = LanguageGuess(language="en", probabilities={"en": 1.0})
        return Transcript(
            text=text,
            segments=tuple(self.segments),
            language="en",
            duration_s=2.0 * len(self.segments),
            language_guess=guess,
            warnings=noted,
        )

    def cancel(self) -> None:
        self.cancelled = True


class ScriptedEngine:
    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.options: list[TranscribeOptions] = []
        self.max_durations: list[float | None] = []
        self.closed = False

    def submit(
        self,
        audio: str,
        *,
        max_duration_s: float | None,
        on_progress: Callable[[Progress], None],
        options: TranscribeOptions,
    ) -> Job:
        self.jobs.append(Job(audio, on_progress))
        self.options.append(options)
        self.max_durations.append(max_duration_s)
        return self.jobs[-1]

    def __enter__(self) -> ScriptedEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True


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
