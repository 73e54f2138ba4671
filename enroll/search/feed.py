"""What a copy of the templates needs to stay in step with the store: what changed since it last looked."""

from collections.abc import Collection
from dataclasses import dataclass

from sayso.domain.evidence import Band
from sayso.enroll import clock
from sayso.enroll.db.sql import Connection
from sayso.enroll.errors import SpeakerNotFound
from sayso.enroll.fields import is_id
from sayso.enroll.search.matrix import Matrix
from sayso.enroll.secrets.transaction import Transaction
from sayso.enroll.speakers import LIVING
from sayso.enroll.store import Store
from sayso.enroll.templates import NARROW, column, read_template
from sayso.enroll.types import Vector

_AT_ONCE = 1024  # vectors that are joined before they are copied into place
_IDS_AT_ONCE = 500  # a statement takes so many values and more on either database

_COMPARABLE = f"""
    FROM speakers JOIN templates ON speaker = number AND model_sha256 = ?
    WHERE tenant = ? AND templates.net_speech_s >= ? AND NOT opted_out AND {LIVING}"""


@dataclass(frozen=True, eq=False)
class Changes:
    """What happened to one tenant's templates of one model, up to `revision`.

    When it is `whole` it replaces all that a copy holds. Otherwise the copy first lets go of the speakers
    `touched` since, by number, and then takes in those of them who can be compared now: `numbers`, `ids` and
    `vectors` `[n, dim]`, row by row.

    After the moment in `expiries` the copy has to leave a speaker out by itself: that changes no revision.
    """

    revision: int
    whole: bool
    touched: set[int]
    numbers: list[int]
    ids: list[str]
    vectors: Matrix
    expiries: dict[int, str]


@dataclass(frozen=True, eq=False)
class OldRow:
    """One of a tenant's oldest templates: unit vector `[dim]`, band, whose it is and until when."""

    number: int
    speaker_id: str
    vector: Vector
    band: Band
    expires_at: str | None


@dataclass(frozen=True, eq=False)
class Oldest:
    """A tenant's oldest templates at `revision`; `rows` is None if they are those that the reader knows."""

    revision: int
    rows: list[OldRow] | None


class TemplateFeed:
    """Reads the templates of comparable speakers: enough speech under the model, and not opted out."""

    def __init__(self, store: Store) -> None:
        self._vault = store.vault
        self._required_speech_s = store.required_speech_s

    def since(self, tenant: str, model_sha256: str, revision: int) -> Changes | None:
        """Return what a copy made at `revision` must take over, or None when it is current.

        A revision the tenant never reached (-1 for a new copy, or a file put back from a backup), or that
        is too long ago for the deletions since to be known, is told everything.
        """
        with self._vault.read(tenant) as transaction:
            tenant_row = transaction.execute(
                "SELECT revision, departures_from FROM tenants WHERE tenant = ?", (tenant,)
            ).fetchone()
            current, known_from = tuple(tenant_row) if tenant_row else (0, 0)
            if revision == current:
                return None
            whole = not known_from <= revision < current
            changes = Changes(current, whole, set(), [], [], Matrix(), {})
            if not whole:
                gone = transaction.execute(
                    "SELECT number FROM departures WHERE tenant = ? AND revision > ?", (tenant, revision)
                )
                changes.touched.update(row["number"] for row in gone)
            self._read(transaction, changes, tenant, model_sha256, 0 if whole else revision)
        return changes

    def oldest(self, tenant: str, model_sha256: str, most: int, revision: int, last: int) -> Oldest | None:
        """Return the tenant's `most` oldest templates, or None when those known at `revision` are current.

        `last` is the highest speaker number among those known, if they are as many as there may be, else -1.
        """
        with self._vault.read(tenant) as transaction:
            row = transaction.execute("SELECT revision FROM tenants WHERE tenant = ?", (tenant,)).fetchone()
            current = row["revision"] if row else 0
            if revision == current:
                return None
            if (
                0 <= revision < current
                and last >= 0
                and not self._reached(transaction, tenant, model_sha256, revision, last, most)
            ):
                return Oldest(current, None)
            stored = transaction.execute(
                f"SELECT number, id, expires_at, {column(transaction)} AS vector, {NARROW} AS narrow"
                f" {_COMPARABLE} ORDER BY number LIMIT ?",
                (*self._comparable(tenant, model_sha256), most),
            ).fetchall()
            oldest = [
                OldRow(
                    row["number"],
                    row["id"],
                    read_template(transaction, row["number"], model_sha256, row["vector"]),
                    "narrow" if row["narrow"] else "wide",
                    row["expires_at"],
                )
                for row in stored
            ]
        return Oldest(current, oldest)

    def _reached(
        self, transaction: Transaction, tenant: str, model_sha256: str, revision: int, last: int, most: int
    ) -> bool:
        """Tell whether the `most` oldest templates, up to speaker `last`, changed after a revision."""
        if transaction.execute(
            "SELECT 1 FROM speakers WHERE tenant = ? AND revision > ? AND number <= ? LIMIT 1",
            (tenant, revision, last),
        ).fetchone():
            return True
        # Who was deleted has no revision any more, but is missing.
        present: int = transaction.execute(
            f"SELECT COUNT(*) {_COMPARABLE} AND number <= ?", (*self._comparable(tenant, model_sha256), last)
        ).fetchone()[0]
        return present < most

    def _comparable(self, tenant: str, model_sha256: str) -> tuple[object, ...]:
        return (model_sha256, tenant, self._required_speech_s, clock.stamp(clock.now()))

    def templated(self) -> set[tuple[str, str]]:
        """Return every (tenant, model sha256) that has templates."""
        with self._vault.read() as transaction:
            rows = transaction.execute(
                "SELECT DISTINCT tenant, model_sha256 FROM templates JOIN speakers ON number = speaker"
            ).fetchall()
        return {(row["tenant"], row["model_sha256"]) for row in rows}

    def numbers(self, tenant: str, among: Collection[str] | None, group: str | None) -> frozenset[int]:
        """Return the numbers of the listed speakers that are in the group; None leaves a condition out.

        Raises SpeakerNotFound naming each listed id the tenant does not have.
        """
        with self._vault.read(tenant) as transaction:
            return narrowed(transaction, tenant, among, group)

    def _read(
        self, transaction: Transaction, changes: Changes, tenant: str, model_sha256: str, start: int
    ) -> None:
        """Read the speakers changed after a revision; each vector is opened and forgotten row by row."""
        rows = transaction.execute(
            "SELECT number, id, expires_at, CASE WHEN NOT opted_out AND templates.net_speech_s >= ?"
            f" AND {LIVING} THEN {column(transaction)} END"
            " FROM speakers LEFT JOIN templates ON speaker = number AND model_sha256 = ?"
            " WHERE tenant = ? AND revision > ?",
            (self._required_speech_s, clock.stamp(clock.now()), model_sha256, tenant, start),
        )
        opened = []
        for number, speaker_id, expires_at, stored in rows:
            if not changes.whole:
                changes.touched.add(number)
            if stored is None:
                continue
            opened.append(read_template(transaction, number, model_sha256, stored))
            changes.numbers.append(number)
            changes.ids.append(speaker_id)
            if expires_at is not None:
                changes.expiries[number] = expires_at
            if len(opened) == _AT_ONCE:
                changes.vectors.append(opened)
                opened = []
        if opened:
            changes.vectors.append(opened)


def has_passed(expires_at: str | None) -> bool:
    """Tell whether an expiry has passed; False without one."""
    return expires_at is not None and expires_at <= clock.stamp(clock.now())


def narrowed(
    connection: Connection, tenant: str, among: Collection[str] | None, group: str | None
) -> frozenset[int]:
    """`TemplateFeed.numbers`, inside a transaction."""
    if among is None:
        return _all(connection, tenant) if group is None else _in_group(connection, tenant, group)
    listed = _listed(connection, tenant, among)
    return listed if group is None else listed & _in_group(connection, tenant, group)


def _all(connection: Connection, tenant: str) -> frozenset[int]:
    rows = connection.execute("SELECT number FROM speakers WHERE tenant = ?", (tenant,))
    return frozenset(row["number"] for row in rows)


def _in_group(connection: Connection, tenant: str, group: str) -> frozenset[int]:
    if not is_id(group):
        return frozenset()
    rows = connection.execute(
        "SELECT number FROM speaker_groups JOIN speakers ON number = speaker"
        " WHERE speaker_groups.name = ? AND tenant = ?",
        (group, tenant),
    )
    return frozenset(row["number"] for row in rows)


def _listed(connection: Connection, tenant: str, among: Collection[str]) -> frozenset[int]:
    requested = sorted(set(among))
    impossible = [value for value in requested if not is_id(value)]
    if impossible:
        raise SpeakerNotFound(*impossible)
    numbers: dict[str, int] = {}
    for start in range(0, len(requested), _IDS_AT_ONCE):
        ids = requested[start : start + _IDS_AT_ONCE]
        marks = ", ".join("?" * len(ids))
        rows = connection.execute(
            f"SELECT id, number FROM speakers WHERE tenant = ? AND id IN ({marks}) AND {LIVING}",
            (tenant, *ids, clock.stamp(clock.now())),
        )
        numbers |= {row["id"]: row["number"] for row in rows}
    unknown = [value for value in requested if value not in numbers]
    if unknown:
        raise SpeakerNotFound(*unknown)
    return frozenset(numbers.values())
