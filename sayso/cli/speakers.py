"""`sayso speakers ...`."""

from __future__ import annotations

from typing import Annotated

import typer

from sayso.cli import common
from sayso.cli.common import AsJson, Tenant
from service.schemas import SpeakerOut, SpeakerPage

app = typer.Typer(help="List, show and delete speakers.", no_args_is_help=True)
SpeakerId = Annotated[str, typer.Argument(metavar="ID")]


@app.command("list")
def list_(
    tenant: Tenant = "default",
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 100,
    cursor: Annotated[str | None, typer.Option(help="Go on from here.")] = None,
    as_json: AsJson = False,
) -> None:
    """List speakers in the order they were created."""
    with common.store() as store:
        page = SpeakerPage.model_validate(store.speakers(tenant, limit, cursor))
    lines = [f"{s.id}\t{s.status}\t{s.net_speech_s:.1f} s\t{s.name or ''}" for s in page.items]
    if page.next_cursor:
        lines.append(f"more: --cursor {page.next_cursor}")
    common.show(page, as_json, "\n".join(lines) or "no speakers")


@app.command()
def show(speaker_id: SpeakerId, tenant: Tenant = "default", as_json: AsJson = False) -> None:
    """Show one speaker."""
    with common.store() as store:
        speaker = SpeakerOut.model_validate(store.speaker(tenant, speaker_id))
    lines = (f"{key}: {value}" for key, value in speaker.model_dump().items())
    common.show(speaker, as_json, "\n".join(lines))


@app.command()
def delete(speaker_id: SpeakerId, tenant: Tenant = "default", as_json: AsJson = False) -> None:
    """Delete a speaker with all enrolments, for good."""
    with common.store() as store:
        store.delete_speaker(tenant, speaker_id)
    common.show({"deleted": speaker_id}, as_json, f"deleted {speaker_id}")
