"""Files as torch.save writes them, made by hand, so that they can be wrong in one place."""

import io
import pickle
import zipfile
from collections import OrderedDict
from typing import Any

import numpy as np


class Storage:
    """Pickled by its persistent id, as torch's storages are."""

    def __init__(self, values: np.ndarray, key: str) -> None:
        self.values, self.key = values, key


class Call:
    """Pickled as a call of a function by name, whatever it is."""

    def __init__(self, name: str, *arguments: Any) -> None:
        self.name, self.arguments = name, arguments


class _Pickler(pickle._Pickler):  # type: ignore[name-defined]  # the Python one: its opcodes can be chosen
    def persistent_id(self, value: Any) -> Any:
        if not isinstance(value, Storage):
            return None
        kind = "FloatStorage" if value.values.dtype == np.float32 else "LongStorage"
        return ("storage", Named(f"torch {kind}"), value.key, "cpu", value.values.size)

    def save(self, value: Any, save_persistent_id: bool = True) -> None:
        if isinstance(value, Named):
            self.write(pickle.GLOBAL + value.name.replace(" ", "\n").encode() + b"\n")
        elif isinstance(value, Call):
            self.save(Named(value.name))
            self.save(value.arguments)
            self.write(pickle.REDUCE)
        else:
            super().save(value, save_persistent_id)


class Named:
    """A global by module and name."""

    def __init__(self, name: str) -> None:
        self.name = name


def tensor(values: np.ndarray, key: str, strides: tuple[int, ...] | None = None, offset: int = 0) -> Call:
    shape = values.shape
    counted = tuple(int(np.prod(shape[axis + 1 :])) for axis in range(len(shape)))
    return Call(
        "torch._utils _rebuild_tensor_v2",
        Storage(values, key),
        offset,
        shape,
        counted if strides is None else strides,
        False,
        Call("collections OrderedDict"),
    )


def pickled(value: Any) -> bytes:
    out = io.BytesIO()
    _Pickler(out, protocol=2).dump(value)
    return out.getvalue()


def torch_file(
    tensors: dict[str, Any], compression: int = zipfile.ZIP_STORED, data: bytes | None = None
) -> bytes:
    """A file of these arrays; `data` takes the place of its pickle."""
    arrays = {key: value for key, value in tensors.items() if isinstance(value, np.ndarray)}
    keys = {name: str(number) for number, name in enumerate(arrays)}
    held = {n: tensor(v, keys[n]) if isinstance(v, np.ndarray) else v for n, v in tensors.items()}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled(held) if data is None else data)
        for name, values in arrays.items():
            archive.writestr(f"archive/data/{keys[name]}", values.tobytes())
        archive.writestr("archive/version", "3\n")
    return out.getvalue()


WEIGHTS: OrderedDict[str, np.ndarray] = OrderedDict(
    a=np.arange(12, dtype=np.float32).reshape(3, 4), b=np.array(7, np.int64), c=np.ones((2, 1, 5), np.float32)
)
