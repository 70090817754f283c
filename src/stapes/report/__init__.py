"""A transcript as an HTML page with sound (`write_report`), or as a picture (`write_plot`).

    from stapes.report import write_report
    transcript = engine.transcribe("talk.mp3", word_timestamps=True)
    write_report(transcript, "talk.mp3", "talk.report.html")

Needs no engine, except for the attention of a window, which is computed again.
"""

from __future__ import annotations

from stapes.report.attention import WindowAttention, window_attention
from stapes.report.write import write_plot, write_report

__all__ = ["WindowAttention", "window_attention", "write_plot", "write_report"]
