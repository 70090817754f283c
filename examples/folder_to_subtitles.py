"""Write readable subtitles (.srt) beside every recording in a folder.

Usage: python examples/folder_to_subtitles.py talks

The recordings share the model's batch, eight at a time. One that fails is reported, and the others go on.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import stapes
from stapes.output import Layout, write_files

SUFFIXES = frozenset((".aac", ".flac", ".m4a", ".mkv", ".mov", ".mp3", ".mp4", ".ogg", ".opus", ".wav", ".webm"))


def write_subtitles(engine: stapes.Engine, recording: Path, inputs: list[Path]) -> str | None:
    """Transcribe one recording and write its subtitles; returns what failed, or None.

    inputs: files that must not be replaced, even where talk.srt is a link to one of them.
    """
    layout = Layout(cue_style="readable")
    try:
        transcript = engine.transcribe(recording, word_timestamps=True)
        write_files(transcript, "srt", recording.parent, recording.stem, layout, inputs=inputs)
    except stapes.StapesError as error:
        return str(error)  # which names the file
    return None


def main(arguments: list[str] | None = None) -> None:
    """Run the example; exits with 1 if a recording failed."""
    parser = argparse.ArgumentParser(description="Write subtitles beside every recording in a folder.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="base")
    options = parser.parse_args(arguments)
    try:
        recordings = sorted(path for path in options.folder.iterdir() if path.suffix.lower() in SUFFIXES)
        engine = stapes.load(options.model)
    except (stapes.StapesError, OSError) as error:
        sys.exit(f"error: {error}")
    stems = Counter(path.stem.casefold() for path in recordings)  # talk.mp3 and Talk.wav would both be talk.srt
    clashes = [path for path in recordings if stems[path.stem.casefold()] > 1]
    failures = [f"{path}: another recording would have the same subtitle file" for path in clashes]
    wanted = [path for path in recordings if path not in clashes]
    with engine, ThreadPoolExecutor(8) as pool:
        failures += filter(None, pool.map(lambda path: write_subtitles(engine, path, recordings), wanted))
    print(f"{len(recordings) - len(failures)} of {len(recordings)} recordings have subtitles")
    if failures:
        sys.exit("\n".join(failures))


if __name__ == "__main__":
    main()
