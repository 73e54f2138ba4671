"""`sayso enroll`, `verify` and `identify`: the service's work on the same store, without a running service.

`enroll` exits with 1 if any recording is refused. `verify` and `identify` exit with 0 whatever they decide.
"""

from __future__ import annotations

import itertools
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from sayso.bulk import Person, Report, Row, enroll_all, enroll_person, loose_rows, read_source
from sayso.cli import common
from sayso.cli.common import AsJson, Channel, ModelName, Tenant
from sayso.runtime.audio import MIX, SentAudio
from sayso.service.schemas import (
    EnrollmentAdded,
    Identification,
    IdentifyThreshold,
    ThresholdOut,
    Verification,
)

app = typer.Typer()

SpeakerId = Annotated[str, typer.Argument(metavar="ID", help="The speaker's id.")]
File = Annotated[Path, typer.Argument(metavar="FILE", help="A recording.")]


@app.command()
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
        Path | None, typer.Option(help="With --from: write the outcome for each recording to this CSV.")
    ] = None,
    channel: Channel = MIX,
    tenant: Tenant = "default",
    as_json: AsJson = False,
) -> None:
    """Add recordings to a speaker, who is created if new; or enrol many with --from."""
    if source is not None:
        if speaker_id is not None:
            raise typer.BadParameter("--from takes ids and recordings from the folder or CSV: give no others")
        _enroll_many(source, report, channel, tenant, as_json)
        return
    if speaker_id is None or not files:
        raise typer.BadParameter("give an id and recordings, or --from FOLDER")
    person = Person(speaker_id, files=files)
    with common.engine() as engine, common.stages() as stage:
        done = itertools.count(1)
        outcomes = enroll_person(
            engine,
            person,
            lambda: common.call(tenant),
            lambda: stage("recordings", next(done), len(files)),
            channel,
        )
    refused = [row for row, _ in outcomes if row.outcome == "refused"]
    for row in refused:
        typer.echo(f"sayso: {row.path}: {row.detail}", err=True)
    for row, item in outcomes:
        for warning in item.enrollment.warnings + item.audio.warnings if item else []:
            common.warn(f"{row.path}: {warning}")
    added = [item for _, item in outcomes if item is not None]
    answers = [asdict(row) if item is None else item.model_dump() for row, item in outcomes]
    if added or as_json:
        common.show(answers, as_json, _enrolment(speaker_id, added, len(files)))
    if refused:
        raise typer.Exit(1)


def _enrolment(speaker_id: str, added: list[EnrollmentAdded], tried: int) -> str:
    if not added:
        return f"{speaker_id}: nothing was enrolled"
    last = added[-1]
    text = f"{speaker_id}: {last.status}, {last.net_speech_s:.1f} s of speech"
    if last.remaining_speech_s:
        text += f", {last.remaining_speech_s:.1f} s more needed"
    return text if len(added) == tried else f"{text}; {len(added)} of {tried} recordings taken"


def _enroll_many(source: Path, report: Path | None, channel: str, tenant: str, as_json: bool) -> None:
    read = read_source(source)
    people = read.people
    loose = [file for file in read.loose if report is None or file.resolve() != report.resolve()]
    rows: list[Row] = []
    with ExitStack() as stack:
        written = Report(stack.enter_context(report.open("w", newline=""))) if report else None
        engine = stack.enter_context(common.engine())
        bar = stack.enter_context(common.progress_bar())
        task = bar.add_task("recordings", total=sum(len(person.files) for person in people))
        enrolled_rows = enroll_all(
            engine, people, lambda: common.call(tenant), lambda: bar.advance(task), channel
        )
        for row in itertools.chain(loose_rows(loose), enrolled_rows):
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


@app.command()
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


@app.command()
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
        f"{answer.decision}{reason}: score {_score(answer.score)}{_llr(answer.llr)}, threshold "
        f"{_threshold(answer.threshold)}"
    )


def _identification(answer: Identification) -> str:
    reason = f" ({answer.reason})" if answer.reason else ""
    speaker = f" {answer.speaker_id}" if answer.speaker_id else ""
    lines = [
        f"{answer.decision}{speaker}{reason}: threshold {_threshold(answer.threshold)} "
        f"among {answer.searched}"
    ]
    lines += [f"  {c.rank}. {c.speaker_id}  score {_score(c.score)}{_llr(c.llr)}" for c in answer.candidates]
    if answer.not_compared:
        lines.append(
            f"  {answer.not_compared} speakers were enrolled without {answer.model.name}, so they were not "
            f"compared: sayso speakers outdated --model {answer.model.name}"
        )
    return "\n".join(lines)


def _threshold(threshold: ThresholdOut | IdentifyThreshold) -> str:
    value = f"{threshold.score:.3f}" if threshold.llr is None else f"LLR {threshold.llr:+.1f}"
    outside = f", outside the calibration: {', '.join(threshold.outside)}" if threshold.outside else ""
    return f"{value} at {threshold.operating_point}{outside}"


def _llr(value: float | None) -> str:
    return "" if value is None else f", LLR {value:+.1f}"


def _score(value: float | None) -> str:
    return "withheld" if value is None else f"{value:.3f}"
