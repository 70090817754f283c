"""Hash what the native library computes, to show that a change leaves every bit as it was.

    python tools/native_hashes.py --windows 50 --out old.txt
    python tools/replay.py compare old.txt new.txt

A line for each instruction set that runs here, precision and part: `prompt` (logits after a prompt of 4 tokens, which
show the encoder and the cross-attention's keys and values), `attention` (scores of all heads), `steps` (greedy ids and
log-probabilities of 16 steps), `beams` (five rows of a window, and rows of two windows together).
The sounds are synthetic; the weights are the installed ones of --model.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

PRECISIONS: Final = ("float32", "bfloat16", "int8")
_N_STEPS: Final = 16
_N_TOGETHER: Final = 2  # windows in a step of many rows


class _Hashes:
    """One digest for each part."""

    def __init__(self) -> None:
        self.parts = {name: hashlib.sha256() for name in ("prompt", "attention", "steps", "beams")}

    def add(self, part: str, *values: Any) -> None:
        for value in values:
            data = value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode()
            self.parts[part].update(data)


def sound(number: int) -> Any:
    """Return 30 s of sound (480000,), float32: noise under tones that change every quarter of a second."""
    draw = np.random.default_rng(number)
    pitches = np.repeat(draw.uniform(80, 3000, 120), 4000)
    level = np.repeat(draw.choice((0.0, 0.01, 0.1, 0.5), 120), 4000)
    tones = level * np.sin(2 * np.pi * np.cumsum(pitches) / 16_000)
    return (tones + draw.standard_normal(480_000) * 10.0 ** draw.uniform(-4, -1)).astype(np.float32)


def hash_windows(backend: Any, mels: Sequence[Any], hashes: _Hashes) -> None:
    """Encode windows and step rows over them."""
    from stapes.backends.base import Best  # noqa: PLC0415 (of this tree)
    from stapes.backends.rowwise import RowStep, step_rows  # noqa: PLC0415

    spec = backend.spec
    heads = tuple((layer, head) for layer in range(spec.n_text_layer) for head in range(spec.n_text_head))
    start = spec.n_vocab - (spec.n_audio_ctx + 1)  # a timestamp; what the ids mean does not matter here
    prompt = (1, 2, start, start + 7)
    for at in range(0, len(mels), _N_TOGETHER):
        windows = [window for mel in mels[at : at + _N_TOGETHER] for window in backend.encode(mel[None])]
        rows = [backend.open(window) for window in windows]
        for row in rows:
            (first,) = step_rows(backend, [RowStep(row=row, tokens=prompt, logits_at=(0, 3), attention=heads)])
            hashes.add("prompt", first.logits)
            hashes.add("attention", first.attention)
        last = [5] * len(rows)
        for _ in range(_N_STEPS):
            found = [
                step_rows(backend, [RowStep(row=row, tokens=(one,), choice=Best())])[0]
                for row, one in zip(rows, last, strict=True)
            ]
            last = [one.ids[0] for one in found]
            hashes.add("steps", last, [float(one.logprobs[0]).hex() for one in found])
        _hash_beams(backend, rows, hashes)
        for window in windows:
            backend.release(window)


def _hash_beams(backend: Any, rows: Sequence[Any], hashes: _Hashes) -> None:
    """Step five rows of each window together, and close all rows."""
    from stapes.backends.base import Top  # noqa: PLC0415 (as above)
    from stapes.backends.rowwise import RowStep, step_rows  # noqa: PLC0415

    beams = [backend.fork(row) for row in rows for _ in range(4)] + list(rows)
    for step in range(4):
        tokens = [(100 + step + 7 * i,) for i in range(len(beams))]
        steps = [RowStep(row=row, tokens=one, choice=Top(6)) for row, one in zip(beams, tokens, strict=True)]
        for one in step_rows(backend, steps):
            hashes.add("beams", one.ids, [float(share).hex() for share in one.logprobs])
    for row in beams:
        backend.close(row)


def hash_set(model: str, n_windows: int) -> None:
    """Print the lines of the instruction set that STAPES_ISA names."""
    import stapes  # noqa: PLC0415 (of this tree)
    from stapes.audio.load import load_audio  # noqa: PLC0415
    from stapes.audio.mel import LogMel  # noqa: PLC0415

    for precision in PRECISIONS:
        engine = stapes.load(model, precision=precision, backend="native", download=False)
        backend, hashes = engine._backend, _Hashes()
        mels = []
        for number in range(n_windows):
            with load_audio(sound(number)) as recording:
                mels.append(LogMel(recording, backend.spec.n_mels, kernel=backend.log10_mel).opening())
        hash_windows(backend, mels, hashes)
        for part, digest in hashes.parts.items():
            print(f"{backend.info.isa} {precision} {part} {digest.hexdigest()[:32]}", flush=True)
        engine.close()


def main() -> None:
    """Run each instruction set in its own process."""
    parser = argparse.ArgumentParser(description="Hash what the native library computes.")
    parser.add_argument("--model", default="base")
    parser.add_argument("--windows", type=int, default=50)
    parser.add_argument(
        "--isa", nargs="+", help="instruction sets; left out: all that run here (portable: 30 s a window)"
    )
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        hash_set(given.model, given.windows)
        return
    from stapes.backends.native.library import library  # noqa: PLC0415

    lines = []
    for isa in given.isa or library().isa_names():
        command = [sys.executable, __file__, "--one", "--model", given.model, "--windows", str(given.windows)]
        environment = {**os.environ, "STAPES_ISA": isa}
        found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)  # noqa: S603
        lines.append(found.stdout)
        print(found.stdout, end="", flush=True)
    if given.out:
        given.out.write_text("".join(lines), "utf-8")


if __name__ == "__main__":
    main()
