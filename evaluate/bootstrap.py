"""Confidence intervals that respect that the trials of one speaker are not independent."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sayso.evaluate.metrics import Ranking
from sayso.evaluate.trials import Trials

LEVEL = (2.5, 97.5)  # percentiles of a 95 % interval
LEAST_SPEAKERS = (
    5  # with fewer, resampling them says next to nothing: two speakers give an interval of width 0
)


@dataclass(frozen=True)
class Intervals:
    """95 % percentile intervals (low, high) of the EER and of minDCF (p_target 0.01), as fractions."""

    eer: tuple[float, float]
    min_dcf: tuple[float, float]


def speaker_bootstrap(
    scores: npt.ArrayLike, trials: Trials, resamples: int = 200, seed: int = 0
) -> Intervals | None:
    """Resample speakers with replacement and measure again, `resamples` times.

    None where the trials have fewer than 5 speakers, too few for an interval.

    A speaker drawn m times counts m-fold: a target trial weighs m, a non-target trial the product of its two
    speakers' m. Resampling single trials would give intervals far too narrow, since a hard voice is in many
    trials at once (Bolle, Ratha and Pankanti, "Error analysis of pattern recognition systems - the subsets
    bootstrap", CVIU 93, 2004; for pairs: Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 1,
    2007). The same seed gives the same intervals.
    """
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    ranking = Ranking.of(scores, trials.labels)
    first, second = (speakers[ranking.order] for speakers in trials.speaker_pairs())
    count = int(max(first.max(), second.max())) + 1
    if trials.identity().speakers < LEAST_SPEAKERS:
        return None
    pairs = first != second
    rng = np.random.default_rng(seed)
    measured: list[tuple[float, float]] = []
    while len(measured) < resamples:
        drawn = np.bincount(rng.integers(count, size=count), minlength=count).astype(np.float64)
        weights = drawn[first] * np.where(pairs, drawn[second], 1.0)
        if not weights[ranking.labels].any() or not weights[~ranking.labels].any():
            continue  # few speakers can leave a class empty; no error rate exists there, so draw again
        curve = ranking.curve(weights)
        measured.append((curve.eer().rate, curve.min_dcf()))
    low, high = np.percentile(np.array(measured), LEVEL, axis=0).tolist()
    return Intervals(eer=(low[0], high[0]), min_dcf=(low[1], high[1]))
