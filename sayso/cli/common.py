"""What several commands share: settings, models by name, the engine, output, progress."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sayso.enroll.store import Store
from sayso.runtime.errors import ModelError
from sayso.service.call import Call
from sayso.service.engine import Engine
from sayso.service.metrics import Metrics
from sayso.service.settings import Settings

AsJson = Annotated[bool, typer.Option("--json", help="Print machine-readable JSON.")]
ModelName = Annotated[str | None, typer.Option("--model", help="A served model; the default one if absent.")]
Channel = Annotated[
    str,
    typer.Option(
        help="The channel that holds the speaker: left, right or a number from 1; mix is their mean."
    ),
]
Tenant = Annotated[str, typer.Option(help="Whose speakers.")]


def settings(**overrides: Any) -> Settings:
    """The settings from the environment; a bad one ends the command with a line naming it."""
    try:
        return Settings(**{k: v for k, v in overrides.items() if v is not None})
    except SettingsError as error:  # JSON that does not parse
        raise typer.BadParameter(f"SAYSO_{str(error).split(chr(34))[1].upper()} is not valid JSON") from None
    except ValidationError as error:
        lines = [f"SAYSO_{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors()]
        raise typer.BadParameter("; ".join(lines)) from None


def model_path(name: str | None) -> Path:
    """A model file by its served name or its path, the default one for None; raises `ModelError`."""
    chosen = settings()
    served = chosen.models
    if name is None:
        name = chosen.default_model or next(iter(served))
    if name in served:
        return served[name]
    path = Path(name)
    if path.is_file():
        return path
    raise ModelError(f"no model {name!r}: give a path to an .onnx file or one of {', '.join(served)}")


@contextmanager
def engine() -> Iterator[Engine]:
    """The service's engine on the service's own store, for one command."""
    running = Engine(settings(), Metrics())
    try:
        yield running
    finally:
        running.close()


def store() -> Store:
    """The service's own store, for commands that embed nothing."""
    return settings().open_store()


def call(tenant: str) -> Call:
    """The operator's: it sees scores and is not held to attempts."""
    return Call(tenant, uuid.uuid4().hex, scores=True, attempt=None)


def show(value: Any, as_json: bool, text: str) -> None:
    """Print `value` as JSON or the text for people."""
    if not as_json:
        typer.echo(text)
    elif hasattr(value, "model_dump_json"):
        typer.echo(value.model_dump_json(indent=2))
    else:
        typer.echo(json.dumps(value, indent=2))


def held_by(backups: list[tuple[str, str]]) -> str:
    """Say which backups still hold what was just deleted."""
    if not backups:
        return ""
    files = "".join(f"\n  {path} ({made_at})" for made_at, path in backups)
    return f"\nBackups made before still hold this, sealed; delete them or let them run out:{files}"


def progress_bar() -> Progress:
    """A progress bar on standard error, silent where that is no terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)


@contextmanager
def private_file(path: Path) -> Iterator[TextIO]:
    """A new file that only its owner can read, there when it is whole; raises `FileExistsError`."""
    if path.exists():
        raise FileExistsError(17, "the file exists already", str(path))
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.link(partial, path)  # unlike a rename, it does not replace what came in between
    finally:
        partial.unlink(missing_ok=True)
