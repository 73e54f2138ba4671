"""One server per store: a lock that the system drops with the process, however that ends."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sayso.enroll import clock
from sayso.enroll.errors import StoreInUse, StoreUnavailable


@contextmanager
def only_server(store_path: Path, address: str) -> Iterator[None]:
    """Hold the store for a server that answers on `address`.

    Raises StoreInUse naming the holder, and StoreUnavailable where no lock can be made. Other programs may
    use the store beside the one server: SQLite keeps their transactions apart.
    """
    path = store_path.with_name(f"{store_path.name}.lock")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    except OSError as error:
        raise StoreUnavailable(path, error) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreInUse(store_path, os.pread(descriptor, 400, 0).decode(errors="replace")) from None
        holder = f"process {os.getpid()} on {socket.gethostname()}, {address}, since {_now()}"
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, holder.encode(), 0)
        yield
    finally:
        os.close(descriptor)  # the file stays: removing it could split the lock in two


def holder(store_path: Path) -> str | None:
    """Who holds the store for a server, None if nobody does."""
    try:
        descriptor = os.open(store_path.with_name(f"{store_path.name}.lock"), os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(descriptor, 400, 0).decode(errors="replace")
    finally:
        os.close(descriptor)
    return None


def _now() -> str:
    return clock.stamp(clock.now())
