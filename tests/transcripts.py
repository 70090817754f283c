"""Transcripts made by hand, with every kind of value."""

from __future__ import annotations

import numpy as np

from stapes.audio.pcm import Samples
from stapes.results import Flag, LanguageGuess, Segment, Transcript, Try, Window, WindowResult, Word

#: ends scripts, attributes and comments, and turns text around, where it is not escaped
HOSTILE = (
    "</script><script>alert(1)</script>\"'<img src=x onerror=alert(2)> \u202egnirts <!-- &amp; ]]> http://x.example/"
)
REFUSED = Try(temperature=0.0, avg_logprob=-0.4, compression_ratio=2.81, refused="compression ratio 2.81 above 2.4")
KEPT = Try(temperature=0.2, avg_logprob=-0.31, compression_ratio=1.4, refused=None)


def words_of(text: str, start_s: float, probabilities: tuple[float, ...]) -> tuple[Word, ...]:
    """Return words of 0.4 s, with 0.1 s between them."""
    pieces = text.split()
    return tuple(
        Word(text=f" {piece}", start_s=start_s + 0.5 * i, end_s=start_s + 0.5 * i + 0.4, probability=probability)
        for i, (piece, probability) in enumerate(zip(pieces, probabilities, strict=True))
    )


def segment(number: int, text: str, *, seek: int, start_s: float, probabilities: tuple[float, ...]) -> Segment:
    """Return a segment with words."""
    words = words_of(text, start_s, probabilities)
    return Segment(
        id=number, seek=seek, start_s=start_s, end_s=words[-1].end_s if words else start_s, text=f" {text}",
        tokens=(1, 2), temperature=0.0, avg_logprob=-0.25, compression_ratio=1.1, no_speech_prob=0.03, words=words,
    )  # fmt: skip


def window(seek: int, next_seek: int, *tries: Try, text: str = "", skipped: bool = False) -> Window:
    """Return a window of 5 s."""
    last = tries[-1]
    result = WindowResult(
        tokens=(1, 2, 3), text=text, avg_logprob=last.avg_logprob, no_speech_prob=0.9 if skipped else 0.03,
        temperature=last.temperature, compression_ratio=last.compression_ratio, tries=tries,
    )  # fmt: skip
    return Window(seek=seek, n_frames=500, next_seek=next_seek, skipped=skipped, result=result)


def transcript(hostile: str = "") -> Transcript:
    """Return 15 s: a plain window, one that was tried again, and one that was skipped."""
    segments = (
        segment(0, "Hello, dear world.", seek=0, start_s=0.5, probabilities=(0.99, 0.6, 0.1)),
        segment(1, f"Once{hostile.replace(' ', '-')} more", seek=500, start_s=5.5, probabilities=(0.4, 0.8)),
        segment(2, "", seek=500, start_s=8.0, probabilities=()),
    )
    return Transcript(
        text="".join(one.text for one in segments),
        segments=segments,
        language="en",
        duration_s=15.0,
        language_guess=LanguageGuess(language="en", probabilities={"en": 0.9, "de": 0.07, "jw": 0.03}),
        windows=(
            window(0, 500, KEPT, text="Hello, dear world."),
            window(500, 1000, REFUSED, KEPT, text="Once more"),
            window(1000, 1500, KEPT, text=f"Thank you for watching!{hostile}", skipped=True),
        ),
        warnings=(f"talk.mp3: cut short{hostile}",),
        flags=(
            Flag(guard="loop", start_s=6.5, end_s=7.5, reason=f"said seven times{hostile}", text=f" more{hostile}"),
        ),
    )


def tones(seconds: float = 15.0) -> Samples:
    """Return a tone that swells and fades."""
    times = np.arange(round(seconds * 16_000)) / 16_000
    return (0.4 * np.sin(2 * np.pi * 220 * times) * np.sin(np.pi * times / seconds)).astype(np.float32)
