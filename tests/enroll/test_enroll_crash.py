"""What was acknowledged is there after the process is killed at any moment."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from enroll_samples import MODEL, REQUIRED_S

from enroll.index import SpeakerIndex
from enroll.store import Store

CHILD = f"""
import sys
import numpy as np
from enroll.store import Store
from enroll.types import NewEnrollment

vector = np.full(64, 0.125, np.float32)
with Store(sys.argv[1], {REQUIRED_S}) as store:
    while True:
        speaker = store.create_speaker("t")
        new = NewEnrollment({REQUIRED_S}, 12.0, None, 0.0, {{"{MODEL}": vector}})
        enrollment = store.add_enrollment("t", speaker.id, new)[1]
        print(speaker.id, enrollment.id, flush=True)
"""


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


def test_nothing_acknowledged_is_lost(path: Path) -> None:
    moments = random.Random(7)
    acknowledged: list[tuple[str, str]] = []
    for _ in range(5):
        acknowledged += acknowledged_before_a_kill(path, moments.uniform(0.0, 0.15))
        with Store(path, REQUIRED_S) as store:
            assert store.check() == []
            kept = {(speaker, e.id) for speaker, _ in acknowledged for e in store.enrollments("t", speaker)}
            assert set(acknowledged) <= kept
            index = SpeakerIndex(store)
            index.warm()
            assert index.check() == []
    assert len(acknowledged) >= 5
