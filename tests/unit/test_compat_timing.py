"""The timing parts of the openai-whisper interface. tests/reference/test_compat_parts.py compares with the original."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from stapes.backends.numerics import dtw_path
from stapes.compat.whisper.timing import (
    WordTiming,
    add_word_timestamps,
    backtrace,
    dtw,
    dtw_cpu,
    dtw_cuda,
    find_alignment,
    median_filter,
    merge_punctuations,
)


class Tensor:
    """What `timing` asks of a tensor of PyTorch."""

    def __init__(self, values: Any, dtype: str = "torch.float32") -> None:
        self.values, self.dtype = values, dtype
        self.shape, self.ndim = values.shape, values.ndim

    def detach(self):
        return self

    def cpu(self):
        return self

    def float(self):
        return Tensor(self.values)

    def numpy(self):
        assert self.dtype != "torch.bfloat16"
        return self.values

    def new_tensor(self, values):
        return Tensor(values, self.dtype)


@pytest.fixture
def torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(Tensor=Tensor))


@pytest.mark.parametrize("seed", range(30))
def test_the_path_is_that_of_the_engine(seed):
    random = np.random.default_rng(seed)
    cost = random.standard_normal(random.integers(1, (40, 200)), dtype=np.float32)
    if seed % 3 == 0:
        cost = np.round(cost)  # ties
    path = dtw_cpu(cost)
    assert path.dtype == np.int64
    np.testing.assert_array_equal(path, dtw_path(cost))
    np.testing.assert_array_equal(path, dtw(cost.astype(np.float64)))


def test_the_path_of_an_empty_matrix_is_empty():
    assert dtw_cpu(np.zeros((0, 0))).shape == (2, 0)


def test_backtrace_follows_the_steps_and_leaves_them_as_they_are():
    trace = np.array([[-1, -1, -1, -1], [-1, 0, 2, 1], [-1, 1, 1, 0]])
    before = trace.copy()
    np.testing.assert_array_equal(backtrace(trace), [[0, 0, 1], [0, 1, 2]])
    np.testing.assert_array_equal(trace, before)
    with pytest.raises(ValueError, match=r"trace\[1, 1\] is 7"):
        backtrace(np.array([[0, 0], [0, 7]]))


def by_hand(row: Any, width: int) -> Any:
    half, last = width // 2, len(row) - 1
    positions = [[abs(i + k) for k in range(-half, half + 1)] for i in range(len(row))]
    return [np.median([row[2 * last - one if one > last else one] for one in around]) for around in positions]


@pytest.mark.parametrize("shape", [(8,), (2, 8), (2, 3, 21), (1, 2, 2, 9)])
@pytest.mark.parametrize("width", [1, 3, 7, 13])
def test_the_median_filter_is_mirrored_at_the_ends(shape, width):
    x = np.random.default_rng(width).standard_normal(shape, dtype=np.float32)
    found = median_filter(x, width)
    assert found.shape == x.shape
    assert found.dtype == np.float32
    rows = [by_hand(row, width) for row in x.reshape(-1, shape[-1])]
    np.testing.assert_array_equal(found, np.array(rows, np.float32).reshape(shape))


def test_an_axis_that_is_too_short_to_mirror_stays_as_it_is():
    x = np.array([[3.0, 1.0, 2.0]])
    assert median_filter(x, 7) is x
    assert median_filter(x, 6) is x  # the width is not looked at either


@pytest.mark.parametrize("width", [0, 2, -1, -2])
def test_a_width_is_odd_and_above_zero(width):
    with pytest.raises(AssertionError, match=f"got {width}"):
        median_filter(np.zeros(9), width)


@pytest.mark.usefixtures("torch")
@pytest.mark.parametrize("dtype", ["torch.float32", "torch.bfloat16"])
def test_tensors_come_back_as_tensors(dtype):
    values = np.random.default_rng(0).standard_normal((3, 9), dtype=np.float32)
    found = median_filter(Tensor(values, dtype), 3)
    assert isinstance(found, Tensor)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found.values, median_filter(values, 3))
    np.testing.assert_array_equal(dtw(Tensor(values, dtype)), dtw_cpu(values))


def timings(*words: str) -> list[WordTiming]:
    return [WordTiming(word, [i], i, i + 1, 0.5) for i, word in enumerate(words)]


def test_punctuation_joins_the_words_beside_it():
    alignment = timings(' "', "Hi", "!", '"', " (", " “", "Bye", ".", " end ", ".")
    merge_punctuations(alignment, '"“(', '".!')
    assert [one.word for one in alignment] == ["", ' "Hi!"', "", "", "", "", " ( “Bye.", "", " end ", "."]
    assert [one.tokens for one in alignment] == [[], [0, 1, 2, 3], [], [], [], [], [4, 5, 6, 7], [], [8], [9]]
    nothing: list[WordTiming] = []
    merge_punctuations(nothing, '"', '"')
    assert nothing == []


def test_a_word_timing_is_a_mutable_dataclass():
    assert [field.name for field in dataclasses.fields(WordTiming)] == ["word", "tokens", "start", "end", "probability"]
    one = WordTiming(" a", [1], 0.0, 0.5, 0.9)
    one.end = 0.6
    assert dataclasses.asdict(one) == {"word": " a", "tokens": [1], "start": 0.0, "end": 0.6, "probability": 0.9}


def test_what_needs_pytorch_modules_or_cuda_says_what_to_take_instead():
    nothing: Any = None
    with pytest.raises(NotImplementedError, match=r"word_timestamps=True.*align"):
        find_alignment(nothing, nothing, [1], nothing, 100, medfilt_width=7, qk_scale=1.0)
    with pytest.raises(NotImplementedError, match=r"word_timestamps=True.*align"):
        add_word_timestamps(
            segments=[], model=nothing, tokenizer=nothing, mel=nothing, num_frames=1, last_speech_timestamp=0.0
        )
    with pytest.raises(NotImplementedError, match="dtw_cpu"):
        dtw_cuda(nothing)


def test_importing_the_module_loads_no_pytorch():
    program = "import sys; import stapes.compat.whisper.timing; print('torch' in sys.modules, 'numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False False"
