"""Models that were added to a data folder, each a file `NAME.onnx` with its card, and the chosen default."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sayso.runtime.errors import ModelError

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}", re.IGNORECASE)
_DEFAULT = "default"


class AddedModels:
    """The folder of added models. It need not exist; the first change makes it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def paths(self) -> dict[str, Path]:
        """The added models' files by name, in alphabetical order."""
        return {path.stem: path for path in sorted(self.folder.glob("*.onnx")) if NAME.fullmatch(path.stem)}

    @property
    def default(self) -> str | None:
        """The model that was chosen to answer calls that name none; None where nobody chose."""
        try:
            return (self.folder / _DEFAULT).read_text(encoding="utf-8").strip() or None
        except FileNotFoundError:
            return None

    def add(self, name: str, content: bytes) -> Path:
        """Write a model file, in place whole or not at all. Raises `ModelError` for a name that cannot be."""
        if not NAME.fullmatch(name):
            raise ModelError(
                f"{name!r} is no name for a model: it has up to 63 letters, digits and ._- and begins with a "
                "letter or a digit"
            )
        path = self.folder / f"{name}.onnx"
        self._write(path, [content])
        return path

    def remove(self, name: str) -> None:
        """Delete an added model. Raises `ModelError` where there is none of that name."""
        if name not in self.paths():
            known = ", ".join(self.paths()) or "none"
            raise ModelError(f"no model {name!r} was added; those that were: {known}")
        (self.folder / f"{name}.onnx").unlink()

    def set_default(self, name: str) -> None:
        """Choose the model that answers calls that name none."""
        self._write(self.folder / _DEFAULT, [f"{name}\n".encode()])

    def _write(self, path: Path, parts: Iterable[bytes]) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with whole_file(path) as partial, partial.open("wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A file beside `path` to write to, which takes its place once that went well and is gone otherwise."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
