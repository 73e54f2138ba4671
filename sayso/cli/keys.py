"""`sayso keys ...`."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from enroll.keys import SCOPES, ApiKey
from sayso.cli import common
from sayso.cli.common import AsJson

app = typer.Typer(help="Create, list and revoke API keys.", no_args_is_help=True)


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
    """Make a key; its text is shown only now. Without --scope it may read, enrol and verify."""
    expires = datetime.now(UTC) + timedelta(days=days) if days else None
    with common.store() as store:
        key, text = store.keys.create_key(tenant, scope or ["read", "enroll", "verify"], label, expires)
    common.show({**_facts(key), "key": text}, as_json, text)


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List keys; their texts are not kept."""
    with common.store() as store:
        keys = store.keys.list_keys()
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
        key = store.keys.revoke_key(key_id)
    common.show(_facts(key), as_json, f"revoked {key.id}")
