"""`sayso store ...`: from one database to another, and indexes of large tenants."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import TaskID

from sayso.cli import common
from sayso.cli.common import AsJson
from sayso.enroll.db.address import is_postgres, open_database
from sayso.enroll.errors import CopyRefused, InvalidField
from sayso.enroll.moving.copying import copy_store, differing_answers
from sayso.enroll.search.index import index_of
from sayso.enroll.store import Store

app = typer.Typer(help="Copy the store to another database; index large tenants there.", no_args_is_help=True)
LARGE = 50_000
_SQLITE = "sqlite:"
Address = Annotated[str, typer.Argument(metavar="ADDRESS", help="sqlite:PATH or postgresql://…")]


@app.command()
def copy(source: Address, target: Address, as_json: AsJson = False) -> None:
    """Copy a whole store to an empty database and compare the two; cut short, run it again and it goes on.

    No server may use either meanwhile. The copy opens with the same master key, and API keys go on working.
    """
    chosen = common.settings()
    ours, theirs = _location(source), _location(target)
    if isinstance(ours, Path) and not ours.is_file():
        raise CopyRefused(f"{ours} is no file.")
    keys, required = chosen.key_source, chosen.enroll_required_speech_s
    with (
        closing(open_database(ours, patient=True)) as one,
        closing(open_database(theirs, patient=True)) as other,
        common.progress_bar() as bar,
    ):
        tasks: dict[str, TaskID] = {}

        def advance(table: str, done: int, total: int) -> None:
            if table not in tasks:
                tasks[table] = bar.add_task(table, total=total)
            bar.update(tasks[table], completed=done)

        copied = copy_store(one, other, keys, advance)
    with Store(ours, required, keys) as before, Store(theirs, required, keys) as after:
        differing = differing_answers(before, after)
    if differing:
        raise CopyRefused(f"{len(differing)} searches are answered differently, the first: {differing[0]}.")
    text = (
        f"{'the rest was copied' if copied.resumed else 'copied'}: {copied.rows['speakers']} speakers and "
        f"{copied.rows['templates']} templates. Every table has as many rows, the least cosine of two "
        f"templates is {copied.least_score:.6f}, and searches agree. Serve it with the same master key."
    )
    common.show(asdict(copied), as_json, text)


@app.command()
def index(
    above: Annotated[
        int, typer.Option(min=0, help="Only for tenants with more templates than this.")
    ] = LARGE,
    as_json: AsJson = False,
) -> None:
    """Make an approximate (HNSW) index for each large tenant on PostgreSQL, also while it is used.

    Without one, every search scans the tenant's templates and is exact.
    """
    from sayso.enroll.search.postgres import PostgresIndex  # needs the extra

    with common.settings().open_store(patient=True) as store:
        searching = index_of(store)
        if not isinstance(searching, PostgresIndex):
            raise InvalidField("SAYSO_STORE", "the embedded store has no such index; it always scans")
        found = searching.large(above)
        with common.progress_bar() as bar:
            task = bar.add_task("indexes", total=sum(not one.indexed for one in found))
            for one in found:
                if not one.indexed:
                    searching.make_index(one.tenant, one.model_sha256)
                    bar.advance(task)
    lines = [
        f"{one.tenant}\tmodel {one.model_sha256[:12]}\t{one.templates} templates\t"
        + ("had an index" if one.indexed else "indexed")
        for one in found
    ]
    common.show(
        [asdict(one) for one in found], as_json, "\n".join(lines) or f"no tenant has more than {above}"
    )


def _location(address: str) -> Path | str:
    if is_postgres(address):
        return address
    if not address.startswith(_SQLITE):
        raise typer.BadParameter(f"{address}: give sqlite:PATH or postgresql://…")
    return Path(address.removeprefix(_SQLITE).removeprefix("//"))
