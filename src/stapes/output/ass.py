r"""Transcript -> ASS: subtitles in which each word lights up as it is said, where its time is known.

A word is a syllable of `\k` with its length in hundredths of a second. Silence between words is a separate syllable,
so a subtitle's syllables last exactly as long as it does. Without words' times the text is plain. Text cannot become a
command: `stapes.output.subtitles.without_commands`.
"""

from __future__ import annotations

from typing import Final

from stapes.output.line_breaks import visible
from stapes.output.readable import Cue
from stapes.output.subtitles import PLAIN_LAYOUT, Layout, cues, hundredths, without_commands
from stapes.results import Transcript, checked

#: White where said, grey until then, black around; at the bottom, on a screen of 1920 x 1080 that players scale.
_HEAD: Final = """\
[Script Info]
; Written by stapes
ScriptType: v4.00+
WrapStyle: 0
ScaledBorderAndShadow: yes
YCbCr Matrix: None
PlayResX: 1920
PlayResY: 1080

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, \
StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding
Style: Default,Arial,64,&H00FFFFFF,&H00A0A0A0,&H00000000,&H80000000,0,0,0,0,100,100,0,0,1,3,1,2,120,120,60,1

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""


def to_ass(transcript: Transcript, layout: Layout = PLAIN_LAYOUT) -> str:
    """Return Advanced SubStation Alpha v4.00+: one event per segment, or per subtitle as `layout` has it."""
    return _HEAD + "".join(_event(cue) for cue in cues(checked(transcript), layout))


def _event(cue: Cue) -> str:
    start = hundredths(cue.start_s)
    end = max(start, hundredths(cue.end_s))
    text = _sung(cue, start, end) if cue.words else _shown(cue.text)
    return f"Dialogue: 0,{_clock(start)},{_clock(end)},Default,,0,0,0,,{text}\n"


def _sung(cue: Cue, start: int, end: int) -> str:
    """Write words with their lengths: each is the difference of two rounded times, so roundings do not add up."""
    text, last = "", start
    for word in cue.words:
        begins = min(end, max(last, hundredths(word.start_s)))
        ends = min(end, max(begins, hundredths(word.end_s)))
        bare = word.text.lstrip()
        before = _shown(word.text[: len(word.text) - len(bare)])
        silence = rf"{{\k{begins - last}}}" if begins > last else ""
        text += rf"{silence}{before}{{\k{ends - begins}}}{_shown(bare)}"
        last = ends
    return text + (rf"{{\k{end - last}}}" if end > last else "")


def _shown(text: str) -> str:
    return r"\N".join(without_commands(visible(line)) for line in text.split("\n"))


def _clock(time: int) -> str:
    minutes, rest = divmod(time, 6000)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest // 100:02d}.{rest % 100:02d}"
