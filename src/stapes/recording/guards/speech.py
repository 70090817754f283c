"""Speech guard: speech that a window's text leaves out is decoded after all.

Sees speech in a window and the times of its text. May have the window decoded once more without its prompt, drop
segments from one with an overlong word on, and send the seek loop back to where speech begins.
"""

from __future__ import annotations

from collections.abc import Sequence

from stapes.audio.mel import FRAMES_PER_SECOND
from stapes.recording.guards.rules import FREE_CHARACTERS, WORTH_GOING_BACK
from stapes.recording.guards.state import GuardState
from stapes.recording.segments import WindowSpan, frame
from stapes.results import Segment, Word
from stapes.vad.spans import RUN_UP, SpeechMap

#: frames after the last word from which on speech counts as left out
_AFTER_TEXT = 50
#: characters a second of fast speech
_QUICK_CHARACTERS = 25
#: frames of speech that one word takes at most, or so many for each character, and for each digit beside
_LONGEST_WORD, _CHARACTER, _DIGIT = 200, 15, 50
_NOT_SILENT = "there is speech in what was taken for silence"
_AFTER_LAST_WORD = "there is speech after the last word"


def doubts_silence(state: GuardState, window: WindowSpan) -> bool:
    """Whether there is a second of speech in a window without its long pauses that is taken for silence."""
    speech = state.speech if state.on.speech_guard and state.without_pauses else None
    return speech is not None and speech.length_within(window.seek, window.end) >= WORTH_GOING_BACK


def note_without_prompt(state: GuardState, window: WindowSpan) -> None:
    """Note that a window without its long pauses is decoded once more, without its prompt."""
    state.add(state.flag("speech", window.start_s, window.end_s, _NOT_SILENT))
    state.without_pauses = True


def before_overlong_word(
    state: GuardState, segments: list[Segment], window: WindowSpan, next_seek: int
) -> tuple[list[Segment], int] | None:
    """Drop segments from the first one on that leaves speech out between its words, and go on there.

    None: all stay. One at the window's beginning does: to decode it once more would give the same.
    """
    found = overlong_word(segments, state.speech) if state.on.speech_guard and state.speech is not None else None
    if found is None:
        return None
    at, word, spoken_s = found
    said_until_s = max((one.end_s for one in segments[:at]), default=window.start_s)
    begin_s = max(said_until_s, segments[at].start_s - RUN_UP / FRAMES_PER_SECOND)
    begin = frame(begin_s)
    if begin - window.seek <= WORTH_GOING_BACK:
        return None
    reason = f"the word {word.text.strip()!r} holds {spoken_s:.1f} s of speech"
    state.add(state.flag("speech", begin_s, next_seek / FRAMES_PER_SECOND, reason))
    return segments[:at], begin


def overlong_word(segments: Sequence[Segment], speech: SpeechMap) -> tuple[int, Word, float] | None:
    """Find a word that holds more speech than a word takes: the text leaves out other words there.

    Returns its segment's number, the word, and how many seconds of speech it holds.
    """
    for number, segment in enumerate(segments):
        for word in segment.words or ():
            most = max(_LONGEST_WORD, _CHARACTER * len(word.text)) + _DIGIT * sum(map(str.isdigit, word.text))
            spoken = speech.length_within(frame(word.start_s), frame(word.end_s))
            if spoken > most:
                return number, word, spoken / FRAMES_PER_SECOND
    return None


def go_on(state: GuardState, segments: Sequence[Segment], window: WindowSpan, next_seek: int) -> int:
    """Return where to go on: at `next_seek`, or back where speech begins that the window's text leaves out."""
    if not state.on.speech_guard or state.speech is None:
        return next_seek
    found = _begin_of_left_out_speech(state.speech, segments, window, next_seek)
    if found != next_seek:
        start_s, end_s = found / FRAMES_PER_SECOND, next_seek / FRAMES_PER_SECOND
        state.add(state.flag("speech", start_s, end_s, _AFTER_LAST_WORD))
    return found


def _begin_of_left_out_speech(
    speech: SpeechMap, segments: Sequence[Segment], window: WindowSpan, next_seek: int
) -> int:
    """`next_seek` where the times hold too little speech for their text: they are unreliable."""
    text = [one for one in segments if one.text]
    after = window.seek
    if text:
        after = frame(text[-1].end_s) + _AFTER_TEXT
        length = sum(len(one.text) for one in text)
        needed = (length - FREE_CHARACTERS) / _QUICK_CHARACTERS * FRAMES_PER_SECOND
        if speech.length_within(frame(text[0].start_s), after) < max(needed, 1):
            return next_seek
    # Speech at a window's very beginning was decoded from there: to do so again would give the same.
    nearest = window.seek + WORTH_GOING_BACK + RUN_UP
    left = [span for span in speech.within(after, min(next_seek, window.end)) if span[0] > nearest]
    return left[0][0] - RUN_UP if sum(stop - start for start, stop in left) >= WORTH_GOING_BACK else next_seek
