"""A transcript to look at, and to hear: one HTML page (`write_report`), or a picture (`write_plot`).

    from stapes.report import write_report
    transcript = engine.transcribe("talk.mp3", word_timestamps=True)
    write_report(transcript, "talk.mp3", "talk.report.html")

Stands beside the engine, and needs none: only the alignment of a window is computed anew by one.
"""

from __future__ import annotations

from stapes.report.attention import WindowAttention, window_attention
from stapes.report.write import write_plot, write_report

__all__ = ["WindowAttention", "window_attention", "write_plot", "write_report"]
