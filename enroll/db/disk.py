"""Files that are whole or not there: drafts under another name, and what a power cut must not undo."""

import os
from contextlib import suppress
from pathlib import Path

_DRAFT = ".sayso-draft"


def draft_of(path: Path) -> Path:
    """Name a file beside this one for what is not finished; it is this process's alone."""
    return path.with_name(f".{path.name}.{os.getpid()}{_DRAFT}")


def clear_drafts(folder: Path) -> None:
    """Remove the drafts of processes that were killed: they may hold what is erased since."""
    for file in folder.glob(f".*{_DRAFT}*"):
        owner = file.name.rpartition(_DRAFT)[0].rpartition(".")[2]
        if owner.isdigit() and not _runs(int(owner)):
            file.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable: syncing a file does not promise that."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _runs(process: int) -> bool:
    with suppress(PermissionError):  # it runs, and is somebody else's
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return False
    return True
