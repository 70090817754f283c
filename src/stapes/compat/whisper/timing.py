"""The alignment parts of openai-whisper's `whisper.timing`: DTW, median filter, and punctuation joined to words.

Plain NumPy. PyTorch is never imported: tensors are taken where the program has imported it.
Source: openai-whisper 20250625, timing.py (names, and what they compute; the code is ours).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import numpy as np
import numpy.typing as npt

from stapes.compat.words import merge_punctuations
from stapes.options import default_of

__all__ = [
    "WordTiming", "add_word_timestamps", "backtrace", "dtw", "dtw_cpu", "dtw_cuda", "find_alignment", "median_filter",
    "merge_punctuations",
]  # fmt: skip

Array = npt.NDArray[Any]

#: steps of a path, as `backtrace` reads them: to the next row and column, to the next row, to the next column
_BOTH, _ROW, _COLUMN = 0, 1, 2

_NO_MODULES: Final = (
    "needs the network's attention layers as PyTorch modules, which stapes does not have; "
    "transcribe(word_timestamps=True) gives the times of words, and stapes.load(model).align(audio, text) those of a "
    "known text"
)


@dataclass
class WordTiming:
    """One word: its tokens, start and end in seconds, and the mean probability of its tokens."""

    word: str
    tokens: list[int]
    start: float
    end: float
    probability: float


def median_filter(x: Any, filter_width: int) -> Any:
    """Return the median of `filter_width` values around each one, along the last axis, mirrored at its ends.

    x: an array or a tensor of any shape; what is returned is alike, of the same shape and dtype. An axis of at most
    `filter_width // 2` values stays as it is. Raises AssertionError for a width that is not odd.
    """
    half = filter_width // 2
    if x.shape[-1] <= half:
        return x
    assert filter_width > 0, f"the width of a filter is odd and above 0, got {filter_width}"
    assert filter_width % 2 == 1, f"the width of a filter is odd, got {filter_width}"
    padded = np.pad(_as_array(x), [(0, 0)] * (x.ndim - 1) + [(half, half)], mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, filter_width, axis=-1)
    filtered = np.partition(windows, half, axis=-1)[..., half]
    return x.new_tensor(filtered) if _is_tensor(x) else filtered


def backtrace(trace: Array) -> Array:
    """Return the path that the steps lead back along: (2, length), each cell's row and column, int64.

    trace: (rows + 1, columns + 1), the step to each cell: 0 from the one before in both, 1 from the row before, 2 from
    the column before. The first row and column are outside of the matrix: their steps are not read. Raises ValueError
    for another step.
    """
    row, column = trace.shape[0] - 1, trace.shape[1] - 1
    path = []
    while row > 0 or column > 0:
        path.append((row - 1, column - 1))
        step = _ROW if column == 0 else _COLUMN if row == 0 else trace[row, column]
        if step not in (_BOTH, _ROW, _COLUMN):
            raise ValueError(f"trace[{row}, {column}] is {step}; a step is 0, 1 or 2")
        row -= int(step != _COLUMN)
        column -= int(step != _ROW)
    return np.array(path[::-1], np.int64).reshape(-1, 2).T


def dtw_cpu(x: Array) -> Array:
    """Return the cheapest path through a matrix of costs, first to last cell: (2, length), rows and columns, int64.

    x: (rows, columns). Sums are float32; of equally cheap steps the one to the next column is taken.
    """
    n_rows, n_columns = x.shape
    total = np.full((n_rows + 1, n_columns + 1), np.inf, np.float32)
    total[0, 0] = 0.0
    cost = np.pad(x, (1, 0))
    trace = np.full(total.shape, -1, np.int8)
    totals, costs, steps = total.ravel(), cost.ravel(), trace.ravel()
    for diagonal in range(2, n_rows + n_columns + 1):  # its cells do not depend on each other
        # Cell (row, diagonal - row) is the (row * n_columns + diagonal)-th.
        first, last = max(1, diagonal - n_columns), min(n_rows, diagonal - 1)
        start, stop = first * n_columns + diagonal, last * n_columns + diagonal + 1
        both, by_row, by_column = (
            totals[start - back : stop - back : n_columns] for back in (n_columns + 2, n_columns + 1, 1)
        )
        is_both = (both < by_row) & (both < by_column)
        is_row = (by_row < both) & (by_row < by_column)
        here = slice(start, stop, n_columns)
        steps[here] = np.where(is_both, _BOTH, np.where(is_row, _ROW, _COLUMN))
        totals[here] = costs[here] + np.where(is_both, both, np.where(is_row, by_row, by_column))
    return backtrace(trace)


def dtw_cuda(x: Any, BLOCK_SIZE: int = 1024) -> NoReturn:  # noqa: N803
    """Raise NotImplementedError: `dtw` and `dtw_cpu` compute the same."""
    raise NotImplementedError("stapes has no CUDA kernels; dtw(x) and dtw_cpu(x) compute the same on the CPU")


def dtw(x: Any) -> Array:
    """Return `dtw_cpu` of an array or a tensor, wherever the tensor is."""
    return dtw_cpu(_as_array(x))


def _is_tensor(x: Any) -> bool:
    return isinstance(x, getattr(sys.modules.get("torch"), "Tensor", ()))


def _as_array(x: Any) -> Array:
    """Return an array or a tensor as an array; bfloat16, which NumPy lacks, as float32."""
    if _is_tensor(x):
        x = x.detach().cpu()
        x = (x.float() if str(x.dtype) == "torch.bfloat16" else x).numpy()
    return np.asarray(x)


def find_alignment(
    model: Any,
    tokenizer: Any,
    text_tokens: list[int],
    mel: Any,
    num_frames: int,
    *,
    medfilt_width: int = 7,
    qk_scale: float = 1.0,
) -> list[WordTiming]:
    """Raise NotImplementedError that says how else to align: the original hooks into PyTorch modules."""
    raise NotImplementedError(f"find_alignment {_NO_MODULES}")


def add_word_timestamps(
    *,
    segments: list[dict[str, Any]],
    model: Any,
    tokenizer: Any,
    mel: Any,
    num_frames: int,
    prepend_punctuations: str = default_of("prepend_punctuations"),
    append_punctuations: str = default_of("append_punctuations"),
    last_speech_timestamp: float,
    **kwargs: Any,
) -> None:
    """Raise NotImplementedError that says how else to time words: the original hooks into PyTorch modules."""
    raise NotImplementedError(f"add_word_timestamps {_NO_MODULES}")
