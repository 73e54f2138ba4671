"""Search on the server: an exact scan of a tenant's templates, or its HNSW index where one was made.

The server ranks at half precision. Everybody who may belong to the best `k` by more than that is scored again
as verify scores, so that both calls give one speaker the same score.
"""

import threading
import time
from collections.abc import Collection
from dataclasses import dataclass
from hashlib import sha256

from psycopg import sql
from psycopg.errors import UndefinedTable

from sayso.enroll import clock
from sayso.enroll.db.postgres import PostgresDatabase
from sayso.enroll.db.postgres_values import PostgresConnection, Row
from sayso.enroll.decision import score
from sayso.enroll.errors import InvalidEmbedding, StoreError, StoreUnavailable
from sayso.enroll.search.feed import narrowed
from sayso.enroll.speakers import LIVING
from sayso.enroll.store import Store
from sayso.enroll.types import Candidate, Vector
from sayso.enroll.vectors import checked_vector, from_text, to_text

_ROUNDING = 1e-3  # more than half precision moves a cosine
_REMEMBER_S = 10.0  # which indexes there are
_AWAY_S = 5.0  # for so long a standby that failed is not asked again
_LARGE = 50_000  # templates from which on an index is worth its upkeep
_CHEAP_S = 0.05  # a count that takes less is made whenever something has changed
_EF_SEARCH = 200
_ITERATIVE = "relaxed_order"  # what it finds is sorted here anyway

_FROM = f"""
    FROM templates AS t JOIN speakers ON speakers.number = t.speaker
    WHERE t.of_tenant = :tenant AND t.model_sha256 = :model AND t.net_speech_s >= :speech
    AND NOT opted_out AND {LIVING.replace("?", ":now")}"""
_EXACT = """
    WITH near AS MATERIALIZED (SELECT t.speaker, t.vector <#> CAST(:query AS halfvec) AS distance {among})
    SELECT id, vector, (SELECT COUNT(*) FROM near) AS searched
    FROM near JOIN templates USING (speaker) JOIN speakers ON speakers.number = near.speaker
    WHERE model_sha256 = :model AND distance <= :rounding
        + (SELECT MAX(distance) FROM (SELECT distance FROM near ORDER BY distance LIMIT :k) AS best)"""
_NEAREST = """
    SELECT id, vector {among}
    ORDER BY CAST(t.vector AS halfvec({dim})) <#> CAST(:query AS halfvec({dim})) LIMIT :k"""


@dataclass(frozen=True)
class LargeTenant:
    """A tenant with many templates under a model, and whether there is an index of them."""

    tenant: str
    model_sha256: str
    templates: int
    indexed: bool


@dataclass(frozen=True)
class _Counted:
    """How many speakers of a tenant could be compared at a revision, and how long that is good enough."""

    revision: int
    speakers: int
    good_until: float


class PostgresIndex:
    """Searches the enrolled speakers of a store on PostgreSQL. Thread-safe; keeps no vectors itself."""

    def __init__(self, store: Store) -> None:
        if not isinstance(store.database, PostgresDatabase):
            raise TypeError("this search is made for PostgreSQL")
        self._database = store.database
        self._required_speech_s = store.required_speech_s
        self._lock = threading.Lock()
        self._indexes: frozenset[str] = frozenset()
        self._indexes_at = -_REMEMBER_S
        self._standby_away_until = 0.0
        self._counted: dict[tuple[str, str], _Counted] = {}

    def warm(self) -> None:
        """Nothing to do: the server has its own memory."""

    def search(
        self,
        tenant: str,
        model_sha256: str,
        vector: Vector,
        k: int,
        among: Collection[str] | None = None,
        group: str | None = None,
    ) -> tuple[list[Candidate], int]:
        """As `SpeakerIndex.search` says."""
        if k < 1:
            raise ValueError("k must be 1 or more")
        query = checked_vector(vector)
        with self._database.read(tenant, standby=self._standby_is_current(tenant)) as connection:
            values: dict[str, object] = {
                "tenant": tenant,
                "model": model_sha256,
                "speech": self._required_speech_s,
                "now": clock.stamp(clock.now()),
                "query": to_text(query),
                "rounding": _ROUNDING,
                "k": k,
            }
            conditions = _FROM
            if among is not None or group is not None:
                conditions += " AND t.speaker = ANY(:numbers)"
                values["numbers"] = list(narrowed(connection, tenant, among, group))
            dim = connection.execute("SELECT dim FROM models WHERE sha256 = ?", (model_sha256,)).fetchone()
            if dim is None:
                return [], 0
            if query.size != dim[0]:
                return self._refused(connection, conditions, values, query.size, dim[0])
            if conditions is _FROM and self._has_index(connection, tenant, model_sha256):
                rows, searched = self._nearest(connection, values, dim[0])
            else:
                rows = connection.execute(_EXACT.format(among=conditions), values).fetchall()
                searched = rows[0]["searched"] if rows else 0
        found = [Candidate(row["id"], score(query, from_text(row["vector"]))) for row in rows]
        found.sort(key=lambda candidate: (-candidate.score, candidate.speaker_id))
        return found[:k], searched

    def refresh(self, tenant: str | None = None) -> None:
        """Look again which indexes there are, at the next search. There is no copy to bring up to date."""
        with self._lock:
            self._indexes_at = -_REMEMBER_S

    def check(self) -> list[str]:
        """Return what is wrong with the server's indexes; empty when nothing is."""
        with self._database.read() as connection:
            found = connection.execute(
                "SELECT CAST(indexrelid AS regclass)::text AS name FROM pg_index"
                " WHERE NOT indisvalid AND indrelid = to_regclass('templates')"
            )
            return [f"index {row['name']} is not valid: run `sayso store index` again" for row in found]

    @property
    def problems(self) -> list[str]:
        """Nothing is done in the background."""
        return []

    def large(self, above: int = _LARGE) -> list[LargeTenant]:
        """Return tenants and models with more templates than this, the largest first."""
        with self._database.read() as connection:
            indexes = _indexes(connection)
            rows = connection.execute(
                "SELECT of_tenant, model_sha256, COUNT(*) AS templates FROM templates"
                " GROUP BY of_tenant, model_sha256 HAVING COUNT(*) > ? ORDER BY 3 DESC, 1, 2",
                (above,),
            ).fetchall()
        return [
            LargeTenant(
                row["of_tenant"],
                row["model_sha256"],
                row["templates"],
                _index_name(row["of_tenant"], row["model_sha256"]) in indexes,
            )
            for row in rows
        ]

    def make_index(self, tenant: str, model_sha256: str) -> None:
        """Make the HNSW index of a tenant's templates, beside whoever uses them; of a patient store."""
        name = _index_name(tenant, model_sha256)
        with self._database.read() as connection:
            dim = connection.execute("SELECT dim FROM models WHERE sha256 = ?", (model_sha256,)).fetchone()
            literals = connection.execute(
                "SELECT quote_literal(CAST(? AS text)), quote_literal(CAST(? AS text))",
                (tenant, model_sha256),
            ).fetchone()
        if dim is None or literals is None:
            raise InvalidEmbedding(f"Nobody is enrolled with model {model_sha256[:12]}.")
        with self._database.single() as connection:
            connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            connection.execute(
                f"CREATE INDEX CONCURRENTLY {name} ON templates"
                f" USING hnsw (CAST(vector AS halfvec({int(dim[0])})) halfvec_ip_ops)"
                " WITH (m = 16, ef_construction = 128)"
                f" WHERE of_tenant = {_literal(tenant)} AND model_sha256 = {_literal(model_sha256)}"
            )
        self.refresh()

    def _standby_is_current(self, tenant: str) -> bool:
        """Tell whether the standby has every acknowledged change of the tenant; it only moves on."""
        if not self._database.has_standby or time.monotonic() < self._standby_away_until:
            return False
        with self._database.read(tenant) as connection:
            wanted = _revision(connection, tenant)
        try:
            with self._database.read(tenant, standby=True) as connection:
                return _revision(connection, tenant) >= wanted
        except (StoreError, UndefinedTable):  # away, or behind even the tables that were just made
            self._standby_away_until = time.monotonic() + _AWAY_S
            return False

    def _nearest(
        self, connection: PostgresConnection, values: dict[str, object], dim: int
    ) -> tuple[list[Row], int]:
        connection.raw.execute(
            f"SET LOCAL hnsw.iterative_scan = {_ITERATIVE}; SET LOCAL hnsw.ef_search = {_EF_SEARCH}"
        )
        # A server that lacks the setting would take any name for one of ours, and find too few.
        row = connection.execute("SELECT current_setting('hnsw.iterative_scan')").fetchone()
        if row is None or row[0] != _ITERATIVE:
            raise StoreUnavailable(
                self._database.path, "hnsw.iterative_scan cannot be set", "Update pgvector."
            )
        # Never prepared: only with its values in sight does the planner see that the tenant's index fits.
        statement = _NEAREST.format(among=_FROM, dim=dim)
        found = connection.unprepared(statement, {**values, "k": int(str(values["k"])) + 10}).fetchall()
        return found, self._count(connection, values)

    def _count(self, connection: PostgresConnection, values: dict[str, object]) -> int:
        """How many can be compared, counted again when the tenant has changed.

        Where counting is slow it may take a twentieth of the time, so the number may be that much behind.
        """
        tenant, model = str(values["tenant"]), str(values["model"])
        revision, begun = _revision(connection, tenant), time.monotonic()
        with self._lock:
            known = self._counted.get((tenant, model))
        if known is not None and (known.revision == revision or begun < known.good_until):
            return known.speakers
        row = connection.execute(f"SELECT COUNT(*) {_FROM}", values).fetchone()
        took = time.monotonic() - begun
        until = begun if took < _CHEAP_S else time.monotonic() + 20 * took
        counted = _Counted(revision, 0 if row is None else int(row[0]), until)
        with self._lock:
            self._counted[tenant, model] = counted
        return counted.speakers

    def _refused(
        self,
        connection: PostgresConnection,
        conditions: str,
        values: dict[str, object],
        given: int,
        wanted: int,
    ) -> tuple[list[Candidate], int]:
        if connection.execute(f"SELECT 1 {conditions} LIMIT 1", values).fetchone() is None:
            return [], 0
        raise InvalidEmbedding(f"This model's embeddings have {wanted} dimensions, not {given}.")

    def _has_index(self, connection: PostgresConnection, tenant: str, model_sha256: str) -> bool:
        with self._lock:
            if time.monotonic() - self._indexes_at > _REMEMBER_S:
                self._indexes = _indexes(connection)
                self._indexes_at = time.monotonic()
            return _index_name(tenant, model_sha256) in self._indexes


def _revision(connection: PostgresConnection, tenant: str) -> int:
    row = connection.execute("SELECT revision FROM tenants WHERE tenant = ?", (tenant,)).fetchone()
    return 0 if row is None else int(row["revision"])


def _indexes(connection: PostgresConnection) -> frozenset[str]:
    rows = connection.execute(
        "SELECT relname FROM pg_class JOIN pg_index ON indexrelid = pg_class.oid"
        " WHERE indrelid = to_regclass('templates') AND indisvalid AND relname LIKE 'templates_hnsw_%'"
    )
    return frozenset(row["relname"] for row in rows)


def _literal(text: str) -> str:
    return sql.Literal(text).as_string()


def _index_name(tenant: str, model_sha256: str) -> str:
    return "templates_hnsw_" + sha256(f"{tenant}\n{model_sha256}".encode()).hexdigest()[:24]
