"""A whole store copied to another database: rows as they are, keys, audit log and all.

The target is the same store afterwards: its API keys work, its audit log goes on, and it opens with the same
master key. The audit log is copied first and the store's identity last, so that half a copy is known as one,
and each table in the order of its key, so that a copy cut short goes on where it was. Whether the source has
changed meanwhile shows in its audit log; then everything but the log is copied anew.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sayso.enroll import templates
from sayso.enroll.db.sql import Connection, Database, Row
from sayso.enroll.errors import CopyRefused, EnrollError
from sayso.enroll.search.feed import TemplateFeed
from sayso.enroll.search.index import index_of
from sayso.enroll.secrets.master_key import KeySource
from sayso.enroll.secrets.sealing import MasterKey
from sayso.enroll.secrets.transaction import Transaction
from sayso.enroll.store import Store
from sayso.enroll.types import Candidate, Vector
from sayso.enroll.vectors import score

SAME_SCORE = 1e-3
_VOICES, _BEST = 5, 5  # of each tenant and model, and so many answers to each
Advance = Callable[[str, int, int], None]  # table, rows copied, rows in all


@dataclass(frozen=True)
class _Table:
    """A table's columns, as both databases name them, and how many of the first are its key."""

    name: str
    columns: str
    key: int = 1
    batch: int = 2000

    @property
    def keys(self) -> list[str]:
        return self.columns.split(", ")[: self.key]


# In the order in which one refers to another.
_TABLES = (
    _Table("tenants", "tenant, revision, keep_recordings"),
    _Table("tenant_keys", "number, tenant, purpose, wrapped, created_at"),
    _Table("models", "sha256, dim"),
    _Table(
        "speakers",
        "number, tenant, id, name, metadata, opted_out, enrollments, net_speech_s, revision, created_at,"
        " updated_at, consent, expires_at",
    ),
    _Table("speaker_groups", "speaker, name", 2),
    _Table(
        "enrollments",
        "number, speaker, id, net_speech_s, duration_s, snr_db, clipping, cohesion, created_at, digest, band",
    ),
    _Table("embeddings", "enrollment, model_sha256, sealed", 2),
    _Table("recordings", "enrollment, sealed", batch=20),
    _Table("opt_outs", "tenant, speaker, at", 2),
    _Table("erasures", "kind, number, at", 2),
    _Table("backups", "made_at, path", 2),
    _Table("api_keys", "id, tenant, scopes, label, digest, created_at, expires_at, revoked_at"),
    _Table("answers", "scope, key, tenant, fingerprint, status, body, created_at", 2),
    _Table("attempts", "speaker, tenant, failures, attempt, failed_at"),
    _Table("used_recordings", "speaker, digest, call, attempt, at", 3),
)
_AUDIT = _Table("audit", "number, entry, mac")
_TEMPLATES = _Table("templates", "speaker, model_sha256", 2)
_NUMBERED = ("speakers", "enrollments", "tenant_keys")
_UNLOGGED = ("answers", "attempts", "used_recordings")  # may change without an entry in the audit log
_FLAGS = {"opted_out", "keep_recordings"}  # SQLite has no truth values


@dataclass(frozen=True)
class Copied:
    """What a copy holds: rows by table, and the least cosine of a template there with the source's."""

    rows: dict[str, int]
    least_score: float
    resumed: bool


def copy_store(
    source: Database, target: Database, keys: KeySource, advance: Advance = lambda *_: None
) -> Copied:
    """Copy everything into an empty database, or go on with a copy of the same store that was cut short.

    Nobody may use either meanwhile. Raises CopyRefused for a target that holds anything else, or when the two
    do not agree in the end, and StoreError; run it again then.
    """
    with source.read() as connection:
        row = connection.execute("SELECT * FROM store").fetchone()
        if row is None:
            raise CopyRefused(f"{source.path} holds no store.")
        identity = dict(row)
        master = keys.load(identity["master_key"])
        Transaction(connection, lambda _: master).audit_key()  # the key is the right one
    _mark(source, keys, identity["master_key"])
    resumed = _begin(source, target)
    rows = {table.name: _copy(source, target, table, advance) for table in (_AUDIT, *_TABLES)}
    rows["templates"] = _copy_templates(source, target, master, advance)
    least = _compare(source, target, master, rows, advance)
    _finish(source, target, identity, keys)
    return Copied(rows, least, resumed)


def differing_answers(ours: Store, theirs: Store) -> list[str]:
    """Run some searches of each tenant and model on both stores; returns a line for each that differs."""
    our_index, their_index, differences = index_of(ours), index_of(theirs), list[str]()
    for tenant, model in sorted(TemplateFeed(ours).templated()):
        page = ours.speakers(tenant, _VOICES)
        for speaker in page.items:
            try:
                vector = ours.template(tenant, speaker.id, model).vector
            except EnrollError:  # not enough speech, opted out, not of this model
                continue
            (expected, searched), (actual, compared) = (
                index.search(tenant, model, vector, _BEST) for index in (our_index, their_index)
            )
            if searched != compared or not _same(expected, actual):
                differences.append(f"tenant {tenant}, model {model[:12]}: a search for {speaker.id} differs")
    return differences


def _same(expected: list[Candidate], actual: list[Candidate]) -> bool:
    """Tell whether two searches agree: in every score, and in the best speaker unless two are nearly tied."""
    if len(expected) != len(actual):
        return False
    scores = all(abs(a.score - b.score) <= SAME_SCORE for a, b in zip(expected, actual, strict=True))
    close = len(expected) > 1 and expected[0].score - expected[1].score <= SAME_SCORE
    return scores and (not expected or close or expected[0].speaker_id == actual[0].speaker_id)


def _mark(source: Database, keys: KeySource, master_key: str) -> None:
    """Write a first audit entry if the source has none: half a copy would else look like a new store."""
    with source.write() as connection:
        if _head(connection) is None:
            Transaction(connection, lambda _: keys.load(master_key)).audit("store.copied_from", None)


def _begin(source: Database, target: Database) -> bool:
    """Look whether the target may be written to; tell whether a copy goes on."""
    with source.read() as connection:
        head = _head(connection)
    with target.write() as connection:
        if connection.execute("SELECT 1 FROM store").fetchone() is not None:
            raise CopyRefused(f"{target.path} holds a store already; it was left untouched.")
        begun = _head(connection)
        if begun is None:
            if any(_count(connection, table.name) for table in (*_TABLES, _TEMPLATES)):
                raise CopyRefused(f"{target.path} is not empty; it was left untouched.")
            return False
        with source.read() as origin:
            row = origin.execute("SELECT mac FROM audit WHERE number = ?", (begun["number"],)).fetchone()
        if row is None or bytes(row["mac"]) != bytes(begun["mac"]):
            raise CopyRefused(f"{target.path} is half a copy of another store; it was left untouched.")
        same = head is not None and begun["number"] == head["number"]
        for table in (_TEMPLATES, *reversed(_TABLES)):
            if not same or table.name in _UNLOGGED:  # of a state that is over, or may be
                connection.execute(f"DELETE FROM {table.name}")
        return True


def _copy(source: Database, target: Database, table: _Table, advance: Advance) -> int:
    """Copy a table from where the target has it; returns its rows."""
    flags = [place for place, name in enumerate(table.columns.split(", ")) if name in _FLAGS]
    marks = ", ".join("?" * len(table.columns.split(", ")))
    with source.read() as origin:
        total = _count(origin, table.name)
        with target.read() as connection:
            done = _count(connection, table.name)
            last = _last(connection, table)
        for batch in _batches(origin, table, table.columns, last):
            values = [list(row) for row in batch]
            for row in values:
                for place in flags:
                    row[place] = bool(row[place])
            with target.write() as connection:
                connection.executemany(f"INSERT INTO {table.name} ({table.columns}) VALUES ({marks})", values)
            done += len(batch)
            advance(table.name, done, total)
    return total


def _copy_templates(source: Database, target: Database, master: MasterKey, advance: Advance) -> int:
    """Make each template in the target; returns how many there are."""
    with source.read() as origin:
        total = _count(origin, "templates")
        with target.read() as connection:
            done = _count(connection, "templates")
            last = _last(connection, _TEMPLATES)
        for new in _template_batches(origin, master, last):
            with target.write() as connection:
                templates.insert_templates(Transaction(connection, lambda _: master), new)
            done += len(new)
            advance("templates", done, total)
    return total


def _template_batches(
    connection: Connection, master: MasterKey, last: list[Any] | None
) -> Iterator[list[tuple[str, int, str, Vector, int, float]]]:
    """Templates in the order of their key at full precision, if need be made from the enrolments again."""
    transaction = Transaction(connection, lambda _: master)
    columns = f"speaker, model_sha256, enrollments, net_speech_s, {templates.column(connection)} AS stored"
    for batch in _batches(connection, _TEMPLATES, columns, last):
        owners = connection.execute(
            "SELECT number, tenant FROM speakers WHERE number BETWEEN ? AND ?",
            (batch[0]["speaker"], batch[-1]["speaker"]),
        )
        tenants = {row["number"]: row["tenant"] for row in owners}
        batch_templates = []
        for row in batch:
            speaker, model, vector = row["speaker"], row["model_sha256"], None
            if not connection.seals_templates:
                vector = templates.mean_template(transaction, speaker, model)
            if vector is None:
                vector = templates.read_template(transaction, speaker, model, row["stored"])
            batch_templates.append(
                (tenants[speaker], speaker, model, vector, row["enrollments"], row["net_speech_s"])
            )
        yield batch_templates


def _compare(
    source: Database, target: Database, master: MasterKey, rows: dict[str, int], advance: Advance
) -> float:
    """Count every table's rows again and compare every template; returns the least cosine of two."""
    least, done = 1.0, 0
    with source.read() as origin, target.read() as copy:
        for table in (_AUDIT, *_TABLES, _TEMPLATES):
            counts = _count(origin, table.name), _count(copy, table.name)
            if counts[0] != counts[1]:
                raise CopyRefused(
                    f"{table.name} has {counts[0]} rows in {source.path} and {counts[1]} in {target.path}. "
                    "Stop every server that uses either and run it again, if need be into an empty database."
                )
        pairs = zip(_stored_templates(origin, master), _stored_templates(copy, master), strict=True)
        for ours, theirs in pairs:
            for one, other in zip(ours, theirs, strict=True):
                if one[:2] != other[:2]:
                    raise CopyRefused(f"{target.path} has other templates than {source.path}.")
                least = min(least, score(one[2], other[2]))
            done += len(ours)
            advance("compared", done, rows["templates"])
    if least < 1.0 - SAME_SCORE:
        raise CopyRefused(
            f"a template in {target.path} differs from that in {source.path} (cosine {least:.5f})."
        )
    return least


def _stored_templates(connection: Connection, master: MasterKey) -> Iterator[list[tuple[int, str, Vector]]]:
    """Templates in the order of their key, as they are compared with."""
    transaction = Transaction(connection, lambda _: master)
    columns = f"speaker, model_sha256, {templates.column(connection)} AS stored"
    for batch in _batches(connection, _TEMPLATES, columns, None):
        yield [
            (row[0], row[1], templates.read_template(transaction, row[0], row[1], row["stored"]))
            for row in batch
        ]


def _finish(source: Database, target: Database, identity: dict[str, Any], keys: KeySource) -> None:
    """Make a whole copy a store: give it its identity, if the source is still what was copied."""
    with source.read() as origin, target.write() as connection:
        ours, theirs = _head(origin), _head(connection)
        if ours is None or theirs is None or ours["number"] != theirs["number"]:
            raise CopyRefused(
                f"{source.path} has changed while it was copied. Stop every server that uses it, then run it "
                "again."
            )
        for table in _NUMBERED:
            connection.count_from(table, origin.counted(table))
        connection.execute(
            "INSERT INTO store VALUES (1, ?, ?, ?)",
            (identity["id"], identity["master_key"], identity["audit_key"]),
        )
        Transaction(connection, lambda _: keys.load(identity["master_key"])).audit("store.copied", None)


def _batches(
    connection: Connection, table: _Table, columns: str, last: list[Any] | None
) -> Iterator[list[Row]]:
    """A table's rows in the order of its key, after the last one."""
    keys = ", ".join(table.keys)
    while True:
        after = "" if last is None else f"WHERE ({keys}) > ({', '.join('?' * table.key)})"
        batch = connection.execute(
            f"SELECT {columns} FROM {table.name} {after} ORDER BY {keys} LIMIT ?",
            (*(last or ()), table.batch),
        ).fetchall()
        if not batch:
            return
        yield batch
        last = [batch[-1][key] for key in table.keys]


def _last(connection: Connection, table: _Table) -> list[Any] | None:
    """The key of a table's last row."""
    order = ", ".join(f"{key} DESC" for key in table.keys)
    row = connection.execute(
        f"SELECT {', '.join(table.keys)} FROM {table.name} ORDER BY {order} LIMIT 1"
    ).fetchone()
    return None if row is None else list(row)


def _count(connection: Connection, table: str) -> int:
    return int(connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0])


def _head(connection: Connection) -> Row | None:
    row: Row | None = connection.execute(
        "SELECT number, mac FROM audit ORDER BY number DESC LIMIT 1"
    ).fetchone()
    return row
