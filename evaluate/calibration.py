"""Calibrates a model: fits the regressions from evidence to an LLR, and sets the thresholds on LLRs."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from sayso.domain.calibration import (
    RARE,
    Calibration,
    FalseMatchCurve,
    Histogram,
    OperatingPoint,
    TrialIdentity,
)
from sayso.domain.evidence import ANY, FEATURES, Conditions, LlrModel, Range, Regression
from sayso.evaluate.arrays import BoolArray, FloatArray, checked_scores, checked_trials
from sayso.evaluate.metrics import cllr, eer, error_rates, threshold_at_fmr
from sayso.evaluate.tenants import (
    TENANT_SIZES,
    Comparisons,
    Evidence,
    balanced,
    centres,
    gather,
    of_groups,
    search_rates,
)

DECIMALS = 6  # of every stored threshold and rate
STEPS = 1e6  # stored values between 0 and 1: 10 ** DECIMALS
HISTOGRAM_BINS = 80

RIDGE = 1e-6  # on standardised weights: no effect if the classes overlap, keeps weights finite if not
NEWTON_STEPS = 100
LOSS_NOISE = 1e-12  # losses closer than this differ by rounding only

CURVE_TOP = 0.3  # highest FMR of the false match curve
CURVE_POINTS_PER_DECADE = 10
CURVE_FLOOR_TRIALS = 10  # the curve's lowest FMR still lets this many non-targets through
TAIL_FMR = 0.01  # the tail is fitted to this share of the non-targets,
TAIL_TRIALS = 100  # and to no fewer than this many of them (in a short list: the highest third)

FEWEST = 100  # trials of a class that a pair of bands needs for a regression of its own
CENTRE_WEIGHTS = (
    1.0,
    2.0,
    4.0,
    8.0,
)  # tried: the band's centre weighs as much as so many people of the tenant
GROWTHS = np.linspace(0.3, 1.0, 71)
SEARCH_SIZES = (5, 10, 20, 50, 100, 200, 400)


def fit_on_templates(
    comparisons: Sequence[Comparisons],
    identities: Sequence[TrialIdentity],
    centre_weights: Sequence[float] = CENTRE_WEIGHTS,
) -> Calibration:
    """Calibrate on template trials: one `Comparisons` for each condition, with the same templates and trials.

    Every group and every condition has the same weight. Of `centre_weights` the one with the lowest Cllr is
    kept. ValueError if no group has both classes, or if the model is no better than chance.
    """
    middle = {band: tuple(np.round(c, DECIMALS).tolist()) for band, c in centres(comparisons).items()}
    conditions = _conditions(comparisons)
    fits = []
    for weight in centre_weights:
        empty = LlrModel({ANY: Regression(0.0, {"centred": 1.0})}, middle, weight, conditions)
        parts = [gather(empty, c, TENANT_SIZES, seed) for seed, c in enumerate(comparisons)]
        evidence = balanced(Evidence.joined(parts))
        model = fit_llr_model(evidence, empty)
        llrs = evidence.llrs(model)
        fits.append((cllr(llrs, evidence.labels), weight, model, llrs, evidence))
    _, _, model, llrs, evidence = min(fits, key=lambda fit: fit[:2])
    growth = _search_growth(model, comparisons[0])
    return _decisions(model, llrs, evidence, tuple(identities), growth)


@dataclass(frozen=True)
class HeldOut:
    """Error rates of one left-out group under one condition, at the `fmr=0.01` fitted on the other groups."""

    group: str
    condition: str
    lengths: str
    targets: int
    nontargets: int
    fmr: float
    fnmr: float


def held_out(
    comparisons: Sequence[Comparisons],
    together: Sequence[Sequence[int]],
    centre_weight: float,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[HeldOut]:
    """Test the thresholds on groups that they were not fitted on.

    For each entry of `together`, a list of group numbers, the calibration is fitted without those groups and
    tested on them. Tenants have the largest of TENANT_SIZES, or the whole group if that is smaller. A group
    without both classes gives no row. `progress` takes the folds done and their number. ValueError if an
    entry leaves nothing to fit on.
    """
    rows: list[HeldOut] = []
    everybody = np.unique(comparisons[0].groups)
    if any(not np.setdiff1d(everybody, left_out).size for left_out in together):
        raise ValueError("a corpus can only be held out beside another: the trials are all of one")
    for done, left_out in enumerate(together):
        progress(done, len(together))
        others = [of_groups(c, np.setdiff1d(everybody, left_out)) for c in comparisons]
        fitted = fit_on_templates(others, (), (centre_weight,))
        for c in comparisons:
            tried = gather(fitted.llr, of_groups(c, np.asarray(left_out)), (max(TENANT_SIZES),))
            pairs = tried.pairs()
            thresholds = {
                pair: fitted.point("fmr=0.01", pair).threshold for pair in np.unique(pairs).tolist()
            }
            over = tried.llrs(fitted.llr) - np.array([thresholds[pair] for pair in pairs.tolist()])
            for group in left_out:
                own = tried.group == group
                accepted, labels = over[own] >= 0, tried.labels[own]
                if labels.any() and not labels.all():
                    fmr, fnmr = float(accepted[~labels].mean()), float(1.0 - accepted[labels].mean())
                    counts = int(labels.sum()), int((~labels).sum())
                    rows.append(HeldOut(c.name(group), c.condition, c.lengths, *counts, fmr, fnmr))
    return rows


def fit_llr_model(evidence: Evidence, empty: LlrModel) -> LlrModel:
    """Fit regressions to `evidence`: one over all trials, and one for each pair of bands with enough trials.

    Returns `empty` with these regressions in place of its own. Every feature that varies is used, except the
    plain score, which the centred one replaces. ValueError if the model is no better than chance.
    """
    columns, pairs = evidence.columns(empty), evidence.pairs()
    regressions = {ANY: _regression(columns, evidence.labels)}
    for pair in np.unique(pairs).tolist():
        own = pairs == pair
        if min(evidence.labels[own].sum(), (~evidence.labels[own]).sum()) >= FEWEST:
            regressions[pair] = _regression(columns[own], evidence.labels[own])
    return replace(empty, regressions=regressions)


def _regression(columns: FloatArray, labels: BoolArray) -> Regression:
    used = [i for i, name in enumerate(FEATURES) if name != "score" and np.ptp(columns[:, i]) > 0]
    weights, offset = _fit_logistic(columns[:, used], labels)
    named = {FEATURES[i]: round(float(w), DECIMALS) for i, w in zip(used, weights, strict=True)}
    return Regression(round(offset, DECIMALS), named)


def fit_llr_line(scores: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[float, float]:
    """Return slope and offset of the line from score to LLR with the lowest Cllr on these trials."""
    array, target = checked_trials(scores, labels)
    if float(array.std()) <= 1e-12 * max(1.0, abs(float(array.mean()))):
        return 0.0, 0.0  # equal scores are no evidence
    weights, offset = _fit_logistic(array[:, None], target)
    return float(weights[0]), offset


def _fit_logistic(columns: FloatArray, target: BoolArray) -> tuple[FloatArray, float]:
    """Return weights `[features]` and offset of a logistic regression in which each class has weight 1/2.

    So its output is an LLR, free of the trials' prior (Pigeon, Druyts and Verlinde, "Applying logistic
    regression to the fusion of the NIST'99 1-speaker submissions", Digital Signal Processing 10, 2000;
    Brümmer and du Preez, Computer Speech & Language 20, 2006). Newton's method with step halving.
    """
    mean, spread = columns.mean(axis=0), columns.std(axis=0)
    design = np.column_stack(((columns - mean) / spread, np.ones(len(columns))))
    weights = np.where(target, 0.5 / target.sum(), 0.5 / (~target).sum())
    theta = _logistic(design, target.astype(np.float64), weights)
    slopes = theta[:-1] / spread
    return slopes, float(theta[-1] - slopes @ mean)


def _logistic(design: FloatArray, outcome: FloatArray, weights: FloatArray) -> FloatArray:
    """Fit a logistic regression on `design` `[trials, features + 1]`; returns its weights `[features + 1]`.

    The design's last column is 1. `outcome` `[trials]` is 1 for a target. `weights` `[trials]` weigh
    the loss.
    """
    ridge = np.diag([RIDGE] * (design.shape[1] - 1) + [0.0])
    sign = 1.0 - 2.0 * outcome

    def loss(theta: FloatArray) -> float:
        return float(weights @ np.logaddexp(0.0, sign * (design @ theta)) + theta @ ridge @ theta / 2)

    theta = np.zeros(design.shape[1])
    current = loss(theta)
    for _ in range(NEWTON_STEPS):
        probability = 0.5 * (1.0 + np.tanh(design @ theta / 2))  # a sigmoid that cannot overflow
        gradient = design.T @ (weights * (probability - outcome)) + ridge @ theta
        hessian = (design.T * (weights * probability * (1.0 - probability))) @ design + ridge
        step = np.linalg.solve(hessian, gradient)
        # Where the curvature is near zero a full step overshoots, and the weights would diverge.
        while loss(theta - step) > current + LOSS_NOISE:
            step = step / 2
        theta = theta - step
        current = loss(theta)
        if np.abs(step).max() <= 1e-10 * (1.0 + np.abs(theta).max()):
            break
    return theta


def _conditions(comparisons: Sequence[Comparisons]) -> Conditions:
    largest = int(np.bincount(comparisons[0].groups).max())
    return Conditions(
        _range([c.probes.sides.net_speech_s for c in comparisons]),
        _range([c.templates.sides.net_speech_s for c in comparisons]),
        tuple(sorted({c.condition for c in comparisons})),
        tuple(size for size in TENANT_SIZES if size <= largest),
    )


def _range(seconds: Sequence[FloatArray]) -> Range:
    """Return the range of the durations `[recordings]` of all conditions.

    Of each condition the 1st to 99th percentile counts, so that a few odd recordings do not widen the range.
    """
    lows, highs = zip(*(np.percentile(s, [1, 99]) for s in seconds if len(s)), strict=True)
    return Range(round(float(min(lows)), 2), round(float(max(highs)), 2))


def _search_growth(model: LlrModel, comparisons: Comparisons) -> float:
    """Fit `growth`, which predicts a search's false positive rate: 1 - (1 - FMR) ** (tenant size ** growth).

    It minimises the mean absolute error of the rate's logarithm. 1.0, the cautious value, if no group is
    large enough to measure.
    """
    c = comparisons
    evidence = gather(model, c, (max(SEARCH_SIZES),))
    nontargets = evidence.take(~evidence.labels)
    llrs = nontargets.llrs(model)
    thresholds = np.quantile(llrs, 1.0 - np.geomspace(0.02, 0.0005, 12))
    fmr = np.mean(llrs[:, None] >= thresholds, axis=0)
    measured = {size: rate for size, (rate, _) in search_rates(model, c, SEARCH_SIZES, thresholds).items()}
    if not measured:
        return 1.0

    def miss(growth: float) -> float:
        errors = []
        for size, rate in measured.items():
            expected = -np.expm1(np.log1p(-fmr) * size**growth)
            known = (rate > 0.01) & (rate < 0.2)  # the range in which thresholds for searches are set
            errors += (np.log(rate[known]) - np.log(expected[known])).tolist()
        return float(np.abs(errors).mean()) if errors else 0.0

    return round(float(min(GROWTHS[::-1], key=miss)), 2)


def _decisions(
    model: LlrModel,
    llrs: FloatArray,
    evidence: Evidence,
    identities: tuple[TrialIdentity, ...],
    growth: float,
) -> Calibration:
    target, pairs = evidence.labels, evidence.pairs()
    rows = {ANY: np.ones(len(llrs), np.bool_)}
    rows |= {pair: pairs == pair for pair in model.regressions if pair != ANY}
    points: dict[str, dict[str, OperatingPoint]] = {name: {} for name in ("eer", "fmr=0.01", "fmr=0.001")}
    for pair, own in rows.items():
        nontargets = llrs[own & ~target]
        exact = {
            "eer": eer(llrs[own], target[own]).threshold,
            "fmr=0.01": threshold_at_fmr(nontargets, 0.01),
            "fmr=0.001": threshold_at_fmr(nontargets, 0.001),
        }
        for name, value in exact.items():
            points[name][pair] = _measured(llrs[own], target[own], value)
    return Calibration(
        trials=identities,
        llr=model,
        operating_points=points,
        false_match_curves={pair: false_match_curve(llrs[own & ~target]) for pair, own in rows.items()},
        histogram=_histogram(llrs[target], llrs[~target]),
        cohesion_floor=round(float(np.quantile(evidence.score[target], RARE)), DECIMALS),
        search_growth=growth,
    )


def _measured(llrs: FloatArray, target: BoolArray, threshold: float) -> OperatingPoint:
    """The point as it will be stored: rates are those of the rounded threshold, not of the exact one."""
    stored = _rounded_up(threshold)
    rates = error_rates(llrs, target, stored)
    return OperatingPoint(stored, round(rates.fmr, DECIMALS), round(rates.fnmr, DECIMALS))


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
        # With tied scores one threshold serves several FMRs; the lowest of them is kept.
        table[_rounded_up(threshold_at_fmr(nontargets, rate))] = rate
    return FalseMatchCurve(
        fmr=tuple(table.values()), threshold=tuple(table), tail_scale=_tail_scale(nontargets)
    )


def _tail_scale(ascending: FloatArray) -> float:
    size = ascending.size
    highest = max(math.ceil(TAIL_FMR * size), min(TAIL_TRIALS, size // 3))
    highest = min(highest, size - 1)
    smallest = 1 / STEPS  # never 0: the scale is a divisor
    if highest < 1:
        return smallest
    excess = ascending[size - highest :] - ascending[size - highest - 1]
    return max(smallest, round(float(excess.mean()), DECIMALS))


def _rounded_up(threshold: float) -> float:
    """Round `threshold` up to 6 decimals: rounded down it could exceed the FMR that it promises."""
    steps = math.ceil(threshold * STEPS)
    if steps / STEPS < threshold:  # the product was rounded down
        steps += 1
    return steps / STEPS


def _histogram(targets: FloatArray, nontargets: FloatArray) -> Histogram:
    """Bin both classes' LLRs, as densities; LLRs beyond the outer 0.1% quantiles fall into the end bins."""
    low, high = float(np.quantile(nontargets, 0.001)), float(np.quantile(targets, 0.999))
    edges = np.linspace(math.floor(min(low, -1.0)), math.ceil(max(high, 1.0)), HISTOGRAM_BINS + 1)

    def density(llrs: FloatArray) -> tuple[float, ...]:
        heights, _ = np.histogram(np.clip(llrs, edges[0], edges[-1]), edges, density=True)
        return tuple(round(float(height), DECIMALS) for height in heights)

    return Histogram(
        edges=tuple(round(float(edge), DECIMALS) for edge in edges),
        target=density(targets),
        nontarget=density(nontargets),
    )
