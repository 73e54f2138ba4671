"""`sayso speakers ...`."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from sayso.cli import common
from sayso.cli.common import AsJson, ModelName, Tenant
from sayso.cli.groups import group

app = group("speakers")
SpeakerId = Annotated[str, typer.Argument(metavar="ID")]


@app.command("list")
def list_(
    tenant: Tenant = "default",
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 100,
    cursor: Annotated[str | None, typer.Option(help="Go on from here.")] = None,
    as_json: AsJson = False,
) -> None:
    """List speakers in the order they were created."""
    from sayso.service.schemas import SpeakerPage

    with common.store() as store:
        page = SpeakerPage.model_validate(store.speakers(tenant, limit, cursor))
    lines = [f"{s.id}\t{s.status}\t{s.net_speech_s:.1f} s\t{s.name or ''}" for s in page.items]
    if page.next_cursor:
        lines.append(f"more: --cursor {page.next_cursor}")
    common.show(page, as_json, "\n".join(lines) or "no speakers")


@app.command()
def show(speaker_id: SpeakerId, tenant: Tenant = "default", as_json: AsJson = False) -> None:
    """Show one speaker."""
    from sayso.service.schemas import SpeakerOut

    with common.store() as store:
        speaker = SpeakerOut.model_validate(store.speaker(tenant, speaker_id))
    lines = (f"{key}: {value}" for key, value in speaker.model_dump().items())
    common.show(speaker, as_json, "\n".join(lines))


@app.command()
def delete(speaker_id: SpeakerId, tenant: Tenant = "default", as_json: AsJson = False) -> None:
    """Delete a speaker with all enrolments, for good."""
    with common.store() as store:
        backups = store.delete_speaker(tenant, speaker_id)
    text = f"deleted {speaker_id}{common.held_by(backups)}"
    common.show({"deleted": speaker_id, "backups": backups}, as_json, text)


@app.command()
def disclose(
    speaker_id: SpeakerId,
    out: Annotated[Path | None, typer.Option(help="A new file instead of standard output.")] = None,
    tenant: Tenant = "default",
) -> None:
    """Write everything kept on a speaker as JSON: fields, vectors, kept recordings, audit entries."""
    with common.store() as store:
        everything = store.rights.everything_about(tenant, speaker_id)
    text = json.dumps(everything, indent=2)
    if out is None:
        typer.echo(text)
        return
    with os.fdopen(os.open(out, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        file.write(text + "\n")
    typer.echo(f"wrote {out}: it holds voice vectors, unsealed")


@app.command("opt-out")
def opt_out(speaker_id: SpeakerId, tenant: Tenant = "default", as_json: AsJson = False) -> None:
    """Block an id from enrolment and every decision, also one that was never enrolled."""
    with common.store() as store:
        store.rights.opt_out(tenant, speaker_id)
    common.show({"opted_out": speaker_id}, as_json, f"{speaker_id} has opted out")


@app.command("opt-in")
def opt_in(speaker_id: SpeakerId, tenant: Tenant = "default", as_json: AsJson = False) -> None:
    """Withdraw an opt-out, with the person's consent."""
    with common.store() as store:
        store.rights.opt_in(tenant, speaker_id)
    common.show({"opted_in": speaker_id}, as_json, f"{speaker_id} may be enrolled")


@app.command("outdated")
def outdated_(model: ModelName = None, as_json: AsJson = False) -> None:
    """List enrolled speakers whom a served model cannot compare, since they were enrolled without it."""
    from sayso.runtime.model_file import network_sha256

    sha256 = network_sha256(common.model_path(model).read_bytes())
    with common.store() as store:
        outdated = store.recordings.outdated(sha256)
    lines = [
        f"{o.tenant}\t{o.speaker_id}\t{'recordings kept' if o.recordings else 'must enrol again'}"
        for o in outdated
    ]
    common.show([asdict(o) for o in outdated], as_json, "\n".join(lines) or "none")


@app.command("reembed")
def reembed_(as_json: AsJson = False) -> None:
    """Embed kept recordings with models served since; the service does the same by itself."""
    from sayso.service.upkeep import reembed

    with common.engine() as engine, common.progress_bar() as bar:
        task = bar.add_task("recordings", total=None)
        done, failed = reembed(engine, lambda tried, total: bar.update(task, completed=tried, total=total))
    text = f"{done} recordings embedded" + (f", {failed} could not be" if failed else "")
    common.show({"embedded": done, "failed": failed}, as_json, text)
    if failed:
        raise typer.Exit(1)


@app.command()
def unlock(speaker_id: SpeakerId, tenant: Tenant = "default", as_json: AsJson = False) -> None:
    """Forget the failed attempts on a speaker, so that they can be verified again at once."""
    from sayso.service.access.attempts import Attempts

    with common.store() as store:
        Attempts(store.database).unlock(tenant, speaker_id)
    common.show({"unlocked": speaker_id}, as_json, f"unlocked {speaker_id}")


@app.command("export")
def export_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write; it must be new.")],
    group: Annotated[str | None, typer.Option(help="Only this group.")] = None,
    tenant: Tenant = "default",
    as_json: AsJson = False,
) -> None:
    """Write speakers with their vectors to a file, for another instance of the same model."""
    from sayso.enroll.moving.transfer import export_speakers

    count = 0

    def counted() -> None:
        nonlocal count
        count += 1
        stage("speakers", count)

    with common.store() as store, common.private_file(file) as out, common.stages() as stage:
        out.writelines(f"{line}\n" for line in export_speakers(store, tenant, group, counted))
    text = f"{file}: {count} speakers. It is biometric data in the clear: keep it as you would a key"
    common.show({"file": str(file), "speakers": count}, as_json, text)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file that `speakers export` wrote.")],
    tenant: Tenant = "default",
    as_json: AsJson = False,
) -> None:
    """Take over exported speakers; doing it again adds nothing twice."""
    from sayso.enroll.moving.transfer import import_speakers
    from sayso.runtime.model_file import network_sha256

    models = {network_sha256(path.read_bytes()) for path in common.settings().served_models().values()}
    with common.store() as store, file.open(encoding="utf-8") as lines, common.stages() as stage:
        stage("speakers")
        done = import_speakers(store, tenant, lines, models)
    lines_ = [f"{speaker}: {why}" for speaker, why in done.refused]
    lines_.append(
        f"{done.created} speakers created, {done.known} known already; {done.enrollments} enrolments added, "
        f"{done.already_there} there already"
    )
    common.show(asdict(done), as_json, "\n".join(lines_))
    if done.refused:
        raise typer.Exit(1)
