"""Transcribe many recordings at once from asyncio, at most N in the engine, and print each text as it is ready.

Usage: python examples/many_with_asyncio.py talk.mp3 meeting.m4a --at-once 8

The same pattern serves an asyncio web server: one engine, one semaphore, one task for each request.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

import stapes


async def transcribe_one(engine: stapes.Engine, room: asyncio.Semaphore, recording: str) -> tuple[str, str | None]:
    """Return the recording's name and its text; None and a line on standard error if it failed."""
    async with room:
        try:
            transcript = await engine.atranscribe(recording)
        except stapes.StapesError as error:
            print(f"error: {error}", file=sys.stderr)
            return recording, None
    return recording, transcript.text.strip()


async def transcribe_all(engine: stapes.Engine, recordings: list[str], at_once: int) -> int:
    """Print each text as it is ready; returns how many recordings failed."""
    room = asyncio.Semaphore(at_once)
    tasks = [asyncio.create_task(transcribe_one(engine, room, recording)) for recording in recordings]
    n_failed = 0
    for finished in asyncio.as_completed(tasks):
        recording, text = await finished
        n_failed += text is None
        if text is not None:
            print(f"{recording}: {text}", flush=True)
    return n_failed


def main(arguments: list[str] | None = None) -> None:
    """Run the example; exits with 1 if a recording failed."""
    parser = argparse.ArgumentParser(description="Transcribe many recordings at once.")
    parser.add_argument("recordings", nargs="+")
    parser.add_argument("--at-once", type=int, default=8, choices=range(1, 65), metavar="1-64")
    parser.add_argument("--model", default="base")
    options = parser.parse_args(arguments)
    try:
        with stapes.load(options.model) as engine:
            n_failed = asyncio.run(transcribe_all(engine, options.recordings, options.at_once))
    except stapes.StapesError as error:
        sys.exit(f"error: {error}")
    sys.exit(1 if n_failed else 0)


if __name__ == "__main__":
    main()
