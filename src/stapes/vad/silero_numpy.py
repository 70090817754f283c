"""Silero's voice activity network in NumPy: the probability of speech in each 32 ms.

A spectrogram of four frames, four convolutions, one recurrent layer. All but the recurrent layer is computed for many
chunks at once; that one steps from chunk to chunk.
Source of the network: https://github.com/snakers4/silero-vad (v6.2, the model for 16 kHz; MIT).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stapes.backends.base import FloatArray
from stapes.vad.silero_weights import SpeechWeights

CHUNK = 512  # samples: 32 ms at 16 kHz
_CONTEXT = 64  # samples before a chunk that it reads too
_FRAME, _HOP = 256, 128  # of the spectrogram
_FRAMES = 4  # (64 + 512 + 64 - 256) / 128 + 1; after the chunk comes its reflection
STRIDES = (1, 2, 2, 1)  # of the convolutions
_BLOCK = 512  # chunks at a time, 16 s: their frames' values fit into a core's cache in parts


class SileroNumpy:
    """Satisfies `stapes.vad.model.VadModel`; the native library is tested against it."""

    def __init__(self, weights: SpeechWeights) -> None:
        self._weights = weights
        self._window = np.hanning(_FRAME + 1)[:-1].astype(np.float32)
        self._context = np.zeros(_CONTEXT, np.float32)
        n = len(weights.output_weight)
        self._state = np.zeros(n, np.float32), np.zeros(n, np.float32)

    def afresh(self) -> SileroNumpy:
        """Return a network in its first state, for another recording, over the same weights."""
        return type(self)(self._weights)

    def probabilities(self, samples: FloatArray) -> FloatArray:
        """Return the probability of speech in each chunk.

        samples: (n,) at 16 kHz, going on where the last call ended. A partial last chunk is filled up with
        zeros, so that only the last call should bring one.
        """
        n_chunks = -(-len(samples) // CHUNK)
        padded = np.zeros(n_chunks * CHUNK, np.float32)
        padded[: len(samples)] = samples
        chunks = padded.reshape(n_chunks, CHUNK)
        found = [self._block(chunks[start : start + _BLOCK]) for start in range(0, n_chunks, _BLOCK)]
        return np.concatenate(found) if found else np.zeros(0, np.float32)

    def _block(self, chunks: FloatArray) -> FloatArray:
        """(chunks, 512) -> (chunks,)."""
        joined = np.empty((len(chunks), _CONTEXT + CHUNK + _CONTEXT), np.float32)
        joined[0, :_CONTEXT] = self._context
        joined[1:, :_CONTEXT] = chunks[:-1, -_CONTEXT:]
        joined[:, _CONTEXT:-_CONTEXT] = chunks
        joined[:, -_CONTEXT:] = chunks[:, -2 : -_CONTEXT - 2 : -1]
        self._context = chunks[-1, -_CONTEXT:].copy()
        frames = np.lib.stride_tricks.sliding_window_view(joined, _FRAME, axis=1)[:, ::_HOP]  # (chunks, 4, 256)
        x: FloatArray = np.abs(np.fft.rfft(frames * self._window)).astype(np.float32)
        for (weight, bias), stride in zip(self._weights.convolutions, STRIDES, strict=True):
            x = _convolve(x, weight, bias, stride)
        return self._recur(x[:, 0])

    def _recur(self, x: FloatArray) -> FloatArray:
        """(chunks, 128) -> (chunks,): the recurrent layer, and the probability of each chunk."""
        w = self._weights
        gates = x @ w.input_weight.T + w.gate_bias
        said = np.empty_like(x)
        for place, output in enumerate(self._outputs(gates)):
            said[place] = output
        spoken: FloatArray = np.maximum(said, 0) @ w.output_weight
        return _sigmoid(spoken + np.float32(w.output_bias))

    def _outputs(self, gates: FloatArray) -> Iterator[FloatArray]:
        output, cell = self._state
        n = len(cell)
        for gate in gates:
            gate += self._weights.state_weight @ output  # noqa: PLW2901 (a row of ours, used once)
            takes, keeps, gives = _sigmoid(gate[:n]), _sigmoid(gate[n : 2 * n]), _sigmoid(gate[3 * n :])
            cell = keeps * cell + takes * np.tanh(gate[2 * n : 3 * n])
            output = gives * np.tanh(cell)
            yield output
        self._state = output, cell


def _convolve(x: FloatArray, weight: FloatArray, bias: FloatArray, stride: int) -> FloatArray:
    """(chunks, frames, in) -> (chunks, frames / stride, out): three frames wide, zeros around, no negative values."""
    n, frames, channels = x.shape
    padded = np.zeros((n, frames + 2, channels), np.float32)
    padded[:, 1:-1] = x
    windows = np.lib.stride_tricks.sliding_window_view(padded, 3, axis=1)[:, ::stride]  # (n, frames out, in, 3)
    product = windows.reshape(-1, channels * 3) @ weight.reshape(len(weight), -1).T
    found: FloatArray = np.maximum(product + bias, 0).reshape(n, -1, len(weight))
    return found


def _sigmoid(x: FloatArray) -> FloatArray:
    found: FloatArray = np.float32(1) / (np.float32(1) + np.exp(-x))
    return found
