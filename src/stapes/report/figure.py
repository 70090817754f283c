"""A transcript as a picture: waveform, words by probability, the values of each window, and attention where asked for.

Needs matplotlib (the extra `plot`) and no screen: figures are made without pyplot, so no window opens.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Final, Literal

import numpy as np

from stapes.audio.mel import seconds_of
from stapes.errors import OptionError
from stapes.report.escape import clock, number, plain_name
from stapes.report.waveform import Waveform
from stapes.results import Transcript, Window, Word

if TYPE_CHECKING:
    from stapes.report.attention import WindowAttention

_ImageFormat = Literal["png", "svg"]
#: inches: a second has 0.3 while there is room (3 minutes), and less in a longer recording
_INCHES_PER_SECOND, _NARROWEST, _WIDEST = 0.3, 11.0, 60.0
_LEFT, _RIGHT, _TOP, _BOTTOM, _GAP = 1.0, 0.3, 0.5, 0.6, 0.16
_DOTS_PER_INCH: Final = 100
#: words in an SVG as shapes; more of them are one picture inside it
_MOST_SHAPES: Final = 5000
#: a word is written where its neighbour is so far away, in inches; none are where a second has less than the other
_ROOM, _WRITTEN = 0.13, 0.1
#: seconds between marks of time: the first that gives each an inch
_STEPS: Final = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 43_200)
_ROW, _TALLEST, _ATTENTION_WIDTH = 0.15, 40.0, 14.0
#: the installed ones are used in turn, for letters that the first one lacks
_FONTS: Final[tuple[str, ...]] = (
    "DejaVu Sans", "Noto Sans", "Noto Sans CJK JP", "Noto Sans JP", "Noto Sans CJK SC", "Noto Sans CJK KR",
    "Noto Sans Arabic", "Noto Sans Hebrew", "Noto Sans Devanagari", "Noto Sans Thai", "IPAexGothic", "IPAGothic",
    "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Hiragino Sans", "PingFang SC", "Apple SD Gothic Neo", "Geeza Pro",
    "Yu Gothic", "Microsoft YaHei", "Malgun Gothic", "MS Gothic", "SimSun", "Segoe UI", "Arial Unicode MS", "Arial",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Value:
    label: str
    name: str
    limit: float | None


_VALUES: Final = (
    _Value("log-prob.", "avg_logprob", -1.0),
    _Value("compression", "compression_ratio", 2.4),
    _Value("no speech", "no_speech_prob", 0.6),
    _Value("temperature", "temperature", None),
)
_PANELS: Final = (1.3, 2.0, *(0.8 for _ in _VALUES))  # inches


def require_matplotlib() -> None:
    """Raise OptionError, with what to do, where matplotlib is not installed."""
    try:
        import matplotlib.figure  # noqa: F401, PLC0415 (an extra, and half a second)
    except ImportError as error:
        raise OptionError("plots need matplotlib, which is not installed: 'pip install \"stapes[plot]\"'") from error


def draw(
    transcript: Transcript,
    wave: Waveform,
    file: IO[bytes],
    *,
    title: str,
    image_format: _ImageFormat,
    span_s: tuple[float, float] | None = None,
    attentions: Sequence[WindowAttention] = (),
) -> None:
    """Draw a transcript into a file. span_s: the stretch to draw; None: all of it."""
    require_matplotlib()
    first_s, end_s = span_s or (0.0, max(transcript.duration_s, wave.duration_s, 0.1))
    with _settings():
        width = min(_WIDEST, max(_NARROWEST, (end_s - first_s) * _INCHES_PER_SECOND))
        sheet = _Sheet(width, [*_PANELS, *(min(_TALLEST, _ROW * len(one.matrix) + 0.6) for one in attentions)])
        sheet.write(title, clock(first_s), clock(end_s))
        panels = [sheet.panel() for _ in _PANELS]
        for panel in panels:
            panel.set_xlim(first_s, end_s)
            panel.tick_params(labelbottom=panel is panels[-1])
            _mark_time(panel, sheet.inches / (end_s - first_s))
        _draw_wave(panels[0], transcript, wave)
        _draw_words(panels[1], _words_in(transcript, first_s, end_s), sheet.inches / (end_s - first_s))
        for panel, value in zip(panels[2:], _VALUES, strict=True):
            _draw_value(panel, transcript.windows, value)
        for attention in attentions:
            _draw_attention(sheet.panel(gap=0.75, most_width=_ATTENTION_WIDTH), attention)
        metadata: dict[str, Any] = {"Date": None} if image_format == "svg" else {}
        sheet.figure.savefig(file, format=image_format, dpi=_DOTS_PER_INCH, metadata=metadata)


@contextmanager
def _settings() -> Iterator[None]:
    """Use installed fonts; letters that none of them has become boxes, without warnings."""
    import matplotlib  # noqa: PLC0415 (as above)
    from matplotlib import font_manager  # noqa: PLC0415

    here = {font.name for font in font_manager.fontManager.ttflist}
    settings: dict[str, Any] = {
        "font.family": [name for name in _FONTS if name in here] or ["sans-serif"],
        "font.size": 9.0,
        "text.parse_math": False,  # "$" is a sign like others
        "svg.fonttype": "none",  # text stays text: the reader's fonts have all letters
        "svg.hashsalt": "stapes",
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        yield


class _Sheet:
    """A figure that panels are put on from the top down; all lengths in inches."""

    def __init__(self, width: float, heights: Sequence[float]) -> None:
        from matplotlib.figure import Figure  # noqa: PLC0415 (as above)

        self._width, self._heights = width, iter(heights)
        self._height = _TOP + sum(heights) + _GAP * len(_PANELS) + 0.75 * (len(heights) - len(_PANELS)) + _BOTTOM
        self._y = self._height - _TOP
        self.figure = Figure(figsize=(width, self._height))

    @property
    def inches(self) -> float:
        return self._width - _LEFT - _RIGHT

    def write(self, title: str, first: str, end: str) -> None:
        y = 1 - 0.25 / self._height
        self.figure.text(_LEFT / self._width, y, plain_name(title), fontsize=12, va="center")
        right = 1 - _RIGHT / self._width
        self.figure.text(right, y, f"{first} – {end}", fontsize=12, va="center", ha="right")

    def panel(self, *, gap: float = _GAP, most_width: float = _WIDEST) -> Any:
        height = next(self._heights)
        self._y -= height + gap
        inches = min(self.inches, most_width)
        box = (_LEFT / self._width, self._y / self._height, inches / self._width, height / self._height)
        return self.figure.add_axes(box)


def _mark_time(panel: Any, inches_per_second: float) -> None:
    from matplotlib.ticker import MultipleLocator  # noqa: PLC0415 (as above)

    step_s = next((one for one in _STEPS if one * inches_per_second >= 1), _STEPS[-1])
    panel.xaxis.set_major_locator(MultipleLocator(step_s))
    panel.xaxis.set_major_formatter(_short_clock)


def _short_clock(seconds: float, _: object = None) -> str:
    return clock(seconds).removesuffix(".00")


def _draw_wave(panel: Any, transcript: Transcript, wave: Waveform) -> None:
    """Draw levels over segments, and flags hatched."""
    coarse = wave.coarser(6000)
    times = np.linspace(0.0, wave.duration_s, len(coarse.low) + 1)[:-1]
    spoken = [(one.start_s, one.end_s - one.start_s) for one in transcript.segments if one.text.strip()]
    for some, colour in ((spoken[::2], "#dfe6f2"), (spoken[1::2], "#ece7d3")):
        panel.broken_barh(some, (-1.05, 2.1), color=colour, lw=0)
    panel.fill_between(times, coarse.low / wave.loudest, coarse.high / wave.loudest, color="#31446b", lw=0.3)
    for flag in transcript.flags:
        panel.axvspan(flag.start_s, flag.end_s, facecolor="none", edgecolor="#8a1c3a", hatch="////", lw=0.8)
    panel.set_ylim(-1.05, 1.05)
    panel.set_yticks([])
    panel.set_ylabel("sound")


def _words_in(transcript: Transcript, first_s: float, end_s: float) -> list[Word]:
    words = (word for segment in transcript.segments for word in segment.words or ())
    return [word for word in words if word.end_s >= first_s and word.start_s <= end_s and word.text.strip()]


def _draw_words(panel: Any, words: Sequence[Word], inches_per_second: float) -> None:
    """Draw each word as a bar as high as its probability, and write it where there is room."""
    from matplotlib.collections import PolyCollection  # noqa: PLC0415 (as above)

    panel.set_ylim(0.0, 2.0)
    panel.set_yticks([0.0, 0.5, 1.0])
    panel.set_ylabel("words\n(probability)")
    panel.axhline(0.5, color="#999999", lw=0.6, ls=":")
    if not words:
        return
    boxes = [
        ((one.start_s, 0.0), (one.start_s, one.probability), (one.end_s, one.probability), (one.end_s, 0.0))
        for one in words
    ]
    is_wide = inches_per_second >= _WRITTEN
    # As in the page: the less probable, the darker; and hatched below one half.
    for hatch, sure in (("", True), ("////", False)):
        chosen = [place for place, one in enumerate(words) if (one.probability >= 0.5) is sure]
        bars = PolyCollection(
            [boxes[place] for place in chosen], cmap="cividis", hatch=hatch, lw=0.4 if is_wide else 0.0
        )
        bars.set_array(np.array([words[place].probability for place in chosen]))
        bars.set_clim(0.0, 1.0)
        bars.set_edgecolor("#ffffff")
        bars.set_rasterized(len(words) > _MOST_SHAPES)
        panel.add_collection(bars)
    if not is_wide:
        panel.text(
            0.5, 0.75, "Words are written where a shorter span is drawn.", transform=panel.transAxes, ha="center"
        )
        return
    written_s = -np.inf
    for one in words:
        if (one.start_s - written_s) * inches_per_second >= _ROOM:
            panel.text(one.start_s, 1.06, one.text.strip(), rotation=90, fontsize=7, va="bottom", clip_on=True)
            written_s = one.start_s
    # Words are left out where they would cover each other: the report has them all.


def _draw_value(panel: Any, windows: Sequence[Window], value: _Value) -> None:
    """Draw one value of each window as a line over its stretch; refused tries as crosses, skipped windows dotted."""
    for skipped, style in ((False, "-"), (True, ":")):
        chosen = [one for one in windows if one.skipped is skipped]
        kept = [getattr(one.result, value.name) for one in chosen]
        edges = ([seconds_of(one.seek) for one in chosen], [seconds_of(one.next_seek) for one in chosen])
        panel.hlines(kept, *edges, color="#00224e", lw=2, ls=style)
    if value.name != "no_speech_prob":
        refused = [(one.seek + one.next_seek, tried) for one in windows for tried in one.result.tries[:-1]]
        middles_s = [seconds_of(both / 2) for both, _ in refused]
        panel.plot(middles_s, [getattr(tried, value.name) for _, tried in refused], "x", color="#a8761a", ms=6, mew=1.6)
    if value.limit is not None:
        panel.axhline(value.limit, color="#a8761a", lw=0.8, ls="--", zorder=0)
    panel.margins(y=0.2)
    panel.set_ylabel(value.label)
    panel.yaxis.set_major_formatter(lambda at, _: number(at, 1))


def _draw_attention(panel: Any, attention: WindowAttention) -> None:
    """Draw tokens against time, and the path that word times are read from."""
    n_tokens, n_columns = attention.matrix.shape
    end_s = attention.seek_s + n_columns / attention.columns_per_second
    panel.imshow(
        attention.matrix, aspect="auto", cmap="cividis", interpolation="nearest",
        extent=(attention.seek_s, end_s, n_tokens - 0.5, -0.5), vmin=0.0,
    )  # fmt: skip
    tokens, columns = attention.path
    panel.plot(attention.seek_s + (columns + 0.5) / attention.columns_per_second, tokens, color="#ff5a4f", lw=1.2)
    rows = np.cumsum([0, *(len(word.tokens) for word in attention.words)])[:-1]
    step = max(1, -(-n_tokens * 7 // (_DOTS_PER_INCH * int(_TALLEST))))
    panel.set_yticks(rows[::step], [word.text.strip() for word in attention.words][::step], fontsize=7)
    panel.xaxis.set_major_formatter(_short_clock)
    title = f"Window {attention.number}: attention of its tokens, and the path"
    if attention.left_out_s:
        title += f"; times run on over pauses of {attention.left_out_s:.1f} s that were left out"
    panel.set_title(title, loc="left", fontsize=9)
