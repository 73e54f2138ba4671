"""The embedded store beside PostgreSQL: verify's read and identify's search on the same templates, in turns.

    python -m sayso.bench.stores postgresql://… --tenants 1000 --speakers 1000 --large 1000000

The database has to be empty. Templates are random unit vectors, written without enrolments; queries are
noisy copies of them. The large tenant is searched by a scan, then with an HNSW index: whether it finds the
one whose copy was asked for, and its share of the scan's ten best, of which nine are near by chance.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from sayso.enroll.search.index import Index, index_of
from sayso.enroll.search.postgres import PostgresIndex
from sayso.enroll.secrets.master_key import KeyText
from sayso.enroll.secrets.sealing import new_key
from sayso.enroll.store import Store
from sayso.enroll.templates import insert_templates

MODEL = "a" * 64
_SPEECH_S = 20.0
_BATCH = 5000
_BEST = 10
_LARGE = 10**6  # its seed
Drawn = npt.NDArray[np.float32]
_NOISE = 0.5  # of a query, as long as this beside the template


def vectors(seed: int, count: int, dim: int) -> Drawn:
    """Random unit vectors `[count, dim]`."""
    drawn = np.random.default_rng(seed).standard_normal((count, dim), dtype=np.float32)
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), dtype=np.float32)


def query(drawn: Drawn, place: int) -> Drawn:
    """A noisy copy of one of a tenant's templates."""
    mixed = drawn[place] + _NOISE * vectors(place, 1, drawn.shape[1])[0]
    return np.asarray(mixed / np.linalg.norm(mixed), dtype=np.float32)


def fill(store: Store, tenant: str, drawn: Drawn, model: str = MODEL, first: int = 0) -> None:
    """Write a tenant's speakers, `s0000000` being the first, and their templates `[n, dim]` of a model."""
    for start in range(0, len(drawn), _BATCH):
        batch = drawn[start : start + _BATCH]
        with store.vault.write() as transaction:
            transaction.execute(
                "INSERT INTO models VALUES (?, ?) ON CONFLICT DO NOTHING", (model, batch.shape[1])
            )
            revision = transaction.execute(
                "INSERT INTO tenants (tenant, revision) VALUES (?, 1)"
                " ON CONFLICT (tenant) DO UPDATE SET revision = tenants.revision + 1 RETURNING revision",
                (tenant,),
            ).fetchone()[0]
            rows = [
                (tenant, f"s{first + start + place:07}", _SPEECH_S, revision) for place in range(len(batch))
            ]
            transaction.executemany(
                "INSERT INTO speakers (tenant, id, metadata, enrollments, net_speech_s, revision, created_at,"
                " updated_at) VALUES (?, ?, '{}', 1, ?, ?, '', '')",
                rows,
            )
            numbers = transaction.execute(
                "SELECT number FROM speakers WHERE tenant = ? AND id BETWEEN ? AND ? ORDER BY id",
                (tenant, rows[0][1], rows[-1][1]),
            ).fetchall()
            new = zip(numbers, batch, strict=True)
            insert_templates(transaction, [(tenant, row[0], model, one, 1, _SPEECH_S) for row, one in new])


def timed(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median milliseconds of each call, taking turns after a warm-up."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 2):
        for name, call in calls.items():
            before = time.perf_counter()
            call()
            if turn >= 2:
                taken[name].append((time.perf_counter() - before) * 1000)
    return {name: round(median(values), 3) for name, values in taken.items()}


def _measure(
    stores: dict[str, tuple[Store, Index]], tenant: str, drawn: Drawn, rounds: int
) -> dict[str, float]:
    pool = [query(drawn, place) for place in range(0, len(drawn), max(1, len(drawn) // 20))]
    calls: dict[str, Callable[[], object]] = {}
    for name, (store, index) in stores.items():
        calls[f"{name}.verify"] = partial(store.template, tenant, "s0000000", MODEL)
        calls[f"{name}.identify"] = partial(_identify, index, tenant, cycle(pool))
    return timed(calls, rounds)


def _identify(index: Index, tenant: str, queries: Iterator[Drawn]) -> None:
    index.search(tenant, MODEL, next(queries), _BEST)


def run(address: str, tenants: int, speakers: int, large: int, dim: int, rounds: int) -> dict[str, Any]:
    """Fill both stores alike and measure; returns what was measured."""
    key = KeyText(new_key().hex())
    result: dict[str, Any] = {"tenants": tenants, "speakers": speakers, "large": large, "dim": dim}
    with (
        tempfile.TemporaryDirectory() as folder,
        Store(Path(folder) / "sayso.db", 10.0, key) as embedded,
        Store(address, 10.0, key, patient=True) as served,
    ):
        stores = {"embedded": (embedded, index_of(embedded)), "postgres": (served, index_of(served))}
        for store, _ in stores.values():
            for number in range(tenants):
                fill(store, f"t{number:05}", vectors(number, speakers, dim))
        middle = tenants // 2
        with served.database.write() as connection:
            connection.execute("ANALYZE templates")
            connection.execute("ANALYZE speakers")
        result["small_ms"] = _measure(stores, f"t{middle:05}", vectors(middle, speakers, dim), rounds)
        if large:
            drawn = vectors(_LARGE, large, dim)
            for store, _ in stores.values():
                fill(store, "large", drawn)
            result["large_ms"] = _measure(stores, "large", drawn, max(3, rounds // 5))
            result |= _with_index(stores, drawn, rounds)
    return result


def _with_index(stores: dict[str, tuple[Store, Index]], drawn: Drawn, rounds: int) -> dict[str, Any]:
    index = stores["postgres"][1]
    assert isinstance(index, PostgresIndex)  # noqa: S101
    before = time.perf_counter()
    index.make_index("large", MODEL)
    built_s = time.perf_counter() - before
    first = found = wanted = 0
    places = range(0, len(drawn), max(1, len(drawn) // 100))
    for place in places:
        asked = query(drawn, place)
        exact, near = (one.search("large", MODEL, asked, _BEST)[0] for _, one in stores.values())
        first += bool(near) and near[0].speaker_id == f"s{place:07}"
        found += len({c.speaker_id for c in exact} & {c.speaker_id for c in near})
        wanted += len(exact)
    measured = _measure(stores, "large", drawn, rounds)
    return {
        "index_built_s": round(built_s, 1),
        "recall_at_1": round(first / len(places), 4),
        "recall_at_10": round(found / wanted, 4),
        "large_indexed_ms": measured,
    }


def main() -> None:
    """Print what was measured as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("--tenants", type=int, default=1000)
    parser.add_argument("--speakers", type=int, default=1000)
    parser.add_argument("--large", type=int, default=0)
    parser.add_argument("--dim", type=int, default=192)
    parser.add_argument("--rounds", type=int, default=50)
    chosen = vars(parser.parse_args())
    print(json.dumps(run(**chosen), indent=2))


if __name__ == "__main__":
    main()
