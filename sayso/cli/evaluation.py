"""`sayso evaluate` and `sayso calibrate`: a model on a list of trials."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from sayso.cli import common

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sayso.domain.calibration import Calibration
    from sayso.evaluate.calibration import HeldOut
    from sayso.evaluate.report import Evaluation
    from sayso.evaluate.trials import TemplateTrials, TrialList
    from sayso.listen import EmbeddedFiles
    from sayso.runtime.card import ModelCard

app = typer.Typer()
TRIALS_HELP = (
    "A list of trials: `1 a.wav b.wav` a line (VoxCeleb), `a.wav b.wav target` (Kaldi), or a CSV with the "
    "header label,enrol,test."
)
MAP_HELP = (
    "For trials of templates: which recordings each is made of, `ann a.wav b.wav` a line (Kaldi's spk2utt). "
    "The trials are then `1 ann c.wav`."
)
TrialFile = Annotated[Path, typer.Option(help=TRIALS_HELP)]
MapFile = Annotated[Path | None, typer.Option("--map", help=MAP_HELP)]
FEW_SPEAKERS, USELESS_EER = 20, 0.3
Root = Annotated[Path, typer.Option(help="The folder that the paths are relative to.")]
JsonFile = Annotated[
    Path | None, typer.Option("--json", help="Write the results to this file as JSON; - is standard output.")
]
Plots = Annotated[Path | None, typer.Option(help="Draw DET and score plots into this folder.")]


@dataclass(frozen=True)
class Scored:
    """A list of trials, the cosine of each `[trials]`, and the recordings they were made from."""

    trials: TrialList | TemplateTrials
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
    """Score a list of trials: EER, minDCF and Cllr, with intervals over speakers.

    With a calibrated model, also the error rates of its decisions, by the size of the tenant.
    """
    from sayso.evaluate.report import carried_over, check_halves, evaluate_scores
    from sayso.runtime.card import read_card, write_card

    path = common.model_path(model)
    current = read_card(path.read_bytes(), path.name)
    listed = read(trials, map_file)
    if halves:
        check_halves(listed)  # before the long work
    carried: Mapping[str, Mapping[str, float]] = {}
    points: list[str] = []
    with common.stages() as stage:
        scored = score(path, listed, root, stage)
        stage("intervals")
        llrs = None
        if current.calibration is not None:
            llrs, points = _decisions(current.calibration, scored)
        result = evaluate_scores(scored.scores, listed, llrs=llrs, net_speech_s=scored.embedded.net_speech_s)
        if halves:
            carried = carried_over(
                scored.scores, listed, progress=lambda done, total: stage("halves", done, total)
            )
    if card:
        write_card(path, _with_evaluation(current, result))
    if plots:
        _draw(plots, path.stem, scored, {"eer": result.eer_threshold})
    _report(path, result, scored.embedded.without_speech, json_file, carried, points)


@app.command()
def calibrate(
    model: common.ModelArgument,
    trials: Annotated[list[Path], typer.Option(help=TRIALS_HELP)],
    root: Annotated[list[Path], typer.Option(help="The folder that a list's paths are relative to.")],
    map_file: Annotated[list[Path] | None, typer.Option("--map", help=MAP_HELP)] = None,
    json_file: JsonFile = None,
    held_out: Annotated[
        bool,
        typer.Option("--held-out", help="Also try each corpus at a threshold that the others set."),
    ] = False,
) -> None:
    """Set how a model decides on lists of trials, and write that into its card.

    Several lists, each with its own --root and --map, are calibrated on together. The recordings are also cut
    short and sent through a telephone line, and the trials are made in tenants of several sizes.
    """
    from sayso.conditions import compare_all
    from sayso.evaluate.calibration import fit_on_templates
    from sayso.evaluate.calibration import held_out as try_held_out
    from sayso.runtime.card import read_card, write_card
    from sayso.runtime.embedder import Embedder
    from sayso.runtime.errors import ModelError

    path = common.model_path(model)
    maps: list[Path | None] = [None] * len(trials)
    if map_file:
        maps = [*map_file]
    if not len(trials) == len(root) == len(maps):
        raise typer.BadParameter("give a --root, and where there are maps a --map, for every --trials")
    lists = [(read(t, m), folder) for t, m, folder in zip(trials, maps, root, strict=True)]
    chosen = common.settings()
    tried = []
    with common.stages() as stage, Embedder(path, chosen.provider, chosen.threads) as embedder:
        compared = compare_all(embedder, lists, lambda done, total: stage("embedding", done, total))
        stage("calibration")
        try:
            fitted = fit_on_templates(compared, [listed.identity() for listed, _ in lists])
            if held_out:
                tried = try_held_out(
                    compared,
                    [[int(g)] for g in np.unique(compared[0].groups)],
                    fitted.llr.centre_weight,
                    lambda done, total: stage("held out", done, total),
                )
        except ValueError as error:
            raise ModelError(f"{path.name} is not calibrated: {error}") from error
    write_card(path, replace(read_card(path.read_bytes(), path.name), calibration=fitted))
    for listed, _ in lists:
        if listed.identity().speakers < FEW_SPEAKERS:
            common.warn(
                f"{listed.name} has {listed.identity().speakers} speakers: thresholds set on fewer than "
                f"{FEW_SPEAKERS} may be far off for others"
            )
    worst = fitted.point("eer", "wide/wide").fmr
    if worst >= USELESS_EER:
        common.warn(f"the model errs on {worst:.0%} of these trials: it hardly tells the speakers apart")
    facts = {"model": str(path), **fitted.to_dict(), "held_out": [asdict(row) for row in tried]}
    if json_file == Path("-"):
        typer.echo(json.dumps(facts, indent=2))
        return
    if json_file:
        json_file.write_text(json.dumps(facts, indent=2) + "\n")
    typer.echo(f"{path.name} calibrated on {', '.join(listed.name for listed, _ in lists)}")
    typer.echo("\n".join(points_text(fitted)))
    for row in (*tried, *_over_all(tried)):
        typer.echo(
            f"  {row.group:<18} held out, {row.condition:<13} {row.lengths:<36} "
            f"{row.targets} + {row.nontargets} trials, FMR {row.fmr:.4f}  FNMR {row.fnmr:.4f}"
        )


def _over_all(rows: Sequence[HeldOut]) -> list[HeldOut]:
    """A row for each condition and length over all groups; every trial weighs the same."""
    together: dict[tuple[str, str], list[HeldOut]] = {}
    for row in rows:
        together.setdefault((row.condition, row.lengths), []).append(row)
    return [
        replace(
            own[0],
            group="all",
            targets=sum(row.targets for row in own),
            nontargets=sum(row.nontargets for row in own),
            fmr=float(np.average([row.fmr for row in own], weights=[row.nontargets for row in own])),
            fnmr=float(np.average([row.fnmr for row in own], weights=[row.targets for row in own])),
        )
        for own in together.values()
    ]


def points_text(calibration: Calibration) -> list[str]:
    """A line for each operating point and pair of bands, of template and probe."""
    return [
        f"  {name:<10} {pair or 'any bands':<13} LLR {point.threshold:+.2f}  FMR {point.fmr:.4f}  "
        f"FNMR {point.fnmr:.4f}"
        for name, points in calibration.operating_points.items()
        for pair, point in points.items()
    ]


def _decisions(calibration: Calibration, scored: Scored) -> tuple[NDArray[np.float64], list[str]]:
    """The LLR of each trial in a tenant as large as its group, and lines of error rates by tenant size."""
    from sayso.conditions import as_listed
    from sayso.domain.evidence import ANY
    from sayso.evaluate.tenants import TENANT_SIZES, gather

    model, labels = calibration.llr, scored.trials.labels
    if not model.centres:
        line = model.regressions[ANY]
        llrs = line.slope * scored.scores + line.offset
        return llrs, [_rates_text(calibration, llrs, labels, [ANY] * len(llrs), "any number of")]
    compared, lines = as_listed(scored.trials, scored.embedded), []
    for size in TENANT_SIZES:
        evidence = gather(model, compared, (size,))
        llrs = evidence.llrs(model)
        is_all = int(evidence.others.max()) + 1 < size
        people = "all the" if is_all else str(size)
        lines.append(_rates_text(calibration, llrs, labels, evidence.pairs().tolist(), people))
        if is_all:
            break
    return llrs, lines


def _rates_text(
    calibration: Calibration,
    llrs: NDArray[np.float64],
    labels: NDArray[np.bool_],
    pairs: Sequence[str],
    people: str,
) -> str:
    rates = []
    for name in calibration.operating_points:
        accepted = llrs >= [calibration.point(name, pair).threshold for pair in pairs]
        rates.append(f"{name} FMR {accepted[~labels].mean():.4f} FNMR {1.0 - accepted[labels].mean():.4f}")
    return f"  decisions with {people} people in the tenant: {'; '.join(rates)}"


def read(trials: Path, map_file: Path | None) -> TrialList | TemplateTrials:
    """Read a list of trials, of templates where there is a map; raises `TrialListError`."""
    from sayso.evaluate.trials import read_template_trials, read_trials

    return read_trials(trials) if map_file is None else read_template_trials(trials, map_file)


def score(path: Path, trials: TrialList | TemplateTrials, root: Path, stage: common.Stage) -> Scored:
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
