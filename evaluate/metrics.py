"""Error rates, detection costs and thresholds.

One convention throughout: a trial is accepted when score >= threshold. FMR is the share of non-targets
accepted, FNMR the share of targets rejected, both as fractions. Every function raises ValueError when a class
is empty or a score is not finite.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sayso.evaluate.arrays import BoolArray, FloatArray, IntArray, checked_scores, checked_trials


class EqualErrorRate(NamedTuple):
    """The EER as a fraction, and the threshold whose FMR and FNMR are the closest to each other."""

    rate: float
    threshold: float


class ErrorRates(NamedTuple):
    """FMR and FNMR at one threshold, as fractions."""

    fmr: float
    fnmr: float


class DetCurve(NamedTuple):
    """FMR and FNMR at every threshold that tells the trials apart; each array is float64 `[points]`.

    `thresholds` ascends over the distinct scores, then one step beyond the highest, so the curve runs from
    (FMR 1, FNMR 0) to (FMR 0, FNMR 1).
    """

    thresholds: FloatArray
    fmr: FloatArray
    fnmr: FloatArray

    def eer(self) -> EqualErrorRate:
        """The rate where FMR = FNMR, on the straight line between the two points around the crossing."""
        gap = self.fnmr - self.fmr
        after = int(np.argmax(gap >= 0))  # never 0: the curve starts at a gap of -1
        before = after - 1
        share = -gap[before] / (gap[after] - gap[before])
        rate = self.fmr[before] + share * (self.fmr[after] - self.fmr[before])
        closest = after if gap[after] <= -gap[before] else before
        return EqualErrorRate(float(rate), self._inside(closest))

    def _inside(self, point: int) -> float:
        """The middle of the thresholds that all give this point, as far as can be from either neighbour."""
        upper = float(self.thresholds[point])
        if point == 0:
            return upper
        lower = float(self.thresholds[point - 1])
        middle = lower + (upper - lower) / 2
        return middle if lower < middle else upper

    def min_dcf(self, p_target: float = 0.01, c_miss: float = 1.0, c_fa: float = 1.0) -> float:
        """Lowest detection cost on the curve over that of the better blind decision (NIST SRE)."""
        if not 0 < p_target < 1 or c_miss <= 0 or c_fa <= 0:
            raise ValueError(f"need 0 < p_target < 1 and positive costs, got {p_target}, {c_miss}, {c_fa}")
        miss, false_alarm = c_miss * p_target, c_fa * (1 - p_target)
        return float(np.min(miss * self.fnmr + false_alarm * self.fmr)) / min(miss, false_alarm)


@dataclass(frozen=True, eq=False)
class Ranking:
    """Trials sorted by score once, so that many weightings of them (a bootstrap) share one sort.

    order: int `[trials]`, the indices that sort the scores upwards.
    labels: bool `[trials]`, in that order.
    bounds: int `[points]`, how many trials lie below each threshold.
    thresholds: float64 `[points]`, as in DetCurve.
    """

    order: IntArray
    labels: BoolArray
    bounds: IntArray
    thresholds: FloatArray

    @classmethod
    def of(cls, scores: npt.ArrayLike, labels: npt.ArrayLike) -> "Ranking":
        """Sort trials; tied scores share one threshold."""
        array, target = checked_trials(scores, labels)
        order = np.argsort(array, kind="stable")
        ascending = array[order]
        starts = np.flatnonzero(np.concatenate(([True], np.diff(ascending) > 0)))
        return cls(
            order=order,
            labels=target[order],
            bounds=np.append(starts, array.size),
            thresholds=np.append(ascending[starts], np.nextafter(ascending[-1], np.inf)),
        )

    def curve(self, weights: FloatArray | None = None) -> DetCurve:
        """The DET curve under `weights` `[trials]`, given in the order of this ranking (ones if absent)."""
        target = self.labels.astype(np.float64)
        nontarget = 1.0 - target
        if weights is not None:
            target *= weights
            nontarget *= weights
        misses, rejections = self._below(target), self._below(nontarget)
        if misses[-1] <= 0 or rejections[-1] <= 0:
            raise ValueError("the weights leave no targets or no non-targets")
        # Taking from the same running sum ends at exactly 0, whatever the rounding.
        return DetCurve(self.thresholds, (rejections[-1] - rejections) / rejections[-1], misses / misses[-1])

    def _below(self, weights: FloatArray) -> FloatArray:
        return np.concatenate(([0.0], np.cumsum(weights)))[self.bounds]


def det_curve(scores: npt.ArrayLike, labels: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> DetCurve:
    """(thresholds, FMR, FNMR) of `scores` `[trials]`, each trial counted `weights` times (non-negative)."""
    ranking = Ranking.of(scores, labels)
    if weights is None:
        return ranking.curve()
    counts = checked_scores(weights, "weights")
    if counts.shape != ranking.order.shape or np.any(counts < 0):
        raise ValueError(f"weights must be {ranking.order.size} numbers of 0 and more, one per score")
    return ranking.curve(counts[ranking.order])


def eer(scores: npt.ArrayLike, labels: npt.ArrayLike) -> EqualErrorRate:
    """Equal error rate, interpolated at the crossing, and its threshold."""
    return det_curve(scores, labels).eer()


def min_dcf(
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    p_target: float = 0.01,
    c_miss: float = 1.0,
    c_fa: float = 1.0,
) -> float:
    """Minimum normalised detection cost: 0 is perfect, 1 is no better than deciding blindly."""
    return det_curve(scores, labels).min_dcf(p_target, c_miss, c_fa)


def error_rates(scores: npt.ArrayLike, labels: npt.ArrayLike, threshold: float) -> ErrorRates:
    """FMR and FNMR of `scores` `[trials]` at one threshold."""
    array, target = checked_trials(scores, labels)
    accepted = array >= threshold
    return ErrorRates(float(accepted[~target].mean()), float(1.0 - accepted[target].mean()))


def threshold_at_fmr(nontarget_scores: npt.ArrayLike, fmr: float) -> float:
    """The lowest threshold that accepts at most the share `fmr` (0 <= fmr < 1) of these non-targets."""
    if not 0 <= fmr < 1:
        raise ValueError(f"fmr must be at least 0 and below 1, got {fmr}")
    array = checked_scores(nontarget_scores, "non-target scores")
    allowed = math.floor(fmr * array.size)
    if (allowed + 1) / array.size <= fmr:  # 0.29 * 100 is 28.999...: the product may fall short by one
        allowed += 1
    # The highest score that must be rejected; ties with it are rejected too.
    rejected = np.partition(array, array.size - allowed - 1)[array.size - allowed - 1]
    return float(np.nextafter(rejected, np.inf))


def cllr(llrs: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Cost of log-likelihood ratios (natural log) `[trials]`, in bits; 1 is what always saying 0 costs.

    Brümmer and du Preez, "Application-independent evaluation of speaker detection", Computer Speech &
    Language 20, 2006.
    """
    array, target = checked_trials(llrs, labels)
    misses = np.logaddexp(0.0, -array[target]).mean()
    false_alarms = np.logaddexp(0.0, array[~target]).mean()
    return float(misses + false_alarms) / (2 * math.log(2))


def min_cllr(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Cllr, in bits, after the best monotone map from score to LLR: what no calibration can improve.

    That map is pool-adjacent-violators, which is the convex hull of the ROC (Brümmer and du Preez 2006): a
    segment that holds the share t of the targets and n of the non-targets has the LLR log(t / n).
    """
    curve = det_curve(scores, labels)
    corners = np.array(_lower_hull((1.0 - curve.fmr).tolist(), curve.fnmr.tolist()))
    n, t = np.diff(corners, axis=0).T
    mixed = (n > 0) & (t > 0)  # a segment of one class alone has an infinite LLR of the right sign: no cost
    n, t = n[mixed], t[mixed]
    return float(np.sum(t * np.log1p(n / t) + n * np.log1p(t / n))) / (2 * math.log(2))


def _lower_hull(xs: list[float], ys: list[float]) -> list[tuple[float, float]]:
    """Corners of the lower convex hull of points whose x and y both ascend (monotone chain)."""
    hull: list[tuple[float, float]] = []
    for x, y in zip(xs, ys, strict=True):
        while len(hull) > 1:
            (x0, y0), (x1, y1) = hull[-2], hull[-1]
            if (x1 - x0) * (y - y0) > (x - x0) * (y1 - y0):
                break  # the last corner lies below the line past it: it stays
            hull.pop()
        hull.append((x, y))
    return hull
