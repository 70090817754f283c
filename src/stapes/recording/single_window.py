"""One window alone, for programs with a seek loop of their own: what `whisper.decode` and `detect_language` do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from stapes.audio.mel import N_FRAMES
from stapes.backends.base import FloatArray
from stapes.decoding.window import WindowDecoder, WindowSetting
from stapes.errors import OptionError
from stapes.options import Speech, TranscribeOptions
from stapes.recording.base import TaskInputs, WindowCost, WindowStream
from stapes.recording.events import JobEvent
from stapes.recording.language.question import LanguageQuestion, candidates_of
from stapes.recording.segments import TimestampIds, WindowSpan, cut, text_of
from stapes.recording.task import window_cost
from stapes.recording.words.alignment import WindowAligner
from stapes.results import Alignment, DecodedWindow, LanguageGuess, WindowResult


class _SingleWindow(WindowStream):
    """Runs passes on one window whose log-mel is given."""

    def __init__(self, inputs: TaskInputs, mel: FloatArray, cost: WindowCost, speech: Speech) -> None:
        super().__init__(inputs, cost)
        self._mel = mel
        self._candidates = candidates_of(self._tokenizer, speech)
        self._is_done = False

    @property
    def _frames_done(self) -> int:
        return N_FRAMES if self._is_done else 0

    @property
    def done(self) -> bool:
        """Whether the result is there."""
        return self._is_done

    def mel(self) -> FloatArray:
        """Return the log-mel (n_mels, 3000)."""
        return self._mel

    def _ask_language(self) -> None:
        self._slot.begin(LanguageQuestion(self._backend, self._slot.window, self._tokenizer, self._candidates))

    def _finish(self) -> Sequence[JobEvent]:
        self._slot.release()
        self._is_done = True
        return ()


class WindowLanguageTask(_SingleWindow):
    """Detects the language of one window."""

    def __init__(self, inputs: TaskInputs, mel: FloatArray, speech: Speech) -> None:
        """mel: (n_mels, 3000). Raises OptionError for languages that the model does not know."""
        super().__init__(inputs, mel, WindowCost(rows=1), speech)

    def _begin(self) -> None:
        self._ask_language()

    def _accept(self, answer: LanguageGuess) -> Sequence[JobEvent]:
        self.language_guess = answer
        return self._finish()

    def result(self) -> LanguageGuess:
        """Return the guess."""
        assert self.language_guess is not None
        return self.language_guess


class WindowTask(_SingleWindow):
    """Decodes one window once: its language, if that is not given, then its text."""

    def __init__(
        self,
        inputs: TaskInputs,
        mel: FloatArray,
        options: TranscribeOptions,
        prompt: Sequence[int],
        prefix: Sequence[int],
        n_frames: int = N_FRAMES,
    ) -> None:
        """mel: (n_mels, 3000).   options: one temperature.   prompt, prefix: ids of the text before, and its beginning.

        n_frames: that have sound; words are placed in them.   Raises OptionError if they do not suit the model.
        """
        super().__init__(inputs, mel, window_cost(inputs, options), options.speech)
        self._options, self._n_frames = options, n_frames
        spec, n_vocab = self._backend.spec, self._tokenizer.n_vocab
        for name, ids in (("prompt", prompt), ("prefix", prefix)):
            if any(not 0 <= one < n_vocab for one in ids):
                raise OptionError(f"{name} must be ids of tokens from 0 to {n_vocab - 1}")
        self._language = options.speech.language_code if self._tokenizer.multilingual else "en"
        setting = WindowSetting.make(spec, self._tokenizer, options, self._language)
        # The reference's slice, to the letter: at the default length it keeps the whole prefix.
        self._setting = replace(setting, prefix=tuple(prefix)[-(spec.n_text_ctx // 2 - setting.sample_len) :])
        self._prompt = tuple(prompt)
        self._random_key = options.search.seed, 0
        n_initial = len(self._setting.initial_tokens(self._prompt))
        if n_initial > spec.n_text_ctx:
            raise OptionError(f"prompt and prefix take {n_initial} tokens; {spec.n_text_ctx} fit")
        self._result: WindowResult | None = None

    def _begin(self) -> None:
        if self._language is None:
            self._ask_language()
        else:
            setting = self._setting.speaking(self._language)
            self._slot.begin(WindowDecoder(self._backend, self._slot.window, setting, self._prompt, self._random_key))

    def _accept(self, answer: LanguageGuess | WindowResult | Alignment) -> Sequence[JobEvent]:
        match answer:
            case LanguageGuess():
                self.language_guess, self._language = answer, answer.language
                self._begin()
                return ()
            case Alignment():
                assert self._result is not None
                self._result = replace(self._result, timings=answer.words)
            case WindowResult():
                self._result = answer
                if self._options.words.word_timestamps and (text := self._text(answer)):
                    setting = self._inputs.alignment_setting(self._language, self._options.speech.task)
                    self._slot.begin(WindowAligner(self._backend, self._slot.window, setting, text, self._n_frames))
                    return ()
        return self._finish()

    def _text(self, result: WindowResult) -> tuple[int, ...]:
        """Return the tokens of text whose words are placed: those before an unfinished rest."""
        special, positions = self._tokenizer.special, self._backend.spec.n_audio_ctx
        times = TimestampIds(special.timestamp_begin, N_FRAMES // positions)
        pieces = cut(result.tokens, WindowSpan(0, self._n_frames), times).pieces
        return text_of((token for piece in pieces for token in piece.tokens), special.eot)

    def result(self) -> DecodedWindow:
        """Return what was decoded."""
        assert self._result is not None
        assert self._language is not None
        return DecodedWindow(result=self._result, language=self._language, language_guess=self.language_guess)
