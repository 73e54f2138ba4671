"""`sayso bench ...`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from sayso.cli import common
from sayso.cli.common import AsJson, ModelName
from sayso.cli.evaluation import Root, TrialFile
from sayso.cli.groups import group
from sayso.listen import FileError
from sayso.runtime.errors import ModelError

app = group("bench")


@app.callback()
def _bench() -> None:
    """Keep `bench` a group of commands."""


@app.command()
def latency(
    rounds: Annotated[int, typer.Option(min=5, help="Interleaved repetitions.")] = 50,
    peers: Annotated[
        bool, typer.Option("--peers", help="Also CAM++ and Resemblyzer, installed first, beside ours.")
    ] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw the medians into this file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Time the served models, and a verify call to a real server by its stages, on a synthetic voice."""
    from sayso.bench import latency as models
    from sayso.bench import path
    from sayso.bench import peers as others

    if plot:
        try:
            from sayso.bench.pictures import draw_latency
        except ImportError as error:
            raise ModelError("plots need matplotlib: install Sayso with pip install '.[plots]'") from error
    chosen = common.settings()
    files = chosen.served_models()
    with common.progress_bar() as bar:

        def progress(name: str) -> Callable[[int, int], None]:
            task = bar.add_task(name, total=None)
            return lambda done, total: bar.update(task, completed=done, total=total)

        measured = models.measure(files, chosen.provider, rounds, progress("models"))
        served = path.measure(files, chosen.provider, rounds, progress("calls"))
        beside = (
            others.compare(files, chosen.provider, others.default_folder(), rounds, progress("peers"))
            if peers
            else {}
        )
    if plot:
        draw_latency(measured, served, beside, plot)
    facts = {
        **measured.to_dict(),
        "served": served.to_dict(),
        "peers": {n: asdict(t) for n, t in beside.items()},
    }
    text = [models.table(measured), path.table(served), *([others.table(beside)] if beside else [])]
    common.show(facts, as_json, "\n\n".join(text))


@app.command()
def load(
    seconds: Annotated[float, typer.Option(min=1, help="How long each rate is kept up.")] = 20.0,
    model: ModelName = None,
    as_json: AsJson = False,
) -> None:
    """Send verify calls at rising rates to a real server until it saturates; time a bare loop beside it."""
    from sayso.bench.load import measure, table

    chosen = common.settings()
    name = model or chosen.default_of(chosen.served_models())
    with common.progress_bar() as bar:
        task = bar.add_task("rates", total=None)
        measured = measure(
            name,
            common.model_path(name),
            chosen.provider,
            seconds,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    common.show(measured.to_dict(), as_json, table(measured))


@app.command()
def search(
    up_to: Annotated[int, typer.Option(min=1000, help="Speakers in the largest tenant.")] = 1_000_000,
    queries: Annotated[
        int, typer.Option(min=10, help="Searches of each size, half of them strangers.")
    ] = 1000,
    plot: Annotated[Path | None, typer.Option(help="Draw the medians into this file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Time searches among 1,000 to 1,000,000 synthetic speakers, in one tenant and in 1,000, and the start.

    A million speakers take 5 GB of memory, and as much in the folder for temporary files.
    """
    from sayso.bench.search import measure, table

    if plot:
        try:
            from sayso.bench.pictures import draw_search
        except ImportError as error:
            raise ModelError("plots need matplotlib: install Sayso with pip install '.[plots]'") from error
    with common.progress_bar() as bar:
        task = bar.add_task("search", total=None)
        measured = measure(
            up_to, queries, common.settings().served_models(), lambda what: bar.update(task, description=what)
        )
    if plot:
        draw_search(measured, plot)
    common.show(measured.to_dict(), as_json, table(measured))


@app.command()
def replicas(
    store: Annotated[str, typer.Option(help="`postgresql://…`: an empty database to use.")],
    seconds: Annotated[float, typer.Option(min=1, help="How long each turn lasts.")] = 10.0,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of one and of two replicas.")] = 5,
    model: ModelName = None,
    as_json: AsJson = False,
) -> None:
    """Compare two replicas with one on the same PostgreSQL, and count the decisions that it takes."""
    from sayso.bench.replicas import measure, table
    from sayso.service.settings import only_models

    chosen = common.settings()
    name = model or chosen.default_of(chosen.served_models())
    path = common.model_path(name)
    settings = {
        "SAYSO_MODELS": json.dumps(only_models({name: path})),
        "SAYSO_PROVIDER": chosen.provider,
        "SAYSO_THREADS": "1",
    }
    with common.progress_bar() as bar:
        task = bar.add_task("rounds", total=None)
        measured = measure(
            store,
            settings,
            seconds,
            rounds,
            lambda done, total: bar.update(task, completed=done, total=total),
        )
    common.show(measured.to_dict(), as_json, table(measured))


@app.command()
def scale(
    load: Annotated[Path, typer.Argument(help="What `sayso bench load --json` printed.")],
    store: Annotated[Path | None, typer.Option(help="What `sayso bench replicas --json` printed.")] = None,
    docs: Annotated[
        Path | None, typer.Option(help="Write scale.json, the tables of scale.md and its picture here.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Simulate the queueing beside the measured load, and work out 10 to 10,000 requests a second."""
    from sayso.bench.scale import fill, table, work_out

    try:
        measured = json.loads(load.read_text())
        kept = json.loads(store.read_text()) if store else {}
    except (OSError, ValueError) as error:
        raise FileError(f"no measurement can be read: {error}") from error
    with common.progress_bar() as bar:
        task = bar.add_task("rates", total=None)
        facts = work_out(measured, kept, lambda done, total: bar.update(task, completed=done, total=total))
    if docs:
        try:
            from sayso.bench.pictures import draw_scale
        except ImportError as error:
            raise ModelError("plots need matplotlib: install Sayso with pip install '.[plots]'") from error
        (docs / "scale.json").write_text(json.dumps(facts, indent=1) + "\n")
        page = docs / "scale.md"
        page.write_text(fill(page.read_text(), facts))
        draw_scale(facts, docs / "pictures" / "scale.svg")
    common.show(facts, as_json, table(facts))


@app.command()
def conditions(
    trials: TrialFile,
    root: Root,
    as_json: AsJson = False,
) -> None:
    """Measure the EER of each served model with 1 to 10 s of speech, at 8 kHz, and in noise."""
    from sayso.bench.conditions import measure, table
    from sayso.evaluate.trials import read_trials

    chosen = common.settings()
    with common.progress_bar() as bar:
        task = bar.add_task("recordings", total=None)
        rows = measure(
            chosen.served_models(),
            read_trials(trials),
            root,
            chosen.provider,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    common.show([row.to_dict() for row in rows], as_json, table(rows))


@app.command()
def study(
    folder: Annotated[
        Path, typer.Argument(help="A folder with one folder for each row, as `make study` leaves them.")
    ],
    trials: TrialFile,
    root: Root,
    reference: Annotated[str, typer.Option(help="The row whose speed is 1.")] = "baseline-asp",
    plot: Annotated[Path | None, typer.Option(help="Draw the runs' journals into this file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print the study's table, and what the levels of each network do."""
    try:
        from sayso.bench.study import collect, table
        from sayso.train.plots import draw_journals
    except ImportError as error:
        raise ModelError("the study needs PyTorch: install Sayso with pip install '.[train]'") from error
    from sayso.evaluate.trials import read_trials

    rows = {path.parent.name: path.parent for path in sorted(folder.glob("*/log.jsonl"))}
    if not rows:
        raise ModelError(f"{folder} holds no row: run make study ROW=nested first")
    with common.progress_bar() as bar:
        task = bar.add_task("rows", total=len(rows))
        measured = collect(
            rows, read_trials(trials), root, progress=lambda done, total: bar.update(task, completed=done)
        )
    if plot:
        draw_journals({name: path / "log.jsonl" for name, path in rows.items()}, plot)
    common.show([row.to_dict() for row in measured], as_json, table(measured, reference))
