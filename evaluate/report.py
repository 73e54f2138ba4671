"""A model's results on a list of trials, and how well its thresholds hold for other speakers."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sayso.evaluate.arrays import BoolArray, FloatArray, IntArray, checked_trials
from sayso.evaluate.bootstrap import speaker_bootstrap
from sayso.evaluate.calibration import fit_llr_line
from sayso.evaluate.metrics import ErrorRates, cllr, det_curve, eer, error_rates, min_cllr, threshold_at_fmr
from sayso.evaluate.trials import TrialListError, Trials

DECIMALS = 6
NET_SPEECH_S = {  # the conditions that results are reported in: from, to below, in seconds
    "under 1 s": (0.0, 1.0),
    "1 to 2 s": (1.0, 2.0),
    "2 to 4 s": (2.0, 4.0),
    "4 to 8 s": (4.0, 8.0),
    "8 s and more": (8.0, np.inf),
}
FEW_SPEAKERS = 20
USELESS_EER = 0.3
SPLITS = 20  # of the speakers into halves


@dataclass(frozen=True)
class GroupResult:
    """The EER (a fraction) within one group of trials, such as a corpus, and what it was measured on."""

    eer: float
    targets: int
    nontargets: int
    speakers: int


@dataclass(frozen=True)
class Evaluation:
    """Results on one trial list. Rates are fractions, Cllr is in bits, intervals are 95 % (low, high).

    An interval is None where there are fewer than 5 speakers.
    cllr_calibration says which LLR line cllr was measured with: the model card's, or one fitted to these
    same trials, which flatters.
    groups: results by corpus, of the trials within each.
    net_speech: results by seconds of speech in the probe (of two recordings, in the shorter one), such as
    `1 to 2 s`; empty where these are not known.
    """

    trials: str
    trials_sha256: str
    targets: int
    nontargets: int
    speakers: int
    eer: float
    eer_interval: tuple[float, float] | None
    eer_threshold: float
    min_dcf: float
    min_dcf_interval: tuple[float, float] | None
    cllr: float
    min_cllr: float
    cllr_calibration: Literal["card", "fitted on these trials"]
    groups: Mapping[str, GroupResult]
    net_speech: Mapping[str, GroupResult]

    def doubts(self) -> list[str]:
        """What to know before relying on these results, as sentences; empty where there is nothing."""
        doubts = []
        if self.speakers < FEW_SPEAKERS:
            doubts.append(
                f"{self.trials} has {self.speakers} speakers: error rates and thresholds set on fewer than "
                f"{FEW_SPEAKERS} may be far off for others"
            )
        if self.eer >= USELESS_EER:
            doubts.append(
                f"an EER of {self.eer:.0%} says that the model hardly tells these speakers apart (50 % is "
                "guessing): check the labels, or take another model"
            )
        return doubts

    def to_dict(self) -> dict[str, Any]:
        """The same, ready for JSON, numbers in 6 decimals."""
        result: dict[str, Any] = _rounded(asdict(self))
        return result


def evaluate_scores(
    scores: npt.ArrayLike,
    trials: Trials,
    resamples: int = 200,
    llrs: npt.ArrayLike | None = None,
    net_speech_s: npt.ArrayLike | None = None,
) -> Evaluation:
    """Evaluate `scores` `[trials]`.

    `llrs` `[trials]` are what the model's calibration makes of them, if it has one; `net_speech_s`
    `[recordings]` are the seconds of speech in each recording. Raises ValueError when a score is not finite
    or there are not as many scores as trials.
    """
    array, target = checked_trials(scores, trials.labels)
    curve = det_curve(array, target)
    equal = curve.eer()
    intervals = speaker_bootstrap(array, trials, resamples)
    fitted = llrs is None
    if llrs is None:
        slope, offset = fit_llr_line(array, target)
        llrs = slope * array + offset
    identity = trials.identity()
    return Evaluation(
        trials=identity.name,
        trials_sha256=identity.sha256,
        targets=identity.targets,
        nontargets=identity.nontargets,
        speakers=identity.speakers,
        eer=equal.rate,
        eer_interval=intervals.eer if intervals else None,
        eer_threshold=equal.threshold,
        min_dcf=curve.min_dcf(),
        min_dcf_interval=intervals.min_dcf if intervals else None,
        cllr=cllr(llrs, target),
        min_cllr=min_cllr(array, target),
        cllr_calibration="fitted on these trials" if fitted else "card",
        groups=_by_corpus(array, trials),
        net_speech={} if net_speech_s is None else _by_net_speech(array, trials, net_speech_s),
    )


def _by_corpus(scores: FloatArray, trials: Trials) -> dict[str, GroupResult]:
    """Measure each corpus that has both classes and more than one speaker, by name."""
    first, second = trials.corpus_pairs()
    # Only corpora with non-targets of their own: VoxCeleb's folders of one speaker have none.
    names = np.unique(first[(first == second) & ~trials.labels & (first != "")])
    return _by_group(scores, trials, {str(name): (first == name) & (second == name) for name in names})


def _by_net_speech(scores: FloatArray, trials: Trials, net_speech_s: npt.ArrayLike) -> dict[str, GroupResult]:
    """Results by how much speech the probe has, the least first."""
    seconds = trials.of_probes(np.asarray(net_speech_s, dtype=np.float64))
    groups = {name: (seconds >= low) & (seconds < high) for name, (low, high) in NET_SPEECH_S.items()}
    return _by_group(scores, trials, groups)


def _by_group(scores: FloatArray, trials: Trials, groups: Mapping[str, BoolArray]) -> dict[str, GroupResult]:
    """Results of each group of trials, given as masks `[trials]`, that has both classes and two speakers."""
    first, second = trials.speaker_pairs()
    results: dict[str, GroupResult] = {}
    for name, inside in groups.items():
        target = trials.labels[inside]
        speakers = np.unique(np.concatenate((first[inside], second[inside]))).size
        if speakers > 1 and target.any() and not target.all():
            results[name] = GroupResult(
                eer=eer(scores[inside], target).rate,
                targets=int(target.sum()),
                nontargets=int((~target).sum()),
                speakers=speakers,
            )
    return results


@dataclass(frozen=True)
class CarriedThreshold:
    """A threshold set on half of the speakers: its rates there (tuned) and on the other half (applied)."""

    threshold: float
    tuned: ErrorRates
    applied: ErrorRates


@dataclass(frozen=True)
class Halves:
    """How thresholds and the LLR line do on speakers that they were not set on; Cllr is in bits."""

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


def halves(scores: npt.ArrayLike, trials: Trials, seed: int = 0) -> Halves:
    """Set thresholds and the LLR line on a random half of the speakers, and apply them to the other half.

    A trial counts in a half when both of its speakers are in it. Raises TrialListError when that leaves a
    half without targets or without non-targets, as a list of very few speakers may.
    """
    return _halves(checked_trials(scores, trials.labels)[0], trials, trials.speaker_pairs(), seed)


def _halves(array: FloatArray, trials: Trials, speakers: tuple[IntArray, IntArray], seed: int) -> Halves:
    tuned, applied = _split(trials, speakers, seed)
    tuned_trials = array[tuned], trials.labels[tuned]
    applied_trials = array[applied], trials.labels[applied]
    nontargets = array[tuned & ~trials.labels]
    thresholds = {"eer": eer(*tuned_trials).threshold, "fmr=0.01": threshold_at_fmr(nontargets, 0.01)}
    slope, offset = fit_llr_line(*tuned_trials)
    return Halves(
        thresholds={
            name: CarriedThreshold(
                value, error_rates(*tuned_trials, value), error_rates(*applied_trials, value)
            )
            for name, value in thresholds.items()
        },
        cllr_tuned=cllr(slope * tuned_trials[0] + offset, tuned_trials[1]),
        cllr_applied=cllr(slope * applied_trials[0] + offset, applied_trials[1]),
        min_cllr_tuned=min_cllr(*tuned_trials),
        min_cllr_applied=min_cllr(*applied_trials),
    )


def check_halves(trials: Trials, splits: int = SPLITS) -> None:
    """Raise TrialListError if one of the splits that `carried_over` makes leaves a half without trials."""
    speakers = trials.speaker_pairs()
    for seed in range(splits):
        _split(trials, speakers, seed)


def carried_over(
    scores: npt.ArrayLike,
    trials: Trials,
    splits: int = SPLITS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, dict[str, float]]:
    """Means of `halves` over random splits of the speakers, by operating point and for Cllr (bits).

    One split depends on who fell into which half: a few speakers make most of the false matches.
    `progress` is called with the splits done and their total. Raises TrialListError as `halves` does.
    """
    array, speakers = checked_trials(scores, trials.labels)[0], trials.speaker_pairs()
    parts = []
    for seed in range(splits):
        parts.append(_halves(array, trials, speakers, seed))
        progress(seed + 1, splits)
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


def _split(trials: Trials, speakers: tuple[IntArray, IntArray], seed: int) -> tuple[BoolArray, BoolArray]:
    """Which trials fall in each half, bool `[trials]` twice."""
    count = int(max(numbers.max() for numbers in speakers)) + 1
    in_first_half = np.zeros(count, dtype=np.bool_)
    in_first_half[np.random.default_rng(seed).permutation(count)[: count // 2]] = True
    first, second = (in_first_half[numbers] for numbers in speakers)
    parts = first & second, ~first & ~second
    for part in parts:
        target = trials.labels[part]
        if not target.any() or target.all():
            raise TrialListError(
                f"{trials.name}: half of its {count} speakers have no targets or no non-targets; "
                "use a list of more speakers, or leave --halves out"
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
