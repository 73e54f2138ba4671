"""`sayso audit ...`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from sayso.cli import common
from sayso.cli.common import AsJson
from sayso.cli.groups import group

app = group("audit")


@app.command()
def verify(
    head: Annotated[
        str | None,
        typer.Option(
            metavar="ENTRY:MAC",
            help="The head that an earlier run printed; its entry must still be in the log.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Go through the whole chain; 1 if an entry was changed, removed or put in."""
    with common.store() as store:
        report = store.audit.verify(_head(head))
    if report.broken is None:
        text = f"{report.entries} entries, unbroken; head {report.entries}:{report.head}"
    else:
        text = f"BROKEN at entry {report.broken}; {report.entries} entries before it fit"
    common.show(asdict(report), as_json, text)
    if report.broken is not None:
        raise typer.Exit(1)


@app.command("list")
def list_(
    tenant: Annotated[str | None, typer.Option(help="Only entries of this tenant.")] = None,
    speaker: Annotated[
        str | None, typer.Option(help="Only entries of this speaker, also after deletion.")
    ] = None,
    after: Annotated[int, typer.Option(min=0, help="Start after this entry.")] = 0,
    limit: Annotated[int, typer.Option(min=1, help="The most entries to list.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List entries, oldest first. Speakers appear as pseudonyms."""
    if speaker is not None and tenant is None:
        tenant = "default"
    with common.store() as store:
        events = store.audit.events(tenant, speaker, after, limit)
    lines = [
        f"{e.number}\t{e.at}\t{e.event}\t{e.tenant or '-'}\t{e.speaker or '-'}\t{e.actor}\t"
        + " ".join(f"{key}={value}" for key, value in e.facts.items())
        for e in events
    ]
    common.show([asdict(event) for event in events], as_json, "\n".join(lines) or "no entries")


def _head(text: str | None) -> tuple[int, str] | None:
    if text is None:
        return None
    number, _, mac = text.partition(":")
    if not (number.isdigit() and mac):
        raise typer.BadParameter(
            "give it as ENTRY:MAC, as `sayso audit verify` prints it", param_hint="--head"
        )
    return int(number), mac
