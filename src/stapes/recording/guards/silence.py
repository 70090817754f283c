"""Silence and tail guards: text is dropped, or not decoded at all, where the VAD finds no speech.

They see the speech in a window, before and after it is decoded. They may skip a window before it is decoded (silence:
when the last one was silent; tail: when less than a window is left), drop all its text, or drop pieces by their words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from stapes.audio.mel import FRAMES_PER_SECOND
from stapes.recording.guards.rules import FREE_CHARACTERS, Dropped, Guarded
from stapes.recording.guards.state import GuardState
from stapes.recording.segments import Piece, WindowSpan, text_of
from stapes.recording.words.snap_to_speech import lies_in_pause

_NO_SPEECH = "no speech here"
_ANY_MORE, _STILL = "no speech any more", "still no speech"
#: characters a second that no speaker reaches
_MOST_CHARACTERS = 45


def may_skip(state: GuardState, *, is_rest: bool, is_first: bool) -> bool:
    """Whether a window is skipped if the VAD finds no speech in it.

    is_rest: less than a window is left.   is_first: nothing of the clip was decoded before it.
    """
    return not is_first and ((state.on.tail_guard and is_rest) or (state.on.silence_guard and state.was_silent))


def skip(state: GuardState, window: WindowSpan, *, is_rest: bool) -> None:
    """Note that a window is not decoded."""
    state.was_silent, state.speech = True, None
    guard, reason = ("tail", _ANY_MORE) if is_rest and state.on.tail_guard else ("silence", _STILL)
    flag = state.flag(guard, window.start_s, window.end_s, reason)
    last = state.flags[-1] if state.flags else None
    goes_on = not is_rest and last is not None and (last.reason, last.end_s) == (_STILL, flag.start_s)
    state.add(flag, extends_last=goes_on)


def drop_text(guarded: Guarded, state: GuardState, window: WindowSpan) -> Guarded:
    """Drop a window's text if there is no speech in it, or less than the text takes to say.

    With speech, no piece is dropped by its own times: after a long silence, Whisper's times are in the silence.
    """
    if not state.on.silence_guard or state.speech is None:
        return guarded
    pieces = [(piece, text_of(piece.tokens, state.eot)) for piece in guarded.found.pieces]
    length = len(state.tokenizer.decode([token for _, text in pieces for token in text]).strip())
    spoken = state.speech.length_within(window.seek, window.end)
    needed = (length - FREE_CHARACTERS) / _MOST_CHARACTERS * FRAMES_PER_SECOND
    if spoken and spoken >= needed:
        return guarded
    reason = "more than is spoken here" if spoken else _NO_SPEECH
    lost = [
        Dropped("silence", piece.start_s, max(piece.start_s, piece.end_s), text, reason)
        for piece, text in pieces
        if text
    ]
    return Guarded(replace(guarded.found, pieces=()), (*guarded.dropped, *lost))


def drop_pieces_in_pauses(pieces: Sequence[Piece], state: GuardState, window: WindowSpan) -> tuple[Piece, ...]:
    """Drop pieces all of whose words are in one pause, if the VAD ran."""
    if not state.on.silence_guard or state.speech is None:
        return tuple(pieces)
    kept = []
    for piece in pieces:
        if lies_in_pause(piece.words, state.speech, window.seek, window.end):
            start_s, end_s = piece.words[0].start_s, piece.words[-1].end_s
            dropped = Dropped("silence", start_s, end_s, text_of(piece.tokens, state.eot), _NO_SPEECH)
            state.add_dropped(dropped, window)
        else:
            kept.append(piece)
    return tuple(kept)
