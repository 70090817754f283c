"""What stands for PyTorch's tensors and devices: PyTorch's own where it is imported already, else arrays of NumPy.

No module here imports PyTorch. Where a method means another thing in NumPy than in PyTorch, the arrays refuse it.
Source of the methods' meaning: the reference of torch.Tensor, PyTorch 2.13.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from stapes.compat.loading import usable_device

_WAY_OUT = "import torch first and you get tensors, or take the array: .numpy()"


def torch_if_imported() -> Any:
    """Return the module `torch` where the program has imported it, else None."""
    torch = sys.modules.get("torch")
    is_whole = isinstance(getattr(torch, "Tensor", None), type)  # False while it is being imported, and for a mock
    return torch if is_whole else None


def is_tensor(value: object) -> bool:
    """Whether a value is a tensor of PyTorch, or what stands for one."""
    return isinstance(value, TensorLike) or _is_torch_tensor(value)


def _is_torch_tensor(value: object) -> bool:
    torch = torch_if_imported()
    return torch is not None and isinstance(value, torch.Tensor)


def tensor_of(array: npt.NDArray[Any]) -> Any:
    """Return an array as a tensor of PyTorch where it is imported, else as a `TensorLike`.
    The memory is shared where PyTorch can: the array is writeable and contiguous.
    """
    torch = torch_if_imported()
    whole = np.require(array, requirements=["C", "W"])
    return torch.from_numpy(whole) if torch is not None else whole.view(TensorLike)


def float32_of(value: object) -> npt.NDArray[np.float32]:
    """Return a tensor of any type and device, an array or a list of numbers as a float32 array of the same shape.
    The memory is shared where it is float32 on the CPU already.
    """
    if _is_torch_tensor(value):
        tensor: Any = value
        value = tensor.detach().to("cpu", torch_if_imported().float32).numpy()
    return np.asarray(value, np.float32)


def as_device(name: str) -> Any:
    """Return a device by its name: a torch.device where PyTorch is imported, else a `Device`."""
    torch = torch_if_imported()
    return Device(name) if torch is None else torch.device(name)


def on_device(array: npt.NDArray[Any], device: Any) -> Any:
    """Return an array as `tensor_of` does, on a device; None: on the CPU. Raises DeviceError."""
    if torch_if_imported() is None and device is not None and usable_device(device) == "cpu":
        device = None
    tensor = tensor_of(array)  # of PyTorch where the device is a GPU: looking for it has imported PyTorch
    return tensor if device is None else tensor.to(device)


class Device(str):
    """A device's name, which compares equal to a torch.device of this name."""

    __slots__ = ()

    @property
    def type(self) -> str:
        """The kind of device: "cpu", "cuda"."""
        return self.partition(":")[0]

    @property
    def index(self) -> int | None:  # type: ignore[override]  # torch.device has it, and str.index is of no use here
        """Which device of its kind; None: the current one."""
        number = self.partition(":")[2]
        return int(number) if number else None

    def __eq__(self, other: object) -> bool:
        return str(self) == str(other)

    def __ne__(self, other: object) -> bool:
        return str(self) != str(other)

    __hash__ = str.__hash__


class _Size(int):
    """How many elements there are; called, the shape: NumPy has the one under this name, PyTorch the other."""

    shape: tuple[int, ...]

    def __call__(self, dim: int | None = None) -> tuple[int, ...] | int:
        return self.shape if dim is None else self.shape[dim]


class TensorLike(np.ndarray[Any, Any]):
    """An array with the methods that programs call on a tensor of PyTorch, for programs without PyTorch.

    Methods mean what they mean on a tensor, or raise NotImplementedError; those that only tensors have raise
    AttributeError. NumPy's functions take it as the array that it is, and return arrays, as they do for a tensor.
    """

    @property
    def device(self) -> Device:  # type: ignore[override]  # a str, as in NumPy
        """Where the numbers are: the CPU."""
        return Device("cpu")

    @property
    def size(self) -> _Size:
        """How many elements there are; called, the shape, or the length of one dimension."""
        size = _Size(super().size)
        size.shape = self.shape
        return size

    @property
    def data(self) -> TensorLike:  # type: ignore[override]  # NumPy has a memoryview here
        """The same numbers."""
        return self.detach()

    def to(self, *targets: Any, copy: bool = False, **named: Any) -> Any:
        """Return the numbers on another device, or as another type; itself where both are right and `copy` is not set.

        targets, named: "cpu", a NumPy type, or an array whose type is taken. Where PyTorch is imported by now: what
        its `Tensor.to` takes, and the result is a tensor.
        Raises NotImplementedError for another device.
        """
        if torch_if_imported() is not None:
            return tensor_of(self).to(*targets, copy=copy, **named)
        result = self
        for one in (*targets, named.get("device"), named.get("dtype")):
            kind = one.dtype if isinstance(one, np.ndarray) else one
            if isinstance(kind, np.dtype | type):
                result = result._cast(kind)
            elif not isinstance(kind, bool | None) and usable_device(kind) != "cpu":  # bool: non_blocking, copy
                return self.to(*targets, copy=copy, **named)  # looking for a GPU has imported PyTorch
        return result.copy() if copy else result

    def _cast(self, kind: Any) -> TensorLike:
        return self if self.dtype == kind else self.astype(kind).view(TensorLike)

    def cpu(self) -> TensorLike:
        """Return itself."""
        return self

    def detach(self) -> TensorLike:
        """Return the same numbers: there are no gradients."""
        return self

    def numpy(self) -> npt.NDArray[Any]:
        """Return a plain array of the same memory."""
        return np.asarray(self)

    def half(self) -> TensorLike:
        """Return it as float16; itself if it is."""
        return self._cast(np.float16)

    def float(self) -> TensorLike:
        """Return it as float32; itself if it is."""
        return self._cast(np.float32)

    def unsqueeze(self, dim: int) -> TensorLike:
        """Return it with one more dimension, of length 1, at `dim`."""
        return np.expand_dims(self, dim).view(TensorLike)

    def squeeze(self, dim: int | tuple[int, ...] | None = None) -> TensorLike:  # type: ignore[override]
        """Return it without dimensions of length 1.   dim: these alone, where they are of length 1; None: all."""
        dims = tuple(range(self.ndim)) if dim is None else dim if isinstance(dim, tuple) else (dim,)
        return self.numpy().squeeze(tuple(one for one in dims if self.shape[one] == 1)).view(TensorLike)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        plain = {name: _plain(one) for name, one in kwargs.items()}
        return super().__array_function__(func, types, _plain(args), plain)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            raise AttributeError(f"an array has no {name!r}; {_WAY_OUT}", name=name, obj=self)


def _plain(value: Any) -> Any:
    """Return a function's argument with arrays of NumPy's own class in the place of ours."""
    if isinstance(value, TensorLike):
        return value.numpy()
    if isinstance(value, list | tuple):
        one_by_one = map(_plain, value)
        return list(one_by_one) if isinstance(value, list) else tuple(one_by_one)
    return value


def _refuse(name: str, is_same: Callable[..., bool]) -> Callable[..., Any]:
    method = getattr(np.ndarray, name)

    def checked(self: TensorLike, *args: Any, **kwargs: Any) -> Any:
        if not kwargs and is_same(*args):
            return method(self, *args)
        raise NotImplementedError(f"{name}() is another thing in NumPy than in PyTorch; {_WAY_OUT}")

    checked.__name__ = name
    checked.__doc__ = f"Raise NotImplementedError where NumPy's {name}() is another thing than PyTorch's."
    return checked


#: methods of both whose results differ -> for which arguments they do not
_DIFFERENT: dict[str, Callable[..., bool]] = {
    **dict.fromkeys(("max", "min"), lambda *args: not args),  # of one dimension, PyTorch returns values and indices
    "view": lambda *args: all(isinstance(one, type | np.dtype) for one in args),  # a shape, in PyTorch
    # of PyTorch, in this order: indices as one tensor; a new tensor; copies of the whole; a tensor; values and indices;
    # divided by n - 1; two dimensions exchanged; divided by n - 1
    **dict.fromkeys(("nonzero", "put", "repeat", "resize", "sort", "std", "transpose", "var"), lambda *_: False),
}
for _name, _is_same in _DIFFERENT.items():
    setattr(TensorLike, _name, _refuse(_name, _is_same))
