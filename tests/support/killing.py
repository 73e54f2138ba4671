"""Kills processes that use a store at random moments, and looks at what is left.

    python tests/support/killing.py --kills 200 [--disk fsync|full|tmpfs]

Three threads enrol, change, delete and compare, a fourth rotates keys and makes backups. Each change is
announced before it is begun and acknowledged after the store returned, so that after a SIGKILL it is known
what every speaker may be: an acknowledged change is there, one under way is there or not, nothing else. A
disk that fails on and off (by LD_PRELOAD, or a small tmpfs that is filled) makes changes fail; those may be
there too.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from enroll_samples import MODEL, REQUIRED_S, normalised, recording, unit

from sayso.enroll.errors import EnrollError
from sayso.enroll.moving.backup import make_backup
from sayso.enroll.search.index import SpeakerIndex
from sayso.enroll.secrets.master_key import KeyFile
from sayso.enroll.store import Store

# A speaker's name and the ids of their enrolments; None where there is no such speaker.
State = tuple[str | None, frozenset[str]] | None
Change = tuple[str, str, str]  # what, speaker, enrolment or name
THREADS = 3
_DONE = {
    "create": "created",
    "enrol": "enrolled",
    "rename": "updated",
    "drop": "enrolments deleted",
    "delete": "speakers deleted",
}
LIMIT_S = 60.0


def vector_of(enrollment: str) -> np.ndarray:
    return unit(zlib.crc32(enrollment.encode()))


def after(change: Change, state: State) -> State:
    """What a change makes of a speaker."""
    what, _, named = change
    if what == "create":
        return (None, frozenset()) if state is None else state
    if what == "delete" or state is None:
        return None
    name, enrollments = state
    if what == "rename":
        return named, enrollments
    return name, enrollments | {named} if what == "enrol" else enrollments - {named}


# The process that is killed


def worker(path: str, seed: int, pipe: Connection) -> None:
    """Use the store until killed; never returns by itself."""
    sending = threading.Lock()

    def tell(*message: object) -> None:
        with sending:
            pipe.send(message)

    with Store(path, REQUIRED_S) as store:
        index = SpeakerIndex(store)
        present = [speaker.id for speaker in store.speakers("t", 1000).items]
        threads = [
            threading.Thread(
                target=_or_die, args=(_use, store, index, n, random.Random(seed + n), present, tell)
            )
            for n in range(THREADS)
        ]
        operator = (_operate, store, Path(path), random.Random(seed))
        threads.append(threading.Thread(target=_or_die, args=operator))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def _or_die(call: Callable[..., None], *args: object) -> None:
    """End the whole process where a thread alone would: the killer takes notice of that."""
    try:
        call(*args)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def _use(
    store: Store,
    index: SpeakerIndex,
    thread: int,
    chance: random.Random,
    present: list[str],
    tell: Callable[..., None],
) -> None:
    mine = [name for name in present if int(name.partition("-")[0]) == thread]
    while True:
        if not mine or chance.random() < 0.25:
            name = f"{thread}-{chance.getrandbits(40):x}"
            if _attempt(("create", name, ""), lambda n=name: store.create_speaker("t", n), tell):  # type: ignore[misc]
                mine.append(name)
            continue
        name = chance.choice(mine)
        what = chance.choice(["enrol", "enrol", "rename", "drop", "delete", "verify", "verify"])
        went_well = True
        if what == "verify":
            with suppress(EnrollError):
                vector = store.template("t", name, MODEL).vector
                store.audit.note("verify", "t", name, decision="accept")
                found = index.search("t", MODEL, vector, 3)[0]
                assert found[0].score > 0.999, found
        elif what == "enrol":
            enrollment = f"e{chance.getrandbits(40):x}"
            new = recording(0, REQUIRED_S, {MODEL: vector_of(enrollment)}, enrollment.encode())
            went_well = _attempt(
                (what, name, enrollment),
                lambda: store.add_enrollment("t", name, new, enrollment),  # noqa: B023
                tell,
            )
        elif what == "rename":
            new_name = f"n{chance.getrandbits(40):x}"
            went_well = _attempt(
                (what, name, new_name),
                lambda: store.update_speaker("t", name, name=new_name),  # noqa: B023
                tell,
            )
        elif what == "drop":
            with suppress(EnrollError):
                for enrolled in store.enrollments("t", name)[:1]:
                    change = (what, name, enrolled.id)
                    went_well = _attempt(
                        change,
                        lambda e=enrolled: store.delete_enrollment("t", name, e.id),  # type: ignore[misc]  # noqa: B023
                        tell,
                    )
        else:
            _attempt((what, name, ""), lambda: store.delete_speaker("t", name), tell)  # noqa: B023
            went_well = False
        # Whom a change failed for is left alone until the next process: each further failure would double
        # what they may be.
        if not went_well:
            mine.remove(name)


def _attempt(change: Change, do: Callable[[], object], tell: Callable[..., None]) -> bool:
    tell("begun", change)
    try:
        do()
    except EnrollError as error:
        tell("failed", change, error.code)
        return False
    tell("done", change)
    return True


def _operate(store: Store, path: Path, chance: random.Random) -> None:
    keys = KeyFile(path.with_name("master.key"))
    while True:
        time.sleep(chance.uniform(0.0, 0.1))
        with suppress(EnrollError, OSError):
            what = chance.choice(["tenant key", "master key", "backup", "expire"])
            if what == "tenant key":
                store.tenants.rotate_key("t")
            elif what == "master key":
                new = keys.prepare()
                store.tenants.rotate_master(new)
                keys.promote(new.id)
            elif what == "backup":
                target = path.with_name("backup.db")
                target.unlink(missing_ok=True)
                make_backup(store, target)
            else:
                store.rights.expire()


# The process that kills


@dataclass
class Ledger:
    """What every speaker may be, from what was announced and acknowledged."""

    possible: dict[str, set[State]] = field(default_factory=dict)
    under_way: dict[str, Change] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def take(self, message: tuple[str, Change, str]) -> None:
        kind, change = message[0], message[1]
        states = self.possible.setdefault(change[1], {None})
        self.counts[kind] += 1
        if kind == "begun":
            self.under_way[change[1]] = change
            return
        del self.under_way[change[1]]
        if kind == "failed":
            self.counts[f"failed with {message[2]}"] += 1
        changed = {after(change, state) for state in states}
        self.possible[change[1]] = changed if kind == "done" else states | changed
        if kind == "done":
            self.counts[_DONE[change[0]]] += 1

    def settle(self, store: Store) -> list[str]:
        """Compare with the store, and go on from what is in it; returns what must not be."""
        for name, change in self.under_way.items():
            self.possible[name] |= {after(change, state) for state in self.possible[name]}
        self.under_way.clear()
        actual = _states(store)
        wrong = []
        for name in self.possible.keys() | actual.keys():
            state, allowed = actual.get(name), self.possible.get(name, {None})
            if state not in allowed:
                self.counts[
                    "deleted speakers back" if allowed == {None} else "acknowledged changes lost"
                ] += 1
                wrong.append(f"{name} is {state}, and may be {allowed}")
            self.possible[name] = {state}
            if state and state[1]:
                expected = normalised(sum(vector_of(e).astype(np.float64) for e in sorted(state[1])))
                if not np.allclose(store.template("t", name, MODEL).vector, expected, atol=1e-5):
                    wrong.append(f"{name} has another template")
        self.possible = {name: states for name, states in self.possible.items() if states != {None}} | {
            name: {None} for name, states in self.possible.items() if states == {None}
        }
        return wrong


def _states(store: Store) -> dict[str, State]:
    found: dict[str, State] = {}
    cursor = None
    while True:
        page = store.speakers("t", 1000, cursor)
        for speaker in page.items:
            enrolled = frozenset(e.id for e in store.enrollments("t", speaker.id))
            found[speaker.id] = speaker.name, enrolled
        cursor = page.next_cursor
        if cursor is None:
            return found


def _replayable(store: Store) -> list[str]:
    """Enrolments that a kill left without the digest by which a replay is refused."""
    with store.database.read() as connection:
        rows = connection.execute("SELECT number FROM enrollments WHERE digest IS NULL").fetchall()
    return [f"enrolment number {row['number']} could be replayed" for row in rows]


class Faults:
    """Switches a disk's failures on and off; a context, since some have to be taken down."""

    def __init__(self, kind: str | None, folder: Path) -> None:
        self.kind, self.folder = kind, folder
        self.control = folder / "control"
        self.data = folder / "data"

    def __enter__(self) -> "Faults":
        self.data.mkdir(mode=0o700)
        if self.kind == "tmpfs":
            subprocess.run(
                ["mount", "-t", "tmpfs", "-o", "size=16m,mode=700", "tmpfs", self.data], check=True
            )
        elif self.kind is not None:
            library = self.folder / "failing_disk.so"
            source = Path(__file__).with_name("failing_disk.c")
            subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
            os.environ |= {"LD_PRELOAD": str(library), "FAILING_DISK": str(self.control)}
        return self

    def __exit__(self, *_: object) -> None:
        os.environ.pop("LD_PRELOAD", None)
        if self.kind == "tmpfs":
            subprocess.run(["umount", self.data], check=True)

    def switch(self, on: bool) -> None:
        if self.kind == "tmpfs":
            filler = self.data / "filler"
            if not on:
                filler.unlink(missing_ok=True)
                return
            with suppress(OSError), filler.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
        elif self.kind is not None:
            if on:
                self.control.write_text(self.kind)
            else:
                self.control.unlink(missing_ok=True)


def kill_many(kills: int, seed: int, folder: Path, disk: str | None = None) -> tuple[Counter[str], list[str]]:
    """Start, kill and inspect so many times. Returns counts, and everything that must not be."""
    chance, ledger, wrong = random.Random(seed), Ledger(), list[str]()
    with Faults(disk, folder) as faults:
        context = get_context("forkserver")
        context.set_forkserver_preload(["sayso.enroll.store", "sayso.enroll.search.index", "enroll_samples"])
        path = faults.data / "sayso.db"
        head: tuple[int, str] | None = None
        with Store(path, REQUIRED_S):
            pass
        for turn in range(kills):
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=worker, args=(str(path), seed + 1000 * turn, theirs))
            process.start()
            theirs.close()
            _watch(process.pid, ours, ledger, chance, faults)
            process.join(LIMIT_S)
            if process.exitcode != -signal.SIGKILL:
                wrong.append(f"the process ended by itself: {process.exitcode}")
            faults.switch(False)
            with Store(path, REQUIRED_S) as store:
                wrong += ledger.settle(store)
                wrong += _replayable(store)
                wrong += store.check() + store.check_templates()
                index = SpeakerIndex(store)
                index.warm()
                wrong += index.check()
                audit = store.audit.verify(head)
                if audit.broken is not None:
                    wrong.append(f"the audit log is broken at {audit.broken}")
                head = (audit.entries, audit.head)
            ledger.counts["kills"] += 1
            ledger.counts["audit entries"] = audit.entries
        ledger.counts["speakers left"] = sum(states != {None} for states in ledger.possible.values())
    return ledger.counts, wrong


def _watch(pid: int | None, pipe: Connection, ledger: Ledger, chance: random.Random, faults: Faults) -> None:
    """Read what a worker says, let its disk fail now and then, kill it at a random moment, read the rest."""
    assert pid is not None
    first = time.monotonic() + LIMIT_S
    deadline = None
    try:
        while True:
            now = time.monotonic()
            if deadline is not None and now >= deadline:
                break
            if deadline is None and now > first:
                raise TimeoutError("the worker did nothing")
            if pipe.poll(0.005):
                ledger.take(pipe.recv())
                if deadline is None:
                    deadline = time.monotonic() + chance.uniform(0.0, 0.6)
            if faults.kind is not None and deadline is not None and chance.random() < 0.1:
                faults.switch(chance.random() < 0.5)
        os.kill(pid, signal.SIGKILL)
        while True:
            ledger.take(pipe.recv())
    except (EOFError, OSError):
        return  # a last message may be cut: what it would have said is not known then


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--disk", choices=["fsync", "full", "tmpfs"])
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counts, wrong = kill_many(chosen.kills, chosen.seed, Path(folder), chosen.disk)
    for name in ("acknowledged changes lost", "deleted speakers back"):
        counts.setdefault(name, 0)
    for name, count in sorted(counts.items()):
        print(f"{name}: {count}")
    print(f"problems: {len(wrong)}")
    for line in wrong[:50]:
        print(f"  {line}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
