"""One model's results on one trial list, and how far its thresholds carry over to speakers unseen."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sayso.evaluate.arrays import BoolArray, FloatArray, checked_trials
from sayso.evaluate.bootstrap import speaker_bootstrap
from sayso.evaluate.calibration import LlrLine, fit_llr_line
from sayso.evaluate.metrics import ErrorRates, cllr, det_curve, eer, error_rates, min_cllr, threshold_at_fmr
from sayso.evaluate.trials import TrialList

DECIMALS = 6


@dataclass(frozen=True)
class GroupResult:
    """The EER (a fraction) within one group of recordings, such as a corpus, and what it was measured on."""

    eer: float
    targets: int
    nontargets: int
    speakers: int


@dataclass(frozen=True)
class Evaluation:
    """Results on one trial list. Rates are fractions, Cllr is in bits, intervals are 95 % (low, high).

    cllr_calibration tells which LLR line cllr was measured with: the model card's, or one fitted to these
    same trials, which flatters.
    """

    trials: str
    trials_sha256: str
    targets: int
    nontargets: int
    speakers: int
    eer: float
    eer_interval: tuple[float, float]
    eer_threshold: float
    min_dcf: float
    min_dcf_interval: tuple[float, float]
    cllr: float
    min_cllr: float
    cllr_calibration: Literal["card", "fitted on these trials"]
    groups: Mapping[str, GroupResult]

    def to_dict(self) -> dict[str, Any]:
        """The same, ready for JSON, numbers in 6 decimals."""
        result: dict[str, Any] = _rounded(asdict(self))
        return result


def evaluate_scores(
    scores: npt.ArrayLike, trials: TrialList, resamples: int = 200, llr: tuple[float, float] | None = None
) -> Evaluation:
    """Evaluate `scores` `[trials]`; `llr` is the (slope, offset) of the model's calibration, if it has one.

    ValueError when a score is not finite or there are not as many scores as trials.
    """
    array, target = checked_trials(scores, trials.labels)
    curve = det_curve(array, target)
    equal = curve.eer()
    intervals = speaker_bootstrap(array, trials, resamples)
    line = fit_llr_line(array, target) if llr is None else LlrLine(*llr)
    identity = trials.identity()
    return Evaluation(
        trials=identity.name,
        trials_sha256=identity.sha256,
        targets=identity.targets,
        nontargets=identity.nontargets,
        speakers=identity.speakers,
        eer=equal.rate,
        eer_interval=intervals.eer,
        eer_threshold=equal.threshold,
        min_dcf=curve.min_dcf(),
        min_dcf_interval=intervals.min_dcf,
        cllr=cllr(line(array), target),
        min_cllr=min_cllr(array, target),
        cllr_calibration="fitted on these trials" if llr is None else "card",
        groups=_groups(array, trials),
    )


def _groups(scores: FloatArray, trials: TrialList) -> dict[str, GroupResult]:
    """Results within each group that has both classes and more than one speaker, by name."""
    speakers = trials.speakers()
    names, numbers = np.unique(_group_names(trials.recordings), return_inverse=True)
    first, second = numbers[trials.first], numbers[trials.second]
    found: dict[str, GroupResult] = {}
    # Only groups with non-targets of their own: VoxCeleb's hundreds of one-speaker folders are passed over.
    for number in np.unique(first[(first == second) & ~trials.labels]).tolist():
        inside = (first == number) & (second == number)
        target = trials.labels[inside]
        heard = np.unique(speakers[np.concatenate((trials.first[inside], trials.second[inside]))])
        if names[number] and heard.size > 1 and target.any():
            found[str(names[number])] = GroupResult(
                eer=eer(scores[inside], target).rate,
                targets=int(target.sum()),
                nontargets=int((~target).sum()),
                speakers=heard.size,
            )
    return found


def _group_names(recordings: tuple[str, ...]) -> list[str]:
    """The outermost folder by which the paths differ, per recording; empty where there is none.

    In VoxCeleb's lists that folder is the speaker, and such groups are dropped for want of a second one.
    """
    folders = [PurePosixPath(path).parent.parts for path in recordings]
    depth = max(len(parts) for parts in folders)
    for level in range(depth):
        names = [parts[level] if level < len(parts) else "" for parts in folders]
        if len(set(names)) > 1:
            return names
    return [""] * len(recordings)


@dataclass(frozen=True)
class CarriedThreshold:
    """A threshold set on half of the speakers: its rates there (tuned) and on the other half (applied)."""

    threshold: float
    tuned: ErrorRates
    applied: ErrorRates


@dataclass(frozen=True)
class Halves:
    """What becomes of thresholds and of the LLR line on speakers they were not set on; Cllr is in bits."""

    thresholds: Mapping[str, CarriedThreshold]
    cllr_tuned: float
    cllr_applied: float
    min_cllr_tuned: float
    min_cllr_applied: float

    def to_dict(self) -> dict[str, Any]:
        """The same, ready for JSON, numbers in 6 decimals."""
        points = {
            name: {
                "threshold": point.threshold,
                "tuned": point.tuned._asdict(),
                "applied": point.applied._asdict(),
            }
            for name, point in self.thresholds.items()
        }
        result: dict[str, Any] = _rounded(asdict(self) | {"thresholds": points})
        return result


def halves(scores: npt.ArrayLike, trials: TrialList, seed: int = 0) -> Halves:
    """Set thresholds and the LLR line on a random half of the speakers, and apply them to the other half.

    A trial counts in a half when both of its speakers are in it. ValueError when that leaves a half without
    targets or without non-targets, as a list of very few speakers may.
    """
    array, _ = checked_trials(scores, trials.labels)
    tuned, applied = _split(trials, seed)
    tuned_trials = array[tuned], trials.labels[tuned]
    applied_trials = array[applied], trials.labels[applied]
    nontargets = array[tuned & ~trials.labels]
    thresholds = {"eer": eer(*tuned_trials).threshold, "fmr=0.01": threshold_at_fmr(nontargets, 0.01)}
    line = fit_llr_line(*tuned_trials)
    return Halves(
        thresholds={
            name: CarriedThreshold(
                value, error_rates(*tuned_trials, value), error_rates(*applied_trials, value)
            )
            for name, value in thresholds.items()
        },
        cllr_tuned=cllr(line(tuned_trials[0]), tuned_trials[1]),
        cllr_applied=cllr(line(applied_trials[0]), applied_trials[1]),
        min_cllr_tuned=min_cllr(*tuned_trials),
        min_cllr_applied=min_cllr(*applied_trials),
    )


def carried_over(scores: npt.ArrayLike, trials: TrialList, splits: int = 20) -> dict[str, dict[str, float]]:
    """Means of `halves` over random splits of the speakers, by operating point and for Cllr (bits).

    One split depends on who fell into which half: a few speakers make most of the false matches.
    ValueError as of `halves`.
    """
    parts = [halves(scores, trials, seed) for seed in range(splits)]
    means: dict[str, dict[str, float]] = {}
    for name in parts[0].thresholds:
        points = [part.thresholds[name] for part in parts]
        means[name] = {
            "tuned_fmr": float(np.mean([p.tuned.fmr for p in points])),
            "tuned_fnmr": float(np.mean([p.tuned.fnmr for p in points])),
            "applied_fmr": float(np.mean([p.applied.fmr for p in points])),
            "applied_fnmr": float(np.mean([p.applied.fnmr for p in points])),
        }
    cllrs = ("cllr_tuned", "min_cllr_tuned", "cllr_applied", "min_cllr_applied")
    means["cllr"] = {name: float(np.mean([getattr(part, name) for part in parts])) for name in cllrs}
    result: dict[str, dict[str, float]] = _rounded(means)
    return result


def _split(trials: TrialList, seed: int) -> tuple[BoolArray, BoolArray]:
    """Which trials fall in each half, bool `[trials]` twice."""
    speakers = trials.speakers()
    count = int(speakers.max()) + 1
    in_first_half = np.zeros(count, dtype=np.bool_)
    in_first_half[np.random.default_rng(seed).permutation(count)[: count // 2]] = True
    first, second = in_first_half[speakers[trials.first]], in_first_half[speakers[trials.second]]
    parts = first & second, ~first & ~second
    for part in parts:
        target = trials.labels[part]
        if not target.any() or target.all():
            raise ValueError(
                f"{trials.name}: half of its {count} speakers have no targets or no non-targets; "
                "use a list of more speakers"
            )
    return parts


def _rounded(value: Any) -> Any:
    """`value` with every float in 6 decimals and every tuple a list, as JSON has it."""
    if isinstance(value, float):
        return round(value, DECIMALS)
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_rounded(item) for item in value]
    return value
