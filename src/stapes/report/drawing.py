"""An overview of the recording as inline SVG: waveform, segments, windows, flags. Colours are style.css's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from stapes.audio.mel import seconds_of
from stapes.report.escape import clock, escaped
from stapes.report.waveform import Waveform
from stapes.results import Segment, Transcript, Window

#: units across, and down: the picture is stretched to the page's width
_WIDTH: Final = 2000
_HEIGHT: Final = 100
#: where the band of windows begins, below the waveform
_BAND: Final = 88
#: marks of flags that are drawn; in a page with more, the text shows them all
_MOST_FLAGS: Final = 2000

_PATTERNS: Final = (
    '<defs><pattern id="hatch" width="8" height="8" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect width="8" height="8" class="hatch-ground"/><rect width="3" height="8" class="hatch-line"/></pattern></defs>'
)


def overview(transcript: Transcript, wave: Waveform) -> Iterator[str]:
    """Draw the whole recording, a few thousand points whatever its length."""
    scale = _WIDTH / max(transcript.duration_s, wave.duration_s, 0.01)
    yield f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none" aria-hidden="true">{_PATTERNS}'
    for name, remainder in (("even", 0), ("odd", 1)):
        spoken = [one for one in transcript.segments if one.text.strip()]
        yield f'<path class="band {name}" d="{_bands(spoken[remainder::2], scale)}"/>'
    yield f'<path class="wave" d="{_outline(wave.coarser(_WIDTH), wave.duration_s * scale)}"/>'
    for name, windows in _kinds(transcript.windows):
        top = _BAND if name == "again" else (_BAND + _HEIGHT) / 2
        yield f'<path class="window {name}" d="{_window_boxes(windows, scale, top)}"/>'
    for flag in transcript.flags[:_MOST_FLAGS]:
        x, width = flag.start_s * scale, max(2.0, (flag.end_s - flag.start_s) * scale)
        shown = escaped(f"{flag.guard}, {clock(flag.start_s)} to {clock(flag.end_s)}: {flag.reason}")
        yield (
            f'<rect class="flag" x="{x:.1f}" width="{width:.1f}" y="0" height="{_BAND - 2}" fill="url(#hatch)">'
            f"<title>{shown}</title></rect>"
        )
    yield "</svg>"


def _bands(segments: Iterable[Segment], scale: float) -> str:
    return "".join(_box(one.start_s * scale, one.end_s * scale, 0, _BAND - 2) for one in segments)


def _box(left: float, right: float, top: float, bottom: float) -> str:
    return f"M{left:.1f} {top:g}H{max(right, left + 0.5):.1f}V{bottom:g}H{left:.1f}Z"


def _kinds(windows: Iterable[Window]) -> Iterator[tuple[str, list[Window]]]:
    """Yield the windows that were decoded at once, tried more than once, and skipped."""
    kinds: dict[str, list[Window]] = {"once": [], "again": [], "skipped": []}
    for one in windows:
        kinds[kind_of(one)].append(one)
    yield from kinds.items()


def kind_of(window: Window) -> str:
    """Return how a window went: "skipped", "again" (tried more than once) or "once"."""
    if window.skipped:
        return "skipped"
    return "again" if len(window.result.tries) > 1 else "once"


def _window_boxes(windows: Iterable[Window], scale: float, top: float) -> str:
    """Draw the stretch that each window moved the loop on by, with a gap that shows where it ends."""
    gap = 1.5
    edges = ((seconds_of(one.seek) * scale, seconds_of(one.next_seek) * scale) for one in windows)
    return "".join(_box(left, max(left, right - gap), top, _HEIGHT) for left, right in edges)


def _outline(wave: Waveform, right: float) -> str:
    """Draw the upper edge from left to right, and the lower one back; as high as the loudest sample."""
    n = len(wave.low)
    middle, reach = (_BAND - 2) / 2, (_BAND - 6) / 2
    step = right / max(1, n)
    upper = [f"{i * step:.0f} {middle - reach * int(wave.high[i]) / wave.loudest - 0.3:.1f}" for i in range(n)]
    lower = [f"{i * step:.0f} {middle - reach * int(wave.low[i]) / wave.loudest + 0.3:.1f}" for i in range(n)]
    return f"M0 {middle:g}L{'L'.join(upper)}L{'L'.join(reversed(lower))}Z" if n else f"M0 {middle:g}Z"
