"""How scores become decisions: `sayso calibrate` fits it, a card carries it, the service reads it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from sayso.domain.evidence import ANY, LlrModel

RARE = 0.01  # of the same-speaker trials lie below the floor of cohesion


@dataclass(frozen=True)
class TrialIdentity:
    """Which trial list a number was measured on, and how large it is."""

    name: str
    sha256: str
    targets: int
    nontargets: int
    speakers: int


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold (accept when LLR >= threshold) and the error rates measured at it, as fractions."""

    threshold: float
    fmr: float
    fnmr: float


@dataclass(frozen=True)
class CurvePoint:
    """A threshold read off a curve; `extrapolated` when fewer trials than that rate needs were measured."""

    threshold: float
    extrapolated: bool


@dataclass(frozen=True)
class FalseMatchCurve:
    """The LLR threshold at each false match rate (FMR): `fmr` falls strictly, `threshold` never falls.

    Between two points, interpolate ln(FMR) linearly in the threshold. Past the last point (f, t) the tail is
    exponential: FMR(x) = f * exp(-(x - t) / tail_scale). Raises ValueError for tables that are no such curve.
    """

    fmr: tuple[float, ...]
    threshold: tuple[float, ...]
    tail_scale: float

    def __post_init__(self) -> None:
        if not self.fmr or len(self.fmr) != len(self.threshold):
            raise ValueError("fmr and threshold need the same number of entries, one or more")
        if not (self.fmr[-1] > 0 and self.fmr[0] <= 1 and all(a > b for a, b in pairwise(self.fmr))):
            raise ValueError("fmr must fall strictly, within (0, 1]")
        if not all(a <= b for a, b in pairwise((*self.threshold, math.inf))):
            raise ValueError("threshold must never fall")
        if not self.tail_scale > 0:
            raise ValueError("tail_scale must be above 0")

    def threshold_for(self, fmr: float) -> CurvePoint:
        """Return the threshold for a per-comparison false match rate in (0, 1].

        Linear in ln(fmr) inside the table, the tail beyond it, and the lowest threshold for rates above the
        table.
        """
        if not 0 < fmr <= 1:
            raise ValueError(f"a false match rate is in (0, 1], not {fmr}")
        if fmr < self.fmr[-1]:
            tail = self.threshold[-1] + self.tail_scale * math.log(self.fmr[-1] / fmr)
            return CurvePoint(tail, extrapolated=True)
        falling = -np.log(self.fmr)
        return CurvePoint(float(np.interp(-math.log(fmr), falling, self.threshold)), extrapolated=False)


@dataclass(frozen=True)
class Histogram:
    """Densities of target and non-target LLRs `[bins]` between `edges` `[bins + 1]`, for drawing."""

    edges: tuple[float, ...]
    target: tuple[float, ...]
    nontarget: tuple[float, ...]


@dataclass(frozen=True)
class Calibration:
    """How comparisons under one model become decisions. Thresholds, curves and histogram are of LLRs.

    Each operating point has a threshold for each pair of bands, of template and probe, such as `wide/narrow`,
    and one for any other pair (`ANY`); so have the false match curves.

    `search_growth` says how a search's false positives grow with the number of speakers compared, N: as those
    of N ** search_growth independent comparisons. Below `cohesion_floor` (a cosine) lies 1 in 100 of the
    same-speaker trials: an enrolment that is less like the earlier ones is hardly of the same speaker.
    """

    trials: tuple[TrialIdentity, ...]
    llr: LlrModel
    operating_points: Mapping[str, Mapping[str, OperatingPoint]]
    false_match_curves: Mapping[str, FalseMatchCurve]
    histogram: Histogram
    cohesion_floor: float
    search_growth: float = 1.0

    def to_dict(self) -> dict[str, Any]:
        """The card's `calibration` entry, ready for JSON."""
        return {
            "trials": [asdict(identity) for identity in self.trials],
            "llr": self.llr.to_dict(),
            "operating_points": {
                name: {pair: asdict(point) for pair, point in points.items()}
                for name, points in self.operating_points.items()
            },
            "false_match_curves": {
                pair: _lists(asdict(curve)) for pair, curve in self.false_match_curves.items()
            },
            "histogram": _lists(asdict(self.histogram)),
            "cohesion_floor": self.cohesion_floor,
            "search_growth": self.search_growth,
        }

    @classmethod
    def from_dict(cls, entry: dict[str, Any]) -> Calibration:
        """Read what `to_dict` wrote. ValueError, KeyError or TypeError for anything else."""
        histogram = entry["histogram"]
        return cls(
            tuple(TrialIdentity(**identity) for identity in entry["trials"]),
            LlrModel.from_dict(entry["llr"]),
            {
                str(name): {str(pair): _point(point) for pair, point in points.items()}
                for name, points in entry["operating_points"].items()
            },
            {str(pair): _curve(curve) for pair, curve in entry["false_match_curves"].items()},
            Histogram(*(tuple(map(float, histogram[part])) for part in ("edges", "target", "nontarget"))),
            float(entry["cohesion_floor"]),
            float(entry["search_growth"]),
        )

    @classmethod
    def from_schema_1(cls, entry: dict[str, Any]) -> Calibration:
        """Read the entry of a card of schema 1, whose thresholds are scores: they become LLRs on its line.

        ValueError, KeyError or TypeError for anything else.
        """
        slope, offset = float(entry["llr"]["slope"]), float(entry["llr"]["offset"])
        curve, histogram = entry["false_match_curve"], entry["histogram"]
        points = {
            str(name): {ANY: _point(p | {"threshold": slope * float(p["threshold"]) + offset})}
            for name, p in entry["operating_points"].items()
        }
        return cls(
            (TrialIdentity(**entry["trials"]),),
            LlrModel.line(slope, offset),
            points,
            {
                ANY: FalseMatchCurve(
                    tuple(map(float, curve["fmr"])),
                    tuple(slope * float(t) + offset for t in curve["threshold"]),
                    slope * float(curve["tail_scale"]),
                )
            },
            Histogram(
                tuple(slope * float(edge) + offset for edge in histogram["edges"]),
                tuple(float(height) / slope for height in histogram["target"]),
                tuple(float(height) / slope for height in histogram["nontarget"]),
            ),
            _quantile(histogram, RARE),
        )

    def point(self, name: str, bands: str = ANY) -> OperatingPoint:
        """An operating point as it is for a pair of bands."""
        points = self.operating_points[name]
        return points.get(bands, points[ANY])

    def search_threshold(self, fpir: float, searched: int, bands: str = ANY) -> CurvePoint:
        """The threshold at which a stranger matches anybody of `searched` with probability `fpir`.

        An empty search is judged as one of a single speaker. ValueError for a rate outside (0, 1).
        """
        curve = self.false_match_curves.get(bands, self.false_match_curves[ANY])
        return curve.threshold_for(self.comparison_fmr(fpir, searched))

    def comparison_fmr(self, fpir: float, searched: int) -> float:
        """The FMR of one comparison at which `searched` of them together have this FPIR."""
        if not 0 < fpir < 1:
            raise ValueError(f"a false-positive identification rate is in (0, 1), not {fpir}")
        # expm1 and log1p keep the digits that 1 - (1 - x) would lose for a large N.
        return -math.expm1(math.log1p(-fpir) / max(1, searched) ** self.search_growth)


def _point(entry: dict[str, Any]) -> OperatingPoint:
    return OperatingPoint(float(entry["threshold"]), float(entry["fmr"]), float(entry["fnmr"]))


def _curve(entry: dict[str, Any]) -> FalseMatchCurve:
    fmr, threshold = (tuple(map(float, entry[part])) for part in ("fmr", "threshold"))
    return FalseMatchCurve(fmr, threshold, float(entry["tail_scale"]))


def _quantile(histogram: dict[str, Any], share: float) -> float:
    """The value below which a share of the targets lies."""
    heights = np.asarray(histogram["target"], np.float64) * np.diff(histogram["edges"])
    below = np.concatenate([[0.0], np.cumsum(heights)]) / max(float(heights.sum()), 1e-12)
    return float(np.interp(share, below, histogram["edges"]))


def _lists(values: dict[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
