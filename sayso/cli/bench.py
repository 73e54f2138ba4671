"""`sayso bench ...`."""

from __future__ import annotations

from typing import Annotated

import typer

from sayso.cli import common
from sayso.cli.common import AsJson

app = typer.Typer(help="Measure, side by side in one run.", no_args_is_help=True)


@app.callback()
def _bench() -> None:
    """Keep `bench` a group of commands."""


@app.command()
def latency(
    rounds: Annotated[int, typer.Option(min=5, help="Interleaved repetitions.")] = 50,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 means all cores.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Time each stage of each served model on 1, 3 and 10 s of a synthetic voice."""
    from bench.latency import measure, table

    chosen = common.settings()
    with common.progress_bar() as bar:
        task = bar.add_task("rounds", total=None)
        rows = measure(
            chosen.models,
            chosen.provider,
            threads,
            rounds,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    common.show([row.to_dict() for row in rows], as_json, table(rows))
