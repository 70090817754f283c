"""How much of a window is encoded: all of its 30 s, or what its sound needs (`audio_context="fit"`). Pure.

docs/audio-context.md has the measurements of these numbers.
"""

from __future__ import annotations

from stapes.audio.mel import N_FRAMES
from stapes.backends.base import FRAMES_PER_POSITION, PART_POSITIONS
from stapes.options import AudioContext

#: frames of silence that follow the sound: the network was trained on windows that end in silence
_MARGIN = 200
#: frames that are always encoded: 8 s
_LEAST = 800


def encoded_frames(n_frames: int, audio_context: AudioContext) -> int | None:
    """Return how many frames of a window are encoded, of which n_frames have sound; None: all of a full window."""
    if audio_context == "full":
        return None
    block = PART_POSITIONS * FRAMES_PER_POSITION
    n = -(-max(_LEAST, n_frames + _MARGIN) // block) * block
    return n if n < N_FRAMES else None
