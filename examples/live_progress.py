"""Print segments as they are decoded, with a progress bar on standard error.

Usage: python examples/live_progress.py talk.mp3 > talk.txt

Ctrl-C cancels the job and keeps the text so far.
"""

from __future__ import annotations

import argparse
import sys

import stapes

WIDTH = 40


def show(progress: stapes.Progress) -> None:
    """Draw the bar; the engine calls this after every window, from its own thread."""
    share = progress.done_s / progress.total_s if progress.total_s else 1.0
    bar = ("#" * round(share * WIDTH)).ljust(WIDTH, ".")
    print(f"\r[{bar}] {progress.done_s:.0f} of {progress.total_s:.0f} s", end="", file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description="Transcribe one recording and show how far it is.")
    parser.add_argument("recording")
    parser.add_argument("--model", default="base")
    options = parser.parse_args(arguments)
    try:
        with stapes.load(options.model) as engine:
            for segment in engine.stream(options.recording, on_progress=show):
                print(f"{segment.start_s:8.2f} {segment.end_s:8.2f} {segment.text.strip()}", flush=True)
    except KeyboardInterrupt:
        sys.exit("\ncancelled")
    except stapes.StapesError as error:
        sys.exit(f"\nerror: {error}")
    print(file=sys.stderr)


if __name__ == "__main__":
    main()
