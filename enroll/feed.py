"""What a copy of the templates needs to stay in step with the store: what changed since it last looked."""

from collections.abc import Collection
from dataclasses import dataclass

from enroll import clock
from enroll.errors import SpeakerNotFound
from enroll.fields import is_id
from enroll.rows import LIVING
from enroll.sql import Connection, Database, Row
from enroll.templates import column, read_template
from enroll.types import Vector
from enroll.vault import Keychain, Vault

_IDS_AT_ONCE = 500  # a statement takes so many values and more on either database


@dataclass(frozen=True, eq=False)
class Entry:
    """A speaker as a copy holds them: the vector is None when they cannot be compared now.

    After `expires_at` the copy has to leave them out by itself: that changes no revision.
    """

    id: str
    vector: Vector | None
    expires_at: str | None


@dataclass(frozen=True)
class Changes:
    """What happened to one tenant's templates of one model, up to `revision`.

    `changed` has each speaker touched since, by number. `numbers` holds all of the tenant's speakers if any
    was deleted.
    """

    revision: int
    changed: dict[int, Entry]
    numbers: frozenset[int] | None


class TemplateFeed:
    """Reads the templates of comparable speakers: enough speech under the model, and not opted out."""

    def __init__(self, database: Database, vault: Vault, required_speech_s: float) -> None:
        self._database, self._vault = database, vault
        self._required_speech_s = required_speech_s

    def since(self, tenant: str, model_sha256: str, revision: int) -> Changes | None:
        """Return what a copy made at `revision` must take over, or None when it is current.

        A revision the tenant never reached (-1 for a new copy, or a file put back from a backup) is told
        everything.
        """
        with self._database.read(tenant) as connection:
            tenant_row = connection.execute("SELECT * FROM tenants WHERE tenant = ?", (tenant,)).fetchone()
            current, deleted = (
                (tenant_row["revision"], tenant_row["deleted_revision"]) if tenant_row else (0, 0)
            )
            if revision == current:
                return None
            start = revision if 0 <= revision < current else 0
            rows = connection.execute(
                "SELECT number, id, opted_out, expires_at, templates.net_speech_s AS speech,"
                f" {column(connection)} AS template"
                " FROM speakers LEFT JOIN templates ON speaker = number AND model_sha256 = ?"
                " WHERE tenant = ? AND revision > ?",
                (model_sha256, tenant, start),
            ).fetchall()
            everyone = start == 0 or deleted > start
            numbers = _all(connection, tenant) if everyone else None
            keychain = self._vault.keychain(connection)
            changed = {row["number"]: self._entry(keychain, row, model_sha256) for row in rows}
        return Changes(current, changed, numbers)

    def templated(self) -> set[tuple[str, str]]:
        """Return every (tenant, model sha256) that has templates."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT DISTINCT tenant, model_sha256 FROM templates JOIN speakers ON number = speaker"
            ).fetchall()
        return {(row["tenant"], row["model_sha256"]) for row in rows}

    def numbers(self, tenant: str, among: Collection[str] | None, group: str | None) -> frozenset[int]:
        """Return the numbers of the listed speakers that are in the group; None leaves a condition out.

        Raises SpeakerNotFound naming each listed id the tenant does not have.
        """
        with self._database.read(tenant) as connection:
            return narrowed(connection, tenant, among, group)

    def _entry(self, keychain: Keychain, row: Row, model_sha256: str) -> Entry:
        enough = row["speech"] is not None and row["speech"] >= self._required_speech_s
        vector = None
        if enough and not row["opted_out"] and not has_passed(row["expires_at"]):
            vector = read_template(keychain, row["number"], model_sha256, row["template"])
        return Entry(row["id"], vector, row["expires_at"])


def has_passed(expires_at: str | None) -> bool:
    """Tell whether this moment, if there is one, is over."""
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
    wanted = sorted(set(among))
    impossible = [value for value in wanted if not is_id(value)]
    if impossible:
        raise SpeakerNotFound(*impossible)
    found: dict[str, int] = {}
    for start in range(0, len(wanted), _IDS_AT_ONCE):
        ids = wanted[start : start + _IDS_AT_ONCE]
        marks = ", ".join("?" * len(ids))
        rows = connection.execute(
            f"SELECT id, number FROM speakers WHERE tenant = ? AND id IN ({marks}) AND {LIVING}",
            (tenant, *ids, clock.stamp(clock.now())),
        )
        found |= {row["id"]: row["number"] for row in rows}
    unknown = [value for value in wanted if value not in found]
    if unknown:
        raise SpeakerNotFound(*unknown)
    return frozenset(found.values())
