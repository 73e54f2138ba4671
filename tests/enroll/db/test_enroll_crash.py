"""What was acknowledged is there after the process is killed at any moment, on a good disk and a bad one."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import killing
import pytest
from enroll_samples import MODEL, REQUIRED_S, recording

from sayso.enroll.search.index import SpeakerIndex
from sayso.enroll.store import Store

CHILD = f"""
import sys
import numpy as np
from sayso.enroll.store import Store
from sayso.enroll.types import NewEnrollment

vector = np.full(64, 0.125, np.float32)
with Store(sys.argv[1], {REQUIRED_S}) as store:
    while True:
        speaker = store.create_speaker("t")
        new = NewEnrollment({REQUIRED_S}, 12.0, None, 0.0, {{"{MODEL}": vector}}, digest=b"voice")
        enrollment = store.add_enrollment("t", speaker.id, new)[1]
        print(speaker.id, enrollment.id, flush=True)
"""


@pytest.mark.parametrize("disk", [None, "fsync", "full", "tmpfs"])
def test_nothing_acknowledged_is_lost_and_nobody_deleted_is_back(tmp_path: Path, disk: str | None) -> None:
    """`python tests/support/killing.py --kills 200` does this at length."""
    if disk in ("fsync", "full") and (sys.platform != "linux" or shutil.which("cc") is None):
        pytest.skip("no C compiler for the failing disk")
    if disk == "tmpfs" and not (sys.platform == "linux" and os.geteuid() == 0 and _can_mount(tmp_path)):
        pytest.skip("only root can mount a small file system")
    command = [sys.executable, killing.__file__, "--kills", "4", *(["--disk", disk] if disk else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = dict(line.split(": ") for line in done.stdout.splitlines() if line.count(": ") == 1)
    assert counts["problems"] == "0"
    assert counts["kills"] == "4"
    assert int(counts["created"]) > 0
    assert disk is not None or min(int(counts["enrolled"]), int(counts["updated"])) > 0
    assert disk is None or int(counts["failed"]) > 0


def _can_mount(folder: Path) -> bool:
    probe = folder / "probe"
    probe.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", probe], capture_output=True, check=False)
    return mounted.returncode == 0 and subprocess.run(["umount", probe], check=True).returncode == 0


def acknowledged_before_a_kill(path: Path, after_s: float) -> list[tuple[str, str]]:
    command = [sys.executable, "-c", CHILD, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, bufsize=1) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline()]  # it is up and writing
        time.sleep(after_s)
        child.send_signal(signal.SIGKILL)
        lines += child.stdout.readlines()
    # the last line may be cut; a whole one has two ids and its line end
    return [(line.split()[0], line.split()[1]) for line in lines if line.endswith("\n")]


def assert_holds(path: Path, acknowledged: list[tuple[str, str]]) -> None:
    with Store(path, REQUIRED_S) as store:
        assert store.check() == store.check_templates() == []
        kept = {(speaker, e.id) for speaker, _ in acknowledged for e in store.enrollments("t", speaker)}
        assert set(acknowledged) <= kept
        with store.database.read() as connection:  # no recording is enrolled that could be replayed
            without = connection.execute("SELECT COUNT(*) FROM enrollments WHERE digest IS NULL")
            assert without.fetchone()[0] == 0
        index = SpeakerIndex(store)
        index.warm()
        assert index.check() == []
        assert store.audit.verify().broken is None


@pytest.mark.parametrize("torn", ["half a frame", "noise", "noise over a whole frame"])
def test_a_torn_write_at_the_end_of_the_log_costs_nothing(path: Path, torn: str) -> None:
    """Power fails while a commit is being written: it was not acknowledged, and those before it stand."""
    acknowledged = acknowledged_before_a_kill(path, 0.1)
    wal = path.with_name("sayso.db-wal")
    whole = wal.read_bytes()
    frame = 24 + 4096
    noise = random.Random(1).randbytes(frame)
    tail = {"half a frame": whole[-frame:][: frame // 2], "noise": noise[:1000]}.get(torn, noise)
    wal.write_bytes(whole + tail)
    path.with_name("sayso.db-shm").unlink()
    assert_holds(path, acknowledged)


def pages_in_log(wal: bytes) -> set[int]:
    """Pages that the log holds a committed version of (https://sqlite.org/fileformat2.html#walformat).

    Frames behind the first with another salt are left over from before the log was last begun anew.
    """
    committed, since = set[int](), set[int]()
    for at in range(32, len(wal) - 24 - 4096 + 1, 24 + 4096):
        if wal[at + 8 : at + 16] != wal[16:24]:
            break
        since.add(int.from_bytes(wal[at : at + 4], "big"))
        if int.from_bytes(wal[at + 4 : at + 8], "big"):
            committed |= since
            since.clear()
    return committed


def test_a_torn_page_in_the_file_is_made_good_from_the_log(path: Path) -> None:
    """Power fails while pages go from the log into the file: the log still has all of them."""
    with Store(path, REQUIRED_S) as store:
        store.create_speaker("t", "first")
    acknowledged = acknowledged_before_a_kill(path, 0.1)
    pages = pages_in_log(path.with_name("sayso.db-wal").read_bytes())
    content = bytearray(path.read_bytes())
    noise = random.Random(2)
    for page in pages - {0}:
        start = (page - 1) * 4096
        if start + 4096 <= len(content):
            content[start + 2048 : start + 4096] = noise.randbytes(2048)
    path.write_bytes(content)
    path.with_name("sayso.db-shm").unlink()
    assert_holds(path, acknowledged)


def test_a_change_that_could_not_be_written_is_refused_and_harmless(store: Store) -> None:
    """No room left: the caller gets an error, and the store goes on as it was."""
    for seed in range(3):
        store.create_speaker("t", f"s{seed}")
        store.add_enrollment("t", f"s{seed}", recording(seed, REQUIRED_S))
    before = store.speakers("t")
    index = SpeakerIndex(store)
    with store._database.read() as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
    store._database._writer.execute(f"PRAGMA max_page_count = {pages}")
    refused = 0
    for seed in range(40):
        try:
            store.create_speaker("t", f"n{seed}", metadata={"text": "x" * 4000})
        except Exception as error:
            assert getattr(error, "code", "") == "store_unavailable"  # noqa: PT017
            refused += 1
    assert refused
    store._database._writer.execute("PRAGMA max_page_count = 1000000")
    assert store.speakers("t").items[:3] == before.items
    assert store.create_speaker("t", "after").id == "after"
    assert index.check() == store.check() == []
    assert store.audit.verify().broken is None
