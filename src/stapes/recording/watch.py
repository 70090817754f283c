"""The guards of one recording on its way: what they have heard, what they did, what they do next. No model, no audio.

The seek loop asks before it decodes a window, and again with what was decoded; recording/guards.py says what is done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from stapes.options import Guards
from stapes.recording.guards import (
    NOBODY,
    Dropped,
    Guarded,
    Place,
    Said,
    back_to_speech,
    drop_loop,
    drop_unheard,
    is_doubtful,
)
from stapes.recording.listening import Heard
from stapes.recording.parts import Part, is_unsure, without_pauses
from stapes.recording.pauses import has_hole, lies_in_pause, out_of_pauses
from stapes.recording.segments import Cut, Piece
from stapes.results import Flag, Segment, WindowResult
from stapes.tokenizer import Tokenizer

_FRAMES_PER_SECOND = 100
_ANY_MORE, _STILL = "nobody speaks any more", "still nobody speaks"
_POOR = "the text around this pause was poor"


class Watch:
    """Which guards stand, and where they are."""

    def __init__(self, guards: Guards, tokenizer: Tokenizer, *, can_listen: bool) -> None:
        """can_listen: whether somebody can say who speaks; the guards that ask stand only then."""
        self._guards = guards
        self._tokenizer = tokenizer
        self._can_listen = can_listen
        self._heard: Heard | None = None  # in the window that is decoded next, or was just now
        self._quiet = False  # whether nobody was heard in the last window
        self._looped = False  # whether the last window ended in a loop
        self._part: Part | None = None  # of a window, that is decoded for itself
        self._flags: list[Flag] = []

    @property
    def flags(self) -> tuple[Flag, ...]:
        """What the guards did so far."""
        return tuple(self._flags)

    def hear(self, heard: Heard) -> None:
        """Take what was heard in the window."""
        self._heard = heard

    # Before a window is decoded.

    def start(self, seek: int) -> int:
        """Say where to go on: behind a pause, if what is before it has been decoded for itself."""
        return seek if self._part is None else self._part.start(seek)

    def size(self, seek: int, size: int) -> int:
        """Say how many frames of a window to decode: no more than the speech before a pause, if it is on its own."""
        return size if self._part is None else self._part.size(seek, size)

    def ends_at(self, frame: int) -> bool:
        """Whether a window ends there because a pause is left out."""
        return self._part is not None and self._part.end == frame

    def wants_to_know(self, *, is_rest: bool) -> bool:
        """Whether to listen first: at the end, and where it is silent already. is_rest: less than a window is left."""
        asks = (self._guards.tail_guard and is_rest) or (self._guards.silence_guard and self._quiet)
        return self._can_listen and asks and self._heard is None

    @property
    def hears_nobody(self) -> bool:
        """Whether it was listened to the window, and nobody speaks there."""
        return self._heard is not None and not self._heard.spans

    def leave_out(self, place: Place, *, is_rest: bool) -> None:
        """Note that a window is not decoded."""
        self._quiet, self._heard = True, None
        last = self._flags[-1] if self._flags else None
        if not is_rest and last and (last.reason, last.end_s) == (_STILL, place.start_s):
            self._flags[-1] = replace(last, end_s=place.end_s)
        else:
            guard, reason = ("tail", _ANY_MORE) if is_rest and self._guards.tail_guard else ("silence", _STILL)
            self._flags.append(Flag(guard=guard, start_s=place.start_s, end_s=place.end_s, reason=reason))

    # With what was decoded.

    def doubts(self, result: WindowResult, found: Cut, place: Place) -> bool:
        """Whether a window's scores give reason to listen."""
        asks = self._guards.silence_guard or self._guards.speech_guard or self._guards.pause_guard
        may_ask = asks and self._can_listen and self._heard is None
        return may_ask and is_doubtful(result, found, place, self._tokenizer.special.eot)

    def doubts_words(self, result: WindowResult, place: Place) -> bool:
        """Whether a window's words give reason to listen."""
        may_ask = self._guards.silence_guard and self._can_listen and self._heard is None
        return may_ask and has_hole(result.timings or (), place.n_frames / _FRAMES_PER_SECOND)

    def take_apart(self, result: WindowResult, found: Cut, place: Place) -> int | None:
        """Decide to decode a window's speech anew without the long pause in it; gives the frame to go on at.

        None: the window stays as it is.
        """
        if not self._guards.pause_guard or self._heard is None or self.ends_at(place.end) or not is_unsure(result):
            return None
        again = without_pauses(self._heard, place.seek, place.end)
        if again is None or not is_doubtful(result, found, place, self._tokenizer.special.eot):
            return None
        self._part = again.part
        start_s, end_s = (frame / _FRAMES_PER_SECOND for frame in again.pause)
        self._flags.append(Flag(guard="pause", start_s=start_s, end_s=end_s, reason=_POOR))
        return again.seek

    def filtered(self, found: Cut, place: Place, prompt: Sequence[int]) -> Guarded:
        """Take out what is not to be believed."""
        guarded, eot = Guarded(found), self._tokenizer.special.eot
        if self._guards.loop_guard:
            guarded = drop_loop(found, place, prompt, eot)
        if self._guards.silence_guard and self._heard is not None:
            text = [one for piece in guarded.found.pieces for one in piece.tokens if one < eot]
            length = len(self._tokenizer.decode(text).strip())
            guarded = drop_unheard(guarded, self._heard, place, length, eot)
        if guarded.looped and self._looped:  # the same again: whatever is said there, this model does not hear it
            guarded = replace(guarded, found=replace(guarded.found, advance=place.n_frames))
        return guarded

    def keep(self, guarded: Guarded, place: Place) -> None:
        """Note what was taken out of a window."""
        self._looped = guarded.looped and not self._looped
        self._flags.extend(self._flag(one, place) for one in guarded.dropped)

    def _flag(self, one: Dropped, place: Place) -> Flag:
        text = self._tokenizer.decode(one.tokens).strip()
        end_s = max(one.start_s, min(one.end_s, place.end_s))  # invented times may lie behind the sound
        return Flag(guard=one.guard, start_s=one.start_s, end_s=end_s, reason=one.reason, text=text)

    def heard_pieces(self, pieces: tuple[Piece, ...], place: Place) -> tuple[Piece, ...]:
        """Drop pieces whose words lie in a pause, where it was listened."""
        heard = self._heard
        if not self._guards.silence_guard or heard is None:
            return pieces
        kept = []
        for piece in pieces:
            if lies_in_pause(piece.words, heard, place.seek, place.end):
                text = tuple(token for token in piece.tokens if token < self._tokenizer.special.eot)
                times = piece.words[0].start_s, piece.words[-1].end_s
                self._flags.append(self._flag(Dropped("silence", *times, text, NOBODY), place))
            else:
                kept.append(piece)
        return tuple(kept)

    def out_of_pauses(self, segments: list[Segment], place: Place) -> list[Segment]:
        """Move words out of pauses, where it was listened."""
        if not self._guards.silence_guard or self._heard is None:
            return segments
        return out_of_pauses(segments, self._heard, place.seek, place.end)

    def go_on(self, place: Place, segments: Sequence[Segment], next_seek: int) -> int:
        """Say where to go on: at `next_seek`, or back where speech begins that the window's text leaves out."""
        found = next_seek
        if self._guards.speech_guard and self._heard is not None:
            text = [one for one in segments if one.text]
            said = Said(text[0].start_s, text[-1].end_s, sum(len(one.text) for one in text)) if text else None
            found = back_to_speech(self._heard, place, said, next_seek)
        if found != next_seek:
            start_s, end_s = found / _FRAMES_PER_SECOND, next_seek / _FRAMES_PER_SECOND
            reason = "somebody speaks behind the last word"
            self._flags.append(Flag(guard="speech", start_s=start_s, end_s=end_s, reason=reason))
        return found

    def moved_on(self) -> None:
        """Forget the window."""
        self._quiet, self._heard = self.hears_nobody, None
