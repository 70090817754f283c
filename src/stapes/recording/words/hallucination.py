"""Where the loop goes on after a window with words, and which of its text seems invented. Pure.

Source: openai/whisper transcribe.py at c0d2f62, the part of the seek loop that begins with `if word_timestamps`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stapes.audio.mel import FRAMES_PER_SECOND
from stapes.recording.segments import Cut, Piece, WindowSpan, frame
from stapes.recording.words.timing import last_word_end
from stapes.results import Word

#: words that do not count in whether text was invented
_MARKS = "\"'“¿([{-\"'.。,，!！?？:：”)]}、"
#: so many of a segment's first words are looked at
_WORDS_LOOKED_AT = 8


@dataclass(frozen=True, slots=True)
class Settled:
    """The kept pieces of a window, and where the loop goes on. None: the window counts as not decoded."""

    pieces: tuple[Piece, ...] | None
    next_seek: int


def settle(
    found: Cut,
    window: WindowSpan,
    threshold_s: float | None,
    *,
    window_frames: int,
    content_frames: int,
    last_speech_s: float = 0.0,
    to_last_word: bool = False,
) -> Settled:
    """Decide where the loop goes on, and drop what seems invented around silences longer than `threshold_s`.

    found: its pieces with their words.   threshold_s: None drops nothing.   window_frames: that were encoded (3000).
    content_frames: of the recording.   last_speech_s: where speech ended before the window.
    to_last_word: whether the loop goes on at the last word however short the rest is, as in faster-whisper.
    The loop always moves on by a frame or more (in the reference, rounding may stop it, without end).
    """
    full_end_s = (window.seek + window_frames) / FRAMES_PER_SECOND
    pieces, next_seek = found.pieces, window.seek + found.advance
    end_s = last_word_end(pieces)
    if not found.closed and end_s is not None and end_s > window.start_s:
        next_seek = frame(end_s)
        if threshold_s is not None and not to_last_word and not full_end_s - end_s > threshold_s:
            next_seek = window.end
    if threshold_s is not None:
        first = next((piece for piece in pieces if piece.words), None)
        if first is not None and is_anomaly(first.words) and (gap_s := first.start_s - window.start_s) > threshold_s:
            return Settled(None, max(window.seek + frame(gap_s), window.seek + 1))
        cut = _first_invented(pieces, window, full_end_s, threshold_s, last_speech_s)
        if cut is not None:
            invented, pieces = pieces[cut], pieces[:cut]
            next_seek = frame(max(window.start_s + 1, invented.start_s))
            if content_frames / FRAMES_PER_SECOND - invented.end_s < threshold_s:
                next_seek = content_frames
    return Settled(pieces, max(next_seek, window.seek + 1))


def _first_invented(
    pieces: Sequence[Piece], window: WindowSpan, full_end_s: float, threshold_s: float, last_speech_s: float
) -> int | None:
    """Find the first piece that seems invented, with silence or more of its kind on either side."""
    spoken_until_s = last_speech_s
    for i, piece in enumerate(pieces):
        if not piece.words:
            continue
        if is_anomaly(piece.words):
            following = next((one for one in pieces[i + 1 :] if one.words), None)
            next_start_s = following.words[0].start_s if following else window.start_s + window.duration_s
            silence_before = (
                piece.start_s - spoken_until_s > threshold_s
                or piece.start_s < threshold_s
                or piece.start_s - window.start_s < 2.0
            )
            silence_after = (
                next_start_s - piece.end_s > threshold_s
                or (following is not None and is_anomaly(following.words))
                or full_end_s - piece.end_s < 2.0
            )
            if silence_before and silence_after:
                return i
        spoken_until_s = piece.end_s
    return None


def is_anomaly(words: Sequence[Word]) -> bool:
    """Whether a segment's words are too improbable, too short or too long to have been spoken."""
    looked_at = [word for word in words if word.text not in _MARKS][:_WORDS_LOOKED_AT]
    score = sum(_anomaly(word) for word in looked_at)
    return score >= 3 or score + 0.01 >= len(looked_at)


def _anomaly(word: Word) -> float:
    duration_s = word.end_s - word.start_s
    score = 1.0 if word.probability < 0.15 else 0.0
    if duration_s < 0.133:
        score += (0.133 - duration_s) * 15
    if duration_s > 2.0:
        score += duration_s - 2.0
    return score
