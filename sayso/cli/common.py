"""What several commands share: settings, models by name, the engine, output, progress.

Only what every command needs is imported with this module, since each call of the command line waits for it.
"""

from __future__ import annotations

import getpass
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TextIO

import typer

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from sayso.enroll.store import Store
    from sayso.service.call import Call
    from sayso.service.engine import Engine
    from sayso.service.settings import Settings


UNSEEN = "dev-unseen.trials"  # voices that no shipped model was trained on: what models are compared by


class Stage(Protocol):
    """Says how far a stage of long work is."""

    def __call__(self, what: str, done: int = 0, total: int | None = None) -> None: ...


AsJson = Annotated[bool, typer.Option("--json", help="Print machine-readable JSON.")]
ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="An .onnx file or a served name.")]
ModelName = Annotated[str | None, typer.Option("--model", help="A served model; the default one if absent.")]
Channel = Annotated[
    str,
    typer.Option(
        help="The channel that holds the speaker: left, right or a number from 1; mix is their mean."
    ),
]
Tenant = Annotated[str, typer.Option(help="The tenant that the speakers belong to.")]


def settings(**overrides: Any) -> Settings:
    """Read the settings from the environment; a bad one ends the command with a line naming it.

    The audit log names the user of the command line as the actor from here on.
    """
    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    from sayso.enroll.secrets.transaction import actor
    from sayso.service.settings import Settings

    actor.set(f"cli:{user()}")
    try:
        return Settings(**{k: v for k, v in overrides.items() if v is not None})
    except SettingsError as error:  # JSON that does not parse
        raise typer.BadParameter(f"SAYSO_{str(error).split(chr(34))[1].upper()} is not valid JSON") from None
    except ValidationError as error:
        lines = [f"SAYSO_{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors()]
        raise typer.BadParameter("; ".join(lines)) from None


def user() -> str:
    """The name of the user who runs the command; the number of one without a name, as in a container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def model_path(name: str | None) -> Path:
    """Find a model file by its served name or its path, the default one for None; raises `ModelError`."""
    from sayso.runtime.errors import ModelError

    chosen = settings()
    served = chosen.served_models()
    if name is None:
        name = chosen.default_of(served)
    if name in served:
        return served[name]
    path = Path(name)
    if path.is_file():
        return path
    raise ModelError(f"no model {name!r}: give a path to an .onnx file or one of {', '.join(served)}")


@contextmanager
def engine() -> Iterator[Engine]:
    """Open the service's engine on the service's own store, for one command."""
    from sayso.service.engine import Engine
    from sayso.service.metrics import Metrics

    chosen = settings()
    with stages() as stage:
        stage("loading the models")
        running = Engine(chosen, Metrics())
    try:
        yield running
    finally:
        running.close()


def store() -> Store:
    """Open the service's own store, for commands that embed nothing."""
    return settings().open_store()


def call(tenant: str) -> Call:
    """Make a call in the operator's name: it sees scores and is not held to limits on attempts."""
    from sayso.service.call import Call

    return Call(tenant, uuid.uuid4().hex, "", scores=True, operator=True)


def warn(text: str) -> None:
    """Print a warning on standard error."""
    typer.echo(f"sayso: warning: {text}", err=True)


def show(value: Any, as_json: bool, text: str) -> None:
    """Print `value` as JSON or the text for people."""
    if not as_json:
        typer.echo(text)
    elif hasattr(value, "model_dump_json"):
        typer.echo(value.model_dump_json(indent=2))
    else:
        typer.echo(json.dumps(value, indent=2))


def held_by(backups: list[tuple[str, str]]) -> str:
    """Return a sentence naming the backups that still hold what was just deleted; empty without any."""
    if not backups:
        return ""
    files = "".join(f"\n  {path} ({made_at})" for made_at, path in backups)
    return f"\nBackups made before still hold this, sealed; delete them or let them run out:{files}"


def progress_bar() -> Progress:
    """Make a progress bar on standard error, silent where that is no terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, disable=not console.is_terminal)


@contextmanager
def stages() -> Iterator[Stage]:
    """Show long work by its stages, each with a bar of its own.

    What is yielded is called with a stage's name, how much is done and the total, None where it is not known.
    """
    with progress_bar() as bar:
        tasks: dict[str, TaskID] = {}

        def stage(what: str, done: int = 0, total: int | None = None) -> None:
            if what not in tasks:
                for earlier in tasks.values():
                    known = bar.tasks[earlier].total or 1
                    bar.update(earlier, completed=known, total=known)
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done, total=total)

        yield stage


@contextmanager
def private_file(path: Path) -> Iterator[TextIO]:
    """Write a new file that only its owner can read, put in place when it is whole.

    Raises `FileExistsError` if there is such a file.
    """
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
        os.link(partial, path)  # unlike a rename, it does not replace a file that was made meanwhile
    finally:
        partial.unlink(missing_ok=True)
