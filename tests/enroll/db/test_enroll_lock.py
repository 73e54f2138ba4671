"""Two servers never open one store, and the lock goes with the process."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from enroll_samples import REQUIRED_S

from sayso.enroll.db.lock import only_server
from sayso.enroll.errors import StoreInUse, StoreUnavailable
from sayso.enroll.store import Store

CHILD = """
import sys, time
from pathlib import Path
from sayso.enroll.db.lock import only_server
with only_server(Path(sys.argv[1]), "http://127.0.0.1:8000"):
    print("held", flush=True)
    time.sleep(600)
"""


def test_the_second_server_is_told_who_holds_it(path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        holder = rf"process {child.pid} on .*http://127\.0\.0\.1:8000"
        with pytest.raises(StoreInUse, match=holder), only_server(path, "http://127.0.0.1:9000"):
            pass
        with Store(path, REQUIRED_S) as store:  # the command line beside it
            store.create_speaker("t")
        child.send_signal(signal.SIGKILL)
    with only_server(path, "http://127.0.0.1:9000"):
        assert str(os.getpid()) in path.with_name("sayso.db.lock").read_text()


def test_it_is_free_again_after_use(path: Path) -> None:
    for _ in range(2):
        with only_server(path, "a"), pytest.raises(StoreInUse), only_server(path, "b"):
            pass


def test_a_place_that_takes_no_lock_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable), only_server(tmp_path / "file" / "sayso.db", "a"):
        pass
