"""The language of each window, and the questions that find it. Pure: no model, no audio.

With one language, there is one question at the recording's beginning. With several, there are questions for each
window: one for each piece of speech between two pauses, over the same encoding. Where the language changes at a pause,
the window ends there. docs/languages.md has the measurements of these numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from stapes.audio.intervals import Interval
from stapes.audio.mel import N_FRAMES
from stapes.options import AudioContext, Speech
from stapes.recording.audio_context import encoded_frames
from stapes.recording.language.question import mean_guess
from stapes.recording.requests import Asking, Detect, DetectSpeech
from stapes.recording.segments import WindowSpan
from stapes.results import LanguageGuess, Segment
from stapes.vad.spans import SpeechMap

#: a piece that is shorter than this joins its neighbour: 1 s
_SHORTEST = 100
#: part of the pauses around a piece that belongs to its question, 1 s: without it, one in ten more is wrong
_PAUSE = 100
#: a piece counts by its length up to this: 4 s; longer ones are no surer
_FULL_WEIGHT = 400
#: a piece counts no more than this against a language: the network is sometimes very sure, and wrong
_LEAST_SHARE = 0.01
#: what a change of language costs inside a window, and at its beginning, in log-probability; the first is for no pause
#: at all, half of it for one of a second
_CHANGE, _CHANGE_BEFORE = 2.0, 1.0
#: a language that is less probable than this does not take the place of the one before, unless a threshold is given
_SURE = 0.5


@dataclass(frozen=True, slots=True)
class Run:
    """The part of a window in one language, from the window's beginning on."""

    language: str
    share: float  # mean probability of the language
    start: int  # the window's first frame
    speech_end: int  # frame after its last word
    end: int  # frame in the pause after that, or the window's end


class LanguagePerWindow:
    """State of one recording: the languages of its windows."""

    def __init__(
        self,
        speech: Speech,
        *,
        content_frames: int,
        only: str | None = None,
        has_vad: bool = False,
        audio_context: AudioContext = "full",
        plain: bool = False,
        first_frame: int = 0,
        window_frames: int = N_FRAMES,
        is_exact: bool = True,
    ) -> None:
        """Take the options.

        only: the one language that the model knows.
        has_vad: whether `DetectSpeech` has an answer; without one, a window is one piece.
        plain: whether languages are detected as faster-whisper does it: from `first_frame` on, by the majority of
        windows of `window_frames`; and each window has the language that is most probable in it.
        is_exact: whether a short recording is asked about with the spectrum of silence after it, as the reference does.
        Otherwise it is asked about as it is decoded, so that it is encoded once, and in the reference's way only where
        that leaves a doubt.
        """
        self._speech = speech
        self._content_frames = content_frames
        self._has_vad = has_vad
        self._audio_context = audio_context
        self._plain = plain
        self._window_frames = window_frames
        self._is_exact = is_exact
        self._first_frame = first_frame if first_frame < content_frames else 0
        self.each = speech.multilingual and only is None  # whether each window has a separate language
        self.language: str | None = only or speech.language_code  # of the window that is decoded next
        self.guess: LanguageGuess | None = None  # of the whole recording
        self._before: str | None = None  # of the last window with text
        self._pieces: tuple[Interval, ...] = ()  # between two pauses, of the window that was asked about last
        self._run: Run | None = None  # a language that ends inside a window
        self._known: list[tuple[Interval, LanguageGuess]] = []  # asked in earlier windows

    @property
    def of_segments(self) -> str | None:
        """The language to record in the window's segments; None where the recording has one."""
        return self.language if self.each else None

    @property
    def changed(self) -> bool:
        """Whether the window is in another language than the text before it."""
        return self.each and self._before not in (None, self.language)

    def detect_once(self) -> Asking[Detect, None]:
        """Ask for the language of the recording's beginning, 30 s after 30 s, where the recording has one language."""
        threshold, most = self._speech.language_detection_threshold, self._speech.language_detection_segments
        if self._plain:
            yield from self._detect_by_majority(threshold or 0.0, most)
            return
        guesses: list[LanguageGuess] = []
        while self.guess is None:
            seek = len(guesses) * N_FRAMES
            guess: LanguageGuess = yield (asked := self._opening(seek))
            is_short = not seek and asked.n_frames is not None and asked.encoded_frames is None
            if is_short and guess.probability < _SURE:
                guess = yield Detect()
            guesses.append(guess)
            is_sure = threshold is not None and guesses[-1].probability >= threshold
            if is_sure or len(guesses) == most or len(guesses) * N_FRAMES >= self._content_frames:
                self.guess = guesses[-1] if is_sure else mean_guess(guesses)
        self.language = self.guess.language

    def _detect_by_majority(self, threshold: float, most: int) -> Asking[Detect, None]:
        """Take the first language that is more probable than the threshold, else the one that was found most often."""
        votes: dict[str, int] = {}
        size = self._window_frames
        for seek in range(self._first_frame, max(self._content_frames, self._first_frame + 1), size)[:most]:
            n_frames = min(size, self._content_frames + 1 - seek)  # with a frame of silence, as it has it
            guess: LanguageGuess = yield Detect(seek, n_frames, frames=((seek, seek + n_frames),))
            votes[guess.language] = votes.get(guess.language, 0) + 1
            if guess.probability > threshold:
                votes = {guess.language: 1}
                break
        self.guess = replace(guess, language=max(votes, key=lambda language: votes[language]))
        self.language = self.guess.language

    def _opening(self, seek: int) -> Detect:
        n_frames = min(N_FRAMES, self._content_frames - seek)
        encoded = encoded_frames(n_frames, self._audio_context)
        if not seek and encoded is None and (self._is_exact or not 0 < n_frames < N_FRAMES):
            return Detect()
        return Detect(seek, n_frames, frames=((seek, seek + n_frames),), encoded_frames=encoded)

    def detect(
        self, window: WindowSpan, frames: tuple[Interval, ...], voices: tuple[Interval, ...]
    ) -> Asking[Detect | DetectSpeech, None]:
        """Ask for the language of a window, piece by piece, where each window has one.

        frames: the window's in the recording's time.   voices: for quiet-speech gain, where no pieces are known.
        """
        if not self.each or self._run_at(window.seek) is not None:
            return
        if self._plain:
            self.language = (yield Detect(window.seek, window.n_frames, None, frames)).language
            return
        changes_here = self._run is not None and window.seek == self._run.end
        self._run, self._pieces = None, ()
        if self._has_vad:
            speech: SpeechMap = yield DetectSpeech(window.seek, window.n_frames, frames)
            self._pieces = pieces_of(speech.within(window.seek, window.end))
        guesses: list[LanguageGuess] = []
        voices = self.voices(window.seek, window.end) or voices
        encoded = encoded_frames(window.n_frames, self._audio_context)
        if not self._pieces and (self._before is None or not self._has_vad):
            guesses.append((yield Detect(window.seek, window.n_frames, None, frames, voices, encoded)))
        for i in range(len(self._pieces)):
            first, end = with_pauses(self._pieces, i, window.seek, window.end)
            part = first - window.seek, end - window.seek
            guesses.append((yield Detect(window.seek, window.n_frames, part, frames, voices, encoded)))
        self._decide(window, guesses, changes_here=changes_here)

    def _decide(self, window: WindowSpan, own_guesses: Sequence[LanguageGuess], *, changes_here: bool) -> None:
        if not own_guesses:
            self.language = self._before
            return
        pieces = self._pieces or ((window.seek, window.end),)
        asked = list(zip(pieces, own_guesses, strict=True))
        known = [one for one in self._known if one[0][1] > window.seek]
        guesses = [together(piece, guess, known) for piece, guess in asked]
        self._known = known + asked
        run = first_run(pieces, guesses, None if changes_here else self._before, (window.seek, window.end))
        threshold = self._speech.language_detection_threshold
        unsure = run.share < (_SURE if threshold is None else threshold)
        self.language = self._before if unsure and self._before is not None else run.language
        self._run = run if run.end < window.end else None

    def start(self, seek: int) -> int:
        """Return where to go on: after a language that has ended, if only a pause is left of it."""
        run = self._run_at(seek)
        return seek if run is None or seek < run.speech_end else run.end

    def size(self, seek: int, size: int) -> int:
        """Return how many frames of a window to decode: no more than are in its language."""
        run = self._run_at(seek)
        return size if run is None else min(size, run.end - seek)

    def voices(self, first: int, end: int) -> tuple[Interval, ...]:
        """Return the pieces in frames first..end, counted from the first; none where one language is spoken."""
        return SpeechMap(self._pieces).counted_from(first, end)

    def forget_from(self, frame: int) -> None:
        """Forget all results from a frame on, after the timeline has changed there."""
        self._run = None
        self._known = [one for one in self._known if one[0][1] <= frame]

    def _run_at(self, seek: int) -> Run | None:
        """The language that ends inside a window, if a frame is in it; clips need not be in order."""
        run = self._run
        return run if run is not None and run.start <= seek < run.end else None

    def end_window(self, *, with_text: bool) -> None:
        """Note that the window was decoded; one without text does not change the language."""
        if with_text:
            self._before = self.language


def pieces_of(spans: Sequence[Interval]) -> tuple[Interval, ...]:
    """Join speech spans with their nearest neighbours, until each piece is long enough for a question."""
    pieces = list(spans)
    while len(pieces) > 1:
        short = min(range(len(pieces)), key=lambda i: _length(pieces[i]))
        if _length(pieces[short]) >= _SHORTEST:
            break
        gaps = {i: pieces[i + 1][0] - pieces[i][1] for i in (short - 1, short) if 0 <= i < len(pieces) - 1}
        at = min(gaps, key=lambda i: gaps[i])
        pieces[at : at + 2] = [(pieces[at][0], pieces[at + 1][1])]
    return tuple(pieces)


def together(piece: Interval, guess: LanguageGuess, known: Sequence[tuple[Interval, LanguageGuess]]) -> LanguageGuess:
    """Return the mean of a piece's own guess and of those of earlier windows over the same sound, by how much of it."""
    votes = [(_weight(_length(piece)), guess)]
    for other, its in known:
        shared = min(piece[1], other[1]) - max(piece[0], other[0])
        if 2 * shared > min(_length(piece), _length(other)):
            votes.append((_weight(shared), its))
    return mean_guess([one for _, one in votes], [weight for weight, _ in votes])


def _length(piece: Interval) -> int:
    return piece[1] - piece[0]


def _weight(n_frames: int) -> float:
    return min(1.0, n_frames / _FULL_WEIGHT)


def with_pauses(pieces: Sequence[Interval], i: int, start: int, end: int) -> Interval:
    """Return the frames of a piece and of the pauses around it, as far as they are short; start, end: the window's."""
    before = pieces[i - 1][1] if i else start
    after = pieces[i + 1][0] if i + 1 < len(pieces) else end
    return max(before, pieces[i][0] - _PAUSE), min(after, pieces[i][1] + _PAUSE)


def first_run(
    pieces: Sequence[Interval], guesses: Sequence[LanguageGuess], before: str | None, window: Interval
) -> Run:
    """Find the language that a window begins in, and where it ends.

    before: the language of what was said before.   window: its first frame, and the first after it.
    """
    languages = most_likely(pieces, guesses, before)
    n = next((i for i, one in enumerate(languages) if one != languages[0]), len(pieces))
    lengths = [_length(piece) for piece in pieces[:n]]
    shares = (guess.probabilities[languages[0]] for guess in guesses)
    share = sum(length * one for length, one in zip(lengths, shares, strict=False)) / sum(lengths)
    speech_end = pieces[n - 1][1]
    start, window_end = window
    end = window_end if n == len(pieces) else (speech_end + pieces[n][0]) // 2
    return Run(languages[0], share, start, speech_end, end)


def most_likely(pieces: Sequence[Interval], guesses: Sequence[LanguageGuess], before: str | None) -> list[str]:
    """Return each piece's language so that the sequence is most likely; a change has a cost (Viterbi)."""
    codes = list(guesses[0].probabilities)
    costs = {code: _CHANGE_BEFORE if before not in (None, code) else 0.0 for code in codes}
    came_from: list[dict[str, str]] = []
    for i, (piece, guess) in enumerate(zip(pieces, guesses, strict=True)):
        if i:
            cheapest = min(codes, key=lambda code: costs[code])
            changed = costs[cheapest] + _CHANGE / (1 + (piece[0] - pieces[i - 1][1]) / _PAUSE)
            came_from.append({code: cheapest if changed < costs[code] else code for code in codes})
            costs = {code: min(changed, costs[code]) for code in codes}
        weight = _weight(_length(piece))
        for code in codes:
            costs[code] -= weight * math.log(max(guess.probabilities[code], _LEAST_SHARE))
    found = [min(codes, key=lambda code: costs[code])]
    for origins in reversed(came_from):
        found.append(origins[found[-1]])
    return found[::-1]


def most_spoken(segments: Sequence[Segment]) -> str | None:
    """Return the language in which most seconds are spoken; of equals the one that comes first. None: no text."""
    seconds: dict[str, float] = {}
    for one in segments:
        if one.language is not None and one.text:
            seconds[one.language] = seconds.get(one.language, 0.0) + max(0.0, one.end_s - one.start_s)
    return max(seconds, key=lambda code: seconds[code]) if seconds else None
