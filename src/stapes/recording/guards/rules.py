"""What is to be believed of a window's text, and where to go on: guards against invented, repeated and lost speech.

Each acts only where the reference's own output is wrong; docs/guards.md has the measurements behind the numbers. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from stapes.audio.mel import FRAMES_PER_SECOND
from stapes.decoding.repetition import find_loop
from stapes.recording.segments import Cut, Piece, Place
from stapes.results import Segment, WindowResult, Word
from stapes.vad.detector import RUN_UP, SpeechMap

#: frames without speech that make a pause a long one
LONG_PAUSE = 300

NOBODY = "nobody speaks here"
#: scores that speech hardly ever has: there it costs little to listen
_NO_SPEECH, _AVG_LOGPROB, _COMPRESSION = 0.3, -0.7, 2.4
#: text tokens a second; who speaks without long pauses says three and more
_SPARSE = 1.5
#: frames without text, between a window's last word and where the loop would go on, that give reason to listen
_LONG_REST = 200
#: characters a second that nobody says, of those beyond what may be said while the network has not heard anything yet
_MOST_CHARACTERS, _FREE = 45, 12
#: characters a second that quick speakers say
_QUICK_CHARACTERS = 25
#: frames worth going back for: of speech, from half a second behind the last word on, and from the window's start
WORTH_GOING_BACK, _BEHIND_TEXT = 100, 50
#: frames of speech that one word takes at most, or so many for each character, and for each digit beside
_LONGEST_WORD, _CHARACTER, _DIGIT = 200, 15, 50


@dataclass(frozen=True, slots=True)
class Dropped:
    """Text that a guard takes out."""

    guard: str
    start_s: float
    end_s: float
    tokens: tuple[int, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Said:
    """A window's text: from when to when, and how many characters."""

    start_s: float
    end_s: float
    length: int


@dataclass(frozen=True, slots=True)
class Guarded:
    """What is left of a window's cut. Without pieces: as if the window were silence."""

    found: Cut
    dropped: tuple[Dropped, ...] = ()

    @property
    def looped(self) -> bool:
        """Whether a loop was dropped."""
        return any(one.guard == "loop" for one in self.dropped)


def is_doubtful(result: WindowResult, found: Cut, place: Place, eot: int) -> bool:
    """Whether a window's scores or times give reason to listen: few windows of speech do. eot: text has lower ids."""
    n_text = sum(token < eot for token in result.tokens)
    return (
        result.no_speech_prob > _NO_SPEECH
        or result.avg_logprob < _AVG_LOGPROB
        or result.compression_ratio > _COMPRESSION
        or n_text < _SPARSE * place.n_frames / FRAMES_PER_SECOND
        or place.seek + found.advance - _frame(found.pieces[-1].end_s) > _LONG_REST
    )


def drop_unheard(guarded: Guarded, heard: SpeechMap, place: Place, length: int, eot: int) -> Guarded:
    """Drop a window's text where nobody speaks in it, or not for as long as the text takes to say.

    length: of the whole text, in characters.   Of a window in which somebody speaks no piece is dropped by its times:
    behind a long silence, Whisper's lie where the silence is.
    """
    spoken = heard.frames_within(place.seek, place.end)
    needed = (length - _FREE) / _MOST_CHARACTERS * FRAMES_PER_SECOND
    if spoken and spoken >= needed:
        return guarded
    reason = "more than is spoken here" if spoken else NOBODY
    lost = [_dropped("silence", [piece], _text(piece.tokens, eot), reason) for piece in guarded.found.pieces]
    return Guarded(replace(guarded.found, pieces=()), (*guarded.dropped, *(one for one in lost if one.tokens)))


def drop_loop(found: Cut, place: Place, before: Sequence[int], eot: int) -> Guarded:
    """Leave a phrase that loops there once, or not at all if it was said before the window already.

    before: what the window was told of the text before it; times among it.
    Where the loop ends the text, it goes on behind the last piece that is whole: what was said instead is still there.
    """
    text = _text((token for piece in found.pieces for token in piece.tokens), eot)
    loop = find_loop(text, _text(before, eot))
    if loop is None:
        return Guarded(found)
    lost = range(loop.start + loop.phrase if loop.start >= 0 else 0, loop.end)
    pieces, cut_short, at, ends_whole = [], [], 0, True
    for piece in found.pieces:
        own = range(at, at + len(_text(piece.tokens, eot)))
        at = own.stop
        if own.stop <= lost.start or own.start >= lost.stop:
            pieces.append(piece)
            ends_whole = True
            continue
        cut_short.append(piece)
        if own.start < lost.start or own.stop > lost.stop:
            pieces.append(replace(_without(piece, lost, own.start, eot), flags=("loop",)))
            ends_whole = False
        elif pieces:
            pieces[-1] = replace(pieces[-1], flags=("loop",))
    dropped = _dropped("loop", cut_short, text[lost.start : lost.stop], f"{loop.phrase} tokens, {loop.times} times")
    advance = found.advance
    if pieces and ends_whole and lost.stop == len(text):
        advance = max(1, min(advance, _frame(pieces[-1].end_s) - place.seek))
    return Guarded(replace(found, pieces=tuple(pieces), advance=advance), (dropped,))


def back_to_speech(heard: SpeechMap, place: Place, said: Said | None, next_seek: int) -> int:
    """Say where to go on: where speech begins that the window's text leaves out, else at `next_seek`.

    said: the text; None: there is none. Where its times hold too little speech for it they are not believed.
    """
    behind = place.seek
    if said is not None:
        behind = _frame(said.end_s) + _BEHIND_TEXT
        needed = (said.length - _FREE) / _QUICK_CHARACTERS * FRAMES_PER_SECOND
        if heard.frames_within(_frame(said.start_s), behind) < max(needed, 1):
            return next_seek
    # Speech at a window's very beginning was decoded from there: to do so again would give the same.
    nearest = place.seek + WORTH_GOING_BACK + RUN_UP
    left = [span for span in heard.within(behind, min(next_seek, place.end)) if span[0] > nearest]
    return left[0][0] - RUN_UP if sum(stop - start for start, stop in left) >= WORTH_GOING_BACK else next_seek


def overlong_word(segments: Sequence[Segment], heard: SpeechMap) -> tuple[int, Word, float] | None:
    """Find a word that holds more speech than a word takes: others were said in it, and left out.

    Gives its segment's place, the word, and how many seconds of speech it holds.
    """
    for place, segment in enumerate(segments):
        for word in segment.words or ():
            most = max(_LONGEST_WORD, _CHARACTER * len(word.text)) + _DIGIT * sum(map(str.isdigit, word.text))
            spoken = heard.frames_within(_frame(word.start_s), _frame(word.end_s))
            if spoken > most:
                return place, word, spoken / FRAMES_PER_SECOND
    return None


def _dropped(guard: str, pieces: Sequence[Piece], tokens: tuple[int, ...], reason: str) -> Dropped:
    return Dropped(guard, pieces[0].start_s, max(pieces[0].start_s, pieces[-1].end_s), tokens, reason)


def _without(piece: Piece, lost: range, first: int, eot: int) -> Piece:
    """Take ids of text out of a piece; lost: positions in the window's text, of which the piece's begin at `first`."""
    kept, at = [], first
    for token in piece.tokens:
        if token < eot:
            at += 1
            if at - 1 in lost:
                continue
        kept.append(token)
    return replace(piece, tokens=tuple(kept))


def _text(tokens: Iterable[int], eot: int) -> tuple[int, ...]:
    return tuple(token for token in tokens if token < eot)


def _frame(seconds: float) -> int:
    return round(seconds * FRAMES_PER_SECOND)
