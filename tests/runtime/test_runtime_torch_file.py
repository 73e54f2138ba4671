"""Tensors are read from torch's files, and nothing else is: no call is made, no size is believed."""

import contextlib
import io
import os
import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_samples import WEIGHTS, Call, Named, Storage, pickled, tensor, torch_file

from sayso.runtime.errors import ModelError
from sayso.runtime.published.torch_file import read_tensors

GOOD = torch_file(WEIGHTS)


def values(content: bytes) -> dict[str, np.ndarray]:
    kinds = {4: "<f4", 8: "<i8"}
    read = read_tensors(content, "x.pt")
    return {n: np.frombuffer(t.data, kinds[t.item_bytes]).reshape(t.shape) for n, t in read.items()}


def test_the_values_come_back() -> None:
    for name, read in values(GOOD).items():
        np.testing.assert_array_equal(read, WEIGHTS[name])


def test_what_torch_saves_is_read() -> None:
    torch = pytest.importorskip("torch")
    base = torch.randn(6, 5)
    saved = {"whole": base, "rows": base[2:4], "count": torch.tensor(3), "bias": torch.zeros(7)}
    out = io.BytesIO()
    torch.save(saved, out)
    read = values(out.getvalue())
    assert read.keys() == saved.keys()
    for name, array in read.items():
        np.testing.assert_array_equal(array, saved[name].numpy())
    out = io.BytesIO()
    torch.save({"turned": base.T}, out)
    with pytest.raises(ModelError, match="in an order that is not read"):
        read_tensors(out.getvalue(), "x.pt")


class Runs:
    """Unpickling it would leave a file."""

    def __reduce__(self) -> Any:
        return os.system, ("touch ran",)


def replaced(data: bytes) -> bytes:
    return torch_file(WEIGHTS, data=data)


OBJ = b"\x80\x02(cos\nsystem\nX\x09\x00\x00\x00touch rano."
HOSTILE = {
    "a call": (replaced(pickle.dumps(Runs(), 2)), "posix system"),
    "a call in a newer protocol": (replaced(pickle.dumps(Runs(), 4)), "FRAME|STACK_GLOBAL"),
    "a call among the tensors": (torch_file({**WEIGHTS, "z": Call("os system", "touch ran")}), "os system"),
    "a call of builtins": (torch_file({"z": Call("builtins eval", "open('ran', 'w')")}), "builtins eval"),
    "the old way of a call": (replaced(b"(S'touch ran'\nios\nsystem\n."), "STRING|INST"),
    "an object": (replaced(OBJ), "OBJ"),
    "a dict that is filled by a call": (
        torch_file({"z": Call("collections OrderedDict", ())}),
        "OrderedDict",
    ),
    "state that is set": (replaced(b"\x80\x02}(X\x01\x00\x00\x00ab}b."), "damaged|BUILD"),
    "another storage": (
        replaced(pickled({"z": Call("torch._utils _rebuild_tensor_v2", Named("torch FloatStorage"))})),
        "damaged",
    ),
    "no dict": (replaced(pickled((1, 2))), "something else than a dict"),
    "no tensor": (torch_file({**WEIGHTS, "z": 5}), "something else than a tensor in 'z'"),
    "no end": (replaced(pickled({})[:-1]), "damaged"),
    "nothing": (replaced(b""), "damaged"),
    "an unknown value": (replaced(b"\x80\x02h\x07."), "damaged"),
    "a negative size": (
        torch_file({"z": tensor(np.zeros((2, 2), np.float32), "0", offset=-4)}),
        "damaged",
    ),
    "a storage that is not there": (torch_file({"z": tensor(np.ones(3, np.float32), "9")}), "lacks"),
    "a storage elsewhere": (torch_file({"z": tensor(np.ones(3, np.float32), "../../x")}), "lacks"),
    "more values than there are": (
        torch_file(
            {"a": np.ones(3, np.float32), "z": tensor(np.ones(3, np.float32), "0", offset=1)},
        ),
        "too few or too many values for 'z'",
    ),
    "strides over other values": (
        torch_file({"a": np.ones(3, np.float32), "z": tensor(np.ones(3, np.float32), "0", strides=(0,))}),
        "in an order that is not read",
    ),
    "half-precision storages": (
        torch_file(
            {"z": Call("torch._utils _rebuild_tensor_v2", Call("torch HalfStorage"), 0, (), (), False, ())}
        ),
        "torch HalfStorage",
    ),
    "a zip bomb": (torch_file({"a": np.zeros(2**22, np.float32)}, zipfile.ZIP_DEFLATED), "compressed member"),
    "no zip": (b"\x80\x02}.", "is no file of torch.save"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_and_nothing_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content, reason = HOSTILE[name]
    with pytest.raises(ModelError, match=rf"^evil\.pt .*({reason})"):
        read_tensors(content, "evil.pt")
    assert list(tmp_path.iterdir()) == []


def test_the_hostile_pickles_would_run_if_they_were_unpickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Runs(), 2))
    assert (tmp_path / "ran").exists()


def test_members_may_not_hold_more_than_the_file_does() -> None:
    """Many members of the directory that point at the same bytes."""
    values = np.ones(2**16, np.float32)
    held = {f"t{i}": tensor(values, str(i)) for i in range(40)}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", pickled(held))
        archive.writestr("archive/data/0", values.tobytes())
        first = archive.getinfo("archive/data/0")
        for i in range(1, 40):
            again = zipfile.ZipInfo(f"archive/data/{i}")
            again.header_offset, again.CRC = first.header_offset, first.CRC
            again.file_size = again.compress_size = first.file_size
            archive.filelist.append(again)
            archive.NameToInfo[again.filename] = again
    with pytest.raises(ModelError):
        read_tensors(out.getvalue(), "x.pt")


def test_nested_tuples_cost_nothing() -> None:
    """Each level holds the one below ten times over: 10 ** 60 values if anybody wrote them out."""
    data = b"\x80\x02)" + b"".join(
        b"q" + bytes([i]) + b"0(" + (b"h" + bytes([i])) * 10 + b"t" for i in range(60)
    )
    with pytest.raises(ModelError, match=r"POP|something else"):
        read_tensors(replaced(data + b"."), "x.pt")
    data = b"\x80\x02)" + b"".join(b"q" + bytes([i]) + (b"h" + bytes([i])) + b"\x86" for i in range(60))
    with pytest.raises(ModelError, match="something else than a dict"):
        read_tensors(replaced(data + b"."), "x.pt")


@given(
    cut=st.integers(0, len(GOOD)),
    changes=st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=6),
)
@settings(max_examples=600, deadline=None, derandomize=True)
def test_any_damage_is_refused_or_harmless(cut: int, changes: list[tuple[int, int]]) -> None:
    damaged = bytearray(GOOD)
    for at, value in changes:
        damaged[at] = value
    with contextlib.suppress(ModelError):
        read_tensors(bytes(damaged if changes else damaged[:cut]), "x.pt")


@given(st.lists(st.sampled_from([bytes([i]) for i in range(256)]) | st.binary(max_size=5), max_size=40))
@settings(max_examples=600, deadline=None, derandomize=True)
def test_any_pickle_is_refused_or_harmless(parts: list[bytes]) -> None:
    before = set(sys.modules)
    with contextlib.suppress(ModelError):
        read_tensors(replaced(pickled({"a": Storage(WEIGHTS["a"], "0")})[:-2] + b"".join(parts)), "x.pt")
    assert {name for name in set(sys.modules) - before if not name.startswith("encodings")} == set()
