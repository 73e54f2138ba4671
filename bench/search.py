"""How long identify's search takes by the number of speakers, and how often it finds whom exact search finds.

Everything goes through the real store and index: sealed rows in SQLite, read back by the feed. The rows are
written many at a time (`sayso.bench.filling`), as those of templates alone; the speakers are made
(`sayso.bench.voices`).
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from sayso.bench.filling import NET_SPEECH_S, Vectors, filling
from sayso.bench.server import ServerProcess, resident_bytes
from sayso.bench.timing import Spread
from sayso.bench.voices import DIM, Voices
from sayso.enroll.search.index import SpeakerIndex
from sayso.enroll.store import Store
from sayso.enroll.types import Candidate, NewEnrollment
from sayso.runtime.model_file import network_sha256
from sayso.service.settings import only_models

SIZES = (1_000, 10_000, 100_000, 1_000_000)
TENANTS = 1_000
A_TENANT = 100  # speakers, where there are many tenants
START_WITH = 100_000
_MODEL = "a" * 64
_AT_ONCE = 10_000
_CHANGES = 30
_STARTS = 3
_NEVER = 2**62
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """Searches in a tenant of `speakers`, in milliseconds; `exact` is every speaker compared.

    `recall` is how often the best of both is the same: for recordings of enrolled speakers, and of strangers.
    `enrol` and `delete` are those calls of the store, with searches going on beside them, and `seen` the
    search after each, which has to find, or not to find, the speaker; `beside` are the searches meanwhile.
    Seconds: `load` from the file to the first answer, `build` from there until there is a short list (0 for
    a tenant that gets none). Bytes: of vectors and codes, and by how much the process grew.
    """

    tenants: int
    speakers: int
    search: Spread
    exact: Spread
    recall: float
    recall_strangers: float
    enrol: Spread
    delete: Spread
    seen: Spread
    beside: Spread
    load_s: float
    build_s: float
    index_bytes: int
    grown_bytes: int


@dataclass(frozen=True)
class Start:
    """Seconds from starting `sayso serve` until it is ready, each time."""

    speakers: int
    ready_s: list[float]


@dataclass(frozen=True)
class Found:
    """What was measured."""

    rows: list[Row]
    starts: list[Start]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def measure(up_to: int, queries: int, models: dict[str, Path], progress: Progress) -> Found:
    """Measure each size up to a number of speakers, with half of the `queries` by strangers."""
    sizes = [size for size in SIZES if size <= up_to]
    rows = []
    for tenants, size in [*((1, size) for size in sizes), (TENANTS, A_TENANT)]:
        if tenants * size > up_to:
            continue
        progress(f"{tenants:,} x {size:,} speakers")
        with TemporaryDirectory(prefix="sayso-bench-") as folder:
            rows.append(_measure(Path(folder) / "sayso.db", tenants, size, queries))
    starts = []
    for size in (0, START_WITH):
        if size <= up_to:
            progress(f"start with {size:,} speakers")
            starts.append(_start(size, models))
    return Found(rows, starts)


@dataclass(frozen=True)
class _Query:
    tenant: str
    vector: Vectors


def _measure(path: Path, tenants: int, size: int, queries: int) -> Row:
    names = [f"tenant-{number}" for number in range(tenants)]
    voices = Voices()
    known, strangers = _fill(path, voices, names, size, queries // 2)
    with Store(path, NET_SPEECH_S) as store:
        exactly = SpeakerIndex(store, approximate_from=_NEVER)
        exactly.warm()
        expected, exact_ms = _search(exactly, known + strangers)
        del exactly
        before = resident_bytes("self")
        index = SpeakerIndex(store)
        started = time.perf_counter()
        index.warm()
        _search(index, known[:1])
        load_s = time.perf_counter() - started
        while index.building:
            time.sleep(0.05)
        build_s = time.perf_counter() - started - load_s
        found, ms = _search(index, known + strangers)
        grown = resident_bytes("self") - before
        held = index.bytes
        changes = _change(store, index, voices, known)
    same = [a.score == b.score for a, b in zip(found, expected, strict=True)]
    return Row(
        tenants,
        size,
        Spread.of(ms),
        Spread.of(exact_ms),
        float(np.mean(same[: len(known)])),
        float(np.mean(same[len(known) :])),
        *changes,
        round(load_s, 2),
        round(build_s, 2),
        held,
        grown,
    )


def _fill(
    path: Path, voices: Voices, tenants: list[str], size: int, count: int
) -> tuple[list[_Query], list[_Query]]:
    """Fill a store; returns recordings of `count` speakers in it and of as many others."""
    known: list[_Query] = []
    each = max(1, count // len(tenants))
    with filling(path) as store:
        for tenant in tenants:
            for start in range(0, size, _AT_ONCE):
                speakers = voices.speakers(min(_AT_ONCE, size - start))
                store.add(tenant, [_MODEL], voices.templates(speakers))
                if start == 0 and len(known) < count:
                    known += [_Query(tenant, v) for v in voices.recordings(speakers[:each])]
    others = voices.recordings(voices.speakers(len(known)))
    return known, [_Query(tenants[i % len(tenants)], vector) for i, vector in enumerate(others)]


def _search(index: SpeakerIndex, queries: list[_Query]) -> tuple[list[Candidate], list[float]]:
    """The best of each query, and the milliseconds that each took; the first few run twice."""
    for query in queries[:5]:
        index.search(query.tenant, _MODEL, query.vector, 2)
    found, milliseconds = [], []
    for query in queries:
        started = time.perf_counter()
        candidates, _ = index.search(query.tenant, _MODEL, query.vector, 2)
        milliseconds.append((time.perf_counter() - started) * 1000.0)
        found.append(candidates[0])
    return found, milliseconds


def _change(
    store: Store, index: SpeakerIndex, voices: Voices, queries: list[_Query]
) -> tuple[Spread, Spread, Spread, Spread]:
    """Enrol and delete speakers while another thread searches: times of enrol, delete, seen and beside."""
    tenant = queries[0].tenant
    enrolling, deleting, seeing = list[float](), list[float](), list[float]()

    def timed(into: list[float], call: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = call()
        into.append((time.perf_counter() - started) * 1000.0)
        return result

    with _searching(index, [query for query in queries if query.tenant == tenant]) as beside:
        for turn, vector in enumerate(voices.templates(voices.speakers(_CHANGES))):
            new = NewEnrollment(NET_SPEECH_S, NET_SPEECH_S, 20.0, 0.0, {_MODEL: vector})
            speaker = f"new-{turn}"

            def enrol(speaker: str = speaker, new: NewEnrollment = new) -> None:
                store.create_speaker(tenant, speaker)
                store.add_enrollment(tenant, speaker, new)

            def best(vector: Vectors = vector) -> str:
                return index.search(tenant, _MODEL, vector, 1)[0][0].speaker_id

            timed(enrolling, enrol)
            if timed(seeing, best) != speaker:
                raise RuntimeError("an enrolled speaker was not found by the next search")
            timed(deleting, partial(store.delete_speaker, tenant, speaker))
            if timed(seeing, best) == speaker:
                raise RuntimeError("a deleted speaker was found by the next search")
    return Spread.of(enrolling), Spread.of(deleting), Spread.of(seeing), Spread.of(beside)


@contextmanager
def _searching(index: SpeakerIndex, queries: list[_Query]) -> Iterator[list[float]]:
    """Search again and again in a thread; the list gets its milliseconds."""
    stop, taken = threading.Event(), list[float]()

    def run() -> None:
        while not stop.is_set():
            taken.extend(_search(index, queries[:10])[1])

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield taken
    finally:
        stop.set()
        thread.join()


def _start(speakers: int, models: dict[str, Path]) -> Start:
    """Start the service on a store of speakers with three recordings each, under every served model."""
    shas = [network_sha256(path.read_bytes()) for path in models.values()]
    voices = Voices()
    with TemporaryDirectory(prefix="sayso-bench-") as folder:
        with filling(Path(folder) / "sayso.db") as store:
            for start in range(0, speakers, _AT_ONCE):
                templates = voices.templates(voices.speakers(min(_AT_ONCE, speakers - start)))
                store.add("default", shas, templates, enrollments=3)
        served = json.dumps(only_models(models))
        taken = []
        for _ in range(_STARTS):
            with ServerProcess(SAYSO_DATA_DIR=folder, SAYSO_MODELS=served) as server:
                taken.append(round(server.ready_s, 2))
    return Start(speakers, taken)


def table(found: Found) -> str:
    """Rows as Markdown: milliseconds as p50 / p95 / p99, or p50 alone."""
    lines = [
        f"Search among {DIM}-d templates, ms; through the store: sealed rows in SQLite.",
        "",
        "| tenants x speakers | p50 / p95 / p99 | exact p50 | recall@1 | of strangers | enrol | delete"
        " | seen after | search beside, p50 / p99 | load s | build s | index MB | process MB |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in found.rows:
        cells = [f"{r.tenants:,} x {r.speakers:,}", f"{r.search.p50} / {r.search.p95} / {r.search.p99}"]
        cells += [f"{r.exact.p50}", f"{r.recall:.4f}", f"{r.recall_strangers:.4f}"]
        cells += [f"{r.enrol.p50}", f"{r.delete.p50}", f"{r.seen.p50}"]
        cells += [f"{r.beside.p50} / {r.beside.p99}", f"{r.load_s}", f"{r.build_s}"]
        cells += [f"{r.index_bytes / 1e6:.0f}", f"{r.grown_bytes / 1e6:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    for start in found.starts:
        times = ", ".join(map(str, start.ready_s))
        lines += ["", f"Ready with {start.speakers:,} speakers after {median(start.ready_s)} s ({times})."]
    return "\n".join(lines)
