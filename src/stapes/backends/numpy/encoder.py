"""The encoder in NumPy, its work shared by threads over fixed stretches of positions and over heads.
Source: openai/whisper model.py at c0d2f62 (AudioEncoder).
"""

from __future__ import annotations

import numpy as np

from stapes.backends.base import FloatArray
from stapes.backends.numpy.kernels import attend_all, gelu
from stapes.backends.numpy.weights import Share, Weights
from stapes.checkpoint.base import ModelSpec

#: positions that one thread takes at a time: the same cut on every machine, so that sums are the same too
_PART = 375


def encode(mel: FloatArray, w: Weights, spec: ModelSpec, share: Share) -> FloatArray:
    """Encode one window: log-mel (n_mels, 2 * positions) -> (positions, n_audio_state)."""
    x = _convolve(np.ascontiguousarray(mel.T), "encoder.conv1", 1, w, share)
    x = _convolve(x, "encoder.conv2", 2, w, share)
    x += w["encoder.positional_embedding"][: len(x)]
    for layer in range(spec.n_audio_layer):
        _block(x, f"encoder.blocks.{layer}", w, spec, share)
    return w.norm(x, "encoder.ln_post")


def _block(x: FloatArray, block: str, w: Weights, spec: ModelSpec, share: Share) -> None:
    """Run one transformer block over x (n, d), in place."""
    scale = np.float32((spec.n_audio_state // spec.n_audio_head) ** -0.5)
    qkv = np.empty((len(x), 3 * spec.n_audio_state), np.float32)
    mixed = np.empty_like(x)

    def project(rows: slice) -> None:
        qkv[rows] = w.linear(w.norm(x[rows], f"{block}.attn_ln"), f"{block}.qkv")
        qkv[rows, : spec.n_audio_state] *= scale

    def attend(head: int) -> None:
        heads = qkv.reshape(len(x), 3, spec.n_audio_head, -1)
        mixed.reshape(len(x), spec.n_audio_head, -1)[:, head] = attend_all(*heads[:, :, head].transpose(1, 0, 2))

    def finish(rows: slice) -> None:
        x[rows] += w.linear(mixed[rows], f"{block}.attn.out")
        h = gelu(w.linear(w.norm(x[rows], f"{block}.mlp_ln"), f"{block}.mlp.0"))
        x[rows] += w.linear(h, f"{block}.mlp.2")

    share(project, _parts(len(x)))
    share(attend, range(spec.n_audio_head))
    share(finish, _parts(len(x)))


def _convolve(x: FloatArray, name: str, stride: int, w: Weights, share: Share) -> FloatArray:
    """Convolve (time, in) with three taps, one zero on either side, then GELU -> (time / stride, out)."""
    padded = np.zeros((len(x) + 2, x.shape[1]), dtype=np.float32)
    padded[1:-1] = x
    out = np.empty((len(x) // stride, len(w[f"{name}.bias"])), dtype=np.float32)

    def convolve(rows: slice) -> None:
        taps = [padded[tap + stride * rows.start : tap + stride * rows.stop : stride] for tap in range(3)]
        out[rows] = gelu(w.linear(np.concatenate(taps, axis=1), name))

    share(convolve, _parts(len(out)))
    return out


def _parts(n: int) -> list[slice]:
    return [slice(start, min(start + _PART, n)) for start in range(0, n, _PART)]
