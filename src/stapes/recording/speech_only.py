"""Speech alone: the spans of a recording that are decoded with `vad=True`. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from stapes.audio.mel import HOP_LENGTH
from stapes.vad.spans import Span


def whole_frames(spans: Sequence[Span], n_samples: int) -> tuple[Span, ...]:
    """Widen spans to whole frames of 10 ms, so that times move by whole frames; those that then touch are joined."""
    found: list[Span] = []
    for span in spans:
        start = span.start // HOP_LENGTH * HOP_LENGTH
        end = min(-(-span.end // HOP_LENGTH) * HOP_LENGTH, n_samples)
        if found and start <= found[-1].end:
            found[-1] = Span(found[-1].start, end)
        else:
            found.append(Span(start, end))
    return tuple(found)


def within(spans: Sequence[Span], clips: Sequence[tuple[int, int]]) -> tuple[Span, ...]:
    """Give what of spans lies in clips (first frame, first behind the end), in the recording's order."""
    cut = (
        Span(max(span.start, first * HOP_LENGTH), min(span.end, last * HOP_LENGTH))
        for first, last in clips for span in spans
    )  # fmt: skip
    return tuple(sorted((span for span in cut if span.start < span.end), key=lambda span: span.start))
