"""One recording's task: its seek loop, and the window that is being decoded."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from stapes.audio.mel import N_FRAMES
from stapes.backends.base import FloatArray, WindowId
from stapes.decoding.window import WindowDecoder, WindowSetting
from stapes.errors import OptionError
from stapes.options import TranscribeOptions
from stapes.recording.base import TaskInputs, WindowCost, WindowStream
from stapes.recording.events import JobEvent, LanguageDetected, WindowDone
from stapes.recording.language.question import LanguageQuestion, candidates_of
from stapes.recording.loop import SeekLoop
from stapes.recording.requests import Align, Answer, Decode, Detect, DetectSpeech, Request
from stapes.recording.words.alignment import WindowAligner, alignment_bytes
from stapes.results import Alignment, LanguageGuess, Segment, Transcript, WindowResult

_LOG = logging.getLogger("stapes")
#: windows that VAD runs on before other jobs continue; each takes 12 to 18 ms, as long as a step of many rows
_MOST_DETECTED = 2
_QUESTIONS = {LanguageGuess: Detect, WindowResult: Decode, Alignment: Align}


class RecordingTask(WindowStream):
    """Answers the requests of one SeekLoop."""

    def __init__(self, inputs: TaskInputs, options: TranscribeOptions, resume: Sequence[Answer] = ()) -> None:
        """resume: the answers of an earlier, interrupted run with the same recording, model and options.

        Raises OptionError if the options do not suit the model, or the answers do not suit the recording.
        """
        super().__init__(inputs, window_cost(inputs, options))
        spec = self._backend.spec
        self._options = options
        self._loop = SeekLoop(
            content_frames=inputs.mel.content_frames,
            window_frames=N_FRAMES,
            n_audio_ctx=spec.n_audio_ctx,
            n_text_ctx=spec.n_text_ctx,
            tokenizer=self._tokenizer,
            options=options,
            has_vad=self._vad is not None,
            is_exact=inputs.is_exact,
            spliced_at=inputs.seams,
        )
        # A language that is to be detected is one that the model knows: any other option can be checked now.
        self._setting = WindowSetting.make(spec, self._tokenizer, options, self._loop.language)
        self._candidates = candidates_of(self._tokenizer, options.speech)
        #: what the window that is held was encoded for, or the one that gave way; None once it was released
        self._encoded_for: Request | None = None
        self._unreported: tuple[list[Segment], bool] | None = None  # a window's segments, and whether it was resumed
        self._n_flags_reported = 0
        self.detect_speech()
        self.first_events = tuple(event for answer in resume for event in self.resume(answer))

    def resume(self, answer: Answer) -> list[JobEvent]:
        """Take an answer of an earlier run, so that the loop continues after it."""
        if not isinstance(self._loop.next(), _QUESTIONS[type(answer)]):
            raise OptionError(f"{self._recording.name}: what is to be resumed belongs to another recording or options")
        if isinstance(answer, WindowResult):
            answer = self._with_asked_logprobs(answer)
        events = self._events_of(answer, resumed=True)
        while self.needs_vad:
            events += self.detect_speech()
        return events

    def _with_asked_logprobs(self, answer: WindowResult) -> WindowResult:
        """Return a resumed answer with log-probabilities of tokens as the options ask; raise where there are none."""
        if not self._options.words.token_logprobs:
            return replace(answer, token_logprobs=None)
        if answer.token_logprobs is None or len(answer.token_logprobs) != len(answer.tokens):
            raise OptionError(f"{self._recording.name}: what is to be resumed has no log-probabilities of its tokens")
        return answer

    def _events_of(self, answer: Answer, *, resumed: bool = False) -> list[JobEvent]:
        """Send an answer to the loop; return the resulting events."""
        segments = self._loop.accept(answer)
        events: list[JobEvent] = []
        if isinstance(answer, LanguageGuess):
            whole = self.language_guess = self._loop.language_guess
            language = None if whole is None else whole.language
            events.append(LanguageDetected(guess=answer, language=language, resumed=resumed))
        else:
            self._unreported = segments, resumed
        return [*events, *self.detect_speech()]

    @property
    def needs_vad(self) -> bool:
        """Whether `detect_speech` comes next."""
        return isinstance(self._loop.next(), DetectSpeech)

    def detect_speech(self) -> list[JobEvent]:
        """Run VAD on a window or two, where the loop asks for it; return the event of the window that this ends."""
        for _ in range(_MOST_DETECTED):
            request = self._loop.next()
            if not isinstance(request, DetectSpeech):
                break
            assert self._vad is not None
            segments = self._loop.accept(self._vad.detect(request.seek, request.frames))
            if self._unreported is not None:
                self._unreported = self._unreported[0] + segments, self._unreported[1]
        return self._settled()

    def _settled(self) -> list[JobEvent]:
        """Return the event of a window, once it has its words and it is known where the loop goes on."""
        if self._unreported is None or isinstance(self._loop.next(), Align | DetectSpeech):
            return []
        (segments, resumed), self._unreported = self._unreported, None
        flags = self._loop.flags[self._n_flags_reported :]
        self._n_flags_reported += len(flags)
        for flag in flags:
            _LOG.info("%s: %s guard: %s", self._recording.name, flag.guard, flag)
        done = WindowDone(window=self._loop.last_window, segments=tuple(segments), flags=flags, resumed=resumed)
        return [done if self._time_map is None else done.moved(self._time_map)]

    @property
    def _frames_done(self) -> int:
        return self._loop.seek

    @property
    def language(self) -> str | None:
        """The code of the language of the next window; None while it is not known."""
        return self._loop.language

    @property
    def done(self) -> bool:
        """Whether the whole recording is done."""
        return self._loop.next() is None

    @property
    def window_frames(self) -> int:
        """How many frames of a window the loop asks for."""
        request = self._encoded_for or self._loop.next()
        return N_FRAMES if request is None or isinstance(request, DetectSpeech) else request.encoded_frames or N_FRAMES

    def mel(self) -> FloatArray:
        """Return the log-mel (n_mels, window_frames) of the window that the loop asks for."""
        request = self._encoded_for or self._loop.next()
        if isinstance(request, Decode | Align | Detect) and request.n_frames is not None:
            voices = () if isinstance(request, Align) else request.voices
            return self._inputs.window_mel(request.frames, voices, self.window_frames)
        return self._inputs.mel.opening()

    def attach(self, window: WindowId) -> None:
        """Take the window that was encoded from `mel`."""
        self._encoded_for = self._encoded_for or self._loop.next()
        super().attach(window)

    def _begin(self) -> None:
        request, backend, window = self._loop.next(), self._backend, self._slot.window
        if isinstance(request, Detect):
            self._slot.begin(LanguageQuestion(backend, window, self._tokenizer, self._candidates, request.part))
        elif isinstance(request, Decode):
            self._setting = self._setting.speaking(request.language)
            random_key = self._options.search.seed, request.seek
            of_window = self._setting
            if self._options.context.prefix_once and request.seek:
                of_window = replace(of_window, prefix=())
            self._slot.begin(WindowDecoder(backend, window, of_window, request.prompt, random_key))
        elif isinstance(request, Align):
            setting = self._inputs.alignment_setting(request.language, self._options.speech.task)
            self._slot.begin(WindowAligner(backend, window, setting, request.tokens, request.n_frames))

    def _accept(self, answer: LanguageGuess | WindowResult | Alignment) -> list[JobEvent]:
        events = self._events_of(answer)
        request = self._loop.next()
        is_of_the_same = _frames_of(request) == _frames_of(self._encoded_for)
        if isinstance(request, Align) or (isinstance(answer, LanguageGuess) and is_of_the_same):
            self._begin()
        else:
            self._slot.release()
            self._encoded_for = None
        return events

    def result(self) -> Transcript:
        """Return everything found so far."""
        found = self._loop.transcript(self.duration_s, self._recording.warnings)
        return found if self._time_map is None else self._time_map.transcript(found)


def window_cost(inputs: TaskInputs, options: TranscribeOptions) -> WindowCost:
    """Return the most that a window takes: rows of the search and the prompt's, an alignment of all that is sampled."""
    spec = inputs.backend.spec
    n_tokens = options.rules.sample_len or spec.n_text_ctx // 2
    aligned = alignment_bytes(spec, inputs.heads, n_tokens) if options.words.word_timestamps else 0
    return WindowCost(options.search.most_rows + 1, aligned)


def _frames_of(request: Request | None) -> tuple[int, ...] | None:
    """Return which window a request is about: its first frame, how many have sound, and how many are encoded.

    The recording's opening is a separate window, except for a recording that fills it.
    """
    if request is None or isinstance(request, DetectSpeech):
        return None
    if request.n_frames is None:
        return 0, N_FRAMES, N_FRAMES
    return request.seek, request.n_frames, request.encoded_frames or N_FRAMES
