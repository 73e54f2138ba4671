"""`sayso evaluate` and `sayso calibrate`: a model on a list of trials."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sayso.cli import common

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sayso.evaluate.report import Evaluation
    from sayso.evaluate.trials import Trials
    from sayso.listen import EmbeddedFiles
    from sayso.runtime.card import ModelCard

app = typer.Typer()
TrialFile = Annotated[
    Path,
    typer.Option(
        help="A list of trials: `1 a.wav b.wav` a line (VoxCeleb), `a.wav b.wav target` (Kaldi), or a CSV "
        "with the header label,enrol,test."
    ),
]
MapFile = Annotated[
    Path | None,
    typer.Option(
        "--map",
        help="For trials of templates: which recordings each is made of, `ann a.wav b.wav` a line (Kaldi's "
        "spk2utt). The trials are then `1 ann c.wav`.",
    ),
]
Root = Annotated[Path, typer.Option(help="The folder that the paths are relative to.")]
JsonFile = Annotated[
    Path | None, typer.Option("--json", help="Write the results to this file as JSON; - is standard output.")
]
Plots = Annotated[Path | None, typer.Option(help="Draw DET and score plots into this folder.")]


@dataclass(frozen=True)
class Scored:
    """A list of trials, the cosine of each `[trials]`, and the recordings they were made from."""

    trials: Trials
    scores: NDArray[np.float64]
    embedded: EmbeddedFiles


@app.command()
def evaluate(
    model: common.ModelArgument,
    trials: TrialFile,
    root: Root,
    map_file: MapFile = None,
    json_file: JsonFile = None,
    plots: Plots = None,
    card: Annotated[bool, typer.Option("--card", help="Write the results into the model's card.")] = False,
    halves: Annotated[
        bool,
        typer.Option(
            "--halves",
            help="Also set thresholds on half of the speakers and try them on the others, 20 times.",
        ),
    ] = False,
) -> None:
    """Score a list of trials: EER, minDCF and Cllr, with intervals over speakers."""
    from sayso.evaluate.report import carried_over, check_halves, evaluate_scores
    from sayso.runtime.card import read_card, write_card

    path = common.model_path(model)
    current = read_card(path.read_bytes(), path.name)
    listed = read(trials, map_file)
    if halves:
        check_halves(listed)  # before the long work
    line = current.calibration.llr if current.calibration else None
    carried: Mapping[str, Mapping[str, float]] = {}
    with common.stages() as stage:
        scored = score(path, listed, root, stage)
        stage("intervals")
        result = evaluate_scores(
            scored.scores,
            listed,
            llr=(line.slope, line.offset) if line else None,
            net_speech_s=scored.embedded.net_speech_s,
        )
        if halves:
            carried = carried_over(
                scored.scores, listed, progress=lambda done, total: stage("halves", done, total)
            )
    if card:
        write_card(path, _with_evaluation(current, result))
    if plots:
        thresholds = (
            {name: point.threshold for name, point in current.calibration.operating_points.items()}
            if current.calibration
            else {"eer": result.eer_threshold}
        )
        _draw(plots, path.stem, scored, thresholds)
    _report(path, result, scored.embedded.without_speech, json_file, carried)


@app.command()
def calibrate(
    model: common.ModelArgument,
    trials: TrialFile,
    root: Root,
    map_file: MapFile = None,
    json_file: JsonFile = None,
    plots: Plots = None,
) -> None:
    """Set a model's thresholds and LLR line on a list of trials, and write them into its card."""
    from sayso.evaluate.calibration import fit_calibration
    from sayso.evaluate.report import evaluate_scores
    from sayso.runtime.card import calibration_from, read_card, write_card
    from sayso.runtime.errors import ModelError

    path = common.model_path(model)
    listed = read(trials, map_file)
    with common.stages() as stage:
        scored = score(path, listed, root, stage)
        stage("calibration")
        fitted = fit_calibration(scored.scores, listed)
        if fitted.llr.slope <= 0:
            raise ModelError(f"{path.name} scores these trials no better than chance: not calibrated")
        result = evaluate_scores(
            scored.scores,
            listed,
            llr=(fitted.llr.slope, fitted.llr.offset),
            net_speech_s=scored.embedded.net_speech_s,
        )
    current = read_card(path.read_bytes(), path.name)
    calibrated = replace(current, calibration=calibration_from(fitted.to_dict()))
    write_card(path, _with_evaluation(calibrated, result))
    thresholds = {name: point.threshold for name, point in fitted.operating_points.items()}
    if plots:
        _draw(plots, path.stem, scored, thresholds)
    points = [
        f"  {name:<10} threshold {point.threshold:.4f}  FMR {point.fmr:.4f}  FNMR {point.fnmr:.4f}"
        for name, point in fitted.operating_points.items()
    ]
    _report(path, result, scored.embedded.without_speech, json_file, points=points)


def read(trials: Path, map_file: Path | None) -> Trials:
    """Read a list of trials, of templates where there is a map; raises `TrialListError`."""
    from sayso.evaluate.trials import read_template_trials, read_trials

    return read_trials(trials) if map_file is None else read_template_trials(trials, map_file)


def score(path: Path, trials: Trials, root: Path, stage: common.Stage) -> Scored:
    """Embed the recordings of a list with the model at `path`, and score the trials.

    Progress is shown as a stage. Raises `FileError` naming recordings that do not exist or cannot be decoded.
    """
    from sayso.listen import FileError, embed_files, require_files
    from sayso.runtime.embedder import Embedder

    files = [root / recording for recording in trials.recordings]
    try:
        require_files(files)
    except FileError as error:
        missing = [r for r in trials.recordings if not (root / r).is_file()]
        if all("/" not in recording and "." not in recording for recording in missing):
            raise FileError(f"{error}. If these are templates, give their recordings with --map") from error
        raise
    chosen = common.settings()
    with Embedder(path, chosen.provider, chosen.threads) as embedder:
        embedded = embed_files(embedder, files, lambda done, total: stage("embedding", done, total))
    return Scored(trials, trials.scores(embedded.vectors), embedded)


def _with_evaluation(card: ModelCard, result: Evaluation) -> ModelCard:
    return replace(card, evaluation={**card.evaluation, result.trials: result.to_dict()})


def _draw(folder: Path, stem: str, scored: Scored, thresholds: Mapping[str, float]) -> None:
    from sayso.evaluate.plots import det_plot, score_plot

    folder.mkdir(parents=True, exist_ok=True)
    labels = scored.trials.labels
    det_plot({stem: (scored.scores, labels)}, folder / f"{stem}-det.png")
    score_plot(scored.scores, labels, thresholds, folder / f"{stem}-scores.png")


def _report(
    path: Path,
    result: Evaluation,
    without_speech: int,
    json_file: Path | None,
    carried: Mapping[str, Mapping[str, float]] | None = None,
    points: list[str] | None = None,
) -> None:
    """Print the results, or write them as JSON; warnings go to standard error."""
    for doubt in result.doubts():
        common.warn(doubt)
    facts: dict[str, Any] = {
        "model": str(path),
        **result.to_dict(),
        "recordings_without_speech": without_speech,
    }
    facts |= {"warnings": result.doubts()} | ({"carried_over": carried} if carried else {})
    text = json.dumps(facts, indent=2) + "\n"
    if json_file == Path("-"):
        typer.echo(text, nl=False)
        return
    if json_file:
        json_file.write_text(text)
    typer.echo("\n".join(_lines(path, result, without_speech, carried or {}) + (points or [])))


def _lines(
    path: Path, result: Evaluation, without_speech: int, carried: Mapping[str, Mapping[str, float]]
) -> list[str]:
    if result.eer_interval is None:
        interval = f"no interval: {result.speakers} speakers are too few for one"
    else:
        interval = "95 % interval over speakers {:.2%} to {:.2%}".format(*result.eer_interval)
    lines = [
        f"{path.name} on {result.trials}: {result.targets} target and {result.nontargets} non-target trials "
        f"of {result.speakers} speakers",
        f"  EER {result.eer:.2%} ({interval})",
        f"  minDCF {result.min_dcf:.3f}  Cllr {result.cllr:.3f} ({result.cllr_calibration})",
    ]
    for title, groups in (("by corpus", result.groups), ("by speech in the probe", result.net_speech)):
        if len(groups) > 1:
            lines.append(f"  {title}")
        lines += [
            f"    {name:<20} EER {group.eer:.2%}  {group.targets} + {group.nontargets} trials"
            for name, group in groups.items()
            if len(groups) > 1
        ]
    for name, rates in carried.items():
        if name == "cllr":
            lines.append(
                f"  set on half of the speakers, tried on the others (20 splits): Cllr "
                f"{rates['cllr_applied']:.3f}, min {rates['min_cllr_applied']:.3f}"
            )
        else:
            lines.append(
                f"  {name:<9} tuned FMR {rates['tuned_fmr']:.4f} FNMR {rates['tuned_fnmr']:.4f}, "
                f"others FMR {rates['applied_fmr']:.4f} FNMR {rates['applied_fnmr']:.4f}"
            )
    if without_speech:
        lines.append(f"  {without_speech} recordings hold no detectable speech and were embedded whole")
    return lines
