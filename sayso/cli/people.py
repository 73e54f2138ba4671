"""`sayso enroll`, `verify` and `identify`: the service's decisions without the service."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from sayso.bulk import Report, enroll_all, enrollment_id, read_source
from sayso.cli import common
from sayso.cli.common import AsJson, Channel, ModelName, Tenant
from sayso.enroll.errors import SpeakerNotFound
from sayso.runtime.audio import MIX, SentAudio
from sayso.service.schemas import Identification, Verification

SpeakerId = Annotated[str, typer.Argument(metavar="ID", help="The speaker's id.")]
File = Annotated[Path, typer.Argument(metavar="FILE", help="A recording.")]


def register(app: typer.Typer) -> None:
    app.command()(enroll)
    app.command()(verify)
    app.command()(identify)


def enroll(
    speaker_id: Annotated[str | None, typer.Argument(metavar="ID", help="The speaker's id.")] = None,
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="FILES...", help="Recordings of the speaker.")
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option("--from", help="Many at once: a folder with one folder a speaker, or a CSV."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="With --from: write what became of each recording here, as CSV.")
    ] = None,
    channel: Channel = MIX,
    tenant: Tenant = "default",
    as_json: AsJson = False,
) -> None:
    """Add recordings to a speaker, who is created if new; or enrol many with --from."""
    if source is not None:
        if speaker_id is not None:
            raise typer.BadParameter("--from takes ids and recordings from the folder or CSV: give no others")
        return _enroll_many(source, report, channel, tenant, as_json)
    if speaker_id is None or not files:
        raise typer.BadParameter("give an id and recordings, or --from FOLDER")
    recordings = [file.read_bytes() for file in files]  # all of them, before anything is changed
    with common.engine() as engine:
        try:
            engine.store.speaker(tenant, speaker_id)
        except SpeakerNotFound:
            engine.store.create_speaker(tenant, speaker_id)
        # The id follows from the bytes: the same command again adds nothing twice.
        added = [
            engine.enroll(
                common.call(tenant),
                speaker_id,
                SentAudio(data, channel=channel),
                enrollment_id(data, channel),
            )
            for data in recordings
        ]
    last = added[-1]
    text = f"{speaker_id}: {last.status}, {last.net_speech_s:.1f} s of speech"
    if last.remaining_speech_s:
        text += f", {last.remaining_speech_s:.1f} s more needed"
    return common.show([item.model_dump() for item in added], as_json, text)


def _enroll_many(source: Path, report: Path | None, channel: str, tenant: str, as_json: bool) -> None:
    people = read_source(source)
    rows = []
    with ExitStack() as stack:
        written = Report(stack.enter_context(report.open("w", newline=""))) if report else None
        engine = stack.enter_context(common.engine())
        bar = stack.enter_context(common.progress_bar())
        task = bar.add_task("recordings", total=sum(len(person.files) for person in people))
        new_call, advance = (lambda: common.call(tenant)), (lambda: bar.advance(task))
        for row in enroll_all(engine, people, new_call, advance, channel):
            rows.append(row)
            if written:
                written.add(row)
    last = {row.speaker: row.status for row in rows if row.status}
    enrolled = sum(status == "enrolled" for status in last.values())
    refused = [row for row in rows if row.outcome == "refused"]
    lines = [f"{row.path}: {row.detail}" for row in refused[:20]]
    if len(refused) > len(lines):
        lines.append(f"and {len(refused) - len(lines)} more")
    lines.append(
        f"{len(rows) - len(refused)} of {len(rows)} recordings taken; "
        f"{enrolled} of {len(people)} speakers enrolled"
    )
    common.show([asdict(row) for row in rows], as_json, "\n".join(lines))
    if refused:
        raise typer.Exit(1)


def verify(
    speaker_id: SpeakerId,
    file: File,
    model: ModelName = None,
    channel: Channel = MIX,
    tenant: Tenant = "default",
    as_json: AsJson = False,
) -> None:
    """Is this recording of that speaker?"""
    with common.engine() as engine:
        audio = SentAudio(file.read_bytes(), channel=channel)
        answer = engine.verify(common.call(tenant), speaker_id, audio, model)
    common.show(answer, as_json, _verification(answer))


def identify(
    file: File,
    model: ModelName = None,
    top_k: Annotated[int, typer.Option(min=1, max=100, help="Candidates to list.")] = 5,
    group: Annotated[str | None, typer.Option(help="Search only this group.")] = None,
    channel: Channel = MIX,
    tenant: Tenant = "default",
    as_json: AsJson = False,
) -> None:
    """Who, of the enrolled speakers, is this?"""
    with common.engine() as engine:
        audio = SentAudio(file.read_bytes(), channel=channel)
        answer = engine.identify(common.call(tenant), audio, model, top_k, group)
    common.show(answer, as_json, _identification(answer))


def _verification(answer: Verification) -> str:
    reason = f" ({answer.reason})" if answer.reason else ""
    return (
        f"{answer.decision}{reason}: score {_score(answer.score)}, threshold {answer.threshold.value:.3f} "
        f"at {answer.threshold.operating_point}{_llr(answer.llr)}"
    )


def _identification(answer: Identification) -> str:
    reason = f" ({answer.reason})" if answer.reason else ""
    found = f" {answer.speaker_id}" if answer.speaker_id else ""
    lines = [
        f"{answer.decision}{found}{reason}: threshold {answer.threshold.value:.3f} at "
        f"{answer.threshold.operating_point} among {answer.searched}"
    ]
    lines += [f"  {c.rank}. {c.speaker_id}  score {_score(c.score)}{_llr(c.llr)}" for c in answer.candidates]
    return "\n".join(lines)


def _llr(value: float | None) -> str:
    return "" if value is None else f", LLR {value:+.1f}"


def _score(value: float | None) -> str:
    return "withheld" if value is None else f"{value:.3f}"
