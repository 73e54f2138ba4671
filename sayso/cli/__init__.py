"""`sayso`: the command line. A command's module is imported when the command is called."""

from __future__ import annotations

import sys

import typer

from sayso.cli.groups import COMMANDS, LazyGroup
from sayso.domain.errors import SaysoError

app = typer.Typer(
    name="sayso",
    cls=LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

__all__ = ["COMMANDS", "app", "main"]


@app.callback()
def sayso() -> None:
    """Self-hosted speaker verification. --json before or after a command prints its answer for machines."""


def main() -> None:
    """Run the command line; expected failures end in one line on standard error and exit status 1."""
    try:
        app()
    except (OSError, SaysoError) as error:
        message = (
            f"{error.strerror}: {error.filename}" if isinstance(error, OSError) and error.filename else error
        )
        typer.echo(f"sayso: {message}", err=True)
        sys.exit(1)
