"""Reads the tensors of a file that `torch.save` wrote, without torch and without unpickling it.

Such a file is a zip of stored members: `data.pkl`, a pickle of a dict of tensors, and `data/KEY`, the values
of each storage (torch/serialization.py). A pickle is a program for a stack machine that may call anything.
Here its opcodes are taken apart by `pickletools`, and only those are followed that build numbers, texts,
tuples and dicts. A call is not made but recognised: of `_rebuild_tensor_v2`, or of an empty `OrderedDict`.
"""

from __future__ import annotations

import math
import pickletools
import struct
import zipfile
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from sayso.runtime.errors import ModelError

_LARGEST_PICKLE = 8 * 2**20
_ITEM_BYTES = {"torch FloatStorage": 4, "torch LongStorage": 8}
_MARK, _REBUILD, _DICT = "mark", "torch._utils _rebuild_tensor_v2", "collections OrderedDict"
# What zipfile raises on damaged files beside its own class.
_DAMAGE = (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, ValueError, struct.error)


@dataclass(frozen=True)
class Tensor:
    """A tensor's shape and values: little-endian, in C order; `item_bytes` is 4 for float32, 8 for int64."""

    shape: tuple[int, ...]
    item_bytes: int
    data: bytes


@dataclass(frozen=True)
class _Named:
    """A class or a function that the pickle names; nothing is imported."""

    name: str


@dataclass(frozen=True)
class _Storage:
    kind: str
    key: str
    items: int


@dataclass(frozen=True)
class _View:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_tensors(content: bytes, name: str) -> dict[str, Tensor]:
    """The tensors of a state dict by name; `name` of the file is for messages.

    Raises `ModelError` for a file that is damaged, is compressed, or holds anything else.
    """
    try:
        with zipfile.ZipFile(BytesIO(content)) as archive:
            return _Reader(archive, len(content), name).tensors()
    except _DAMAGE as error:
        raise ModelError(f"{name} is no file of torch.save, or a damaged one: {error}") from error


class _Reader:
    """Reads members of the zip; all of them together may hold no more than the file does."""

    def __init__(self, archive: zipfile.ZipFile, content_bytes: int, name: str) -> None:
        self._archive, self._left, self._name = archive, content_bytes, name
        self._storages: dict[str, bytes] = {}

    def tensors(self) -> dict[str, Tensor]:
        pickles = [member for member in self._archive.namelist() if member.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ModelError(f"{self._name} holds {len(pickles)} files data.pkl; torch.save writes one")
        folder = pickles[0].removesuffix("data.pkl")
        order = f"{folder}byteorder"
        if order in self._archive.namelist() and self._member(order) != b"little":
            raise ModelError(f"{self._name} has another byte order than little-endian")
        held = _follow(self._member(pickles[0], _LARGEST_PICKLE), self._name)
        if not isinstance(held, dict):
            raise ModelError(f"{self._name} holds something else than a dict of tensors")
        return {str(key): self._tensor(str(key), value, folder) for key, value in held.items()}

    def _member(self, member: str, largest: int | None = None) -> bytes:
        try:
            info = self._archive.getinfo(member)
        except KeyError:
            raise ModelError(f"{self._name} lacks its member {member[:100]!r}") from None
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise ModelError(f"{self._name} has a compressed member {member[:100]!r}; torch.save stores them")
        if info.file_size > min(self._left, largest or self._left):
            raise ModelError(f"{self._name} has members that are larger than it is")
        self._left -= info.file_size
        return self._archive.read(info)

    def _tensor(self, key: str, view: Any, folder: str) -> Tensor:
        if not isinstance(view, _View):
            raise ModelError(f"{self._name} holds something else than a tensor in {key[:100]!r}")
        storage, size = view.storage, _ITEM_BYTES[view.storage.kind]
        if storage.key not in self._storages:
            self._storages[storage.key] = self._member(f"{folder}data/{storage.key}")
        data, items = self._storages[storage.key], math.prod(view.shape)
        if len(data) != storage.items * size or view.offset + items > storage.items:
            raise ModelError(f"{self._name} has too few or too many values for {key[:100]!r}")
        if view.strides != _strides(view.shape):
            raise ModelError(f"{self._name} keeps {key[:100]!r} in an order that is not read")
        return Tensor(view.shape, size, data[view.offset * size : (view.offset + items) * size])


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def _follow(pickled: bytes, name: str) -> Any:
    """What a pickle builds, of the kinds above. Raises `ModelError` naming an opcode or call that is not."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        at = max(i for i, value in enumerate(stack) if value is _MARK)
        taken = stack[at + 1 :]
        del stack[at:]
        return taken

    try:
        for opcode, given, _ in pickletools.genops(pickled):
            argument: Any = given
            match opcode.name:
                case "PROTO":
                    pass
                case "STOP":
                    (value,) = stack
                    return value
                case "MARK":
                    stack.append(_MARK)
                case "EMPTY_DICT":
                    stack.append({})
                case "EMPTY_TUPLE":
                    stack.append(())
                case "BININT" | "BININT1" | "BININT2" | "BINUNICODE":
                    stack.append(argument)
                case "NEWFALSE" | "NEWTRUE":
                    stack.append(opcode.name == "NEWTRUE")
                case "BINPUT" | "LONG_BINPUT":
                    memo[int(argument)] = stack[-1]
                case "BINGET" | "LONG_BINGET":
                    stack.append(memo[int(argument)])
                case "TUPLE":
                    stack.append(tuple(since_mark()))
                case "TUPLE1" | "TUPLE2" | "TUPLE3":
                    count = int(opcode.name[-1])
                    stack[-count:] = [tuple(stack[-count:])]
                case "GLOBAL":
                    stack.append(_Named(str(argument)))
                case "BINPERSID":
                    stack.append(_storage(stack.pop(), name))
                case "REDUCE":
                    arguments = stack.pop()
                    stack.append(_built(stack.pop(), arguments, name))
                case "SETITEM" | "SETITEMS":
                    items = [stack.pop(-2), stack.pop()] if opcode.name == "SETITEM" else since_mark()
                    _require(isinstance(stack[-1], dict) and all(isinstance(key, str) for key in items[::2]))
                    stack[-1].update(zip(items[::2], items[1::2], strict=True))
                case other:
                    raise ModelError(f"{name} asks for {other}, which no file of tensors needs: refused")
    except (ValueError, TypeError, IndexError, KeyError, RecursionError, MemoryError) as error:
        raise ModelError(f"{name} has a damaged index of its tensors") from error
    raise ModelError(f"{name} has a damaged index of its tensors")


def _storage(reference: Any, name: str) -> _Storage:
    _require(isinstance(reference, tuple) and len(reference) == 5)
    tag, kind, key, _, items = reference
    _require(tag == "storage" and isinstance(kind, _Named) and isinstance(key, str) and _is_size(items))
    if kind.name not in _ITEM_BYTES:
        raise ModelError(f"{name} keeps values as {kind.name[:100]!r}, which is not read")
    return _Storage(kind.name, key, items)


def _built(called: Any, arguments: Any, name: str) -> Any:
    """What one of the two known calls would give."""
    _require(isinstance(called, _Named) and isinstance(arguments, tuple))
    if called.name == _DICT and not arguments:
        return {}
    if called.name != _REBUILD:
        raise ModelError(
            f"{name} asks to call {called.name[:100]!r}, which no file of tensors needs: refused"
        )
    _require(len(arguments) == 6)
    storage, offset, shape, strides = arguments[:4]
    _require(isinstance(storage, _Storage) and _is_size(offset))
    _require(all(isinstance(sizes, tuple) and all(map(_is_size, sizes)) for sizes in (shape, strides)))
    return _View(storage, offset, shape, strides)


def _is_size(value: Any) -> bool:
    return type(value) is int and value >= 0


def _require(holds: bool) -> None:
    if not holds:
        raise ValueError("not as torch.save writes it")
