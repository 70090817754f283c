"""Moves words that DTW placed in silence to the nearest VAD span. Pure.

Where a part of a pause was cut out, no word spans the seam, and no segment begins or ends on its wrong side.
Changes the times of results, never what the loop does next. Of a word that DTW placed over a pause, the end is more
reliable than the start: in a path each word starts where the one before it ends, pause or not.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from stapes.audio.mel import FRAMES_PER_SECOND
from stapes.recording.guards.rules import LONG_PAUSE
from stapes.recording.segments import WindowSpan
from stapes.recording.time_map import Seam
from stapes.results import Segment, Word, WordTiming
from stapes.vad.spans import SpeechMap

#: shorter pauses are left to DTW
LEAST_PAUSE_S = 1.5
#: by which a word starts after the speech before it, or reaches into the speech after it
_REACH_S = 0.2
#: by which a word that reaches into speech starts too early: the errors of DTW are smaller
_EARLY_S = 1.0
#: the same before the end of a pause that is long, or was cut short, where DTW errs more
_EARLY_AFTER_LONG_S = 0.1
#: by which the first word after a pause that was cut short may start before the pause
_OVER_S = 0.3
#: by which invented words are away from speech; DTW places the first word after a pause nearer to it
_FAR_S = 0.5
#: frames that are too short for a word: music sometimes sounds like speech for as long
_NO_WORD = 15
#: by which a word starts before its VAD span, or ends after it
BLUR_S = 0.05
#: by which a window's first word is too early at least
_LEAST_S = 0.1
#: frames after that word that are looked at as well: the VAD network reacts slightly late
_AFTER = 20
_CLAUSE_ENDS = tuple(".,;:!?…。、，．；：！？")


@dataclass(frozen=True, slots=True)
class Pause:
    """A pause in speech, in seconds; endless on the side where the window ends in it."""

    start_s: float
    end_s: float
    early_s: float  # by which a word that reaches into the speech after it starts too early
    seams_s: tuple[float, ...] = ()  # where a part of it was cut out


def snap(
    segments: list[Segment],
    window: WindowSpan,
    *,
    speech: SpeechMap | None,
    opening: SpeechMap | None,
    seams: Sequence[Seam],
) -> list[Segment]:
    """Move a window's words to the speech they belong to, where speech is known.

    speech: in the whole window; None: not known, and only words that span a seam move.
    opening: in its beginning; None: not known.   seams: in the window.
    """
    if (known := speech or opening) is not None:
        segments = start_at_speech(segments, known, window.seek)
    if speech is None and not seams:
        return segments
    return out_of_pauses(segments, speech or SpeechMap(((window.seek, window.end),)), window.seek, window.end, seams)


def has_hole(timings: Sequence[WordTiming], duration_s: float) -> bool:
    """Whether a window's words leave room for a pause: two of them begin so far apart, or none for so long."""
    starts = [0.0, *(one.start_s for one in timings), duration_s]
    return any(later - start >= LEAST_PAUSE_S for start, later in itertools.pairwise(starts))


def lies_in_pause(words: Sequence[Word], speech: SpeechMap, first: int, end: int) -> bool:
    """Whether all words are in one pause, and far from the speech on either side: they were invented."""
    return bool(words) and any(
        words[0].start_s > pause.start_s + _FAR_S and words[-1].end_s < pause.end_s - _FAR_S
        for pause in _pauses(speech, first, end)
    )


def out_of_pauses(
    segments: Sequence[Segment], speech: SpeechMap, first: int, end: int, seams: Sequence[Seam] = ()
) -> list[Segment]:
    """Move words that are in a pause to the nearer speech, and segments with them; their order stays.

    speech: in the window's frames, from `first` up to `end`.   seams: in pauses of which a part was cut out; no word
    then spans one, and no segment has its start or end on the wrong side of one.
    """
    speech = speech.without(seam.quiet for seam in seams)
    speech = SpeechMap(tuple((start, stop) for start, stop in speech.spans if stop - start >= _NO_WORD))
    seams_s = [seam.at / FRAMES_PER_SECOND for seam in seams]
    pauses = _pauses(speech, first, end, seams_s)
    return [_beside_seams(segment, pauses) for segment in _with_words_moved(segments, pauses, speech)]


def _with_words_moved(segments: Sequence[Segment], pauses: Sequence[Pause], speech: SpeechMap) -> list[Segment]:
    words = [word for segment in segments for word in segment.words or ()]
    texts_before = ["", *(word.text for word in words)]
    moved = [_moved(word, _ends_clause(text), pauses, speech) for word, text in zip(words, texts_before, strict=False)]
    if moved == words:
        return list(segments)
    for i in range(len(moved) - 2, -1, -1):  # words that were moved later end before the words that are there already
        end_s = max(moved[i].start_s, min(moved[i].end_s, moved[i + 1].start_s))
        moved[i] = replace(moved[i], end_s=end_s)
    said_until_s = 0.0
    for i, word in enumerate(moved):
        start_s = max(word.start_s, said_until_s)
        said_until_s = max(word.end_s, start_s)
        moved[i] = replace(word, start_s=start_s, end_s=said_until_s)
    left = iter(moved)
    return [_with_words(segment, tuple(itertools.islice(left, len(segment.words or ())))) for segment in segments]


def _pauses(speech: SpeechMap, first: int, end: int, seams_s: Sequence[float] = ()) -> list[Pause]:
    """Return the pauses that are not short; one that is the whole window is none: it has no speech to move to."""
    if not speech.within(first, end):
        return []
    found = []
    for start, stop in speech.gaps(first, end):
        a, b = start / FRAMES_PER_SECOND, stop / FRAMES_PER_SECOND
        own_seams_s = tuple(seam_s for seam_s in seams_s if a <= seam_s <= b)
        if b - a < LEAST_PAUSE_S and not own_seams_s:
            continue
        is_long = own_seams_s or b - a >= LONG_PAUSE / FRAMES_PER_SECOND
        found.append(
            Pause(
                start_s=a if start > first else -1.0,
                end_s=b if stop < end else b + 1e9,
                early_s=_EARLY_AFTER_LONG_S if is_long else _EARLY_S,
                seams_s=own_seams_s,
            )
        )
    return found


def _ends_clause(text: str) -> bool:
    return text.strip().endswith(_CLAUSE_ENDS)


def _moved(word: Word, begins_clause: bool, pauses: Sequence[Pause], speech: SpeechMap) -> Word:
    """Move one word. begins_clause: whether the word before it ends a clause: in doubt, the pause is between them."""
    for pause in pauses:
        if (put := _put_on_one_side(word, begins_clause, pause, speech)) is not None:
            word = put
            continue
        end_s, is_early = pause.end_s, pause.end_s - word.start_s > pause.early_s
        lies_in_it = word.end_s <= end_s + _REACH_S and (word.end_s <= end_s or is_early)
        reach_s = -_REACH_S if begins_clause else _REACH_S
        if word.start_s < pause.start_s + reach_s or not lies_in_it:
            continue
        duration_s = word.end_s - word.start_s
        is_nearer = end_s - word.end_s <= word.start_s - pause.start_s
        if is_nearer or begins_clause or pause.start_s < 0:
            begin_s = _begin_after(word, pause)
            word = replace(word, start_s=begin_s, end_s=round(begin_s + duration_s, 2))
        else:  # after the last word of the speech before it
            end_s = min((round(pause.start_s + BLUR_S, 2), *pause.seams_s))
            word = replace(word, start_s=pause.start_s, end_s=end_s)
    return word


def _put_on_one_side(word: Word, begins_clause: bool, pause: Pause, speech: SpeechMap) -> Word | None:
    """Put a word that spans a seam on the side where it ends; None: it spans none, or has no speech in it.

    In a path the first word after a pause starts where the one before it ends: it covers all of the pause, and what
    sounds like speech at the pause's start, sometimes a second of it.
    """
    if not pause.seams_s:
        return None
    over_s = min(_OVER_S, pause.end_s - pause.start_s)
    if pause.start_s - over_s < word.start_s < pause.start_s + _REACH_S and word.end_s > pause.end_s:
        return replace(word, start_s=_begin_after(word, pause))
    between = _between(pause.seams_s, word.start_s, word.end_s)
    if not between:
        return None
    before_s, after_s = _spoken_s(speech, word.start_s, between[0]), word.end_s - pause.end_s
    begins_before = before_s > 0 or word.start_s < pause.start_s + _REACH_S
    if after_s <= 0 and (before_s < _REACH_S if begins_clause else not begins_before):
        return None
    is_cut_speech = pause.end_s - pause.start_s < _REACH_S  # without a pause, the larger side counts
    if after_s > (before_s if is_cut_speech else -_REACH_S):
        return replace(word, start_s=min(_begin_after(word, pause), word.end_s))
    return replace(word, end_s=between[0])


def _between(seams_s: Sequence[float], start_s: float, end_s: float) -> list[float]:
    return [seam_s for seam_s in seams_s if start_s < seam_s < end_s]


def _spoken_s(speech: SpeechMap, start_s: float, end_s: float) -> float:
    first, end = (round(time_s * FRAMES_PER_SECOND) for time_s in (start_s, end_s))
    return speech.length_within(first, end) / FRAMES_PER_SECOND


def _begin_after(word: Word, pause: Pause) -> float:
    """Return when a word starts that belongs to the speech after a pause."""
    return max((word.start_s, round(pause.end_s - BLUR_S, 2), *pause.seams_s))


def _beside_seams(segment: Segment, pauses: Sequence[Pause]) -> Segment:
    """Start a segment after a seam if the sound before the seam is quiet; end it before a seam in the same way."""
    start_s, end_s = segment.start_s, segment.end_s
    for pause in pauses:
        between = _between(pause.seams_s, start_s, end_s)
        if not between:
            continue
        begins_in_it, ends_in_it = start_s > pause.start_s - _OVER_S, end_s < pause.end_s + _REACH_S
        if begins_in_it and (not ends_in_it or end_s - between[-1] >= between[0] - start_s):
            start_s = between[-1]
        elif ends_in_it:
            end_s = between[0]
    if segment.words:  # a word that begins before a seam was said there
        start_s = max(segment.start_s, min(start_s, segment.words[0].start_s))
        end_s = min(segment.end_s, max(end_s, segment.words[-1].end_s))
    return replace(segment, start_s=start_s, end_s=end_s)


def _with_words(segment: Segment, words: tuple[Word, ...]) -> Segment:
    """Return a segment with these words; its times follow those of its first and last word where they were equal."""
    if not words or not segment.words:
        return segment
    start_s = words[0].start_s if segment.start_s == segment.words[0].start_s else segment.start_s
    end_s = words[-1].end_s if segment.end_s == segment.words[-1].end_s else segment.end_s
    return replace(segment, words=words, start_s=min(start_s, words[0].start_s), end_s=max(end_s, words[-1].end_s))


def opening(timings: Sequence[WordTiming]) -> int:
    """Return how many of a window's frames decide where its first word starts; 0: it is certain already."""
    if not timings or timings[0].end_s <= _LEAST_S:
        return 0
    return round(timings[0].end_s * FRAMES_PER_SECOND) + _AFTER


def start_at_speech(segments: Sequence[Segment], speech: SpeechMap, first: int) -> list[Segment]:
    """Start a window's first word, and a segment that starts with it, where speech starts inside the word.

    A path starts in a window's first column, and the first word with it: too early by as much as speech is late.

    speech: in the window's frames, from `first` on; of its opening at least.
    """
    place = next((i for i, segment in enumerate(segments) if segment.words), None)
    starts = next((start for start, stop in speech.spans if stop > first), None)
    if place is None or starts is None:
        return list(segments)
    word, *others = segments[place].words or ()
    begin_s = round(starts / FRAMES_PER_SECOND - BLUR_S, 2)
    if not word.start_s + _LEAST_S <= begin_s < word.end_s:
        return list(segments)
    start_s = begin_s if segments[place].start_s == word.start_s else segments[place].start_s
    begun = replace(segments[place], start_s=start_s, words=(replace(word, start_s=begin_s), *others))
    return [*segments[:place], begun, *segments[place + 1 :]]
