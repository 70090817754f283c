"""One recording on its way through the model: its seek loop, and the window that is being decoded.

The scheduler asks a task what it needs (a window encoded, or rows stepped) and brings it what came of that; many
tasks share a batch. Knows nothing of other recordings.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from stapes.audio.mel import N_FRAMES, LogMel
from stapes.audio.pcm import Recording
from stapes.backends.base import Backend, FloatArray, RowResult, RowStep, WindowId
from stapes.checkpoint.base import ModelSpec
from stapes.decoding.window import WindowDecoder, WindowSetting
from stapes.errors import OptionError
from stapes.options import TranscribeOptions
from stapes.recording.events import JobEvent, LanguageDetected, WindowDone
from stapes.recording.language.question import LanguageQuestion, candidates_of
from stapes.recording.loop import SeekLoop
from stapes.recording.passes import WindowSlot
from stapes.recording.protocols import WindowCost, WindowStream
from stapes.recording.requests import Align, Answer, Decode, Detect, DetectSpeech, Request
from stapes.recording.time_map import Seam, TimeMap
from stapes.recording.words.alignment import AlignmentSetting, Heads, WindowAligner, alignment_bytes
from stapes.results import Alignment, LanguageGuess, Segment, Transcript, WindowResult
from stapes.tokenizer import Tokenizer
from stapes.vad.detector import OpenVadModel, SpeechDetector

_LOG = logging.getLogger("stapes")
#: windows that are listened to before others have their turn; each takes 12 to 18 ms, as long as a step of many rows
_MOST_HEARD = 2
_QUESTIONS = {LanguageGuess: Detect, WindowResult: Decode, Alignment: Align}


class RecordingTask:
    """Drives one SeekLoop. Ends when `done`; `close` gives everything back at any moment.

    Satisfies `RecordingWork`, and `WindowStream`: its only one.
    """

    def __init__(
        self,
        recording: Recording,
        backend: Backend,
        tokenizer: Tokenizer,
        options: TranscribeOptions,
        resume: Sequence[Answer] = (),
        *,
        heads: Heads = (),
        listener: OpenVadModel | None = None,
        time_map: TimeMap | None = None,
        spliced_at: Sequence[Seam] = (),
        mel: LogMel | None = None,
    ) -> None:
        """Take a recording, which the task closes.

        resume: the answers of an earlier, broken run with the same recording, model and options.
        heads: whose attention follows the sound, for word times.
        listener: makes what hears speech, for guards that need it.
        time_map: to the time that is told: of the recording that this one was cut from, or of its container.
        spliced_at: where it was put together.
        mel: the recording's spectrogram, where it is there already.
        Raises OptionError if the options do not suit the model, or the answers do not suit the recording.
        """
        spec = backend.spec
        self._recording = recording
        self._backend = backend
        self._tokenizer = tokenizer
        self._options = options
        self._mel = mel or LogMel(recording, spec.n_mels, kernel=backend.log10_mel)
        self._loop = SeekLoop(
            content_frames=self._mel.content_frames,
            window_frames=N_FRAMES,
            n_audio_ctx=spec.n_audio_ctx,
            n_text_ctx=spec.n_text_ctx,
            tokenizer=tokenizer,
            options=options,
            has_vad=listener is not None,
            spliced_at=spliced_at,
        )
        self._ear = None if listener is None else SpeechDetector(recording, listener)
        self._time_map = time_map
        self._n_flags_told = 0
        # A language that is to be detected is one that the model knows: any other option can be checked now.
        self._setting = WindowSetting.make(spec, tokenizer, options, self._loop.language)
        self._candidates = candidates_of(tokenizer, options.speech)
        self._heads = heads
        self._hand = WindowSlot[LanguageGuess | WindowResult | Alignment](backend)
        self._encoded: tuple[int, int] | None = None  # which frames the window holds: first, how many
        self._untold: tuple[list[Segment], bool] | None = None  # of a window, and whether it was known from earlier
        self.hear()
        self._first_events = tuple(event for answer in resume for event in self.take_answer(answer))

    def take_answer(self, answer: Answer) -> list[JobEvent]:
        """Take an answer of an earlier run: the loop then stands where it stood."""
        if not isinstance(self._loop.next(), _QUESTIONS[type(answer)]):
            raise OptionError(f"{self._recording.name}: what is to be resumed belongs to another recording or options")
        events = self._told(answer, resumed=True)
        while self.needs_vad:
            events += self.hear()
        return events

    def _told(self, answer: Answer, *, resumed: bool = False) -> list[JobEvent]:
        """Give an answer to the loop, and what came of it to whoever listens."""
        segments = self._loop.accept(answer)
        if isinstance(answer, LanguageGuess):
            whole = self._loop.language_guess
            language = None if whole is None else whole.language
            return [LanguageDetected(guess=answer, language=language, resumed=resumed), *self.hear()]
        self._untold = segments, resumed
        return self.hear()

    @property
    def needs_vad(self) -> bool:
        """Whether the next thing to do is to listen on."""
        return isinstance(self._loop.next(), DetectSpeech)

    def hear(self) -> list[JobEvent]:
        """Tell the loop who speaks, in a window or two at most; tell of the window that this settles.

        Nothing is told of a window before it has its words, and before it is known where the loop goes on.
        """
        for _ in range(_MOST_HEARD):
            request = self._loop.next()
            if not isinstance(request, DetectSpeech):
                break
            assert self._ear is not None
            segments = self._loop.accept(self._ear.detect(request.seek, request.frames))
            if self._untold is not None:
                self._untold = self._untold[0] + segments, self._untold[1]
        if self._untold is None or isinstance(self._loop.next(), Align | DetectSpeech):
            return []
        (segments, resumed), self._untold = self._untold, None
        told, self._n_flags_told = self._n_flags_told, len(self._loop.flags)
        flags = self._loop.flags[told:]
        for flag in flags:
            _LOG.info("%s: %s guard: %s", self._recording.name, flag.guard, flag)
        done = WindowDone(window=self._loop.last_window, segments=tuple(segments), flags=flags, resumed=resumed)
        return [done if self._time_map is None else done.moved(self._time_map)]

    def prepare(self, check: Callable[[], None] = lambda: None) -> None:
        """Find the spectrogram's maximum, for which all samples are read: seconds for hours of audio.

        check: called now and then; what it raises ends this.
        """
        self._mel.find_maximum(check)

    def first_events(self) -> Sequence[JobEvent]:
        """Tell of what was known from an earlier run."""
        return self._first_events

    def streams(self) -> Sequence[RecordingTask]:
        """The seek loop knows a window only when it has the one before."""
        return (self,)

    def in_order(self, _strand: WindowStream, events: Sequence[JobEvent]) -> Sequence[JobEvent]:
        """There is one stream: its order is the recording's."""
        return events

    @property
    def duration_s(self) -> float:
        """The recording's length in seconds."""
        return self._recording.duration_s if self._time_map is None else self._time_map.duration_s

    @property
    def done_s(self) -> float:
        """How far the loop has come, in seconds of audio."""
        seconds = self._loop.seek / 100
        return seconds if self._time_map is None else self._time_map.end(seconds)

    @property
    def language_guess(self) -> LanguageGuess | None:
        """Which language was detected; None if it was given, or is not known yet."""
        return self._loop.language_guess

    @property
    def language(self) -> str | None:
        """The language's code; None while it is not known."""
        return self._loop.language

    @property
    def done(self) -> bool:
        """Whether the whole recording has been decoded."""
        return self._loop.next() is None

    @property
    def needs_window(self) -> bool:
        """Whether the next thing to do is to encode what `mel` gives."""
        return not self._hand.is_there and not self.done and not self.needs_vad

    @property
    def holds_window(self) -> bool:
        """Whether a window's memory is in its hands."""
        return self._hand.is_there

    @property
    def window_cost(self) -> WindowCost:
        """What it takes at most beside a window's memory."""
        return window_cost(self._backend.spec, self._options, self._heads)

    def mel(self) -> FloatArray:
        """Give the log-mel (n_mels, 3000) of the window that the loop asks for."""
        request = self._loop.next()
        if isinstance(request, Decode | Align | Detect) and request.n_frames is not None:
            voices = () if isinstance(request, Align) else request.voices
            return self._mel.with_quiet_gain(request.frames, voices) if voices else self._mel.joined(request.frames)
        return self._mel.opening()

    def attach(self, window: WindowId) -> None:
        """Take the memory of the window that was encoded from `mel`."""
        self._hand.take(window)
        self._encoded = _frames_of(self._loop.next())
        self._begin()

    def _begin(self) -> None:
        request, backend, window = self._loop.next(), self._backend, self._hand.window
        if isinstance(request, Detect):
            self._hand.begin(LanguageQuestion(backend, window, self._tokenizer, self._candidates, request.part))
        elif isinstance(request, Decode):
            self._setting = self._setting.speaking(request.language)
            random_key = self._options.search.seed, request.seek
            self._hand.begin(WindowDecoder(backend, window, self._setting, request.prompt, random_key))
        elif isinstance(request, Align):
            setting = self._alignment_setting(request.language)
            self._hand.begin(WindowAligner(backend, window, setting, request.tokens, request.n_frames))

    def _alignment_setting(self, language: str | None) -> AlignmentSetting:
        return AlignmentSetting.make(
            self._backend.spec, self._tokenizer, self._heads, language, self._options.speech.task, N_FRAMES
        )

    def steps(self) -> list[RowStep]:
        """Say which rows are to be stepped; none while a window is needed."""
        return self._hand.steps()

    def accept(self, results: Sequence[RowResult]) -> list[JobEvent]:
        """Take the results of `steps`, in its order; tell of a window that this ends."""
        answer = self._hand.accept(results)
        if answer is None:
            return []
        events = self._told(answer)
        request = self._loop.next()
        is_of_what_is_encoded = isinstance(answer, LanguageGuess) and _frames_of(request) == self._encoded
        if isinstance(request, Align) or is_of_what_is_encoded:
            self._begin()
        else:
            self._hand.release()
        return events

    def transcript(self) -> Transcript:
        """Give everything found so far."""
        found = self._loop.transcript(self.duration_s, self._recording.warnings)
        return found if self._time_map is None else self._time_map.transcript(found)

    def close(self) -> None:
        """Give rows, window and recording back; may be called at any time, and twice."""
        self._hand.release()
        self._recording.close()


def window_cost(spec: ModelSpec, options: TranscribeOptions, heads: Heads) -> WindowCost:
    """What decoding a window takes at most: the search's rows and the prompt's; an alignment of all that is sampled."""
    n_tokens = options.rules.sample_len or spec.n_text_ctx // 2
    aligned = alignment_bytes(spec, heads, n_tokens) if options.words.word_timestamps else 0
    return WindowCost(options.search.most_rows + 1, aligned)


def _frames_of(request: Request | None) -> tuple[int, int] | None:
    """Say which window a request is about: its first frame, and how many it has.

    The recording's opening is a window of its own, but for a recording that fills it.
    """
    if isinstance(request, Detect) and request.n_frames is None:
        return 0, N_FRAMES
    return None if request is None or isinstance(request, DetectSpeech) else (request.seek, request.n_frames or 0)
