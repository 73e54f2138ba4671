"""The card's place in an `.onnx` file, and the file's identity without it.

An ONNX file is one protobuf message (onnx.proto3, `ModelProto`); its metadata are fields with number
14. Working on the bytes of the outermost fields keeps every other byte as it was, so a model's
identity does not change when its card is calibrated, and needs no protobuf or onnx package.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping

_METADATA_PROPS = 14
_GRAPH, _INITIALIZER = 7, 5  # of ModelProto and GraphProto
_DIMS, _DATA_TYPE, _FLOAT_DATA, _NAME, _RAW_DATA = 1, 2, 4, 8, 9  # of TensorProto
_FLOAT = 1
# Where messages of onnx.proto3 hold others that may hold tensors or operators, by field number.
_TENSOR, _NODE = "tensor", "node"
_HOLDS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: _NODE, 5: _TENSOR, 15: "sparse"},
    "function": {7: _NODE, 11: "attribute"},
    _NODE: {5: "attribute"},
    "attribute": {5: _TENSOR, 6: "graph", 10: _TENSOR, 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: _TENSOR, 2: _TENSOR},
}
_EXTERNAL_DATA, _DATA_LOCATION, _NODE_DOMAIN = 13, 14, 7
_DOMAINS = ("", "ai.onnx", "com.microsoft")  # what ONNX Runtime itself implements
_DEEPEST = 16
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


def network_sha256(model: bytes) -> str:
    """sha256 over everything but the metadata: the same before and after a calibration."""
    digest = hashlib.sha256()
    for number, start, _, end in _fields(model):
        if number != _METADATA_PROPS:
            digest.update(model[start:end])
    return digest.hexdigest()


def check_self_contained(model: bytes) -> None:
    """Raise `ValueError` for a model that names other files or operators from outside ONNX Runtime.

    External tensors are read from any path that the file names; nothing of ours needs either.
    """
    _check_message(model, "model", 0, len(model), 0)


def _check_message(model: bytes, kind: str, start: int, stop: int, depth: int) -> None:
    if depth > _DEEPEST:
        raise ValueError("its graphs are nested too deeply")
    for number, _, payload, end in _fields(model, start, stop):
        if kind == _TENSOR and number in (_EXTERNAL_DATA, _DATA_LOCATION):
            if number == _DATA_LOCATION and not any(model[payload:end]):
                continue  # spelt out: in this file
            raise ValueError("it keeps weights in another file: export it into one")
        if kind == _NODE and number == _NODE_DOMAIN:
            domain = model[payload:end].decode()
            if domain not in _DOMAINS:
                raise ValueError(f"it needs operators of {domain[:100]!r}, which ONNX Runtime does not have")
        held = _HOLDS.get(kind, {}).get(number)
        if held is not None:
            _check_message(model, held, payload, end, depth + 1)


def metadata(model: bytes) -> dict[str, str]:
    """The file's `metadata_props`. Raises `ValueError` when the bytes are not a protobuf message."""
    entries = {}
    for number, _, payload, end in _fields(model):
        if number == _METADATA_PROPS:
            entry = {n: model[p:e].decode() for n, _, p, e in _fields(model, payload, end)}
            entries[entry.get(1, "")] = entry.get(2, "")
    return entries


def with_metadata(model: bytes, key: str, value: str) -> bytes:
    """The same model with one metadata entry set, the other entries and all else untouched."""
    parts = []
    for number, start, payload, end in _fields(model):
        if number == _METADATA_PROPS:
            entry = {n: model[p:e].decode() for n, _, p, e in _fields(model, payload, end)}
            if entry.get(1, "") == key:
                continue
        parts.append(model[start:end])
    entry_bytes = _length_field(1, key.encode()) + _length_field(2, value.encode())
    return b"".join([*parts, _length_field(_METADATA_PROPS, entry_bytes)])


def without_values(model: bytes) -> dict[str, tuple[int, ...]]:
    """Shapes of the float32 initializers that have a name and a shape but no values, by name."""
    return dict(_empty_tensors(model))


def with_values(model: bytes, values: Mapping[str, bytes]) -> bytes:
    """The same model, those initializers filled: little-endian float32 of each, in C order.

    Raises `ValueError` where one has no values, or not as many as its shape says.
    """
    parts, at = [], 0
    for start, payload, end in _graphs(model):
        held = []
        for number, first, inner, last in _fields(model, payload, end):
            empty = _empty_tensor(model, inner, last) if number == _INITIALIZER else None
            if empty is None:
                held.append(model[first:last])
                continue
            name, shape = empty
            if len(values.get(name, b"")) != 4 * math.prod(shape):
                raise ValueError(f"no values of the shape {shape} for {name!r}")
            tensor = model[inner:last] + _length_field(_RAW_DATA, values[name])
            held.append(_length_field(_INITIALIZER, tensor))
        parts += [model[at:start], _length_field(_GRAPH, b"".join(held))]
        at = end
    return b"".join([*parts, model[at:]])


def _graphs(model: bytes) -> Iterator[tuple[int, int, int]]:
    return ((start, payload, end) for number, start, payload, end in _fields(model) if number == _GRAPH)


def _empty_tensors(model: bytes) -> Iterator[tuple[str, tuple[int, ...]]]:
    for _, payload, end in _graphs(model):
        for number, _, inner, last in _fields(model, payload, end):
            if number == _INITIALIZER and (empty := _empty_tensor(model, inner, last)):
                yield empty


def _empty_tensor(model: bytes, start: int, stop: int) -> tuple[str, tuple[int, ...]] | None:
    """Name and shape of a `TensorProto` of float32 without values; None for another one."""
    name, kind = "", 0
    shape: list[int] = []
    for number, at, payload, end in _fields(model, start, stop):
        if number == _DIMS:
            packed = model[at] & 7 == _LENGTH
            while payload < end:
                size, payload = _varint(model, payload, end)
                shape.append(size)
                if not packed:
                    break
        elif number == _DATA_TYPE:
            kind = _varint(model, payload, end)[0]
        elif number == _NAME:
            name = model[payload:end].decode()
        elif number in (_FLOAT_DATA, _RAW_DATA):
            return None
    return (name, tuple(shape)) if kind == _FLOAT and all(shape) else None


def _fields(data: bytes, at: int = 0, stop: int | None = None) -> Iterator[tuple[int, int, int, int]]:
    """Each field of a message as (number, start, start of the payload, end)."""
    stop = len(data) if stop is None else stop
    while at < stop:
        start = at
        tag, at = _varint(data, at, stop)
        number, wire = tag >> 3, tag & 7
        payload = at
        if wire == _VARINT:
            _, at = _varint(data, at, stop)
        elif wire == _LENGTH:
            size, payload = _varint(data, at, stop)
            at = payload + size
        elif wire in (_FIXED64, _FIXED32):
            at += 8 if wire == _FIXED64 else 4
        else:
            raise ValueError("not an ONNX file: unknown protobuf wire type")
        if at > stop or number == 0:
            raise ValueError("not an ONNX file, or one that was cut short")
        yield number, start, payload, at


def _varint(data: bytes, at: int, stop: int) -> tuple[int, int]:
    value = shift = 0
    while at < stop and shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("not an ONNX file, or one that was cut short")


def _length_field(number: int, payload: bytes) -> bytes:
    return _encode_varint(number << 3 | _LENGTH) + _encode_varint(len(payload)) + payload


def _encode_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
