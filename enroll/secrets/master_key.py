"""Sources of the master key: a file of its own, or text in the environment."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from sayso.enroll.db.disk import draft_of, sync_folder
from sayso.enroll.errors import MasterKeyUnusable
from sayso.enroll.secrets.sealing import MasterKey, new_key, parse_master_key


class KeySource(Protocol):
    """A source of the master key that a store is sealed with."""

    def load(self, key_id: str) -> MasterKey:
        """Return the key with this id. Raises MasterKeyUnusable."""

    def first(self) -> MasterKey:
        """Return the key for a new store, made now if a key file is missing. Raises MasterKeyUnusable."""

    def promote(self, key_id: str) -> None:
        """Make this key the present one, if a rotation to it was cut short before that. Else do nothing."""


class KeyText:
    """A key given as text, by default in SAYSO_MASTER_KEY."""

    def __init__(self, text: str, origin: str = "SAYSO_MASTER_KEY") -> None:
        self._key, self._origin = parse_master_key(text, origin), origin

    def load(self, key_id: str) -> MasterKey:
        if self._key.id != key_id:
            raise _other_key(self._origin, self._key.id, key_id)
        return self._key

    def first(self) -> MasterKey:
        return self._key

    def promote(self, key_id: str) -> None:
        """Do nothing: the operator changes the text."""


class KeyFile:
    """A key in a file of mode 0600, made when a new store needs one.

    A rotation keeps both of its keys beside that file, as `<name>.<id>`. The new key is written there before
    the database names it. The old key stays, because earlier backups open only with it. So the key that the
    database names is on the disk at every moment, even if a rotation is cut short.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self, key_id: str) -> MasterKey:
        key = self._present()
        if key is not None and key.id == key_id:
            return key
        with suppress(FileNotFoundError):
            return _checked(self.kept(key_id), key_id)
        if key is None:
            raise MasterKeyUnusable(
                f"{self.path} is missing: the store is sealed with master key {key_id}. Put that file back, "
                "or set SAYSO_MASTER_KEY or SAYSO_MASTER_KEY_FILE; without the key nothing can be opened."
            )
        raise _other_key(self.path, key.id, key_id)

    def first(self) -> MasterKey:
        with suppress(FileExistsError):
            _write(self.path, MasterKey(new_key()))
        return _read(self.path)

    def prepare(self) -> MasterKey:
        """Make a new key for a rotation and write it beside the present one, at `kept(key.id)`."""
        key = MasterKey(new_key())
        _write(self.kept(key.id), key)
        return key

    def promote(self, key_id: str) -> None:
        """Put the kept key with this id at `path` too; the key that was there is kept under its own id.

        Does nothing if there is no present key, no kept key with this id, or if it is at `path` already.
        """
        present = self._present()
        if present is None or present.id == key_id or not self.kept(key_id).exists():
            return
        draft = draft_of(self.kept(key_id))
        with suppress(FileExistsError):
            os.link(self.path, self.kept(present.id))
        draft.unlink(missing_ok=True)
        os.link(self.kept(key_id), draft)
        os.replace(draft, self.path)
        draft.unlink(missing_ok=True)  # if both are links to one file, the rename leaves the draft
        sync_folder(self.path.parent)

    def kept(self, key_id: str) -> Path:
        """Return the path at which a rotation keeps the key with this id."""
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


def _checked(path: Path, key_id: str) -> MasterKey:
    key = _read(path)
    if key.id != key_id:
        raise _other_key(path, key.id, key_id)
    return key


def _write(path: Path, key: MasterKey) -> None:
    """Write a new key file atomically, with mode 0600. Raises FileExistsError."""
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


def _other_key(origin: object, given_id: str, key_id: str) -> MasterKeyUnusable:
    return MasterKeyUnusable(
        f"{origin} is master key {given_id}, but the store is sealed with {key_id}. Give that key: "
        "without it nothing can be opened."
    )
