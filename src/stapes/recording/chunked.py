"""Chunked mode: a recording is cut at its quietest moments into chunks that are decoded side by side.

Not the reference's algorithm: a chunk has timestamps, the no-speech check and temperature fallback, but no prompt from
the text before it. Cuts are found as they are needed, from the samples alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from stapes.audio.mel import FRAMES_PER_SECOND, HOP_LENGTH, N_FRAMES
from stapes.audio.pcm import Samples
from stapes.backends.base import FloatArray
from stapes.errors import OptionError
from stapes.languages import language_token
from stapes.options import Clips, TranscribeOptions
from stapes.recording.base import BaseTask, TaskInputs, WindowStream
from stapes.recording.events import JobEvent, LanguageDetected
from stapes.recording.language.per_window import most_spoken
from stapes.recording.requests import Answer
from stapes.recording.task import RecordingTask, window_cost
from stapes.recording.time_map import clips_in_frames
from stapes.results import Flag, Segment, Transcript, Window

#: A chunk is at most as long as a window, and is not cut before this: 18 s.
_SHORTEST_FRAMES = 1800
#: A cut is in the middle of the quietest stretch of this length: 0.2 s, a short pause between words.
_PAUSE_FRAMES = 20
#: chunks begun at once; the scheduler's bound on memory may hold fewer
_MOST_AT_ONCE = 16


def levels(samples: Samples) -> FloatArray:
    """Return the mean square of every whole frame of 10 ms: (n // 160,) float32."""
    frames = samples[: len(samples) // HOP_LENGTH * HOP_LENGTH].reshape(-1, HOP_LENGTH)
    found: FloatArray = np.einsum("ij,ij->i", frames, frames) / np.float32(HOP_LENGTH)
    return found


def quietest_cut(level: FloatArray) -> int:
    """Return where to cut a stretch longer than a window: the middle of its quietest 0.2 s, the latest of equals.

    level: of the frames of one window (3000,).   Returns a frame from 18 s on, at most 3000.
    """
    sums = np.convolve(level[_SHORTEST_FRAMES:], np.ones(_PAUSE_FRAMES, np.float32), mode="valid")
    latest_quietest = len(sums) - 1 - int(np.argmin(sums[::-1]))
    return _SHORTEST_FRAMES + latest_quietest + _PAUSE_FRAMES // 2


def chunk_bounds(read: Callable[[int, int], Samples], clips: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield the chunks (first frame, end frame) of clips in frames; each is 30 s long at most.

    read: returns samples start..stop.
    """
    for first, end in clips:
        start = first
        while end - start > N_FRAMES:
            cut = start + quietest_cut(levels(read(start * HOP_LENGTH, (start + N_FRAMES) * HOP_LENGTH)))
            yield start, cut
            start = cut
        if start < end:
            yield start, end


@dataclass(eq=False)
class _Chunk:
    """A chunk in work."""

    task: RecordingTask
    end: int  # frame
    events: deque[JobEvent] = field(default_factory=deque)  # that wait for earlier chunks


class ChunkedTask(BaseTask):
    """Runs one recording's chunks, a RecordingTask for each."""

    def __init__(self, inputs: TaskInputs, options: TranscribeOptions, resume: Sequence[Answer] = ()) -> None:
        """Takes what `RecordingTask` takes."""
        super().__init__(inputs, window_cost(inputs, options))
        self._options = options
        self._multilingual = self._tokenizer.multilingual and options.speech.multilingual  # each chunk detects its own
        self._segments: list[Segment] = []
        self._windows: list[Window] = []
        self._flags: list[Flag] = []
        self._texts: list[str] = []
        self._n_done = 0  # frames
        clips = clips_in_frames(options.clips.clip_timestamps, inputs.mel.content_frames)
        self._bounds = chunk_bounds(self._recording.read, [clip for clip in clips if clip[0] < clip[1]])
        #: in the order of the recording; the others' events wait for the first one's. A recording without any has an
        #: empty one, to report its language
        self._chunks: deque[_Chunk] = deque([self._made(next(self._bounds, (0, 0)))])
        #: known once the first chunk has detected it; no other chunk is begun before
        self._language = self._chunks[0].task.language
        self.first_events = tuple(event for answer in resume for event in self._resumed(answer))

    def _made(self, bounds: tuple[int, int]) -> _Chunk:
        start_s, end_s = (frame / FRAMES_PER_SECOND for frame in bounds)
        options = replace(self._options, clips=Clips(clip_timestamps=(start_s, end_s)))
        if self.language_guess is not None and not self._multilingual:
            language = language_token(self.language_guess.language)  # a language in any spelling becomes a code
            options = replace(options, speech=replace(options.speech, language=language))
        return _Chunk(RecordingTask(replace(self._inputs, recording=self._recording.shared()), options), bounds[1])

    def _resumed(self, answer: Answer) -> list[JobEvent]:
        if not self._chunks:
            raise OptionError(f"{self._recording.name}: what is to be resumed belongs to another recording or options")
        self._chunks[0].events.extend(self._chunks[0].task.resume(answer))
        found = self._collect()
        self._begin_more(1)
        return found

    def _begin_more(self, most: int) -> None:
        """Begin chunks, once the first has detected the language."""
        while (self._language is not None or self._multilingual) and len(self._chunks) < most:
            bounds = next(self._bounds, None)
            if bounds is None:
                break
            self._chunks.append(self._made(bounds))

    def _collect(self) -> list[JobEvent]:
        """Return the events without a gap before them, with numbered segments; drop chunks that are done."""
        found: list[JobEvent] = []
        while self._chunks:
            first = self._chunks[0]
            while first.events:
                found.append(self._numbered(first.events.popleft()))
            if not first.task.done:
                break
            self._texts.append(first.task.result().text)
            self._n_done = first.end
            first.task.close()
            self._chunks.popleft()
            self._begin_more(1)
        return found

    def _numbered(self, event: JobEvent) -> JobEvent:
        if isinstance(event, LanguageDetected):
            if not self._multilingual:
                self.language_guess = self._chunks[0].task.language_guess
                self._language = self._chunks[0].task.language
            return event
        numbered = tuple(replace(one, id=len(self._segments) + i) for i, one in enumerate(event.segments))
        self._segments.extend(numbered)
        self._windows.append(event.window)
        self._flags.extend(event.flags)
        return replace(event, segments=numbered)

    def streams(self) -> list[RecordingTask]:
        """Return every chunk in work, in the order of the recording."""
        self._begin_more(_MOST_AT_ONCE)
        return [chunk.task for chunk in self._chunks if not chunk.task.done]

    def in_order(self, stream: WindowStream, events: Sequence[JobEvent]) -> list[JobEvent]:
        """Keep a chunk's events until all before them are complete; return complete ones, with numbered segments."""
        chunk = next(one for one in self._chunks if one.task is stream)
        chunk.events.extend(events)
        return self._collect()

    @property
    def _frames_done(self) -> int:
        return self._n_done

    @property
    def done(self) -> bool:
        """Whether all chunks are done."""
        self._collect()  # no events: those of the first chunk have left with its last window
        return not self._chunks

    def result(self) -> Transcript:
        """Return everything found so far."""
        return Transcript(
            text="".join(self._texts),
            segments=tuple(self._segments),
            language=most_spoken(self._segments) or self._language or "",
            duration_s=self.duration_s,
            language_as_given=self._options.speech.language,
            language_guess=self.language_guess,
            windows=tuple(self._windows),
            warnings=self._recording.warnings,
            flags=tuple(self._flags),
        )

    def close(self) -> None:
        """Release rows, windows and recording; may be called at any time, and twice."""
        while self._chunks:
            self._chunks.pop().task.close()
        super().close()
