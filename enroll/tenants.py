"""Tenants: what they chose, their keys, and their end."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sayso.enroll.erasure import erase_speaker, note_erasure
from sayso.enroll.errors import TenantNotFound
from sayso.enroll.fields import checked_id
from sayso.enroll.parts import Shared
from sayso.enroll.secrets.sealing import MasterKey, header
from sayso.enroll.secrets.transaction import (
    Transaction,
    embedding_context,
    recording_context,
    template_context,
)

_SPEAKERS_AT_ONCE = 100
_VALUES_AT_ONCE = 200


@dataclass(frozen=True)
class Tenant:
    """A tenant; `key_made_at` is when its present sealing key was made, None when nothing is sealed."""

    name: str
    speakers: int
    keep_recordings: bool
    recordings: int
    key_made_at: str | None


class Tenants:
    """The tenants of one store."""

    def __init__(self, shared: Shared) -> None:
        self._vault = shared.vault

    def list(self) -> list[Tenant]:
        """Return every tenant that has had a speaker, a choice or a key."""
        with self._vault.read() as transaction:
            rows = transaction.execute(
                "SELECT tenant, keep_recordings,"
                " (SELECT COUNT(*) FROM speakers WHERE speakers.tenant = known.tenant) AS speakers,"
                " (SELECT COUNT(*) FROM recordings JOIN enrollments ON enrollments.number = enrollment"
                "  JOIN speakers ON speakers.number = speaker WHERE speakers.tenant = known.tenant)"
                " AS recordings,"
                " (SELECT MAX(created_at) FROM tenant_keys WHERE tenant_keys.tenant = known.tenant"
                "  AND purpose = 'seal') AS key_made_at"
                " FROM (SELECT tenant FROM tenants UNION SELECT tenant FROM tenant_keys"
                "  UNION SELECT tenant FROM api_keys) AS known LEFT JOIN tenants USING (tenant)"
                " ORDER BY tenant"
            ).fetchall()
        return [
            Tenant(
                row["tenant"],
                row["speakers"],
                bool(row["keep_recordings"]),
                row["recordings"],
                row["key_made_at"],
            )
            for row in rows
        ]

    def keep_recordings(self, tenant: str, keep: bool) -> None:
        """Choose whether recordings of enrolments to come are kept; choosing not to deletes those kept."""
        checked_id("tenant", tenant)
        with self._vault.write(tenant) as transaction:
            transaction.execute(
                "INSERT INTO tenants (tenant, revision, keep_recordings)"
                " VALUES (:tenant, 0, :keep) ON CONFLICT (tenant) DO UPDATE SET keep_recordings = :keep",
                {"tenant": tenant, "keep": keep},
            )
            if not keep:
                for number in _recordings(transaction, tenant):
                    transaction.execute("DELETE FROM recordings WHERE enrollment = ?", (number,))
                    note_erasure(transaction, "recording", number)
            transaction.audit("tenant.changed", tenant, keep_recordings=keep)
        self._vault.database.purge()

    def delete(self, tenant: str) -> int:
        """Erase everything of a tenant: speakers, answers, API keys, and the keys all was sealed with.

        Returns how many speakers there were. Raises TenantNotFound. The name stays in the audit log.
        """
        with self._vault.write(tenant) as transaction:
            _require(transaction, tenant)
            transaction.pseudonym(tenant, "")  # at least one key: its erasure is what a restore goes by
            rows = transaction.execute("SELECT * FROM speakers WHERE tenant = ?", (tenant,)).fetchall()
            for row in rows:
                erase_speaker(transaction, row)
            for key in transaction.execute(
                "SELECT number FROM tenant_keys WHERE tenant = ?", (tenant,)
            ).fetchall():
                note_erasure(transaction, "tenant key", key["number"])
            for table in ("tenant_keys", "opt_outs", "answers", "api_keys"):
                transaction.execute(f"DELETE FROM {table} WHERE tenant = ?", (tenant,))
            transaction.execute("UPDATE tenants SET keep_recordings = ? WHERE tenant = ?", (False, tenant))
            transaction.audit("tenant.deleted", tenant, speakers=len(rows))
        self._vault.database.purge()
        return len(rows)

    def rotate_key(self, tenant: str, advance: Callable[[int], None] = lambda _: None) -> int:
        """Seal everything of a tenant under a new key and destroy those before; returns how many values.

        In small transactions, beside whoever uses the store. Cut short, it leaves everything readable; run
        it again. `advance` is told of each batch. Raises TenantNotFound.
        """
        with self._vault.write(tenant) as transaction:
            _require(transaction, tenant)
            number = transaction.add_key(tenant)
            transaction.audit("tenant.key_rotation_started", tenant, key=number)
        total = 0
        for batch in self._sealed_before(tenant, number):
            self._reseal(tenant, batch)
            total += len(batch)
            advance(len(batch))
        with self._vault.write(tenant) as transaction:
            # what was sealed meanwhile is under this key or a later one: those before open nothing any more
            transaction.execute(
                "DELETE FROM tenant_keys WHERE tenant = ? AND purpose = 'seal' AND number < ?",
                (tenant, number),
            )
            transaction.audit("tenant.key_rotated", tenant, key=number, values=total)
        self._vault.database.purge()
        return total

    def rotate_master(self, new: MasterKey) -> None:
        """Wrap every tenant's keys with another master key, in one transaction."""
        with self._vault.write() as transaction:
            transaction.audit("master_key.rotated", None, key=new.id)
            transaction.rewrap(new)

    def _sealed_before(self, tenant: str, key: int) -> Iterator[Sequence["_SealedValue"]]:
        """Name the values that are sealed with an earlier key than this number, in batches, in one pass.

        Whoever is added meanwhile comes with the new key, so nobody before the last speaker is read again.
        """
        last = 0
        while True:
            with self._vault.read(tenant) as transaction:
                speakers = transaction.execute(
                    "SELECT number FROM speakers WHERE tenant = ? AND number > ? ORDER BY number LIMIT ?",
                    (tenant, last, _SPEAKERS_AT_ONCE),
                ).fetchall()
                if not speakers:
                    return
                values = [value for row in speakers for value in _values_of(transaction, row["number"], key)]
            last = speakers[-1]["number"]
            batch: list[_SealedValue] = []
            for value in values:
                batch.append(value)
                if len(batch) == _VALUES_AT_ONCE or value.table == "recordings":  # up to 25 MB each
                    yield batch
                    batch = []
            if batch:
                yield batch

    def _reseal(self, tenant: str, values: Sequence["_SealedValue"]) -> None:
        """Seal values under the tenant's newest key; those deleted in the meantime are passed over."""
        with self._vault.write(tenant) as transaction:
            for value in values:
                row = transaction.execute(
                    f"SELECT sealed FROM {value.table} WHERE {value.key}", value.key_values
                ).fetchone()
                if row is not None:
                    sealed = transaction.seal(
                        tenant, value.context, transaction.open(value.context, row["sealed"])
                    )
                    transaction.execute(
                        f"UPDATE {value.table} SET sealed = ? WHERE {value.key}", (sealed, *value.key_values)
                    )


@dataclass(frozen=True)
class _SealedValue:
    """One sealed value: its table, the condition that names its row, and what it is sealed for."""

    table: str
    key: str
    key_values: tuple[object, ...]
    context: str


def _values_of(transaction: Transaction, speaker: int, key: int) -> Iterator[_SealedValue]:
    """Name the values of a speaker that are sealed with an earlier key than this number."""
    earlier = "substr(sealed, 1, 8) < ?"
    if transaction.seals_templates:
        for row in transaction.execute(
            f"SELECT model_sha256 FROM templates WHERE speaker = ? AND {earlier}", (speaker, header(key))
        ).fetchall():
            model = row["model_sha256"]
            context = template_context(speaker, model)
            yield _SealedValue("templates", "speaker = ? AND model_sha256 = ?", (speaker, model), context)
    for row in transaction.execute(
        "SELECT number, model_sha256 FROM enrollments JOIN embeddings ON enrollment = number"
        f" WHERE speaker = ? AND {earlier}",
        (speaker, header(key)),
    ).fetchall():
        number, model = row["number"], row["model_sha256"]
        context = embedding_context(number, model)
        yield _SealedValue("embeddings", "enrollment = ? AND model_sha256 = ?", (number, model), context)
    for row in transaction.execute(
        "SELECT number FROM enrollments JOIN recordings ON enrollment = number"
        f" WHERE speaker = ? AND {earlier}",
        (speaker, header(key)),
    ).fetchall():
        number = row["number"]
        yield _SealedValue("recordings", "enrollment = ?", (number,), recording_context(number))


def _recordings(transaction: Transaction, tenant: str) -> list[int]:
    rows = transaction.execute(
        "SELECT enrollment FROM recordings JOIN enrollments ON enrollments.number = enrollment"
        " JOIN speakers ON speakers.number = speaker WHERE tenant = ?",
        (tenant,),
    )
    return [row["enrollment"] for row in rows]


def _require(transaction: Transaction, tenant: str) -> None:
    found = transaction.execute(
        "SELECT 1 FROM tenants WHERE tenant = :t UNION SELECT 1 FROM tenant_keys WHERE tenant = :t"
        " UNION SELECT 1 FROM api_keys WHERE tenant = :t",
        {"t": tenant},
    )
    if found.fetchone() is None:
        raise TenantNotFound(tenant)
