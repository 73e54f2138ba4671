"""Speakers put into a store many at a time: the rows that enrolling leaves, without all its transactions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sayso.enroll import clock
from sayso.enroll.db.sqlite import Database
from sayso.enroll.secrets.master_key import KeyFile
from sayso.enroll.secrets.transaction import Transaction, embedding_context, template_context
from sayso.enroll.secrets.vault import Vault
from sayso.enroll.store import KEY_FILE
from sayso.enroll.vectors import to_blob

NET_SPEECH_S = 20.0
Vectors = NDArray[np.float32]


class Filling:
    """A store at `path`, which is made where there is none; close it before it is opened for use."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path)
        self._vault = Vault(self._database, KeyFile(path.with_name(KEY_FILE)))
        self._speakers = 0

    def close(self) -> None:
        self._database.close()

    def add(self, tenant: str, models: Sequence[str], templates: Vectors, enrollments: int = 0) -> None:
        """Add a speaker for each template `[n, dim]`, who has the same one under each model.

        With `enrollments`, they have as many recordings too, each with that vector, as large on disk as any.
        """
        now, first = clock.stamp(clock.now()), self._speakers + 1
        self._speakers += len(templates)
        numbers = range(first, self._speakers + 1)
        with self._vault.write() as transaction:
            transaction.executemany(
                "INSERT OR IGNORE INTO models VALUES (?, ?)", [(m, templates.shape[1]) for m in models]
            )
            transaction.executemany(
                "INSERT INTO speakers (number, tenant, id, metadata, enrollments, net_speech_s, revision,"
                " created_at, updated_at) VALUES (?, ?, ?, '{}', ?, ?, ?, ?, ?)",
                ((n, tenant, name(n), enrollments, NET_SPEECH_S, n, now, now) for n in numbers),
            )
            for model in models:
                transaction.executemany(
                    "INSERT INTO templates VALUES (?, ?, ?, ?, ?)",
                    _templates(transaction, tenant, model, zip(numbers, templates, strict=True), enrollments),
                )
            for number, vector in zip(numbers, templates, strict=True) if enrollments else ():
                _enrol(transaction, tenant, models, number, vector, enrollments, now)
            transaction.execute(
                "INSERT INTO tenants (tenant, revision) VALUES (?, ?)"
                " ON CONFLICT DO UPDATE SET revision = excluded.revision",
                (tenant, self._speakers),
            )


def name(number: int) -> str:
    """The id of the speaker who was the n-th to be added, from 1 on."""
    return f"speaker-{number:07d}"


def filling(path: Path) -> closing[Filling]:
    """A filling that is closed at the end of the block."""
    return closing(Filling(path))


def _templates(
    transaction: Transaction,
    tenant: str,
    model: str,
    speakers: Iterable[tuple[int, Vectors]],
    enrollments: int,
) -> Iterable[tuple[int, str, bytes, int, float]]:
    for number, vector in speakers:
        sealed = transaction.seal(tenant, template_context(number, model), to_blob(vector))
        yield number, model, sealed, enrollments, NET_SPEECH_S


def _enrol(
    transaction: Transaction,
    tenant: str,
    models: Sequence[str],
    speaker: int,
    vector: Vectors,
    enrollments: int,
    now: str,
) -> None:
    for turn in range(enrollments):
        number = speaker * enrollments + turn
        transaction.execute(
            "INSERT INTO enrollments (number, speaker, id, net_speech_s, duration_s, snr_db, clipping,"
            " cohesion, created_at) VALUES (?, ?, ?, ?, ?, 20.0, 0.0, NULL, ?)",
            (number, speaker, f"e{turn}", NET_SPEECH_S / enrollments, NET_SPEECH_S, now),
        )
        for model in models:
            sealed = transaction.seal(tenant, embedding_context(number, model), to_blob(vector))
            transaction.execute("INSERT INTO embeddings VALUES (?, ?, ?)", (number, model, sealed))
