"""Write word-by-word captions (.ass) for a video, and print the ffmpeg command that burns them into its pictures.

Usage: python examples/burn_captions.py talk.mp4

Each word lights up as it is said. ffmpeg needs libass for its `ass` filter.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

import stapes
from stapes.output import Layout, write_files


def quoted_for_a_filter(path: Path) -> str:
    """Return a file name as a value inside an ffmpeg filter description: two levels of escapes.

    Source: https://ffmpeg.org/ffmpeg-filters.html#Notes-on-filtergraph-escaping
    """
    value = "".join(f"\\{sign}" if sign in "\\':" else sign for sign in str(path))
    return "".join(f"\\{sign}" if sign in "\\'[],;" else sign for sign in value)


def main(arguments: list[str] | None = None) -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description="Write captions for a video and print the command that burns them in.")
    parser.add_argument("video", type=Path)
    parser.add_argument("--model", default="base")
    options = parser.parse_args(arguments)
    video: Path = options.video
    layout = Layout(cue_style="readable", max_line_width=30)
    try:
        # Captions must fit the pictures: the container's clock is the one that players use.
        with stapes.load(options.model) as engine:
            transcript = engine.transcribe(video, word_timestamps=True, clock="container")
        (captions,) = write_files(transcript, "ass", video.parent, video.stem, layout, inputs=[video])
    except stapes.StapesError as error:
        sys.exit(f"error: {error}")
    burnt = video.with_name(f"{video.stem}.captions.mp4")
    # "file:" lets a name hold a colon or begin with a dash.
    subtitles = f"ass={quoted_for_a_filter(captions)}"
    print(shlex.join(["ffmpeg", "-i", f"file:{video}", "-vf", subtitles, "-c:a", "copy", f"file:{burnt}"]))


if __name__ == "__main__":
    main()
