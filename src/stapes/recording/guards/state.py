"""The guards of one recording on its way: what they have heard, what they did, what they do next. No model, no audio.

The seek loop asks before it decodes a window, and again with what was decoded; recording/guards.py says what is done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from stapes.audio.mel import FRAMES_PER_SECOND
from stapes.options import Guards
from stapes.recording.guards.pause import Pause, long_pauses, spoil
from stapes.recording.guards.rules import (
    NOBODY,
    WORTH_GOING_BACK,
    Dropped,
    Guarded,
    Said,
    back_to_speech,
    drop_loop,
    drop_unheard,
    is_doubtful,
    overlong_word,
)
from stapes.recording.segments import Cut, Piece, Place
from stapes.recording.time_map import Timeline
from stapes.recording.words.snap_to_speech import begun_by_voice, has_hole, lies_in_pause, opening, out_of_pauses
from stapes.results import Flag, Segment, WindowResult
from stapes.tokenizer import Tokenizer
from stapes.vad.detector import RUN_UP, DetectSpeech, Frames, SpeechMap

#: frames that a window has at least that ends in a pause; speech is heard to its end as far as so many frames before it
_LEAST_WINDOW, _TO_THE_END = 1000, 5
_ANY_MORE, _STILL = "nobody speaks any more", "still nobody speaks"
_DOUBTFUL = "the text around this pause was doubtful"
_NOT_SILENT = "somebody speaks in what was taken for silence"


class Watch:
    """Which guards stand, and where they are.

    All frames are the timeline's; flags have the recording's times.
    """

    def __init__(self, guards: Guards, tokenizer: Tokenizer, timeline: Timeline, *, has_vad: bool) -> None:
        """has_vad: whether somebody can say who speaks; the guards that ask stand only then."""
        self._timeline = timeline
        self._guards = guards
        self._tokenizer = tokenizer
        self._can_listen = has_vad
        self._heard: SpeechMap | None = None  # in the window that is decoded next, or was just now
        self._opening: SpeechMap | None = None  # in its beginning alone
        self._quiet = False  # whether nobody was heard in the last window
        self._looped = False  # whether the last window ended in a loop
        self._leaves_out = False  # whether the window is decoded without its long pauses
        self._flags: list[Flag] = []

    @property
    def flags(self) -> tuple[Flag, ...]:
        """What the guards did so far."""
        return tuple(self._flags)

    def hear(self, heard: SpeechMap, *, is_opening: bool = False) -> None:
        """Take what was heard in the window, or in its opening."""
        if is_opening:
            self._opening = heard
        else:
            self._heard = heard

    # Before a window is decoded.

    def wants_to_know(self, *, is_rest: bool, is_first: bool) -> bool:
        """Whether to listen first: at the end, where it is silent already, and where long pauses are left out.

        is_rest: less than a window is left.   is_first: nothing was decoded before it.
        """
        asks = self._leaves_out or self._may_leave_out(is_rest=is_rest, is_first=is_first)
        return self._can_listen and asks and self._heard is None

    def hears_nobody(self, *, is_rest: bool, is_first: bool) -> bool:
        """Whether it was listened to the window, and it is to be left out, as nobody speaks there."""
        return self._may_leave_out(is_rest=is_rest, is_first=is_first) and self._is_silent

    def _may_leave_out(self, *, is_rest: bool, is_first: bool) -> bool:
        stands = (self._guards.tail_guard and is_rest) or (self._guards.silence_guard and self._quiet)
        return stands and not is_first

    @property
    def _is_silent(self) -> bool:
        return self._heard is not None and not self._heard.spans

    def other_pauses(self, place: Place) -> tuple[Pause, ...]:
        """Give the long pauses that came into a window when others were left out of it."""
        return self._long_pauses(place) if self._leaves_out else ()

    def size(self, place: Place, *, is_rest: bool) -> int:
        """Say how many frames of a window to decode: one that would break off in speech ends in the last of the pauses
        that were left out of it, so that the next window has the whole sentence.
        """
        heard = self._heard if self._leaves_out and not is_rest else None
        if heard is None or not heard.within(place.end - _TO_THE_END, place.end):
            return place.n_frames
        seams = self._timeline.seams(place.seek + _LEAST_WINDOW, place.end)
        return seams[-1].at - place.seek if seams else place.n_frames

    def voices(self, first: int, end: int) -> Frames:
        """Give where somebody speaks in frames first..end, counted from the first, where long pauses were left out."""
        return self._heard.counted_from(first, end) if self._leaves_out and self._heard else ()

    def leave_out(self, place: Place, *, is_rest: bool) -> None:
        """Note that a window is not decoded."""
        self._quiet, self._heard = True, None
        guard, reason = ("tail", _ANY_MORE) if is_rest and self._guards.tail_guard else ("silence", _STILL)
        flag = self._noted(guard, place.start_s, place.end_s, reason)
        last = self._flags[-1] if self._flags else None
        if not is_rest and last and (last.reason, last.end_s) == (_STILL, flag.start_s):
            self._flags[-1] = replace(last, end_s=flag.end_s)
        else:
            self._flags.append(flag)

    # With what was decoded.

    def doubts(self, result: WindowResult, found: Cut, place: Place) -> bool:
        """Whether a window's scores give reason to listen."""
        asks = self._guards.silence_guard or self._guards.speech_guard or self._guards.pause_guard
        may_ask = asks and self._can_listen and self._heard is None
        return may_ask and is_doubtful(result, found, place, self._tokenizer.special.eot)

    def question_of_words(self, result: WindowResult, place: Place) -> DetectSpeech | None:
        """Ask who speaks where a window's words give reason to: in all of it, or in its opening."""
        if not self._guards.silence_guard or not self._can_listen or self._heard is not None:
            return None
        timings = result.timings or ()
        if has_hole(timings, place.n_frames / FRAMES_PER_SECOND):
            return DetectSpeech(place.seek, place.n_frames)
        n_frames = min(opening(timings), place.n_frames)
        return DetectSpeech(place.seek, n_frames, is_opening=True) if n_frames and self._opening is None else None

    def spoiling_pauses(
        self, result: WindowResult, found: Cut, place: Place, clip: tuple[int, int]
    ) -> tuple[Pause, ...]:
        """Give the long pauses without which a window is to be decoded again; none: it stays as it is."""
        if not self._guards.pause_guard or self._heard is None or self._leaves_out:
            return ()
        if not is_doubtful(result, found, place, self._tokenizer.special.eot):
            return ()
        pauses = self._long_pauses(place)
        return pauses if spoil(pauses, result, clip) else ()

    def _long_pauses(self, place: Place) -> tuple[Pause, ...]:
        if self._heard is None:
            return ()
        return long_pauses(self._heard, place.seek, place.end, self._timeline.left_out_before)

    def doubts_silence(self, place: Place) -> bool:
        """Whether somebody speaks, a second or more, in a window without its long pauses that is taken for silence."""
        heard = self._heard if self._guards.speech_guard and self._leaves_out else None
        return heard is not None and heard.frames_within(place.seek, place.end) >= WORTH_GOING_BACK

    def go_again(self, place: Place) -> None:
        """Note that a window without its long pauses is decoded once more, without the text before it."""
        self._flags.append(self._noted("speech", place.start_s, place.end_s, _NOT_SILENT))
        self._leaves_out = True

    def leave_out_pauses(self, pauses: Sequence[Pause]) -> None:
        """Take long pauses out of the timeline; the window is then another one."""
        for one in pauses:
            flag = self._noted("pause", one.start / FRAMES_PER_SECOND, one.end / FRAMES_PER_SECOND, _DOUBTFUL)
            last = self._flags[-1] if self._flags else None
            if last and last.guard == "pause" and flag.start_s <= last.end_s:  # it went on behind the window
                self._flags[-1] = replace(last, end_s=flag.end_s)
            else:
                self._flags.append(flag)
        self._timeline.leave_out(one.left_out for one in pauses)
        self._leaves_out, self._heard = True, None

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
        return self._noted(one.guard, one.start_s, end_s, one.reason, text)

    def _noted(self, guard: str, start_s: float, end_s: float, reason: str, text: str = "") -> Flag:
        """Make a flag in the recording's time."""
        return self._timeline.flag(Flag(guard=guard, start_s=start_s, end_s=end_s, reason=reason, text=text))

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
        """Move words out of pauses, where it was listened; lay what reaches over a seam on one side, in any case."""
        seams = self._timeline.seams(place.seek, place.end)
        heard = self._heard if self._guards.silence_guard else None
        if (known := heard or self._opening) is not None:
            segments = begun_by_voice(segments, known, place.seek)
        if heard is None:
            if not seams:
                return segments
            heard = SpeechMap(((place.seek, place.end),))
        return out_of_pauses(segments, heard, place.seek, place.end, seams)

    def whole(self, place: Place, segments: list[Segment], next_seek: int) -> tuple[list[Segment], int] | None:
        """Drop segments from the first one on that leaves speech out between its words; says where to go on for it.

        None: all of them stay. One at the window's beginning does: to decode it once more would give the same.
        """
        if not self._guards.speech_guard or self._heard is None:
            return None
        found = overlong_word(segments, self._heard)
        if found is None:
            return None
        at, word, spoken_s = found
        said_until_s = max((one.end_s for one in segments[:at]), default=place.start_s)
        begin_s = max(said_until_s, segments[at].start_s - RUN_UP / FRAMES_PER_SECOND)
        begin = round(begin_s * FRAMES_PER_SECOND)
        if begin - place.seek <= WORTH_GOING_BACK:
            return None
        reason = f"the word {word.text.strip()!r} holds {spoken_s:.1f} s of speech"
        self._flags.append(self._noted("speech", begin_s, next_seek / FRAMES_PER_SECOND, reason))
        return segments[:at], begin

    def go_on(self, place: Place, segments: Sequence[Segment], next_seek: int) -> int:
        """Say where to go on: at `next_seek`, or back where speech begins that the window's text leaves out."""
        found = next_seek
        if self._guards.speech_guard and self._heard is not None:
            text = [one for one in segments if one.text]
            said = Said(text[0].start_s, text[-1].end_s, sum(len(one.text) for one in text)) if text else None
            found = back_to_speech(self._heard, place, said, next_seek)
        if found != next_seek:
            start_s, end_s = found / FRAMES_PER_SECOND, next_seek / FRAMES_PER_SECOND
            reason = "somebody speaks behind the last word"
            self._flags.append(self._noted("speech", start_s, end_s, reason))
        return found

    def moved_on(self) -> None:
        """Forget the window."""
        self._quiet, self._leaves_out = self._is_silent, False
        self._heard = self._opening = None
