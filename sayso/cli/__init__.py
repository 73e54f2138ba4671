"""`sayso`: the command line. Rooms that need torch are imported by the commands that use them."""

from __future__ import annotations

import getpass
import sys

import typer

from sayso.cli import (
    audit,
    bench,
    doctor,
    keys,
    model,
    people,
    serve,
    speakers,
    store,
    stores,
    tenants,
    train,
)
from sayso.enroll.errors import EnrollError
from sayso.enroll.secrets.transaction import actor
from sayso.runtime.errors import RuntimeFault
from sayso.service.errors import ServiceError

app = typer.Typer(
    name="sayso",
    help="Self-hosted speaker verification.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for room in (serve, people, model, train, store, doctor):
    room.register(app)
app.add_typer(speakers.app, name="speakers")
app.add_typer(keys.app, name="keys")
app.add_typer(tenants.app, name="tenants")
app.add_typer(stores.app, name="store")
app.add_typer(audit.app, name="audit")
app.add_typer(bench.app, name="bench")

# Errors of rooms that are only loaded when used: a fault can only come from a module already there.
_LAZY = (
    ("sayso.models.errors", "CheckpointError"),
    ("sayso.export.parity", "ParityError"),
    ("sayso.evaluate.trials", "TrialListError"),
    ("sayso.evaluate.plots", "PlotsUnavailableError"),
    ("sayso.train.recipe", "RecipeError"),
    ("sayso.train.features", "DataError"),
    ("sayso.train.trainer", "NonFiniteLoss"),
)


def main() -> None:
    """Run the command line; expected failures end in one line on standard error and exit status 1."""
    actor.set(f"cli:{getpass.getuser()}")
    try:
        app()
    except Exception as error:
        lazy = tuple(getattr(sys.modules[m], name) for m, name in _LAZY if m in sys.modules)
        if not isinstance(error, (EnrollError, RuntimeFault, ServiceError, OSError, *lazy)):
            raise
        message = (
            f"{error.strerror}: {error.filename}" if isinstance(error, OSError) and error.filename else error
        )
        typer.echo(f"sayso: {message}", err=True)
        sys.exit(1)
