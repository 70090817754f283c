"""Transcribe raw 16-bit PCM from standard input: what a sound card, a socket or another program sends.

Usage: arecord -d 10 -t raw -f S16_LE -c 1 -r 16000 | python examples/custom_source.py --rate 16000

stapes takes NumPy arrays, so any source that gives samples will do. Reading stops at --limit seconds.
"""

from __future__ import annotations

import argparse
import sys
from typing import IO

import numpy as np
import numpy.typing as npt

import stapes


def read_samples(source: IO[bytes], n_channels: int, rate: int, limit_s: int) -> npt.NDArray[np.int16]:
    """Read little-endian 16-bit samples, at most `limit_s` seconds of them; returns one channel (n,)."""
    content = b"".join(source.read(rate * n_channels * 2) for _ in range(limit_s))
    whole = len(content) - len(content) % (2 * n_channels)  # a source that was cut off may end inside a sample
    samples = np.frombuffer(content[:whole], "<i2").reshape(-1, n_channels)
    mono: npt.NDArray[np.int16] = samples.mean(axis=1).astype(np.int16)
    return mono


def main(arguments: list[str] | None = None) -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description="Transcribe raw 16-bit PCM from standard input.")
    parser.add_argument("--rate", type=int, default=16000, help="samples a second")
    parser.add_argument("--channels", type=int, default=1, choices=(1, 2))
    parser.add_argument("--limit", type=int, default=600, help="most seconds that are read")
    parser.add_argument("--model", default="base")
    options = parser.parse_args(arguments)
    if not 100 <= options.rate <= 384_000 or not 1 <= options.limit <= 36_000:
        parser.error("--rate must be 100 to 384000 samples a second, --limit 1 to 36000 seconds")
    samples = read_samples(sys.stdin.buffer, options.channels, options.rate, options.limit)
    if not len(samples):
        sys.exit("error: standard input holds no samples")
    try:
        with stapes.load(options.model) as engine:
            print(engine.transcribe(samples, sample_rate=options.rate).text.strip())
    except stapes.StapesError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
