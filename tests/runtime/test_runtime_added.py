"""The folder of added models: whole files or none, names that cannot leave the folder, one default."""

from pathlib import Path

import pytest

from sayso.runtime.added import AddedModels
from sayso.runtime.errors import ModelError


def test_models_come_and_go(tmp_path: Path) -> None:
    added = AddedModels(tmp_path / "data/models")
    assert added.paths() == {}
    assert added.default is None
    added.add("b", b"one")
    added.add("a.2", b"two")
    assert {name: path.read_bytes() for name, path in added.paths().items()} == {"a.2": b"two", "b": b"one"}
    added.add("b", b"three")
    assert added.paths()["b"].read_bytes() == b"three"
    added.set_default("b")
    assert added.default == "b"
    added.remove("b")
    assert list(added.paths()) == ["a.2"]
    with pytest.raises(ModelError, match=r"no model 'b' was added; those that were: a\.2"):
        added.remove("b")


@pytest.mark.parametrize("name", ["", ".hidden", "../up", "a/b", "x" * 64, "a b", "a\n"])
def test_names_that_could_be_paths_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is no name for a model"):
        AddedModels(tmp_path / "models").add(name, b"")
    assert not (tmp_path / "models").exists()


def test_a_full_disk_leaves_the_earlier_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    added = AddedModels(tmp_path)
    added.add("mine", b"before")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        added.add("mine", b"after")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.onnx"]
    assert added.paths()["mine"].read_bytes() == b"before"
