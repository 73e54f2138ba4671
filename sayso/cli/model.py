"""Commands about model files: export, adopt, inspect, embed, evaluate, calibrate."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import typer

from sayso.cli import common
from sayso.cli.common import AsJson
from sayso.export import drawing
from sayso.listen import embed_files
from sayso.runtime.card import ModelCard, calibration_from, read_card, write_card
from sayso.runtime.embedder import Embedder
from sayso.runtime.errors import ModelError
from sayso.runtime.model_file import network_sha256

if TYPE_CHECKING:
    from sayso.evaluate.report import Evaluation
    from sayso.evaluate.trials import TrialList

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="An .onnx file or a served name.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="The .onnx file to write.")]
Name = Annotated[str | None, typer.Option(help="The model's name; that of the file if absent.")]
Recordings = Annotated[
    Path | None, typer.Option(help="A folder of speech to check the model on; else synthetic voices.")
]
Trials = Annotated[Path, typer.Option(help="A trial list: `1 a.wav b.wav` a line.")]
Root = Annotated[Path, typer.Option(help="The folder its paths are relative to.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the results to this file as JSON.")]
Plots = Annotated[Path | None, typer.Option(help="Draw DET and score plots into this folder.")]


def register(app: typer.Typer) -> None:
    for command in (export, adopt, inspect, embed, evaluate, calibrate):
        app.command()(command)


def export(
    checkpoint: Annotated[
        Path,
        typer.Argument(help="A voxceleb_trainer or Sayso checkpoint; with --precision, also an .onnx model."),
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
    with tempfile.TemporaryDirectory() as folder:
        full = checkpoint if made else output if precision == "fp32" else Path(folder) / "fp32.onnx"
        if not made:
            card = export_checkpoint(
                checkpoint,
                full,
                called,
                recordings,
                sample_scale=32768.0 if int16_scale else None,
                log_input=False if linear_input else None,
            )
        if precision != "fp32":
            check = (
                TrialCheck(trials.name, lambda model: _eer(model, trials, root)) if trials and root else None
            )
            card = export_lower(full, output, called, precision, recordings, check)
    common.show(
        asdict(card),
        as_json,
        f"{output}: {card.architecture}, {card.parameters:,} parameters, {card.embedding_dim}-d; "
        f"{_closeness(card)}.\nNext: sayso calibrate {output} --trials TRIALS --root FOLDER",
    )


def _eer(model: bytes, trials: Path, root: Path) -> float:
    from sayso.evaluate.metrics import eer

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(model)
        found, scores, _ = _score(path, trials, root)
    return eer(scores, found.labels).rate


def _closeness(card: ModelCard) -> str:
    """How near a written model is to what it was made of."""
    told = card.lowered
    if told is None:
        parity = card.parity
        return f"differs from PyTorch by at most {parity.max_abs_difference:.1g} on {parity.recordings}"
    text = (
        f"{card.precision}, cosine to fp32 {told.median_cosine:.4f} in the median, {told.worst_cosine:.4f} "
        f"at worst on {told.compared_on}"
    )
    if told.eer is None or told.eer_fp32 is None:
        return f"{text}, EER not checked (--trials)"
    return f"{text}, EER on {told.trials} {told.eer:.2%} (fp32 {told.eer_fp32:.2%})"


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
    card = adopt_network(network, output, name or output.stem, options, recordings)
    common.show(
        asdict(card),
        as_json,
        f"{output}: {card.front_end.name} and {card.architecture}, {card.parameters:,} parameters, "
        f"{card.embedding_dim}-d; differs from kaldi-native-fbank and {network.name} by at most "
        f"{card.parity.max_abs_difference:.1g} on {card.parity.recordings}.\n"
        f"Next: sayso calibrate {output} --trials TRIALS --root FOLDER",
    )


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
    facts = {"path": str(path), "sha256": network_sha256(content), **asdict(card)}
    common.show(facts, as_json, _card_text(path, network_sha256(content), card))


def embed(
    files: Annotated[list[Path], typer.Argument(metavar="FILES...", help="Recordings.")],
    out: Annotated[Path, typer.Option(help="The .npy file to write: float32 [files, dim].")],
    model: Annotated[
        str | None, typer.Option(help="An .onnx file or a served name; the default model if absent.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the embeddings of recordings, in the order given."""
    matrix, silent = _embed(common.model_path(model), files)
    with out.open("wb") as file:
        np.save(file, matrix)
    facts = {"out": str(out), "files": len(files), "dim": matrix.shape[1], "without_speech": silent}
    note = f" ({silent} hold no detectable speech)" if silent else ""
    common.show(facts, as_json, f"{out}: {matrix.shape[0]} x {matrix.shape[1]}{note}")


def evaluate(
    model: ModelArgument,
    trials: Trials,
    root: Root,
    json_file: JsonFile = None,
    plots: Plots = None,
    card: Annotated[bool, typer.Option("--card", help="Write the results into the model's card.")] = False,
    halves: Annotated[
        bool, typer.Option("--halves", help="Also set thresholds on half of the speakers, try the others.")
    ] = False,
) -> None:
    """Score a trial list: EER, minDCF and Cllr, with intervals over speakers."""
    from sayso.evaluate.report import carried_over, evaluate_scores

    path = common.model_path(model)
    current = read_card(path.read_bytes(), path.name)
    found, scores, silent = _score(path, trials, root)
    llr = current.calibration.llr if current.calibration else None
    result = evaluate_scores(scores, found, llr=(llr.slope, llr.offset) if llr else None)
    if card:
        write_card(path, _with_evaluation(current, result))
    if plots:
        thresholds = (
            {name: point.threshold for name, point in current.calibration.operating_points.items()}
            if current.calibration
            else {"eer": result.eer_threshold}
        )
        _draw(plots, path.stem, scores, found.labels, thresholds)
    _report(path, result, silent, json_file, carried_over(scores, found) if halves else {})


def calibrate(
    model: ModelArgument,
    trials: Trials,
    root: Root,
    json_file: JsonFile = None,
    plots: Plots = None,
) -> None:
    """Set a model's thresholds and LLR line on a trial list, and write them into its card."""
    from sayso.evaluate.calibration import fit_calibration
    from sayso.evaluate.report import evaluate_scores

    path = common.model_path(model)
    found, scores, silent = _score(path, trials, root)
    fitted = fit_calibration(scores, found)
    if fitted.llr.slope <= 0:
        raise ModelError(f"{path.name} scores these trials no better than chance: not calibrated")
    result = evaluate_scores(scores, found, llr=(fitted.llr.slope, fitted.llr.offset))
    current = read_card(path.read_bytes(), path.name)
    calibrated = replace(current, calibration=calibration_from(fitted.to_dict()))
    write_card(path, _with_evaluation(calibrated, result))
    thresholds = {name: point.threshold for name, point in fitted.operating_points.items()}
    if plots:
        _draw(plots, path.stem, scores, found.labels, thresholds)
    _report(path, result, silent, json_file)
    for name, point in fitted.operating_points.items():
        typer.echo(
            f"  {name:<10} threshold {point.threshold:.4f}  FMR {point.fmr:.4f}  FNMR {point.fnmr:.4f}"
        )


def _with_evaluation(card: ModelCard, result: Evaluation) -> ModelCard:
    return replace(card, evaluation={**card.evaluation, result.trials: result.to_dict()})


def _embed(path: Path, files: list[Path]) -> tuple[np.ndarray[Any, np.dtype[np.float32]], int]:
    chosen = common.settings()
    with (
        Embedder(path, chosen.provider, chosen.threads) as embedder,
        common.progress_bar() as bar,
    ):
        task = bar.add_task("embedding", total=len(files))
        return embed_files(embedder, files, advance=lambda: bar.advance(task))


def _score(
    path: Path, trials: Path, root: Path
) -> tuple[TrialList, np.ndarray[Any, np.dtype[np.float64]], int]:
    from sayso.evaluate.trials import read_trials

    found = read_trials(trials)
    matrix, silent = _embed(path, [root / recording for recording in found.recordings])
    return found, found.scores(matrix), silent


def _draw(folder: Path, stem: str, scores: Any, labels: Any, thresholds: dict[str, float]) -> None:
    from sayso.evaluate.plots import det_plot, score_plot

    folder.mkdir(parents=True, exist_ok=True)
    det_plot({stem: (scores, labels)}, folder / f"{stem}-det.png")
    score_plot(scores, labels, thresholds, folder / f"{stem}-scores.png")


def _report(
    path: Path,
    result: Evaluation,
    silent: int,
    json_file: Path | None,
    carried: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
) -> None:
    facts = {"model": str(path), **result.to_dict(), "recordings_without_speech": silent}
    if carried:
        facts["carried_over"] = carried
    if json_file:
        json_file.write_text(json.dumps(facts, indent=2) + "\n")
    low, high = result.eer_interval
    typer.echo(
        f"{path.name} on {result.trials}: {result.targets} target, {result.nontargets} non-target trials"
    )
    typer.echo(f"  EER {result.eer:.2%} (95 % interval over speakers {low:.2%} to {high:.2%})")
    typer.echo(f"  minDCF {result.min_dcf:.3f}  Cllr {result.cllr:.3f} ({result.cllr_calibration})")
    for name, group in result.groups.items():
        typer.echo(f"  {name:<20} EER {group.eer:.2%}  {group.targets} + {group.nontargets} trials")
    for name, rates in carried.items():
        if name == "cllr":
            typer.echo(
                f"  set on half of the speakers, tried on the others (20 splits): Cllr "
                f"{rates['cllr_applied']:.3f}, min {rates['min_cllr_applied']:.3f}"
            )
        else:
            typer.echo(
                f"  {name:<9} tuned FMR {rates['tuned_fmr']:.4f} FNMR {rates['tuned_fnmr']:.4f}, "
                f"others FMR {rates['applied_fmr']:.4f} FNMR {rates['applied_fnmr']:.4f}"
            )
    if silent:
        typer.echo(f"  {silent} recordings hold no detectable speech and were embedded whole")


def _point(name: str, threshold: float, fmr: float, fnmr: float) -> str:
    return f"  {name:<11} threshold {threshold:.4f}  FMR {fmr:.4f}  FNMR {fnmr:.4f}"


def _precision(card: ModelCard) -> str:
    if card.lowered is None:
        return card.precision
    ranges = f", ranges set on {card.lowered.calibrated_on}" if card.lowered.calibrated_on else ""
    return f"{_closeness(card)}{ranges}"


def _card_text(path: Path, sha256: str, card: ModelCard) -> str:
    front, parity = card.front_end, card.parity
    seconds = card.window_samples / front.sample_rate
    made_of = [card.architecture, card.options.get("pooling"), f"{card.embedding_dim}-d"]
    lines = [
        f"{card.name}: {', '.join(part for part in made_of if part)}",
        f"  file          {path} ({path.stat().st_size / 1e6:.1f} MB)",
        f"  sha256        {sha256} (of the network, without this card)",
        f"  parameters    {card.parameters:,}; {card.macs / 1e9:.2f} GMACs per {seconds:g} s",
        f"  front-end     {front.name}, {front.n_mels} mels, {front.window} "
        f"{front.win_length}/{front.hop_length}, pre-emphasis {front.pre_emphasis:g}, "
        f"sample scale {front.sample_scale:g}",
        f"  source        {card.source.format} {card.source.sha256[:16]}",
        f"  precision     {_precision(card)}",
        f"  parity        max |difference| {parity.max_abs_difference:.1g}, cosine {parity.min_cosine:.6f}",
    ]
    lines += [
        f"  {level.name:<13} {level.channels} x {level.frequencies} x {level.frames}, "
        f"{level.parameters:,} parameters, {level.macs / 1e6:.1f} MMACs, sees {', '.join(level.sees)}"
        for level in card.levels
    ]
    for name, result in card.evaluation.items():
        low, high = result["eer_interval"]
        lines.append(
            f"  {name:<13} EER {result['eer']:.2%} ({low:.2%} to {high:.2%}), minDCF {result['min_dcf']:.3f}"
        )
    if card.calibration is None:
        lines.append("  calibration   none: it embeds, but does not decide")
    else:
        lines.append(f"  calibration   on {card.calibration.trials.name}")
        lines += [
            "  " + _point(name, p.threshold, p.fmr, p.fnmr)
            for name, p in card.calibration.operating_points.items()
        ]
    return "\n".join(lines)
