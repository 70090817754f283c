"""Find when each word of a known text is spoken (forced alignment), as tab-separated start, end and word.

Usage: python examples/forced_alignment.py talk.mp3 talk.txt --language en

The text must hold all that is said, and nothing else: docs/words.md.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import stapes


def main(arguments: list[str] | None = None) -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description="Find when each word of a text is spoken.")
    parser.add_argument("recording")
    parser.add_argument("text", type=Path, help="a text file in UTF-8")
    parser.add_argument("--language", default=None, help="default: detected from the recording")
    parser.add_argument("--model", default="base")
    options = parser.parse_args(arguments)
    try:
        text = options.text.read_text(encoding="utf-8")
        with stapes.load(options.model) as engine:
            transcript = engine.align(options.recording, text, language=options.language)
    except UnicodeDecodeError:
        sys.exit(f"error: {options.text} is not UTF-8")
    except (stapes.StapesError, OSError) as error:
        sys.exit(f"error: {error}")
    words = [word for segment in transcript.segments for word in segment.words or ()]
    rows = [f"{word.start_s:.2f}\t{word.end_s:.2f}\t{word.text.strip()}" for word in words]
    print("start\tend\tword", *rows, sep="\n")


if __name__ == "__main__":
    main()
