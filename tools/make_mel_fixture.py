"""Write tests/data/mel_reference.npz: what openai-whisper computes from synthetic signals.

Run it where openai-whisper 20250625 is installed: python tools/make_mel_fixture.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from whisper.audio import log_mel_spectrogram

LENGTHS = (0, 1, 2, 159, 160, 199, 200, 201, 202, 400, 1600, 16_000, 40_077)
FRAMES = np.array([0, 1, 2, 3, 4, 9, 10, 11, 98, 99, 100, 101, 248, 249, 250, 251, 252, 2999])
BIN_STEP = 9  # every ninth mel bin is enough: a wrong filter, window or edge shows in all of them


def signal(n_samples: int) -> np.ndarray:
    """A chirp over a fading hum: loud and quiet, low and high, by a formula that no library version changes."""
    time_s = np.arange(n_samples) / 16_000
    chirp = 0.3 * np.sin(2 * np.pi * (150 + 1200 * time_s) * time_s)
    hum = 0.2 * np.cos(2 * np.pi * 97 * time_s) * np.exp(-3 * time_s)
    return (chirp + hum).astype(np.float32)


def main() -> None:
    """Write the fixture beside the tests."""
    recorded = {"frames": FRAMES, "bin_step": np.array(BIN_STEP)}
    for n_samples in LENGTHS:
        for n_mels in (80, 128):
            mel = log_mel_spectrogram(signal(n_samples), n_mels, padding=480_000).numpy()
            recorded[f"{n_samples}_{n_mels}"] = mel[::BIN_STEP, FRAMES]
    path = Path(__file__).resolve().parents[1] / "tests" / "data" / "mel_reference.npz"
    path.parent.mkdir(exist_ok=True)
    np.savez_compressed(path, allow_pickle=False, **recorded)
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
