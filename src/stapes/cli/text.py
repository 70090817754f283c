"""Renders transcripts on standard output: as they are decoded, or whole, in the order of the command line."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from stapes.cli import events
from stapes.cli.output import Around, ResultLines
from stapes.languages import language_title
from stapes.output.writers import format_timestamp, one_line

if TYPE_CHECKING:
    from stapes.cli.command import Command


class OrderedLines:
    """Lines of several recordings, each recording's together, in the order of the command line.

    The first that has not ended streams; the lines of later ones wait for their turn.
    """

    def __init__(self, lines: ResultLines) -> None:
        self._lines = lines
        self._turn = 1
        self._waiting: dict[int, list[str]] = {}
        self._ended: set[int] = set()

    def write(self, number: int, *lines: str) -> None:
        """Write lines of recording `number` (1, 2, ...), now or when it is its turn."""
        if number == self._turn:
            self._lines.write(*lines)
        else:
            self._waiting.setdefault(number, []).extend(lines)

    def finish(self, number: int) -> None:
        """Note that a recording has no more lines, and write those of the next."""
        self._ended.add(number)
        while self._turn in self._ended:
            self._ended.remove(self._turn)
            self._turn += 1
            if lines := self._waiting.pop(self._turn, None):
                self._lines.write(*lines)


class TranscriptText:
    """Writes what a command shows of transcripts. around: a context that makes room on the screen."""

    def __init__(self, command: Command, around: Around = nullcontext) -> None:
        self._verbose = command.verbose
        self._to_files = bool(command.formats)
        self._lines = OrderedLines(ResultLines(around, only_copy=not command.formats))
        self._languages_shown: set[int] = set()

    def __call__(self, event: events.Event) -> None:
        """Write an event's lines. Raises as `ResultLines.write`."""
        match event:
            case events.LanguageKnown(recording, language) if self._verbose:
                if recording.number not in self._languages_shown:  # once, as the reference does
                    self._languages_shown.add(recording.number)
                    self._lines.write(recording.number, f"Detected language: {language_title(language)}")
            case events.SegmentDone(recording, segment) if self._verbose:
                times = f"{format_timestamp(segment.start_s)} --> {format_timestamp(segment.end_s)}"
                self._lines.write(recording.number, f"[{times}] {segment.text}")
            case events.SegmentDone(recording, segment) if self._verbose is None and not self._to_files:
                self._lines.write(recording.number, one_line(segment.text))
            case events.Transcribed(recording, transcript) if self._verbose is False and not self._to_files:
                self._lines.write(recording.number, *(one_line(segment.text) for segment in transcript.segments))
            case events.Closed(recording):
                self._lines.finish(recording.number)
