"""Reads the pickle inside a PyTorch file as data. Nothing in it is ever imported, called or unpickled.

A pickle is a program for a stack machine that may call any function it names. This file carries out by hand the
instructions, and allows the names, that torch.load(weights_only=True) of torch 2.13 allows, and refuses all else.
Tensors, parameters and dicts are read. Every other value (an optimiser's set, a device, a quantised tensor) becomes
an `Inert` mark. Memory stays in proportion to the pickle: an instruction adds one value at most.
Source: the opcodes' comments in https://github.com/python/cpython/blob/v3.13.0/Lib/pickletools.py;
what torch.save writes: https://github.com/pytorch/pytorch/blob/v2.6.0/torch/serialization.py;
what weights_only allows: https://github.com/pytorch/pytorch/blob/00f730b/torch/_weights_only_unpickler.py.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stapes.errors import CheckpointError

MAX_PICKLE_BYTES = 16 << 20  # large-v3 has 150 KB
_MAX_TENSOR_DIMENSIONS = 8
_MOST_IN_A_KEY = 64
_FORGED = 1 << 62  # no size or offset in a file is as large

#: Storage types that hold weights -> how stapes calls their numbers. Others may stand in a file, unread.
_STORAGE_KINDS = {
    "HalfStorage": "float16",
    "FloatStorage": "float32",
    "BFloat16Storage": "bfloat16",
    "DoubleStorage": "float64",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
#: What a pickle may name: the globals of weights_only. None of them is imported or called.
_GLOBALS = re.compile(
    r"collections\.(OrderedDict|Counter)|builtins\.(bytearray|set|complex)|_codecs\.encode"
    r"|torch\.(Size|device|Tensor|nn\.parameter\.Parameter|serialization\._get_layout)"
    r"|torch\.(bool|(q?u?int|b?float|complex|bits)\d\w*)"  # dtypes
    r"|torch\.per_(tensor|channel)_(affine|symmetric|affine_float_qparams)"
    r"|torch\.(cuda\.|xpu\.|mtia\.)?(sparse\.)?[A-Z]\w*(Tensor|Storage)|torch\.storage\.(Untyped|Typed)Storage"
    r"|torch\._utils\._rebuild_(parameter(_with_state)?|(q|sparse_|nested_)?tensor(_v2|_v3)?|meta_tensor_no_storage"
    r"|wrapper_subclass|device_tensor_from_(numpy|cpu_tensor))|torch\._tensor\._rebuild_from_type_v2"
    r"|torch\.nested\._internal\.nested_tensor\.(NestedTensor|_rebuild_njt)"
    r"|torch\.distributed\._mesh_layout\.(_FlatLayout|_MeshLayout)",
    re.ASCII,
)
#: The names among them that give something to read; a tensor's with the number of arguments it takes at least.
_DICTS = frozenset({"collections.OrderedDict", "collections.Counter"})
_TENSORS = {"torch._utils._rebuild_tensor": 4, "torch._utils._rebuild_tensor_v2": 6}
_PARAMETERS = frozenset(
    {"torch.nn.parameter.Parameter", "torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"}
)
_SUBCLASS = "torch._tensor._rebuild_from_type_v2"  # (function, class, its arguments, attributes)


@dataclass(frozen=True, slots=True)
class Name:
    """A global that the pickle names and that is allowed to stand there."""

    text: str


@dataclass(frozen=True, slots=True)
class Storage:
    """A run of numbers in an entry of the archive."""

    kind: str
    key: str  # the entry's name is data/<key>
    count: int


@dataclass(frozen=True, slots=True)
class TorchTensor:
    """A view of a storage; offset and strides in numbers, not bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Inert:
    """Stands for a value that no weight needs, and that is never made."""

    what: str  # the name that would have made it


class _Mark:
    """Stands on the stack where a tuple's or dict's items begin."""


_MARK = _Mark()


def read_pickle(program: bytes, source: str) -> object:
    """Carry out a pickle as torch.save writes it and return its value. source: names the file in errors.
    Raises CheckpointError for whatever else is in it.
    """
    if len(program) > MAX_PICKLE_BYTES:
        raise CheckpointError(f"{source}: a pickle of {len(program)} bytes is none of a Whisper; fetch it again")
    try:
        return _Machine(program, source).run()
    except (IndexError, KeyError, UnicodeDecodeError) as exc:
        # The stack, the memo or the program ended early, or a string is not text.
        raise CheckpointError(f"{source}: the pickle is damaged ({exc!r:.80}); fetch the file again") from exc


class _Machine:
    """The stack, the memo, and one method per kind of instruction."""

    def __init__(self, program: bytes, source: str) -> None:
        self.program = program
        self.source = source
        self.at = 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> object:
        while (code := self.take(1)) != b".":
            if (carry_out := _INSTRUCTIONS.get(code)) is None:
                raise self.refusal(f"instruction {code!r} at byte {self.at - 1}")
            carry_out(self)
        result: object = self.pop()
        if self.stack:
            raise self.refusal("values left over at its end")
        return result

    def refusal(self, what: str) -> CheckpointError:
        return CheckpointError(
            f"{self.source}: its pickle has {what}, which no Whisper in OpenAI's form has; save a plain dict of "
            "'dims' and 'model_state_dict', tensors only, or a Hugging Face folder"
        )

    def take(self, size: int) -> bytes:
        if self.at + size > len(self.program):
            raise IndexError("the program ends early")
        self.at += size
        return self.program[self.at - size : self.at]

    def number(self, size: int, *, signed: bool = False) -> int:
        return int.from_bytes(self.take(size), "little", signed=signed)

    def float64(self) -> None:
        (value,) = struct.unpack(">d", self.take(8))
        self.push(value)

    def line(self) -> str:
        end = self.program.find(b"\n", self.at, self.at + 256)
        if end < 0:
            raise IndexError("a name does not end")
        return self.take(end + 1 - self.at)[:-1].decode("utf-8")

    def push(self, value: object) -> None:
        self.stack.append(value)

    def protocol(self) -> None:
        if (version := self.number(1)) > 5:
            raise self.refusal(f"protocol {version}")

    def frame(self) -> None:
        self.take(8)

    def pop_to_mark(self) -> list[Any]:
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is _MARK:
                items = self.stack[index + 1 :]
                del self.stack[index:]
                return items
        raise IndexError("no mark on the stack")

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise IndexError("a mark where a value should be")
        return value

    def pop_tuple(self, count: int) -> None:
        items = [self.pop() for _ in range(count)]
        self.push(tuple(reversed(items)))

    def put(self, index: int) -> None:
        if self.stack[-1] is _MARK:
            raise IndexError("a mark in the memo")
        self.memo[index] = self.stack[-1]

    def text(self, length_bytes: int) -> None:
        # torch.load keeps lone surrogates too: names of files may have them.
        self.push(self.take(self.number(length_bytes)).decode("utf-8", "surrogatepass"))

    def name(self) -> None:
        """GLOBAL: module and name, a line each. A hostile pickle says here what it wants to call."""
        module, name = self.line(), self.line()
        if module == "__builtin__":  # what protocol 2 calls it, for Python 2
            module = "builtins"
        self.push(self.allowed(f"{module}.{name}"))

    def stack_name(self) -> None:
        """STACK_GLOBAL, of protocol 4: the same from the stack."""
        name, module = self.pop(), self.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise self.refusal("a global without a name")
        self.push(self.allowed(f"{module}.{name}"))

    def allowed(self, text: str) -> Name:
        if not _GLOBALS.fullmatch(text):
            raise CheckpointError(
                f"{self.source}: its pickle names the global {text!r:.120}, which no saved Whisper needs; such a "
                "file can run code where other programs open it: get the model from a source that you trust, best "
                "as safetensors"
            )
        return Name(text)

    def append(self, items: list[Any]) -> None:
        if type(target := self.stack[-1]) is not list:
            raise self.refusal("items for something that is not a list")
        target.extend(items)

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict or len(items) % 2:
            raise self.refusal("items for something that is not a dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not _is_key(key):
                raise self.refusal("a dict key that is neither a string nor a number")
            if type(key) is str:  # nothing is looked up by another key, and a nested tuple may take without end to hash
                target[key] = value

    def set_item(self) -> None:
        value, key = self.pop(), self.pop()
        self.set_items([key, value])

    def build(self) -> None:
        """BUILD sets attributes, which hold no weights: an OrderedDict's `_metadata`, for one."""
        self.pop()
        if not isinstance(self.stack[-1], dict | Inert | TorchTensor):
            raise self.refusal("attributes for something that has none")

    def reduce(self) -> None:
        """REDUCE and NEWOBJ call a name in real unpicklers. Here names stand for values."""
        arguments, function = self.pop(), self.pop()
        self.push(self.value_of(function, arguments))

    def value_of(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, Name) or type(arguments) is not tuple:
            raise self.refusal("a call of something that is no name")
        if function.text == _SUBCLASS and len(arguments) == 4:
            function, arguments = arguments[0], arguments[2]  # once: a subclass of a subclass is not written so
            if not isinstance(function, Name) or type(arguments) is not tuple:
                raise self.refusal("a tensor's subclass without a tensor")
        if function.text in _DICTS and not arguments:
            return {}
        if function.text in _TENSORS:
            return self.tensor(arguments, _TENSORS[function.text])
        if function.text in _PARAMETERS and arguments:
            return arguments[0]
        return Inert(function.text)

    def tensor(self, arguments: tuple[Any, ...], least: int) -> TorchTensor:
        """Read (storage, offset, shape, strides, requires_grad, hooks[, metadata]), the first four in old files."""
        if not least <= len(arguments) <= 7:
            raise self.refusal(f"a tensor of {len(arguments)} arguments")
        storage, offset, shape, strides = arguments[:4]
        if not (type(storage) is Storage and _is_count(offset) and _are_counts(shape) and _are_counts(strides)):
            raise self.refusal("a tensor without storage, offset, shape and strides")
        if len(shape) != len(strides):
            raise self.refusal("a tensor with more or fewer strides than dimensions")
        return TorchTensor(storage, offset, shape, strides)

    def persistent(self) -> None:
        """BINPERSID: ("storage", its type, key, device, count) is numbers elsewhere in the archive."""
        found = self.pop()
        if type(found) is not tuple or len(found) != 5 or type(found[0]) is not str or found[0] != "storage":
            raise self.refusal("a reference that is not to a storage")
        _, kind, key, _, count = found
        if type(kind) is not Name or not kind.text.endswith("Storage") or type(key) is not str:
            raise self.refusal("a storage without type and key")
        if not _is_count(count):
            raise self.refusal("a storage without type and size")
        name = kind.text.rpartition(".")[2]  # torch.HalfStorage, torch.cuda.HalfStorage
        self.push(Storage(_STORAGE_KINDS.get(name, name), key, count))


def _is_key(value: object) -> bool:
    """Return whether a value can be a dict's key; nested tuples only if they hold few values in all."""
    left, n_seen = [value], 0
    while left:
        item = left.pop()
        n_seen += 1
        if isinstance(item, dict | list):
            return False
        if type(item) is tuple:
            if n_seen + len(left) + len(item) > _MOST_IN_A_KEY:
                return False
            left += item
    return True


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < _FORGED


def _are_counts(values: object) -> bool:
    return type(values) is tuple and len(values) <= _MAX_TENSOR_DIMENSIONS and all(map(_is_count, values))


_INSTRUCTIONS: dict[bytes, Callable[[_Machine], None]] = {
    b"\x80": _Machine.protocol,
    b"\x95": _Machine.frame,  # a hint for reading ahead
    b"(": lambda machine: machine.push(_MARK),
    b"N": lambda machine: machine.push(None),
    b"\x88": lambda machine: machine.push(True),
    b"\x89": lambda machine: machine.push(False),
    b"K": lambda machine: machine.push(machine.number(1)),
    b"M": lambda machine: machine.push(machine.number(2)),
    b"J": lambda machine: machine.push(machine.number(4, signed=True)),
    b"\x8a": lambda machine: machine.push(machine.number(machine.number(1), signed=True)),
    b"G": _Machine.float64,
    b"X": lambda machine: machine.text(4),
    b"\x8c": lambda machine: machine.text(1),
    b"U": lambda machine: machine.text(1),  # a string of Python 2
    b"]": lambda machine: machine.push([]),
    b"a": lambda machine: machine.append([machine.pop()]),
    b"e": lambda machine: machine.append(machine.pop_to_mark()),
    b"\x8f": lambda machine: machine.push(Inert("builtins.set")),
    b")": lambda machine: machine.push(()),
    b"\x85": lambda machine: machine.pop_tuple(1),
    b"\x86": lambda machine: machine.pop_tuple(2),
    b"\x87": lambda machine: machine.pop_tuple(3),
    b"t": lambda machine: machine.push(tuple(machine.pop_to_mark())),
    b"}": lambda machine: machine.push({}),
    b"s": _Machine.set_item,
    b"u": lambda machine: machine.set_items(machine.pop_to_mark()),
    b"q": lambda machine: machine.put(machine.number(1)),
    b"r": lambda machine: machine.put(machine.number(4)),
    b"\x94": lambda machine: machine.put(len(machine.memo)),
    b"h": lambda machine: machine.push(machine.memo[machine.number(1)]),
    b"j": lambda machine: machine.push(machine.memo[machine.number(4)]),
    b"c": _Machine.name,
    b"\x93": _Machine.stack_name,
    b"R": _Machine.reduce,
    b"\x81": _Machine.reduce,  # NEWOBJ: a class and its arguments
    b"b": _Machine.build,
    b"Q": _Machine.persistent,
}
