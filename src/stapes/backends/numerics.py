"""The plain NumPy kernels beside the network: log-mel, and alignment by dynamic time warping (DTW).

The native library's kernels are tested against them, and backends without such kernels use them.
Source: openai/whisper at c0d2f62: audio.py (log_mel_spectrogram), timing.py (find_alignment, median_filter, dtw).
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from stapes.audio.mel import HOP_LENGTH, N_BINS, N_FFT
from stapes.backends.base import FloatArray, IntArray

_BLOCK_FRAMES = 64  # frames at a time: their spectra (64 x 201 x 8 bytes) stay in a core's cache
# Frames of one matrix product. One shape for all makes a frame's bits independent of its neighbours, and is too
# small for BLAS to wake other threads, which costs more than the product itself.
_TILE_FRAMES = 8
#: columns of the median filter: 0.14 s
_MEDIAN_WIDTH = 7
_BoolArray = npt.NDArray[np.bool_]


def log10_mel(samples: FloatArray, filters: FloatArray) -> FloatArray:
    """Return log10 of the mel power of a frame at every 160 samples, at least -10: (n_mels, n_frames).

    samples: ((n_frames - 1) * 160 + 400,).   filters: (n_mels, 201), from `stapes.audio.mel.mel_filters`.
    """
    n_frames = (samples.size - N_FFT) // HOP_LENGTH + 1
    assert samples.size == (n_frames - 1) * HOP_LENGTH + N_FFT, samples.size
    frames = np.lib.stride_tricks.sliding_window_view(samples, N_FFT)[::HOP_LENGTH]
    mel = np.empty((filters.shape[0], n_frames), np.float32)
    power = np.zeros((_BLOCK_FRAMES, N_BINS), np.float32)
    for start in range(0, n_frames, _BLOCK_FRAMES):
        block = frames[start : start + _BLOCK_FRAMES] * _hann_window()
        spectrum = np.fft.rfft(block)  # complex64: float64 agrees no better with the reference's float32
        power[: len(block)] = spectrum.real**2 + spectrum.imag**2
        tiles = power.reshape(-1, _TILE_FRAMES, N_BINS) @ filters.T  # (tiles, 8, n_mels)
        mel[:, start : start + len(block)] = tiles.reshape(_BLOCK_FRAMES, -1)[: len(block)].T
    np.maximum(mel, np.float32(1e-10), out=mel)
    np.log10(mel, out=mel)
    return np.maximum(mel, np.float32(-10.0), out=mel)  # NumPy's log10(1e-10) is -10.000001, the reference's -10


@cache
def _hann_window() -> FloatArray:
    phase = 2.0 * np.pi * np.arange(N_FFT) / N_FFT  # periodic: the 401st value would be the first again
    window: FloatArray = (0.5 - 0.5 * np.cos(phase)).astype(np.float32)
    return window


def token_columns(scores: FloatArray, n_columns: int, n_before: int) -> IntArray:
    """Return the column at which the path comes to each token; see `stapes.backends.base.TokenColumnsKernel`."""
    cost = alignment_cost(scores, n_columns, n_before)
    return entries(dtw_path(cost)) if n_columns else np.zeros(len(cost), np.int32)


def alignment_cost(scores: FloatArray, n_columns: int, n_before: int) -> FloatArray:
    """Turn scores before the softmax (heads, tokens, positions) into costs (tokens - n_before - 1, n_columns).

    Each head's attention is normalised over the tokens, smoothed over the columns, and the heads' mean is taken. The
    first `n_before` tokens and the last one are not on the path. NaN costs nothing (where all tokens look alike, the
    reference divides by zero, and its path leads out of the window).
    """
    used = scores[:, :, :n_columns]
    with np.errstate(invalid="ignore", over="ignore"):
        weights = np.exp(used - used.max(axis=-1, keepdims=True, initial=-np.inf))
        weights /= weights.sum(axis=-1, keepdims=True, dtype=np.float64).astype(np.float32)
        mean = weights.mean(axis=1, keepdims=True, dtype=np.float64)
        deviation = np.sqrt(np.square(weights - mean).mean(axis=1, keepdims=True))
        normalised = ((weights - mean) / np.where(deviation > 0, deviation, np.inf)).astype(np.float32)
    matrix = median_filter(np.nan_to_num(normalised, nan=0.0)).mean(axis=0)[n_before:-1]
    cost: FloatArray = -matrix
    return cost


def median_filter(x: FloatArray) -> FloatArray:
    """Return the median of 7 columns around each one, mirrored at the ends; fewer than 4 columns stay as they are."""
    half = _MEDIAN_WIDTH // 2
    if x.shape[-1] <= half:
        return x
    padded = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(half, half)], mode="reflect")
    around = np.lib.stride_tricks.sliding_window_view(padded, _MEDIAN_WIDTH, axis=-1)
    return np.ascontiguousarray(np.partition(around, half, axis=-1)[..., half])


def dtw_path(cost: FloatArray) -> IntArray:
    """Return the cheapest path through costs (tokens, columns) from the first cell to the last: (2, length), each
    cell's token and column. Sums are float32; a step to both is taken only where it is cheaper than either alone.
    """
    n_tokens, n_columns = cost.shape
    by_both, by_token = _ways(cost)
    token, column = n_tokens, n_columns
    path = []
    while token > 0 or column > 0:
        path.append((token - 1, column - 1))
        both = token > 0 and column > 0 and bool(by_both[token + column, token])
        only_token = column == 0 or (token > 0 and bool(by_token[token + column, token]))
        token -= both or only_token
        column -= both or not only_token
    return np.array(path[::-1], np.int32).reshape(-1, 2).T


def _ways(cost: FloatArray) -> tuple[_BoolArray, _BoolArray]:
    """Return to which cells the cheapest path came from both before, and to which from the token before; to the others
    it came from the column before. Both: [token + column, token], counted from 1.
    Cells of one diagonal depend on the two diagonals before alone, and are computed at once.
    """
    n_tokens, n_columns = cost.shape
    by_both, by_token = (np.zeros((n_tokens + n_columns + 1, n_tokens + 1), bool) for _ in range(2))
    skewed = np.zeros((n_tokens + n_columns + 1, n_tokens + 1), np.float32)
    tokens, columns = np.ogrid[1 : n_tokens + 1, 1 : n_columns + 1]
    skewed[tokens + columns, tokens] = cost
    before = np.full(n_tokens + 1, np.inf, np.float32)  # the last diagonal but one: total cost by token
    before[0] = 0.0
    last = np.full(n_tokens + 1, np.inf, np.float32)
    for diagonal in range(2, n_tokens + n_columns + 1):
        first, end = max(1, diagonal - n_columns), min(n_tokens, diagonal - 1) + 1
        both, token, column = before[first - 1 : end - 1], last[first - 1 : end - 1], last[first:end]
        is_both = (both < token) & (both < column)
        is_token = (token < both) & (token < column)
        now = np.full(n_tokens + 1, np.inf, np.float32)
        now[first:end] = skewed[diagonal, first:end] + np.where(is_both, both, np.where(is_token, token, column))
        by_both[diagonal, first:end] = is_both
        by_token[diagonal, first:end] = is_token
        before, last = last, now
    return by_both, by_token


def entries(path: IntArray) -> IntArray:
    """Return the column of each token's first cell in a path."""
    tokens, columns = path
    first: IntArray = columns[np.diff(tokens, prepend=-1) > 0]
    return first
