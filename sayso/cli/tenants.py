"""`sayso tenants ...`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from sayso.cli import common
from sayso.cli.common import AsJson
from sayso.cli.groups import group

app = group("tenants")
Name = Annotated[str, typer.Argument(metavar="TENANT")]


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List tenants."""
    with common.store() as store:
        tenants = store.tenants.list()
    lines = [
        f"{t.name}\t{t.speakers} speakers\t"
        + (f"{t.recordings} recordings kept" if t.keep_recordings else "recordings not kept")
        + f"\tkey made {t.key_made_at or 'never'}"
        for t in tenants
    ]
    common.show([asdict(t) for t in tenants], as_json, "\n".join(lines) or "no tenants")


@app.command("keep-recordings")
def keep_recordings(
    tenant: Name,
    keep: Annotated[bool, typer.Option("--yes/--no", help="--no also deletes those kept so far.")],
    as_json: AsJson = False,
) -> None:
    """Choose whether enrolled recordings are kept, sealed, so that another model can embed them later."""
    with common.store() as store:
        store.tenants.keep_recordings(tenant, keep)
    text = f"{tenant}: recordings are {'kept from now on' if keep else 'not kept; earlier ones are deleted'}"
    common.show({"tenant": tenant, "keep_recordings": keep}, as_json, text)


@app.command("rotate-key")
def rotate_key(tenant: Name, as_json: AsJson = False) -> None:
    """Seal everything of a tenant under a new key and destroy the old one, also while the service runs."""
    with common.store() as store, common.progress_bar() as bar:
        task = bar.add_task("values", total=None)
        values = store.tenants.rotate_key(tenant, lambda done: bar.advance(task, done))
    common.show({"tenant": tenant, "values": values}, as_json, f"{tenant}: {values} values under a new key")


@app.command()
def delete(
    tenant: Name,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Erase a tenant: speakers, API keys, and the keys all was sealed with. For good."""
    if not yes:
        typer.confirm(f"Erase everything of {tenant}?", abort=True)
    with common.store() as store:
        speakers = store.tenants.delete(tenant)
        backups = store.backups()
    text = f"deleted {tenant} with {speakers} speakers{common.held_by(backups)}"
    common.show({"deleted": tenant, "speakers": speakers, "backups": backups}, as_json, text)
