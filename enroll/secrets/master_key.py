"""Where the master key comes from: a file of its own, or the environment."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from sayso.enroll.db.disk import draft_of, sync_folder
from sayso.enroll.errors import MasterKeyUnusable
from sayso.enroll.secrets.sealing import MasterKey, new_key, parse_master_key


class KeySource(Protocol):
    """Something that can give the master key a store is sealed with."""

    def load(self, wanted: str) -> MasterKey:
        """Return the key with this id. Raises MasterKeyUnusable."""

    def first(self) -> MasterKey:
        """Return the key for a store that has none yet. Raises MasterKeyUnusable."""

    def promote(self, key_id: str) -> None:
        """Finish what a rotation to this key, cut short, may have left to do."""


class KeyText:
    """A key given as text, by the environment."""

    def __init__(self, text: str, origin: str = "SAYSO_MASTER_KEY") -> None:
        self._key, self._origin = parse_master_key(text, origin), origin

    def load(self, wanted: str) -> MasterKey:
        if self._key.id != wanted:
            raise _wrong(self._origin, self._key.id, wanted)
        return self._key

    def first(self) -> MasterKey:
        return self._key

    def promote(self, key_id: str) -> None:
        """Nothing to do: the operator sets the text."""


class KeyFile:
    """A key in a file of mode 0600, made when a new store needs one.

    Beside it lies `<name>.<id>` for each key of a rotation: the new one is written there before the database
    is told of it, and the old one stays there, since earlier backups open with it only. So whichever key
    the database names is on the disk at every moment, whoever rotates and wherever that is cut short.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self, wanted: str) -> MasterKey:
        key = self._present()
        if key is not None and key.id == wanted:
            return key
        with suppress(FileNotFoundError):
            return _checked(self.kept(wanted), wanted)
        if key is None:
            raise MasterKeyUnusable(
                f"{self.path} is missing: the store is sealed with master key {wanted}. Put that file back, "
                "or set SAYSO_MASTER_KEY or SAYSO_MASTER_KEY_FILE; without the key nothing can be opened."
            )
        raise _wrong(self.path, key.id, wanted)

    def first(self) -> MasterKey:
        with suppress(FileExistsError):
            _write(self.path, MasterKey(new_key()))
        return _read(self.path)

    def prepare(self) -> MasterKey:
        """Write a new key beside the present one."""
        key = MasterKey(new_key())
        _write(self.kept(key.id), key)
        return key

    def promote(self, key_id: str) -> None:
        """Give the key with this id the file's own name, keeping the one that had it under its id."""
        present = self._present()
        if present is None or present.id == key_id or not self.kept(key_id).exists():
            return
        draft = draft_of(self.kept(key_id))
        with suppress(FileExistsError):
            os.link(self.path, self.kept(present.id))
        draft.unlink(missing_ok=True)
        os.link(self.kept(key_id), draft)
        os.replace(draft, self.path)
        draft.unlink(missing_ok=True)  # a rename onto another name of the same file leaves both
        sync_folder(self.path.parent)

    def kept(self, key_id: str) -> Path:
        """Name the file where a key of a rotation is kept."""
        return self.path.with_name(f"{self.path.name}.{key_id}")

    def _present(self) -> MasterKey | None:
        try:
            return _read(self.path)
        except FileNotFoundError:
            return None


def _read(path: Path) -> MasterKey:
    try:
        text = path.read_text("ascii")
    except UnicodeDecodeError:
        text = ""
    except FileNotFoundError:
        raise
    except OSError as error:
        raise MasterKeyUnusable(
            f"{path} cannot be read ({error.strerror}). Check its permissions."
        ) from error
    return parse_master_key(text, str(path))


def _checked(path: Path, wanted: str) -> MasterKey:
    key = _read(path)
    if key.id != wanted:
        raise _wrong(path, key.id, wanted)
    return key


def _write(path: Path, key: MasterKey) -> None:
    """Write a new file that is whole or not there, whenever the process ends. Raises FileExistsError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = draft_of(path)
    descriptor = os.open(draft, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
    try:
        with open(descriptor, "wb") as file:  # unlike os.write it writes all of it or fails
            file.write(key.secret.hex().encode() + b"\n")
            file.flush()
            os.fsync(descriptor)
        os.link(draft, path)  # unlike a rename it never replaces the key another process just made
    finally:
        draft.unlink()
    sync_folder(path.parent)


def _wrong(origin: object, given: str, wanted: str) -> MasterKeyUnusable:
    return MasterKeyUnusable(
        f"{origin} is master key {given}, but the store is sealed with {wanted}. Give that key: without it "
        "nothing can be opened."
    )
