"""What the scheduler works on: a task is one recording, and has one or more streams of windows.

VAD:     events = stream.detect_speech()                   where stream.needs_vad
encode:  stream.attach(window encoded from stream.mel())   where stream.needs_window
decode:  events = stream.accept(share of the answers to what stream.add_to added)
report:  events = task.in_order(stream, events)

A task that is not done may have nothing to do: it waits for input from another thread, which then calls `task.wake()`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from stapes.audio.mel import FRAMES_PER_SECOND, N_FRAMES, LogMel
from stapes.audio.pcm import Recording
from stapes.backends.base import FRAMES_PER_POSITION, Backend, FloatArray, WindowId
from stapes.backends.batch import AnswerShare, StepBuilder, StepLoad
from stapes.options import Task
from stapes.recording.events import JobEvent
from stapes.recording.passes import WindowSlot
from stapes.recording.time_map import Seam, TimeMap
from stapes.recording.words.alignment import AlignmentSetting, Heads
from stapes.results import LanguageGuess
from stapes.tokenizer import Tokenizer
from stapes.vad.detector import OpenVadModel, SpeechDetector


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskInputs:
    """A recording, and the model that a task runs on it."""

    recording: Recording  # the task closes it
    mel: LogMel  # of the recording
    backend: Backend
    tokenizer: Tokenizer
    heads: Heads = ()  # alignment heads, for word times
    open_vad: OpenVadModel | None = None  # None: there is no VAD network
    time_map: TimeMap | None = None  # to the time of results: of the file's container, or before silence was cut out
    seams: Sequence[Seam] = ()  # where the recording was joined from spans of speech

    @property
    def is_exact(self) -> bool:
        """Whether the network computes in float32, so that results are the reference's."""
        return self.backend.info.precision == "float32"

    def alignment_setting(self, language: str | None, task: Task) -> AlignmentSetting:
        """Return what aligning each window takes. Raises OptionError for a language that the model does not know."""
        return AlignmentSetting.make(self.backend.spec, self.tokenizer, self.heads, language, task, N_FRAMES)

    def window_mel(
        self, frames: Sequence[tuple[int, int]], voices: Sequence[tuple[int, int]], length: int
    ) -> FloatArray:
        """Return the log-mel (n_mels, length) of a window.

        frames: stretches of the recording.   voices: speech in them whose level is raised if it is low, counted from
        the first frame; none: the window is normalised like the whole recording.
        """
        return self.mel.with_quiet_gain(frames, voices, length) if voices else self.mel.joined(frames, length)


@dataclass(frozen=True, slots=True)
class WindowCost:
    """The most that one window takes while it is held, beside its own memory."""

    rows: int  # decoder rows that are open at once
    answer_bytes: int = 0  # of one step, while that lasts; see `RowExtras.answer_bytes`
    positions: int | None = None  # of the window; None: as many as a full one has


class BaseTask(ABC):
    """One recording on its way through the model."""

    first_events: Sequence[JobEvent] = ()  # known from an earlier run
    language_guess: LanguageGuess | None = None  # None if the language was given, or is not known yet
    #: says that there may be something to do again; its job sets it, any thread may call it
    wake: Callable[[], None] = staticmethod(lambda: None)

    def __init__(self, inputs: TaskInputs, window_cost: WindowCost) -> None:
        self.window_cost = window_cost  # of a full window
        self._inputs = inputs
        self._recording = inputs.recording
        self._backend = inputs.backend
        self._tokenizer = inputs.tokenizer
        self._time_map = inputs.time_map

    def prepare(self, check: Callable[[], None]) -> None:
        """Find the maximum of the log-mel, for which all samples are read: seconds for hours of audio.

        check: called now and then; what it raises ends this.
        """
        self._inputs.mel.find_maximum(check)

    @property
    def duration_s(self) -> float:
        """The recording's length in seconds."""
        return self._recording.duration_s if self._time_map is None else self._time_map.duration_s

    @property
    def done_s(self) -> float:
        """How much of the recording is done, in seconds."""
        seconds = self._frames_done / FRAMES_PER_SECOND
        return seconds if self._time_map is None else self._time_map.end(seconds)

    @property
    @abstractmethod
    def _frames_done(self) -> int:
        """How much of the recording is done, in frames."""

    @property
    @abstractmethod
    def done(self) -> bool:
        """Whether the whole recording is done."""

    @abstractmethod
    def streams(self) -> Sequence[WindowStream]:
        """Return what can be worked on side by side, the most urgent first."""

    @abstractmethod
    def in_order(self, stream: WindowStream, events: Sequence[JobEvent]) -> Sequence[JobEvent]:
        """Take the events of one stream; return all that can be reported now, in the recording's order."""

    @abstractmethod
    def result(self) -> Any:
        """Return what the job is for: a recording's transcript so far, or another task's answer once it is done."""

    def close(self) -> None:
        """Release rows, windows and recording; may be called at any time, and twice."""
        self._recording.close()


class WindowStream(BaseTask):
    """A task that needs one window after another. Holds at most one, and runs passes on it that end in answers."""

    def __init__(self, inputs: TaskInputs, window_cost: WindowCost) -> None:
        super().__init__(inputs, window_cost)
        self._vad = None if inputs.open_vad is None else SpeechDetector(inputs.recording, inputs.open_vad)
        self._slot = WindowSlot[Any](inputs.backend)
        self._held_frames = N_FRAMES

    def streams(self) -> Sequence[WindowStream]:
        """Return the task itself: where a window begins is known once the one before it is done."""
        return (self,)

    def in_order(self, _stream: WindowStream, events: Sequence[JobEvent]) -> Sequence[JobEvent]:
        """Return the events: the stream's order is the recording's."""
        return events

    @property
    def needs_vad(self) -> bool:
        """Whether `detect_speech` comes next."""
        return False

    @property
    def needs_window(self) -> bool:
        """Whether the next thing to do is to encode what `mel` returns."""
        return not self._slot.is_there and not self.done and not self.needs_vad

    @property
    def holds_window(self) -> bool:
        """Whether it holds an encoded window."""
        return self._slot.is_there

    @property
    def window_is_encoded(self) -> bool:
        """Whether a step over the window that it holds need not wait for a device."""
        return self._backend.is_encoded(self._slot.window)

    def detect_speech(self) -> Sequence[JobEvent]:
        """Run VAD for about as long as a step takes; return the events of windows that this settles."""
        return ()

    @property
    def window_frames(self) -> int:
        """How many frames the window to encode has: 3000, or a multiple of 64 below."""
        return N_FRAMES

    @property
    def cost(self) -> WindowCost:
        """What the window takes that is held, or else the one to encode."""
        frames = self._held_frames if self._slot.is_there else self.window_frames
        if frames == N_FRAMES:
            return self.window_cost
        return replace(self.window_cost, positions=frames // FRAMES_PER_POSITION)

    @abstractmethod
    def mel(self) -> FloatArray:
        """Return the log-mel (n_mels, window_frames) of the window to encode."""

    def attach(self, window: WindowId) -> None:
        """Take the window that was encoded from `mel`."""
        self._held_frames = self._backend.positions(window) * FRAMES_PER_POSITION
        self._slot.take(window)
        self._begin()

    @abstractmethod
    def _begin(self) -> None:
        """Start the next pass on the window."""

    def give_way(self) -> None:
        """Release the window and close its pass, in the middle of it: the same window is needed again then.

        What `accept` has returned stands; the pass begins again from its start, to the same result.
        """
        self._slot.release()

    def load(self) -> StepLoad:
        """Return what the next step takes; nothing while a window is needed."""
        return self._slot.load()

    def add_to(self, step: StepBuilder) -> None:
        """Add the rows to step."""
        self._slot.add_to(step)

    def accept(self, share: AnswerShare) -> Sequence[JobEvent] | None:
        """Take the answers to what `add_to` added; return events of windows that this ends. None: the pass goes on."""
        answer = self._slot.accept(share)
        return None if answer is None else self._accept(answer)

    @abstractmethod
    def _accept(self, answer: Any) -> Sequence[JobEvent]:
        """Take a pass's result; start another pass on the window, or release it."""

    def close(self) -> None:
        """Release rows, window and recording; may be called at any time, and twice."""
        self._slot.release()
        super().close()
