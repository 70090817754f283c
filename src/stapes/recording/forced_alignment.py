"""Forced alignment: times for a text that the user already has, window by window.

How much of the text a window holds: a forced pass over the text that is left gives the probability of the end of text
after every word. The window's part ends where that is most probable, and was not earlier. Its words are aligned like
those of a transcript, and the next window begins where the last of them ends; the last window takes all that is left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from stapes.audio.mel import N_FRAMES
from stapes.backends.base import Backend, ExtraAnswers, FloatArray, Probe, RowExtras, WindowId
from stapes.decoding.quality import compression_ratio
from stapes.errors import OptionError
from stapes.languages import WITHOUT_SPACES
from stapes.options import Speech, Words
from stapes.recording.base import TaskInputs, WindowCost, WindowStream
from stapes.recording.events import JobEvent, LanguageDetected, WindowDone
from stapes.recording.language.question import LanguageQuestion, candidates_of
from stapes.recording.passes import ForcedPass
from stapes.recording.segments import Piece, WindowSpan
from stapes.recording.words.alignment import AlignmentSetting, WindowAligner, alignment_bytes
from stapes.recording.words.snap_to_speech import opening, start_at_speech
from stapes.recording.words.timing import in_order, place_words
from stapes.results import Alignment, LanguageGuess, Segment, Transcript, Window, WindowResult, WordTiming
from stapes.tokenizer.split import split_words

_SENTENCE_ENDS = ".。!！?？"
#: A word that ends in the last 0.2 s of a window may be cut there: the next window takes it.
_EDGE_S = 0.2
_WORDS = Words(word_timestamps=True)


class ShareFinder(ForcedPass[int]):
    """Finds how many words of a text a window holds, in one forced pass."""

    def __init__(
        self, backend: Backend, window: WindowId, setting: AlignmentSetting, words: Sequence[Sequence[int]]
    ) -> None:
        """Take the words that may be in the window, as ids."""
        super().__init__(backend, window)
        self._setting = setting
        self._words = words

    def _question(self) -> tuple[tuple[int, ...], RowExtras]:
        setting, eot = self._setting, self._setting.tokenizer.special.eot
        tokens = [token for word in self._words for token in word]
        first = len(setting.start) - 1
        probes = tuple(Probe(first + n_read, (eot,), below=eot + 1) for n_read in range(len(tokens) + 1))
        return (*setting.start, *tokens), RowExtras(probes=probes)

    def _answer(self, answers: ExtraAnswers) -> int:
        return most_probable_end([one.probabilities[0] for one in answers.probes], list(map(len, self._words)))


def most_probable_end(endings: Sequence[float], lengths: Sequence[int]) -> int:
    """Return after how many words a text most probably ends.

    endings: (tokens + 1,) probability of the end before each token, and after the last.   lengths: tokens per word.
    The end is at a place if it is at no earlier place; the tokens' probabilities do not count, as the text is given.
    """
    ended = np.clip(np.array(endings, np.float64), 1e-30, 1 - 1e-9)
    not_before = np.concatenate(([0.0], np.cumsum(np.log1p(-ended[:-1]))))
    bounds = np.concatenate(([0], np.cumsum(lengths))).astype(int)
    return int(np.argmax((not_before + np.log(ended))[bounds]))


class ForcedAlignmentTask(WindowStream):
    """Finds when each word of a text is spoken in a recording that holds this text and no other."""

    def __init__(self, inputs: TaskInputs, text: str, speech: Speech) -> None:
        """Raises OptionError for an empty text, or a language that the model does not know."""
        spec = inputs.backend.spec
        # One row, which may read as much text as the context holds.
        super().__init__(inputs, WindowCost(1, alignment_bytes(spec, inputs.heads, spec.n_text_ctx)))
        self._speech = speech
        self._languages = candidates_of(self._tokenizer, speech)
        self._text = " ".join(text.split())
        if not self._text:
            raise OptionError("text is empty: give the words to align")
        self._content_frames = inputs.mel.content_frames
        self._seek = 0
        self._segments: list[Segment] = []
        self._windows: list[Window] = []
        self._set_language(speech.language_code if self._tokenizer.multilingual else "en")

    def _set_language(self, language: str | None) -> None:
        """Cut the text into words as a transcript in this language has them. language: None while it is not known."""
        self._language = language
        if language is not None:
            self._setting = self._inputs.alignment_setting(language, self._speech.task)
        space = "" if language in WITHOUT_SPACES else " "
        tokens = self._tokenizer.encode(space + self._text)
        self._left = [word.ids for word in split_words(self._tokenizer, tokens, language)]

    @property
    def _frames_done(self) -> int:
        return self._seek

    @property
    def done(self) -> bool:
        """Whether every word has its time, or no sound is left."""
        return not self._left or self._seek >= self._content_frames

    @property
    def _n_frames(self) -> int:
        return min(N_FRAMES, self._content_frames - self._seek)

    @property
    def _is_last(self) -> bool:
        return self._seek + self._n_frames >= self._content_frames

    def mel(self) -> FloatArray:
        """Return the log-mel (n_mels, 3000) of the window to encode."""
        mel = self._inputs.mel
        return mel.opening() if self._language is None else mel.window(self._seek, self._n_frames)

    def _begin(self) -> None:
        backend, window = self._backend, self._slot.window
        if self._language is None:
            self._slot.begin(LanguageQuestion(backend, window, self._tokenizer, self._languages))
        elif self._is_last:
            self._align(len(self._left))
        else:
            self._slot.begin(ShareFinder(backend, window, self._setting, self._candidates()))

    def _candidates(self) -> list[tuple[int, ...]]:
        """Return the next words, as many as a window's text can hold: half the context, as in a transcript."""
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
        self._slot.begin(WindowAligner(self._backend, self._slot.window, self._setting, tokens, self._n_frames))

    def _accept(self, answer: LanguageGuess | int | Alignment) -> list[JobEvent]:  # int: words in the window
        if isinstance(answer, int) and answer:
            self._align(answer)
            return []
        self._slot.release()
        if isinstance(answer, LanguageGuess):
            self.language_guess = answer
            self._set_language(answer.language)
            return [LanguageDetected(guess=answer, language=answer.language)]
        return [self._accept_words(answer.words if isinstance(answer, Alignment) else ())]

    def _accept_words(self, words: tuple[WordTiming, ...]) -> JobEvent:
        """Keep a window's words, and go on where the last one ends; without any, at the window's end."""
        seek, n_frames = self._seek, self._n_frames
        if not self._is_last and len(words) > 1 and words[-1].end_s > n_frames / 100 - _EDGE_S:
            words = words[:-1]
        end = seek + round(words[-1].end_s * 100) if words else seek
        self._seek = seek + n_frames if end <= seek or self._is_last else end
        self._left = self._left[len(words) :]
        segments = self._start_at_speech(self._cut(words, seek), WindowSpan(seek, min(n_frames, opening(words))))
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

    def _start_at_speech(self, segments: list[Segment], asked: WindowSpan) -> list[Segment]:
        """Start a window's first word where speech does. asked: the window's opening; empty: no word is long enough."""
        if self._vad is None or not asked.n_frames:
            return segments
        return start_at_speech(segments, self._vad.detect(asked.seek, ((asked.seek, asked.end),)), asked.seek)

    def result(self) -> Transcript:
        """Return everything found so far."""
        found = Transcript(
            text="".join(segment.text for segment in self._segments),
            segments=tuple(self._segments),
            language=self._language or "",
            duration_s=self.duration_s,
            language_as_given=self._speech.language,
            language_guess=self.language_guess,
            windows=tuple(self._windows),
            warnings=self._recording.warnings,
        )
        return found if self._time_map is None else self._time_map.transcript(found)


def sentences_of(words: Sequence[WordTiming]) -> list[list[WordTiming]]:
    """Split words after the marks that end a sentence, and the closing marks that follow them."""
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
    """Return the mean of the words' log-probabilities; 0 without words."""
    return sum(math.log(max(word.probability, 1e-30)) for word in words) / max(len(words), 1)
