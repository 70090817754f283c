"""What stands for tensors: methods mean what they mean in PyTorch, or are refused. PyTorch itself: tests/reference."""

from __future__ import annotations

import copy
import pickle
import sys
from types import ModuleType
from unittest.mock import MagicMock

import numpy as np
import pytest

from stapes.compat.loading import usable_device
from stapes.compat.tensors import Device, TensorLike, as_device, float32_of, is_tensor, tensor_of


@pytest.fixture(autouse=True)
def _without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)


def counted(*shape: int) -> TensorLike:
    tensor: TensorLike = tensor_of(np.arange(np.prod(shape), dtype=np.float32).reshape(shape))
    return tensor


def test_without_torch_arrays_stand_for_tensors() -> None:
    array = np.zeros((2, 3), np.float32)
    tensor = tensor_of(array)
    assert type(tensor) is TensorLike
    assert np.shares_memory(tensor, array)
    assert is_tensor(tensor)
    assert not is_tensor(array)
    assert tensor_of(array[::-1]).flags.c_contiguous


@pytest.mark.parametrize("torch", [None, ModuleType("torch"), MagicMock()], ids=["blocked", "half imported", "mock"])
def test_what_is_not_torch_is_not_asked_for_tensors(monkeypatch: pytest.MonkeyPatch, torch: object) -> None:
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert type(tensor_of(np.zeros(3))) is TensorLike
    assert type(as_device("cpu")) is Device
    assert not is_tensor(np.zeros(3))


def test_methods_of_tensors() -> None:
    x = counted(1, 2, 3)
    assert x.to("cpu") is x.to(as_device("cpu"), non_blocking=True) is x.cpu() is x.detach() is x.data is x.float() is x
    assert x.to("cpu", copy=True) is not x
    assert (
        x.half().dtype == x.to(np.float16).dtype == x.to("cpu", dtype=np.float16).dtype == x.to(x.half()).dtype == "f2"
    )
    assert x.half().half().float().dtype == np.float32
    assert type(x.half()) is TensorLike
    assert type(x.numpy()) is np.ndarray
    assert np.shares_memory(x.numpy(), x)
    assert x.unsqueeze(0).shape == (1, 1, 2, 3)
    assert x.unsqueeze(-1).shape == (1, 2, 3, 1)
    assert x.squeeze().shape == x.squeeze(dim=0).shape == x.squeeze((0, 1)).shape == (2, 3)
    assert x.squeeze(1).shape == (1, 2, 3)
    assert type(x.squeeze()) is type(x.unsqueeze(0)) is TensorLike
    with pytest.raises(IndexError):
        x.squeeze(3)
    with pytest.raises(IndexError):
        x.unsqueeze(5)


def test_size_is_a_number_and_a_method() -> None:
    x = counted(2, 3)
    assert x.size == 6
    assert x.size() == (2, 3)
    assert x.size(-1) == 3


def test_results_are_tensors_again() -> None:
    x = counted(2, 3)
    for one in (x[0], x + 1, x.max(), x.mean(1), x @ x.T, abs(x), x.max() - x.min(), x.reshape(3, 2)):
        assert type(one) is TensorLike
    assert x.max().item() == float(x.max()) == 5.0
    assert type(copy.deepcopy(x)) is type(pickle.loads(pickle.dumps(x))) is TensorLike
    assert repr(x).startswith("TensorLike([[0., 1., 2.]")


REFUSED = {
    "max": (0,), "min": (-1,), "nonzero": (), "put": ([0], [1.0]), "repeat": (2, 1), "resize": (6,), "sort": (),
    "std": (), "transpose": (0, 1), "var": (0,), "view": (3, 2),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_means_something_else_is_refused(name: str) -> None:
    x = counted(2, 3)
    with pytest.raises(NotImplementedError, match=rf"{name}\(\).*import torch first"):
        getattr(x, name)(*REFUSED[name])
    assert np.array_equal(x, np.arange(6).reshape(2, 3))


def test_by_keyword_too() -> None:
    with pytest.raises(NotImplementedError, match="import torch first"):
        counted(2, 3).max(axis=0)


@pytest.mark.parametrize("name", ["permute", "clamp", "cuda", "add_"])
def test_what_arrays_do_not_have_says_the_way_out(name: str) -> None:
    with pytest.raises(AttributeError, match=rf"'{name}'.*import torch first"):
        getattr(counted(2), name)
    assert not hasattr(counted(2), name)


def test_functions_of_numpy_take_it_as_an_array() -> None:
    x = counted(2, 3)
    assert np.max(x, axis=0).tolist() == [3.0, 4.0, 5.0]
    assert np.transpose(x, (1, 0)).shape == (3, 2)
    assert np.std(x) == np.std(x.numpy())
    assert type(np.sort(x)) is type(np.stack([x, x])) is type(np.pad(x, 1)) is np.ndarray
    assert np.allclose(a=x, b=x)
    assert x.view(np.uint32).dtype == np.uint32


def test_devices() -> None:
    device = as_device("cpu")
    assert (device.type, device.index) == ("cpu", None)
    assert (Device("cuda:1").type, Device("cuda:1").index) == ("cuda", 1)
    assert device == "cpu" == device
    assert device != "cuda"
    assert {"cpu": 1}[device] == 1
    assert counted(2).device == device
    for one in ("cpu", "cpu:0", device):
        assert usable_device(one) == "cpu"
    for wrong in ("cuda", "cuda:0", 0, "mps"):
        with pytest.raises(ValueError, match=r"or give 'cpu'|unsupported device"):
            usable_device(wrong)
        with pytest.raises(ValueError, match=r"or give 'cpu'|unsupported device"):
            counted(2).to(wrong)


def test_numbers_of_anything_as_float32() -> None:
    x = counted(2, 3)
    assert type(float32_of(x)) is np.ndarray
    assert np.shares_memory(float32_of(x), x)
    for one in (x.half(), x.tolist(), x.numpy().astype(np.float64), np.int16(3)):
        assert float32_of(one).dtype == np.float32
