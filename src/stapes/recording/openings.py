"""A window's first word: it begins where somebody begins to speak, not where the window does. Pure.

The path through attention begins in a window's first column, whatever is heard there, and the first word with it, in
the reference too: too early by as much as the voice is late (docs/guards.md). Changes the times that are told, never
what the loop does next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from stapes.audio.mel import FRAMES_PER_SECOND
from stapes.recording.listening import Heard
from stapes.recording.pauses import BLUR_S
from stapes.results import Segment, WordTiming

#: by which the word is too early at least
_LEAST_S = 0.1
#: frames behind the word that are listened to as well: the network hears what is there a bit late
_BEHIND = 20


def opening(timings: Sequence[WordTiming]) -> int:
    """Say how many of a window's frames decide where its first word begins; 0: it is too short to begin too early."""
    if not timings or timings[0].end_s <= _LEAST_S:
        return 0
    return round(timings[0].end_s * FRAMES_PER_SECOND) + _BEHIND


def begun_by_voice(segments: Sequence[Segment], heard: Heard, first: int) -> list[Segment]:
    """Begin a window's first word, and a segment that begins with it, where a voice is heard first, inside the word.

    heard: in the window's frames, from `first` on; of its opening at least.
    """
    place = next((i for i, segment in enumerate(segments) if segment.words), None)
    voice = next((start for start, stop in heard.spans if stop > first), None)
    if place is None or voice is None:
        return list(segments)
    word, *others = segments[place].words or ()
    begin_s = round(voice / FRAMES_PER_SECOND - BLUR_S, 2)
    if not word.start_s + _LEAST_S <= begin_s < word.end_s:
        return list(segments)
    start_s = begin_s if segments[place].start_s == word.start_s else segments[place].start_s
    begun = replace(segments[place], start_s=start_s, words=(replace(word, start_s=begin_s), *others))
    return [*segments[:place], begun, *segments[place + 1 :]]
