"""Which language each window is decoded in, and what has to be asked to know that. Pure: no model, no audio.

Where one language is spoken, it is asked for once, at the recording's beginning. Where several are, each window is
asked anew: what is said between two pauses is asked for itself, over the same encoding, and where the language
changes at a pause the window ends there. docs/languages.md has the measurements behind the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from stapes.audio.mel import N_FRAMES
from stapes.options import Speech
from stapes.recording.language.question import mean_guess
from stapes.results import LanguageGuess, Segment
from stapes.vad.detector import DetectSpeech, Frames, SpeechMap

#: what is said is asked in one piece with its neighbour if it is shorter: 1 s
_SHORTEST = 100
#: so much of the pauses around it is asked with a piece, 1 s: without any, one in ten more is misheard
_PAUSE = 100
#: a piece counts by its length up to this: 4 s; longer ones are no surer
_FULL_WEIGHT = 400
#: no piece says more against a language than this: the network is sometimes very sure, and wrong
_LEAST_SHARE = 0.01
#: what a change of language costs inside a window, and at its beginning, in log-probability; the first is for no pause
#: at all, half of it for one of a second
_CHANGE, _CHANGE_BEFORE = 2.0, 1.0
#: a language that is less probable than this does not take the place of the one before, unless a threshold is given
_SURE = 0.5


@dataclass(frozen=True, slots=True)
class Detect:
    """Tell the language of a window of `n_frames` frames from frame `seek` on. Answer: LanguageGuess.

    part: frames of the window that count, half-open; None: all.   n_frames: None asks for the recording's first 30 s
    as the reference does, with the spectrum of silence behind a shorter one.
    """

    seek: int = 0
    n_frames: int | None = None
    part: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """What is said between two pauses, in frames of the recording."""

    first: int
    end: int


@dataclass(frozen=True, slots=True)
class Run:
    """What one language is spoken in, from the window's beginning on."""

    language: str
    share: float  # mean probability of the language
    start: int  # the window's first frame
    speech_end: int  # frame behind its last word
    end: int  # frame in the pause behind that, or the window's end


class LanguagePerWindow:
    """Which language a recording's windows are spoken in."""

    def __init__(self, speech: Speech, *, content_frames: int, only: str | None = None, has_vad: bool = False) -> None:
        """Take the options.

        only: the one language that the model knows.
        has_vad: whether `DetectSpeech` has an answer; without one, a window is one piece.
        """
        self._speech = speech
        self._content_frames = content_frames
        self._can_listen = has_vad
        self._each = speech.multilingual and only is None
        #: of the window that is decoded next
        self.language: str | None = only or speech.language_code
        self.guess: LanguageGuess | None = None
        self.is_listening = False  # waits for what is heard
        self._guesses: list[LanguageGuess] = []
        self._before: str | None = None  # of the last window in which something was said
        self._window: tuple[int, int] | None = None  # that is being asked
        self._pieces: tuple[Piece, ...] | None = None
        self._decided: tuple[int, int] | None = None  # the window that `language` was found for
        self._run: Run | None = None  # a language that ends inside a window
        self._known: list[tuple[Piece, LanguageGuess]] = []  # asked in earlier windows
        self._changes_here = False  # whether another language ended where the window begins

    @property
    def of_segments(self) -> str | None:
        """What a segment of the window says of its language; None where all are in one."""
        return self.language if self._each else None

    @property
    def changed(self) -> bool:
        """Whether the window is in another language than the text before it."""
        return self._each and self._before not in (None, self.language)

    def question(self, seek: int, size: int) -> Detect | DetectSpeech | None:
        """Say what has to be known before a window of `size` frames from `seek` on is decoded; None: nothing."""
        if not self._each:
            return None
        if self._run_at(seek) is not None or self._decided == (seek, size):
            return None
        if self._window != (seek, size):
            self._changes_here = self._run is not None and seek == self._run.end
            self._window, self._pieces, self._guesses, self._run = (seek, size), None, [], None
        if self._pieces is None and self._can_listen:
            self.is_listening = True
            return DetectSpeech(seek, size)
        if not self._pieces and (self._before is None or not self._can_listen) and not self._guesses:
            return Detect(seek, size)
        pieces = self._pieces or ()
        if len(self._guesses) < len(pieces):
            first, end = with_pauses(pieces, len(self._guesses), seek, seek + size)
            return Detect(seek, size, (first - seek, end - seek))
        self._decide()
        return None

    def question_of_all(self) -> Detect | None:
        """Say what has to be known before anything is decoded, while the language is not known; None: nothing."""
        if self._each:
            return None
        seek = len(self._guesses) * N_FRAMES
        return Detect(seek, min(N_FRAMES, self._content_frames - seek)) if seek else Detect()

    def accept(self, answer: LanguageGuess | SpeechMap) -> None:
        """Take the answer to the last question."""
        if isinstance(answer, SpeechMap):
            assert self._window is not None
            self.is_listening = False
            self._pieces = pieces_of(answer.within(self._window[0], sum(self._window)))
            return
        self._guesses.append(answer)
        if not self._each:
            n = len(self._guesses)
            threshold = self._speech.language_detection_threshold
            reached = threshold is not None and answer.probability >= threshold
            if reached or n == self._speech.language_detection_segments or n * N_FRAMES >= self._content_frames:
                self.guess = answer if reached else mean_guess(self._guesses)
                self.language = self.guess.language

    def _decide(self) -> None:
        assert self._window is not None
        seek, size = self._window
        self._decided = self._window
        if not self._guesses:
            self.language = self._before
            return
        end = seek + size
        pieces = self._pieces or (Piece(seek, end),)
        asked = list(zip(pieces, self._guesses, strict=True))
        known = [one for one in self._known if one[0].end > seek]
        guesses = [together(piece, guess, known) for piece, guess in asked]
        self._known = known + asked
        run = first_run(pieces, guesses, None if self._changes_here else self._before, (seek, end))
        threshold = self._speech.language_detection_threshold
        unsure = run.share < (_SURE if threshold is None else threshold)
        self.language = self._before if unsure and self._before is not None else run.language
        self._run = run if run.end < end else None

    def start(self, seek: int) -> int:
        """Say where to go on: behind a language that has ended, if what is left of it is a pause."""
        run = self._run_at(seek)
        return seek if run is None or seek < run.speech_end else run.end

    def size(self, seek: int, size: int) -> int:
        """Say how many frames of a window to decode: no more than are in its language."""
        run = self._run_at(seek)
        return size if run is None else min(size, run.end - seek)

    def voices(self, first: int, end: int) -> Frames:
        """Give the pieces that lie in frames first..end, counted from the first; none where one language is spoken."""
        return SpeechMap(tuple((one.first, one.end) for one in self._pieces or ())).counted_from(first, end)

    def forget_from(self, frame: int) -> None:
        """Forget what is known of frames from there on: others stand in their place."""
        self._run = None
        self._known = [one for one in self._known if one[0].end <= frame]

    def _run_at(self, seek: int) -> Run | None:
        """The language that ends inside a window, where a frame lies in it; clips need not stand in order."""
        run = self._run
        return run if run is not None and run.start <= seek < run.end else None

    def moved_on(self, *, with_text: bool) -> None:
        """Note that the window was decoded; one without text says nothing of what is spoken."""
        self._decided = self._window = None
        if with_text:
            self._before = self.language


def pieces_of(spans: Sequence[tuple[int, int]]) -> tuple[Piece, ...]:
    """Make pieces of stretches of speech, each long enough to be asked for itself: the nearest ones join."""
    pieces = [Piece(*span) for span in spans]
    while len(pieces) > 1:
        short = min(range(len(pieces)), key=lambda i: pieces[i].end - pieces[i].first)
        if pieces[short].end - pieces[short].first >= _SHORTEST:
            break
        gaps = {i: pieces[i + 1].first - pieces[i].end for i in (short - 1, short) if 0 <= i < len(pieces) - 1}
        at = min(gaps, key=lambda i: gaps[i])
        pieces[at : at + 2] = [Piece(pieces[at].first, pieces[at + 1].end)]
    return tuple(pieces)


def together(piece: Piece, guess: LanguageGuess, known: Sequence[tuple[Piece, LanguageGuess]]) -> LanguageGuess:
    """Give the mean of a piece's own guess and of those of earlier windows over the same sound, by how much of it."""
    votes = [(_weight(piece.end - piece.first), guess)]
    for other, its in known:
        shared = min(piece.end, other.end) - max(piece.first, other.first)
        if 2 * shared > min(piece.end - piece.first, other.end - other.first):
            votes.append((_weight(shared), its))
    return mean_guess([one for _, one in votes], [weight for weight, _ in votes])


def _weight(n_frames: int) -> float:
    return min(1.0, n_frames / _FULL_WEIGHT)


def with_pauses(pieces: Sequence[Piece], i: int, start: int, end: int) -> tuple[int, int]:
    """Give the frames of a piece and of the pauses around it, as far as they are short; start, end: the window's."""
    before = pieces[i - 1].end if i else start
    behind = pieces[i + 1].first if i + 1 < len(pieces) else end
    return max(before, pieces[i].first - _PAUSE), min(behind, pieces[i].end + _PAUSE)


def first_run(
    pieces: Sequence[Piece], guesses: Sequence[LanguageGuess], before: str | None, window: tuple[int, int]
) -> Run:
    """Find the language that a window begins in, and where it ends.

    before: the language of what was said before.   window: its first frame, and the first behind it.
    """
    languages = most_likely(pieces, guesses, before)
    n = next((i for i, one in enumerate(languages) if one != languages[0]), len(pieces))
    lengths = [piece.end - piece.first for piece in pieces[:n]]
    shares = (guess.probabilities[languages[0]] for guess in guesses)
    share = sum(length * one for length, one in zip(lengths, shares, strict=False)) / sum(lengths)
    speech_end = pieces[n - 1].end
    start, window_end = window
    end = window_end if n == len(pieces) else (speech_end + pieces[n].first) // 2
    return Run(languages[0], share, start, speech_end, end)


def most_likely(pieces: Sequence[Piece], guesses: Sequence[LanguageGuess], before: str | None) -> list[str]:
    """Give each piece's language so that all together are most likely, a change having its price (Viterbi)."""
    codes = list(guesses[0].probabilities)
    costs = {code: _CHANGE_BEFORE if before not in (None, code) else 0.0 for code in codes}
    came_from: list[dict[str, str]] = []
    for i, (piece, guess) in enumerate(zip(pieces, guesses, strict=True)):
        if i:
            cheapest = min(codes, key=lambda code: costs[code])
            changed = costs[cheapest] + _CHANGE / (1 + (piece.first - pieces[i - 1].end) / _PAUSE)
            came_from.append({code: cheapest if changed < costs[code] else code for code in codes})
            costs = {code: min(changed, costs[code]) for code in codes}
        weight = _weight(piece.end - piece.first)
        for code in codes:
            costs[code] -= weight * math.log(max(guess.probabilities[code], _LEAST_SHARE))
    found = [min(codes, key=lambda code: costs[code])]
    for origins in reversed(came_from):
        found.append(origins[found[-1]])
    return found[::-1]


def most_spoken(segments: Sequence[Segment]) -> str | None:
    """Give the language in which most seconds are spoken; of equals the one that comes first. None: no text."""
    seconds: dict[str, float] = {}
    for one in segments:
        if one.language is not None and one.text:
            seconds[one.language] = seconds.get(one.language, 0.0) + max(0.0, one.end_s - one.start_s)
    return max(seconds, key=lambda code: seconds[code]) if seconds else None
