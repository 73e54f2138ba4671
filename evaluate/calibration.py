"""What a model card carries so that a score can be decided on: LLR line, thresholds, false match curve."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sayso.evaluate.arrays import FloatArray, checked_scores, checked_trials
from sayso.evaluate.metrics import cllr, eer, error_rates, min_cllr, threshold_at_fmr
from sayso.evaluate.trials import TrialIdentity, Trials

DECIMALS = 6  # of every stored score and rate
STEPS = 1e6  # so many stored values lie between 0 and 1
COSINE_SLACK = 1e-3  # a cosine of float32 or float16 vectors may pass 1 by this much
HISTOGRAM_EDGES = np.linspace(-1.0, 1.0, 81)

RIDGE = 1e-6  # on the standardised slope: nothing on overlapping scores, a bound on separated ones
NEWTON_STEPS = 100
LOSS_NOISE = 1e-12  # two losses closer than this are equal but for rounding

CURVE_TOP = 0.3  # highest FMR of the false match curve
CURVE_POINTS_PER_DECADE = 10
CURVE_FLOOR_TRIALS = 10  # the curve's lowest FMR still lets this many non-targets through
TAIL_FMR = 0.01  # the tail is fitted to this share of the non-targets,
TAIL_TRIALS = 100  # and to no fewer than this many of them (in a short list: the highest third)


@dataclass(frozen=True)
class LlrLine:
    """llr = slope * score + offset, natural log, positive in favour of the same speaker."""

    slope: float
    offset: float

    def __call__(self, scores: FloatArray) -> FloatArray:
        """LLRs of `scores`, in the same shape."""
        return self.slope * scores + self.offset


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold (accept when score >= threshold) and the error rates measured at it, as fractions."""

    threshold: float
    fmr: float
    fnmr: float


@dataclass(frozen=True)
class FalseMatchCurve:
    """Score threshold against FMR, for the low FMRs that identification among many speakers needs.

    fmr descends as threshold ascends; at each threshold at most that share of the non-targets scored as high.
    Between two points, interpolate log FMR linearly in the threshold. Past the last point (f, t) the tail is
    exponential: FMR(x) = f * exp(-(x - t) / tail_scale).
    """

    fmr: tuple[float, ...]
    threshold: tuple[float, ...]
    tail_scale: float


@dataclass(frozen=True)
class Histogram:
    """Densities of target and non-target scores `[bins]` between `edges` `[bins + 1]`, for drawing."""

    edges: tuple[float, ...]
    target: tuple[float, ...]
    nontarget: tuple[float, ...]


@dataclass(frozen=True)
class Calibration:
    """Everything the card says about how scores turn into decisions; cllr and min_cllr are in bits."""

    trials: TrialIdentity
    llr: LlrLine
    operating_points: Mapping[str, OperatingPoint]
    false_match_curve: FalseMatchCurve
    histogram: Histogram
    cllr: float
    min_cllr: float

    def to_dict(self) -> dict[str, Any]:
        """The card's `calibration` entry, ready for JSON."""
        return {
            "trials": asdict(self.trials),
            "llr": asdict(self.llr),
            "operating_points": {name: asdict(point) for name, point in self.operating_points.items()},
            "false_match_curve": {
                "fmr": list(self.false_match_curve.fmr),
                "threshold": list(self.false_match_curve.threshold),
                "tail_scale": self.false_match_curve.tail_scale,
            },
            "histogram": {
                "edges": list(self.histogram.edges),
                "target": list(self.histogram.target),
                "nontarget": list(self.histogram.nontarget),
            },
        }


def fit_calibration(scores: npt.ArrayLike, trials: Trials) -> Calibration:
    """Calibrate cosine `scores` `[trials]` of a trial list.

    ValueError when a score is not finite or is no cosine, or when there are not as many scores as trials.
    """
    array, target = checked_trials(scores, trials.labels)
    if np.abs(array).max() > 1.0 + COSINE_SLACK:
        raise ValueError(
            f"scores must be cosines within [-1, 1], got one of {array[np.abs(array).argmax()]:.4g}"
        )
    nontargets = array[~target]
    line = fit_llr_line(array, target)
    line = LlrLine(round(line.slope, DECIMALS), round(line.offset, DECIMALS))
    thresholds = {
        "eer": eer(array, target).threshold,
        "fmr=0.01": threshold_at_fmr(nontargets, 0.01),
        "fmr=0.001": threshold_at_fmr(nontargets, 0.001),
    }
    return Calibration(
        trials=trials.identity(),
        llr=line,
        operating_points={name: _measured(array, target, value) for name, value in thresholds.items()},
        false_match_curve=false_match_curve(nontargets),
        histogram=_histogram(array[target], nontargets),
        cllr=cllr(line(array), target),
        min_cllr=min_cllr(array, target),
    )


def fit_llr_line(scores: npt.ArrayLike, labels: npt.ArrayLike) -> LlrLine:
    """The line from score to LLR that has the lowest Cllr on these trials.

    Logistic regression in which targets and non-targets weigh a half each, whatever their numbers, so that
    the line holds log-likelihood ratios and no prior (Pigeon, Druyts and Verlinde, "Applying logistic
    regression to the fusion of the NIST'99 1-speaker submissions", Digital Signal Processing 10, 2000;
    Brümmer and du Preez, Computer Speech & Language 20, 2006). Newton's method with step halving.
    """
    array, target = checked_trials(scores, labels)
    mean, spread = float(array.mean()), float(array.std())
    if spread <= 1e-12 * max(1.0, abs(mean)):
        return LlrLine(slope=0.0, offset=0.0)  # equal scores tell nothing
    design = np.column_stack(((array - mean) / spread, np.ones_like(array)))
    weights = np.where(target, 0.5 / target.sum(), 0.5 / (~target).sum())
    slope, offset = _logistic(design, target.astype(np.float64), weights)
    return LlrLine(slope=slope / spread, offset=offset - slope * mean / spread)


def _logistic(design: FloatArray, outcome: FloatArray, weights: FloatArray) -> tuple[float, float]:
    """Weighted logistic regression on `design` `[trials, 2]` (score, 1); `outcome` is 1 for a target."""
    ridge = np.diag((RIDGE, 0.0))
    sign = 1.0 - 2.0 * outcome

    def loss(theta: FloatArray) -> float:
        return float(weights @ np.logaddexp(0.0, sign * (design @ theta)) + theta @ ridge @ theta / 2)

    theta = np.zeros(2)
    current = loss(theta)
    for _ in range(NEWTON_STEPS):
        probability = 0.5 * (1.0 + np.tanh(design @ theta / 2))  # a sigmoid that cannot overflow
        gradient = design.T @ (weights * (probability - outcome)) + ridge @ theta
        hessian = (design.T * (weights * probability * (1.0 - probability))) @ design + ridge
        step = np.linalg.solve(hessian, gradient)
        # Where the curvature has nearly vanished a full step overshoots, and would go on to infinity.
        while loss(theta - step) > current + LOSS_NOISE:
            step = step / 2
        theta = theta - step
        current = loss(theta)
        if np.abs(step).max() <= 1e-10 * (1.0 + np.abs(theta).max()):
            break
    return float(theta[0]), float(theta[1])


def false_match_curve(nontarget_scores: npt.ArrayLike) -> FalseMatchCurve:
    """Thresholds at FMRs from 0.3 down to what the non-targets support, and the scale of the tail beyond.

    The table stops where 10 non-targets are left. Past it, scores over a high threshold follow a generalised
    Pareto law (Balkema and de Haan 1974; Pickands 1975). With its shape at 0, the cautious choice for scores
    that end at 1, that is an exponential whose scale is the mean excess of the highest scores over the next
    one (Weissman, JASA 73, 1978).
    """
    nontargets = np.sort(checked_scores(nontarget_scores, "non-target scores"))
    lowest = min(CURVE_TOP, CURVE_FLOOR_TRIALS / nontargets.size)
    count = 1 + round(CURVE_POINTS_PER_DECADE * math.log10(CURVE_TOP / lowest))
    table: dict[float, float] = {}
    for fmr in np.geomspace(CURVE_TOP, lowest, count).tolist():
        rate = float(f"{fmr:.6g}")
        # Tied scores give several FMRs one threshold; the lowest of them is the one it keeps to.
        table[_rounded_up(threshold_at_fmr(nontargets, rate))] = rate
    return FalseMatchCurve(
        fmr=tuple(table.values()), threshold=tuple(table), tail_scale=_tail_scale(nontargets)
    )


def _tail_scale(ascending: FloatArray) -> float:
    size = ascending.size
    highest = max(math.ceil(TAIL_FMR * size), min(TAIL_TRIALS, size // 3))
    highest = min(highest, size - 1)
    smallest = 1 / STEPS  # a scale of 0 would be divided by
    if highest < 1:
        return smallest
    excess = ascending[size - highest :] - ascending[size - highest - 1]
    return max(smallest, round(float(excess.mean()), DECIMALS))


def _measured(scores: FloatArray, target: npt.NDArray[np.bool_], threshold: float) -> OperatingPoint:
    """The point as it will be stored: rates are those of the rounded threshold, not of the exact one."""
    stored = _rounded_up(threshold)
    rates = error_rates(scores, target, stored)
    return OperatingPoint(stored, round(rates.fmr, DECIMALS), round(rates.fnmr, DECIMALS))


def _rounded_up(threshold: float) -> float:
    """`threshold` in 6 decimals and never lower, or the FMR it promises would be broken."""
    steps = math.ceil(threshold * STEPS)
    if steps / STEPS < threshold:  # the product was rounded down
        steps += 1
    return steps / STEPS


def _histogram(targets: FloatArray, nontargets: FloatArray) -> Histogram:
    def density(scores: FloatArray) -> tuple[float, ...]:
        heights, _ = np.histogram(np.clip(scores, -1.0, 1.0), HISTOGRAM_EDGES, density=True)
        return tuple(round(float(height), DECIMALS) for height in heights)

    edges = tuple(round(float(edge), DECIMALS) for edge in HISTOGRAM_EDGES)
    return Histogram(edges=edges, target=density(targets), nontarget=density(nontargets))
