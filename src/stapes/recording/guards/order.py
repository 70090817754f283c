"""Asks the guards of one recording, always in this order:

Before a window is decoded (`before_window`; VAD runs after a silent window, in a last one, and without pauses):
 1. pause            cuts out long pauses that came into the window when others were cut out; the window is chosen again
 2. tail, silence    skip a window without speech, at the clip's end or after a silent window
 3. pause            ends a window that would end inside speech in the last pause that was cut out of it
In each try, a loop is a reason for the next temperature (decoding/window.py).
With the text (`check_text`, and `check_words` once its words have times; the VAD runs where there is doubt):
 4. loop             keeps a looping phrase once
 5. silence          drops text where there is no speech, or less than the text takes to say
Then (`must_decode_again`):
 6. pause            decodes doubtful text around long pauses again without them
 7. speech           decodes a window without pauses again, without prompt, if its speech is taken for silence
With its segments (`check_pieces`, `place_words`, `before_overlong_word`, `go_on`):
 8. silence          drops pieces whose words are all in a pause; other words move to speech (words/snap_to_speech.py)
 9. speech           drops segments from an overlong word on, and goes back to speech after the last word
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from stapes.audio.intervals import Interval
from stapes.decoding.quality import is_silence
from stapes.options import TranscribeOptions
from stapes.recording.guards import pause, silence, speech
from stapes.recording.guards.loop import drop_loop
from stapes.recording.guards.pause import Again
from stapes.recording.guards.rules import ChooseAnew, Guarded, Skip, is_doubtful
from stapes.recording.guards.state import GuardState
from stapes.recording.requests import Asking, Decode, DetectSpeech
from stapes.recording.segments import Cut, Piece, WindowSpan
from stapes.recording.time_map import Timeline
from stapes.recording.words.snap_to_speech import has_hole, opening, snap
from stapes.results import Flag, Segment, WindowResult
from stapes.tokenizer import Tokenizer


class Guards:
    """The active guards of one recording."""

    def __init__(self, options: TranscribeOptions, tokenizer: Tokenizer, timeline: Timeline, *, has_vad: bool) -> None:
        """has_vad: whether `DetectSpeech` has an answer; guards that need one act only then."""
        self._state = GuardState(options.guards_on, tokenizer, timeline, has_vad=has_vad)
        self._thresholds = options.thresholds

    @property
    def flags(self) -> tuple[Flag, ...]:
        """The actions of the guards so far, in the recording's time."""
        return tuple(self._state.flags)

    def before_window(
        self, window: WindowSpan, *, is_rest: bool, is_first: bool
    ) -> Asking[DetectSpeech, WindowSpan | Skip | ChooseAnew]:
        """Return how much of a window to decode, or another action."""
        state = self._state
        may_skip = silence.may_skip(state, is_rest=is_rest, is_first=is_first)
        if state.has_vad and (state.without_pauses or may_skip):
            state.speech = yield state.question(window.seek, window.n_frames)
        if pauses := pause.more_pauses(state, window):
            pause.cut_out(state, pauses)
            return ChooseAnew(pauses[0].start)
        if may_skip and state.is_silent:
            silence.skip(state, window, is_rest=is_rest)
            return Skip()
        return WindowSpan(window.seek, pause.frames_to_decode(state, window, is_rest=is_rest))

    def voices(self, first: int, end: int) -> tuple[Interval, ...]:
        """Return speech for quiet-speech gain in frames first..end, counted from the first; (): no gain."""
        return pause.voices(self._state, first, end)

    def check_text(self, asked: Decode, result: WindowResult, found: Cut) -> Asking[DetectSpeech, Guarded]:
        """Remove text that loops, or that was not spoken."""
        state, on = self._state, self._state.on
        may_ask = state.has_vad and state.speech is None and (on.silence_guard or on.speech_guard or on.pause_guard)
        if may_ask and is_doubtful(result, found, asked.span, state.eot):
            state.speech = yield state.question(asked.seek, asked.n_frames)
        return self._filtered(found, asked)

    def check_words(
        self, asked: Decode, result: WindowResult, found: Cut, guarded: Guarded
    ) -> Asking[DetectSpeech, Guarded]:
        """Check again if word times are a reason to run the VAD, on the whole window or on its opening."""
        state, timings = self._state, result.timings or ()
        if state.on.silence_guard and state.has_vad and state.speech is None:
            if has_hole(timings, asked.span.duration_s):
                state.speech = yield state.question(asked.seek, asked.n_frames)
                return self._filtered(found, asked)
            if n_frames := min(opening(timings), asked.n_frames):
                state.opening = yield state.question(asked.seek, n_frames)
        return guarded

    def _filtered(self, found: Cut, asked: Decode) -> Guarded:
        state = self._state
        guarded = drop_loop(found, asked.span, asked.prompt, state.eot) if state.on.loop_guard else Guarded(found)
        guarded = silence.drop_text(guarded, state, asked.span)
        if guarded.looped and state.had_loop:  # the same text again: this model does not decode the speech there
            guarded = replace(guarded, found=replace(guarded.found, advance=asked.n_frames))
        return guarded

    def must_decode_again(
        self, asked: Decode, result: WindowResult, found: Cut, clip: Interval, *, has_prompt: bool
    ) -> Again | None:
        """Return how a window is decoded again; None: it stays.

        found: before text was taken out.   clip: what of the recording is decoded.   has_prompt: of previous text.
        """
        if pauses := pause.pauses_to_cut(self._state, result, found, asked.span, clip):
            return Again(pauses)
        silent = has_prompt and is_silence(result, self._thresholds)
        return Again(without_prompt=True) if silent and speech.doubts_silence(self._state, asked.span) else None

    def note_again(self, again: Again, window: WindowSpan) -> None:
        """Cut the pauses out, and note what was decided, once the window is recorded as it was."""
        if again.without_prompt:
            speech.note_without_prompt(self._state, window)
        else:
            pause.cut_out(self._state, again.pauses)

    def keep(self, guarded: Guarded, window: WindowSpan) -> None:
        """Note what was taken out of a window that stays."""
        self._state.had_loop = guarded.looped and not self._state.had_loop
        for one in guarded.dropped:
            self._state.add_dropped(one, window)

    def check_pieces(self, pieces: Sequence[Piece], window: WindowSpan) -> tuple[Piece, ...]:
        """Drop pieces whose words are all in a pause."""
        return silence.drop_pieces_in_pauses(pieces, self._state, window)

    def place_words(self, segments: list[Segment], window: WindowSpan) -> list[Segment]:
        """Move words out of pauses, if the VAD ran; in any case put words that span a seam on one side."""
        state = self._state
        found, seams = state.speech if state.on.silence_guard else None, state.timeline.seams(window.seek, window.end)
        return snap(segments, window, speech=found, opening=state.opening, seams=seams)

    def before_overlong_word(
        self, segments: list[Segment], window: WindowSpan, next_seek: int
    ) -> tuple[list[Segment], int] | None:
        """Drop segments from one with an overlong word on; return the others, and where to go on. None: all stay."""
        return speech.before_overlong_word(self._state, segments, window, next_seek)

    def go_on(self, segments: Sequence[Segment], window: WindowSpan, next_seek: int) -> int:
        """Return where to go on: at `next_seek`, or back where speech begins that the text leaves out."""
        return speech.go_on(self._state, segments, window, next_seek)

    def end_window(self) -> None:
        """Forget the window."""
        self._state.end_window()
