"""`sayso train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runtime.errors import ModelError
from runtime.session import available_cores
from sayso.cli import common


def register(app: typer.Typer) -> None:
    app.command()(train)


def train(
    recipe: Annotated[Path, typer.Argument(help="A YAML recipe, such as train/recipes/baseline.yaml.")],
    manifest: Annotated[Path, typer.Option(help="A CSV with path, speaker, split; paths beside it.")],
    trials: Annotated[Path, typer.Option(help="Dev trials among the manifest's recordings.")],
    work: Annotated[Path, typer.Option(help="Folder for features, state and log; resumes from there.")],
    out: Annotated[Path, typer.Option(help="The checkpoint to write (.safetensors).")],
    teacher: Annotated[
        Path | None, typer.Option(help="A teacher's embeddings (.npy), one row a manifest row.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto: cuda where there is one.")] = "auto",
    compile_trunk: Annotated[
        bool, typer.Option("--compile", help="torch.compile: needs a C++ compiler, a quarter faster.")
    ] = False,
) -> None:
    """Train a network by a recipe, resuming where an earlier run of it stopped."""
    try:
        from train import run
    except ImportError as error:
        raise ModelError("training needs PyTorch: install Sayso with pip install '.[train]'") from error

    with common.progress_bar() as bar:
        features = bar.add_task("features", total=None)
        prepared = run.prepare(
            recipe,
            manifest,
            trials,
            teacher,
            work,
            workers=available_cores(),
            progress=lambda done, total: bar.update(features, completed=done, total=total),
        )
        bar.remove_task(features)
        trainer = run.trainer(prepared, work, device, compile_trunk)
        steps = bar.add_task("training", total=prepared.recipe.steps, completed=trainer.step)

        def on_step(step: int, facts: dict[str, float]) -> None:
            bar.update(steps, completed=step, description=f"training, loss {facts['loss']:.2f}")
            if "dev_eer" in facts:
                typer.echo(f"step {step}: loss {facts['loss']:.3f}, dev EER {facts['dev_eer']:.2%}")

        dev_eer = trainer.run(on_step)
    run.finish(trainer, prepared, dev_eer, out)
    typer.echo(f"{out}: dev EER {dev_eer:.2%}. Next: sayso export {out} -o {out.with_suffix('.onnx').name}")
