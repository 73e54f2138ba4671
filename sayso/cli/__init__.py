"""`sayso`: the command line. A command's module is imported when the command is called."""

from __future__ import annotations

import sys

import typer

from sayso.cli.groups import COMMANDS, LazyGroup

app = typer.Typer(
    name="sayso",
    cls=LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

# Errors that end a command in one line. One of them can only come from a module that is loaded already.
_EXPECTED = (
    ("sayso.enroll.errors", "EnrollError"),
    ("sayso.runtime.errors", "RuntimeFault"),
    ("sayso.service.errors", "ServiceError"),
    ("sayso.models.errors", "CheckpointError"),
    ("sayso.export.parity", "ParityError"),
    ("sayso.evaluate.list_files", "TrialListError"),
    ("sayso.evaluate.plots", "PlotsUnavailableError"),
    ("sayso.train.recipe", "RecipeError"),
    ("sayso.train.manifest", "DataError"),
    ("sayso.train.trainer", "NonFiniteLoss"),
)

__all__ = ["COMMANDS", "app", "main"]


@app.callback()
def sayso() -> None:
    """Self-hosted speaker verification. --json before or after a command prints its answer for machines."""


def main() -> None:
    """Run the command line; expected failures end in one line on standard error and exit status 1."""
    try:
        app()
    except Exception as error:
        expected = tuple(getattr(sys.modules[m], name) for m, name in _EXPECTED if m in sys.modules)
        if not isinstance(error, (OSError, *expected)):
            raise
        message = (
            f"{error.strerror}: {error.filename}" if isinstance(error, OSError) and error.filename else error
        )
        typer.echo(f"sayso: {message}", err=True)
        sys.exit(1)
