"""Times for a text that the user already has: window by window, as much of it as each window holds.

How a window's share is found: the decoder reads the text that is left, and says after every word how probable it is
that all is said. The share ends where the end is most probable, and was not before. Its words are aligned like those
of a transcript, and the next window begins where the last of them ends; the last window takes all that is left.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate

import numpy as np

from stapes.audio.mel import N_FRAMES, LogMel
from stapes.audio.pcm import Recording
from stapes.backends.base import Backend, FloatArray, Probe, RowId, RowResult, RowStep, WindowId
from stapes.decoding.quality import compression_ratio
from stapes.errors import OptionError
from stapes.languages import WITHOUT_SPACES
from stapes.options import Speech, Words
from stapes.recording.events import JobEvent, LanguageDetected, WindowDone
from stapes.recording.language.question import LanguageQuestion, candidates_of
from stapes.recording.passes import ForcedPass, WindowSlot
from stapes.recording.protocols import WindowCost, WindowStream
from stapes.recording.segments import Piece, WindowSpan
from stapes.recording.time_map import TimeMap
from stapes.recording.words.alignment import AlignmentSetting, Heads, WindowAligner, alignment_bytes
from stapes.recording.words.snap_to_speech import begun_by_voice, opening
from stapes.recording.words.timing import in_order, place_words
from stapes.results import Alignment, LanguageGuess, Segment, Transcript, Window, WindowResult, WordTiming
from stapes.tokenizer import Tokenizer
from stapes.tokenizer.split import split_words
from stapes.vad.detector import OpenVadModel, SpeechDetector

_SENTENCE_ENDS = ".。!！?？"
#: A word that ends in the last 0.2 s of a window may be cut there: the next window takes it.
_EDGE_S = 0.2
_WORDS = Words(word_timestamps=True)


class ShareFinder(ForcedPass[int]):
    """Finds how many words of a text a window holds."""

    def __init__(
        self, backend: Backend, window: WindowId, setting: AlignmentSetting, words: Sequence[Sequence[int]]
    ) -> None:
        """Take the words that may be in the window, as ids."""
        super().__init__(backend, window)
        self._setting = setting
        self._words = words

    def _step(self, row: RowId) -> RowStep:
        setting, eot = self._setting, self._setting.tokenizer.special.eot
        tokens = [token for word in self._words for token in word]
        first = len(setting.start) - 1
        probes = tuple(Probe(first + n_read, (eot,), below=eot + 1) for n_read in range(len(tokens) + 1))
        return RowStep(row=row, tokens=(*setting.start, *tokens), probes=probes)

    def _answer(self, result: RowResult) -> int:
        return most_probable_end([one.probabilities[0] for one in result.probes], list(map(len, self._words)))


def most_probable_end(endings: Sequence[float], lengths: Sequence[int]) -> int:
    """Say behind how many words a text most probably ends.

    endings: (tokens + 1,) how probable the end is before each token, and behind the last.   lengths: tokens per word.
    The end is at a place if it is not at any place before; what the tokens are says nothing, as they are given.
    """
    ended = np.clip(np.array(endings, np.float64), 1e-30, 1 - 1e-9)
    not_before = np.concatenate(([0.0], np.cumsum(np.log1p(-ended[:-1]))))
    bounds = np.concatenate(([0], np.cumsum(lengths))).astype(int)
    return int(np.argmax((not_before + np.log(ended))[bounds]))


class ForcedAlignmentTask:
    """Drives one recording and its text. Satisfies `RecordingWork`, and `WindowStream`: its only one."""

    def __init__(
        self,
        recording: Recording,
        backend: Backend,
        tokenizer: Tokenizer,
        text: str,
        speech: Speech,
        *,
        heads: Heads,
        listener: OpenVadModel | None = None,
        time_map: TimeMap | None = None,
    ) -> None:
        """Take a recording, which the task closes.

        time_map: to the time that is told, that of the recording's container.
        listener: makes what hears where a window's first word begins; None: it begins with the window.
        Raises OptionError for an empty text, or a language that the model does not know.
        """
        self._recording = recording
        self._backend = backend
        self._tokenizer = tokenizer
        self._speech = speech
        self._heads = heads
        self._mel = LogMel(recording, backend.spec.n_mels, kernel=backend.log10_mel)
        self._ear = None if listener is None else SpeechDetector(recording, listener)
        self._time_map = time_map
        self._guess: LanguageGuess | None = None
        self._languages = candidates_of(tokenizer, speech)
        self._language = speech.language_code if tokenizer.multilingual else "en"
        self._text = " ".join(text.split())
        if not self._text:
            raise OptionError("text is empty: there is nothing to find the time of")
        self._left = self._new_words()
        if self._language is not None:
            self._setting = self._new_setting()  # now, so that an unknown language is told before any work
        self._seek = 0
        self._segments: list[Segment] = []
        self._windows: list[Window] = []
        self._hand = WindowSlot[LanguageGuess | int | Alignment](backend)  # int: so many words are in the window

    def _new_setting(self) -> AlignmentSetting:
        return AlignmentSetting.make(
            self._backend.spec, self._tokenizer, self._heads, self._language, self._speech.task, N_FRAMES
        )

    def _new_words(self) -> list[tuple[int, ...]]:
        """Cut the text into words, as a transcript of its language would be written."""
        space = "" if self._language in WITHOUT_SPACES else " "
        tokens = self._tokenizer.encode(space + self._text)
        return [word.ids for word in split_words(self._tokenizer, tokens, self._language)]

    # What the schedule asks.

    def prepare(self, check: Callable[[], None] = lambda: None) -> None:
        """Find the spectrogram's maximum; see `RecordingTask.prepare`."""
        self._mel.find_maximum(check)

    def first_events(self) -> Sequence[JobEvent]:
        """Nothing is known from before."""
        return ()

    def streams(self) -> Sequence[ForcedAlignmentTask]:
        """A window begins where the one before it ends."""
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
        """How far all is done, in seconds of audio."""
        return self._seek / 100 if self._time_map is None else self._time_map.end(self._seek / 100)

    @property
    def language_guess(self) -> LanguageGuess | None:
        """Which language was detected; None if it was given, or is not known yet."""
        return self._guess

    @property
    def done(self) -> bool:
        """Whether every word has its time, or no sound is left."""
        return not self._left or self._seek >= self._mel.content_frames

    @property
    def needs_vad(self) -> bool:
        """Nobody is listened to."""
        return False

    @property
    def needs_window(self) -> bool:
        """Whether the next thing to do is to encode what `mel` gives."""
        return not self._hand.is_there and not self.done

    @property
    def window_cost(self) -> WindowCost:
        """One row, which may read as much text as the context holds."""
        spec = self._backend.spec
        return WindowCost(1, alignment_bytes(spec, self._heads, spec.n_text_ctx))

    @property
    def holds_window(self) -> bool:
        """Whether a window's memory is in its hands."""
        return self._hand.is_there

    @property
    def _n_frames(self) -> int:
        return min(N_FRAMES, self._mel.content_frames - self._seek)

    @property
    def _is_last(self) -> bool:
        return self._seek + self._n_frames >= self._mel.content_frames

    def hear(self) -> list[JobEvent]:
        """Never called."""
        return []

    def mel(self) -> FloatArray:
        """Give the log-mel (n_mels, 3000) of the window that is to be encoded."""
        return self._mel.opening() if self._language is None else self._mel.window(self._seek, self._n_frames)

    def attach(self, window: WindowId) -> None:
        """Take the memory of the window that was encoded from `mel`."""
        self._hand.take(window)
        if self._language is None:
            self._hand.begin(LanguageQuestion(self._backend, window, self._tokenizer, self._languages))
        elif self._is_last:
            self._align(len(self._left))
        else:
            self._hand.begin(ShareFinder(self._backend, window, self._setting, self._candidates()))

    def _candidates(self) -> list[tuple[int, ...]]:
        """Give the next words, as many as a window's text can hold: half the context, as in a transcript."""
        limit = min(self._backend.spec.n_text_ctx // 2, self._setting.most_tokens)
        lengths = accumulate(len(word) for word in self._left)
        return self._left[: sum(length <= limit for length in lengths)]

    def _align(self, n_words: int) -> None:
        tokens = [token for word in self._left[:n_words] for token in word]
        if len(tokens) > self._setting.most_tokens:
            raise OptionError(
                f"{self._recording.name}: the recording is over, and {n_words} words of the text are left; "
                "give the text of this recording alone"
            )
        self._hand.begin(WindowAligner(self._backend, self._hand.window, self._setting, tokens, self._n_frames))

    def steps(self) -> list[RowStep]:
        """Say which rows are to be stepped; none while a window is needed."""
        return self._hand.steps()

    def accept(self, results: Sequence[RowResult]) -> list[JobEvent]:
        """Take the results of `steps`; tell of a window that this ends."""
        answer = self._hand.accept(results)
        if isinstance(answer, int) and answer:
            self._align(answer)
            return []
        self._hand.release()
        if isinstance(answer, LanguageGuess):
            return [self._accept_language(answer)]
        return [self._accept_words(answer.words if isinstance(answer, Alignment) else ())]

    def _accept_language(self, guess: LanguageGuess) -> JobEvent:
        self._guess, self._language = guess, guess.language
        self._setting = self._new_setting()
        self._left = self._new_words()
        return LanguageDetected(guess=guess, language=self._language)

    # What came of it.

    def _accept_words(self, words: tuple[WordTiming, ...]) -> JobEvent:
        """Keep a window's words, and go on where the last one ends; without any, behind the window."""
        seek, n_frames = self._seek, self._n_frames
        if not self._is_last and len(words) > 1 and words[-1].end_s > n_frames / 100 - _EDGE_S:
            words = words[:-1]
        end = seek + round(words[-1].end_s * 100) if words else seek
        self._seek = seek + n_frames if end <= seek or self._is_last else end
        self._left = self._left[len(words) :]
        segments = self._begun_by_voice(self._cut(words, seek), WindowSpan(seek, min(n_frames, opening(words))))
        tokens = tuple(token for word in words for token in word.tokens)
        text = self._tokenizer.decode(tokens)
        result = WindowResult(tokens=tokens, text=text.strip(), avg_logprob=_mean_logprob(words), no_speech_prob=0.0,
                              temperature=0.0, compression_ratio=compression_ratio(text), timings=words)  # fmt: skip
        window = Window(seek=seek, n_frames=n_frames, next_seek=self._seek, skipped=not words, result=result)
        self._windows.append(window)
        self._segments.extend(segments)
        done = WindowDone(window=window, segments=tuple(segments))
        return done if self._time_map is None else done.moved(self._time_map)

    def _cut(self, words: tuple[WordTiming, ...], seek: int) -> list[Segment]:
        """Make a segment of each sentence, and of what the window's end cuts off."""
        offset_s = seek / 100
        last = self._segments[-1] if self._segments else None
        spoken_until_s = last.end_s if last else 0.0
        sentences = sentences_of(words)
        pieces = [
            Piece(
                start_s=offset_s + sentence[0].start_s,
                end_s=offset_s + sentence[-1].end_s,
                tokens=tuple(token for word in sentence for token in word.tokens),
            )
            for sentence in sentences
        ]
        eot = self._tokenizer.special.eot
        placed = place_words(pieces, words, _WORDS, offset_s=offset_s, last_speech_s=spoken_until_s, eot=eot)
        segments: list[Segment] = []
        for sentence, piece in zip(sentences, placed, strict=True):
            text = self._tokenizer.decode(piece.tokens)
            segments.append(
                Segment(
                    id=len(self._segments) + len(segments), seek=seek, start_s=piece.start_s, end_s=piece.end_s,
                    text=text, tokens=piece.tokens, temperature=0.0, avg_logprob=_mean_logprob(sentence),
                    compression_ratio=compression_ratio(text), no_speech_prob=0.0, words=piece.words,
                )
            )  # fmt: skip
        return in_order(segments, spoken_until_s)

    def _begun_by_voice(self, segments: list[Segment], asked: WindowSpan) -> list[Segment]:
        """Begin a window's first word with the voice. asked: the window's opening; empty where no word can hold one."""
        if self._ear is None or not asked.n_frames:
            return segments
        return begun_by_voice(segments, self._ear.detect(asked.seek, ((asked.seek, asked.end),)), asked.seek)

    def transcript(self) -> Transcript:
        """Give everything found so far."""
        found = Transcript(
            text="".join(segment.text for segment in self._segments),
            segments=tuple(self._segments),
            language=self._language or "",
            duration_s=self.duration_s,
            language_as_given=self._speech.language,
            language_guess=self._guess,
            windows=tuple(self._windows),
            warnings=self._recording.warnings,
        )
        return found if self._time_map is None else self._time_map.transcript(found)

    def close(self) -> None:
        """Give rows, window and recording back; may be called at any time, and twice."""
        self._hand.release()
        self._recording.close()


def sentences_of(words: Sequence[WordTiming]) -> list[list[WordTiming]]:
    """Part words behind the marks that end a sentence, and what belongs to those marks."""
    sentences: list[list[WordTiming]] = []
    ended = True
    for word in words:
        if ended and not (sentences and word.text in _WORDS.append_punctuations):
            sentences.append([])
            ended = False
        sentences[-1].append(word)
        ended = ended or word.text in _SENTENCE_ENDS
    return sentences


def _mean_logprob(words: Sequence[WordTiming]) -> float:
    """Give the mean of the words' log-probabilities; 0 without words."""
    return sum(math.log(max(word.probability, 1e-30)) for word in words) / max(len(words), 1)
