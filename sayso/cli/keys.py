"""`sayso keys ...`."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from sayso.cli import common
from sayso.cli.common import AsJson
from sayso.enroll.secrets.master_key import KeyFile
from sayso.enroll.store import Store
from sayso.service.access.keys import SCOPES, ApiKey, KeyRing

app = typer.Typer(help="Create, list and revoke API keys; rotate the master key.", no_args_is_help=True)


def _keys(store: Store) -> KeyRing:
    return KeyRing(store.vault)


def _facts(key: ApiKey) -> dict[str, Any]:
    return {**asdict(key), "scopes": sorted(key.scopes)}


@app.command()
def create(
    tenant: Annotated[str, typer.Option(help="Whose speakers it may touch.")] = "default",
    scope: Annotated[list[str] | None, typer.Option(help=f"Any of {', '.join(SCOPES)}.")] = None,
    label: Annotated[str, typer.Option(help="What it is for.")] = "",
    days: Annotated[int | None, typer.Option(min=1, help="Expire after so many days.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key; its text is shown only now.

    Without --scope it may read, enrol, verify and see scores. A key for logging in needs `verify` alone.
    """
    expires = datetime.now(UTC) + timedelta(days=days) if days else None
    with common.store() as store:
        key, text = _keys(store).create_key(
            tenant, scope or ["read", "enroll", "verify", "scores"], label, expires
        )
    common.show({**_facts(key), "key": text}, as_json, text)


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List keys; their texts are not kept."""
    with common.store() as store:
        keys = _keys(store).list_keys()
    lines = [
        f"{k.id}\t{k.tenant}\t{','.join(sorted(k.scopes))}\t{k.label}\t"
        f"{'revoked ' + k.revoked_at if k.revoked_at else 'expires ' + (k.expires_at or 'never')}"
        for k in keys
    ]
    common.show([_facts(k) for k in keys], as_json, "\n".join(lines) or "no keys")


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id, from `keys list`.")],
    as_json: AsJson = False,
) -> None:
    """Revoke a key at once."""
    with common.store() as store:
        key = _keys(store).revoke_key(key_id)
    common.show(_facts(key), as_json, f"revoked {key.id}")


@app.command()
def rotate(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id, from `keys list`.")],
    hours: Annotated[float, typer.Option(min=0, max=8760, help="How long the old key still works.")] = 24,
    as_json: AsJson = False,
) -> None:
    """Make a key's successor, with the same tenant and scopes; the old one works a while longer."""
    with common.store() as store:
        key, text = _keys(store).rotate_key(key_id, timedelta(hours=hours))
    common.show({**_facts(key), "key": text}, as_json, text)


@app.command("rotate-master")
def rotate_master(
    new_file: Annotated[
        Path | None, typer.Option(help="Take the new key from this file, made if there is none.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Wrap all keys with a new master key.

    It takes the place of the present file, the old one is kept beside it, and a running service follows. With
    --new-file start the service again with that file.
    """
    chosen = common.settings()
    source = chosen.key_source
    with common.store() as store:
        if new_file is not None:
            new = KeyFile(new_file).first()
            store.tenants.rotate_master(new)
            text = (
                f"from now on set SAYSO_MASTER_KEY_FILE={new_file.absolute()} (no SAYSO_MASTER_KEY beside it)"
            )
        elif isinstance(source, KeyFile):
            old = source.first()
            new = source.prepare()
            store.tenants.rotate_master(new)
            source.promote(new.id)
            text = (
                f"backups made before open with {source.kept(old.id)} only: "
                "keep that file as long as they matter, then delete it"
            )
        else:
            raise typer.BadParameter(
                "SAYSO_MASTER_KEY is set: name a file for the new key", param_hint="--new-file"
            )
    common.show({"master_key": new.id}, as_json, f"master key {new.id}; {text}")
