"""Commands about model files: export, adopt, inspect, embed."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import typer
from numpy.typing import NDArray

from sayso.cli import common, evaluation
from sayso.cli.common import AsJson, ModelArgument, Stage
from sayso.export import drawing
from sayso.listen import embed_files
from sayso.runtime.card import ModelCard, read_card
from sayso.runtime.embedder import Embedder
from sayso.runtime.errors import ModelError
from sayso.runtime.model_file import network_sha256

app = typer.Typer()
Output = Annotated[Path, typer.Option("--output", "-o", help="The .onnx file to write.")]
Name = Annotated[str | None, typer.Option(help="The model's name; that of the file if absent.")]
Recordings = Annotated[
    Path | None, typer.Option(help="A folder of speech to check the model on; else synthetic voices.")
]


@app.command()
def export(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            help="A checkpoint of Sayso or of a project it knows; with --precision, also an .onnx model."
        ),
    ],
    output: Output,
    name: Name = None,
    recordings: Recordings = None,
    precision: Annotated[
        Literal["fp32", "fp16", "int8"],
        typer.Option(help="fp16 is for CUDA, int8 for CPUs; written only if vectors stay close to fp32's."),
    ] = "fp32",
    trials: Annotated[
        Path | None, typer.Option(help="With fp16 or int8: the trials on which EER is held to fp32's.")
    ] = None,
    root: Annotated[Path | None, typer.Option(help="The folder its paths are relative to.")] = None,
    int16_scale: Annotated[
        bool, typer.Option("--int16-scale", help="Trained before 2021-04-24, on int16-scaled audio.")
    ] = False,
    linear_input: Annotated[
        bool, typer.Option("--linear-input", help="Trained without --log_input.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Turn a checkpoint into one .onnx model, proven equal to it, or nearly so with --precision."""
    try:
        from sayso.export.exporter import export_checkpoint
        from sayso.export.precision import TrialCheck, export_lower
    except ImportError as error:
        raise ModelError("export needs PyTorch: install Sayso with pip install '.[train]'") from error

    if precision == "fp32" and (trials or root):
        raise typer.BadParameter("--trials and --root belong to --precision fp16 or int8")
    if precision != "fp32" and not (trials and root):
        raise typer.BadParameter(f"{precision} is held to fp32's EER: give --trials LIST and --root FOLDER")
    made = checkpoint.suffix == ".onnx" and precision != "fp32"
    if made and (int16_scale or linear_input):
        raise typer.BadParameter("a model file has its front-end inside: leave the front-end flags out")
    called = name or output.stem
    with tempfile.TemporaryDirectory() as folder, common.stages() as stage:
        full = checkpoint if made else output if precision == "fp32" else Path(folder) / "fp32.onnx"
        if not made:
            card = export_checkpoint(
                checkpoint,
                full,
                called,
                recordings,
                sample_scale=32768.0 if int16_scale else None,
                log_input=False if linear_input else None,
                stage=stage,
            )
        if precision != "fp32":
            check = (
                TrialCheck(trials.name, lambda model: _eer(model, trials, root, stage))
                if trials and root
                else None
            )
            card = export_lower(full, output, called, precision, recordings, check, stage)
    common.show(
        card.to_dict(),
        as_json,
        f"{output}: {card.architecture}, {card.parameters:,} parameters, {card.embedding_dim}-d; "
        f"{_closeness(card)}.\nNext: sayso calibrate {output} --trials TRIALS --root FOLDER",
    )


def _eer(model: bytes, trials: Path, root: Path, stage: Stage) -> float:
    from sayso.evaluate.metrics import eer

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(model)
        scored = evaluation.score(path, evaluation.read(trials, None), root, stage)
    return eer(scored.scores, scored.trials.labels).rate


def _mean_vector(path: Path | None) -> NDArray[np.float32] | None:
    """Read a vector; raises `ModelError` if the file holds none. Nothing is unpickled."""
    if path is None:
        return None
    try:
        vector: NDArray[np.float32] = np.load(path, allow_pickle=False).astype(np.float32)
        return vector
    except (OSError, ValueError, EOFError, AttributeError) as error:
        raise ModelError(f"{path} holds no vector that numpy.save wrote: {error}") from error


def _closeness(card: ModelCard) -> str:
    """Say how near a written model is to what it was made of."""
    lowered = card.lowered
    if lowered is None:
        parity = card.parity
        return f"differs from PyTorch by at most {parity.max_abs_difference:.1g} on {parity.recordings}"
    text = (
        f"{card.precision}, cosine to fp32 {lowered.median_cosine:.4f} in the median, "
        f"{lowered.worst_cosine:.4f} at worst on {lowered.compared_on}"
    )
    if lowered.eer is None or lowered.eer_fp32 is None:
        return f"{text}, EER not checked (--trials)"
    return f"{text}, EER on {lowered.trials} {lowered.eer:.2%} (fp32 {lowered.eer_fp32:.2%})"


@app.command()
def adopt(
    network: Annotated[Path, typer.Argument(help="An ONNX speaker embedding that takes Kaldi features.")],
    output: Output,
    frontend: Annotated[
        str, typer.Option(help="What it takes: kaldi-fbank80, for 80 mels, less their mean over time.")
    ],
    hamming: Annotated[
        bool, typer.Option("--hamming", help="With a Hamming window (WeSpeaker) instead of Kaldi's povey.")
    ] = False,
    unit_scale: Annotated[
        bool, typer.Option("--unit-scale", help="Trained on samples in [-1, 1] (3D-Speaker), not int16.")
    ] = False,
    mean_vec: Annotated[
        Path | None,
        typer.Option(
            help="A .npy file of the mean embedding to take off, as WeSpeaker does for its figures."
        ),
    ] = None,
    name: Name = None,
    recordings: Recordings = None,
    as_json: AsJson = False,
) -> None:
    """Turn somebody else's ONNX network into one .onnx model, its front-end inside."""
    try:
        from sayso.export.adopt import adopt_network
        from sayso.export.kaldi import KaldiOptions
    except ImportError as error:
        raise ModelError("adopting needs PyTorch: install Sayso with pip install '.[train]'") from error

    window: Literal["hamming", "povey"] = "hamming" if hamming else "povey"
    try:
        options = KaldiOptions.parse(frontend, window, 1.0 if unit_scale else 32768.0)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--frontend") from None
    with common.stages() as stage:
        card = adopt_network(
            network, output, name or output.stem, options, recordings, stage, _mean_vector(mean_vec)
        )
    common.show(
        card.to_dict(),
        as_json,
        f"{output}: {card.front_end.name} and {card.architecture}, {card.parameters:,} parameters, "
        f"{card.embedding_dim}-d; differs from kaldi-native-fbank and {network.name} by at most "
        f"{card.parity.max_abs_difference:.1g} on {card.parity.recordings}.\n"
        f"Next: sayso calibrate {output} --trials TRIALS --root FOLDER",
    )


@app.command()
def inspect(
    model: ModelArgument,
    draw: Annotated[
        list[Path] | None, typer.Option(help="Draw the architecture into this file (.svg, .png or .pdf).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print a model's card; draw its architecture."""
    path = common.model_path(model)
    content = path.read_bytes()
    card = read_card(content, path.name)
    for picture in draw or []:
        drawing.draw(card, picture)
    facts = {"path": str(path), "sha256": network_sha256(content), **card.to_dict()}
    common.show(facts, as_json, card_text(path, network_sha256(content), card))


@app.command()
def embed(
    files: Annotated[list[Path], typer.Argument(metavar="FILES...", help="Recordings.")],
    out: Annotated[Path, typer.Option(help="The .npy file to write: float32 [files, dim].")],
    model: Annotated[
        str | None, typer.Option(help="An .onnx file or a served name; the default model if absent.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the embeddings of recordings, in the order given."""
    path, chosen = common.model_path(model), common.settings()
    with Embedder(path, chosen.provider, chosen.threads) as embedder, common.stages() as stage:
        embedded = embed_files(embedder, files, lambda done, total: stage("embedding", done, total))
    matrix, silent = embedded.vectors, embedded.without_speech
    with out.open("wb") as file:
        np.save(file, matrix)
    facts = {"out": str(out), "files": len(files), "dim": matrix.shape[1], "without_speech": silent}
    note = f" ({silent} hold no detectable speech)" if silent else ""
    common.show(facts, as_json, f"{out}: {matrix.shape[0]} x {matrix.shape[1]}{note}")


def _precision(card: ModelCard) -> str:
    if card.lowered is None:
        return card.precision
    ranges = f", ranges set on {card.lowered.calibrated_on}" if card.lowered.calibrated_on else ""
    return f"{_closeness(card)}{ranges}"


def card_text(path: Path | None, sha256: str, card: ModelCard) -> str:
    """A model's card for people, in lines; `path` is None for one that is not on this machine."""
    front, parity = card.front_end, card.parity
    seconds = card.window_samples / front.sample_rate
    frames = f"{front.n_mels} mels, {front.window} {front.win_length}/{front.hop_length}, "
    made_of = [card.architecture, card.options.get("pooling"), f"{card.embedding_dim}-d"]
    lines = [
        f"{card.name}: {', '.join(part for part in made_of if part)}",
        f"  file          {path} ({path.stat().st_size / 1e6:.1f} MB)"
        if path
        else "  file          none yet",
        f"  sha256        {sha256} (of the network, without this card)",
        f"  parameters    {card.parameters:,}; {card.macs / 1e9:.2f} GMACs per {seconds:g} s",
        f"  front-end     {front.name}, {frames if front.n_mels else ''}pre-emphasis {front.pre_emphasis:g}, "
        f"sample scale {front.sample_scale:g}",
        f"  source        {card.source.format} {card.source.sha256[:16]}"
        + (f", licence {card.licence}" if card.licence else ""),
        f"  precision     {_precision(card)}",
        f"  parity        max |difference| {parity.max_abs_difference:.1g}, cosine {parity.min_cosine:.6f}",
    ]
    lines += [
        f"  {level.name:<13} {level.channels} x {level.frequencies} x {level.frames}, "
        f"{level.parameters:,} parameters, {level.macs / 1e6:.1f} MMACs, sees {', '.join(level.sees)}"
        for level in card.levels
    ]
    for name, result in card.evaluation.items():
        interval = result["eer_interval"]
        shown = f" ({interval[0]:.2%} to {interval[1]:.2%})" if interval else ""
        lines.append(f"  {name:<13} EER {result['eer']:.2%}{shown}, minDCF {result['min_dcf']:.3f}")
    if card.calibration is None:
        lines.append("  calibration   none: it embeds, but does not decide")
    else:
        lines.append(f"  calibration   on {', '.join(t.name for t in card.calibration.trials)}")
        from sayso.cli.evaluation import points_text

        lines += ["  " + line for line in points_text(card.calibration)]
    return "\n".join(lines)
