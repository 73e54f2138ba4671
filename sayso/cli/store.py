"""`sayso backup`, `restore` and `check`: the store as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from sayso.cli import common
from sayso.cli.common import AsJson
from sayso.enroll.errors import BackupRefused
from sayso.enroll.moving.backup import make_backup
from sayso.enroll.moving.restore import restore_backup
from sayso.enroll.search.index import index_of


def register(app: typer.Typer) -> None:
    app.command()(backup)
    app.command()(restore)
    app.command()(check)


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    with common.progress_bar() as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file that does not exist yet.")],
    as_json: AsJson = False,
) -> None:
    """Copy the store to a file, also while the service runs. The master key is not in it."""
    with common.store() as store, _progress("pages") as advance:
        made = make_backup(store, file, advance)
    text = (
        f"{made.path}: complete and checked. It opens with master key {made.master_key}, which is not in it."
    )
    common.show(asdict(made), as_json, text)


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file that `sayso backup` made.")],
    as_json: AsJson = False,
) -> None:
    """Go back to a backup, also while the service runs. What was erased since stays erased."""
    chosen = common.settings()
    if chosen.store is not None:
        raise BackupRefused(
            "A store on PostgreSQL is restored with PostgreSQL's own tools: use pg_restore, or recovery to a "
            "point in time (docs/how-to/postgresql.md)."
        )
    with _progress("pages") as advance:
        restored = restore_backup(chosen.store_path, file, chosen.key_source, advance)
    text = f"restored {restored.speakers} speakers"
    if restored.erased_since:
        text += f"; {restored.erased_since} of the backup's were erased since and stay so"
    common.show(asdict(restored), as_json, text)


def check(
    repair: Annotated[bool, typer.Option("--repair", help="Make every template again first.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check the file, every sealed value, the templates, the index and the audit log; 1 if one is wrong."""
    with common.settings().open_store(patient=True) as store:
        if repair:
            store.rebuild_templates()
        problems = store.check() + store.check_templates()
        if not problems:  # an index is built from what has just been found sound
            index = index_of(store)
            index.warm()
            problems = index.check()
        audit = store.audit.verify()
    if audit.broken is not None:
        problems.append(f"audit log: broken at entry {audit.broken}")
    common.show({"problems": problems, "audit": asdict(audit)}, as_json, "\n".join(problems) or "sound")
    if problems:
        raise typer.Exit(1)
