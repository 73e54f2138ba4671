"""From what is known of a comparison to an LLR: one function for the calibration and for the service.

The evidence is the cosine of both vectors after the mean of their band was taken off each ("centring"). The
tenant's own templates shift that mean. Beside it stand the net speech of both sides, the number of recordings
in the template, and how few people the tenant has. A logistic regression, one for each pair of bands, turns
all of it into a log-likelihood ratio (natural log). Decision 30 has the measurements.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Band = Literal["wide", "narrow"]
BANDS: tuple[Band, ...] = ("wide", "narrow")
Vector = NDArray[np.float32]
Floats = NDArray[np.float64]

SHORTEST_S = 0.1  # of speech, so that its logarithm is finite
# In the order of the design's columns. `score` is the plain cosine, `centred` the one after centring, and
# `centre_share` the weight of the calibration's centre beside the tenant's own templates, in (0, 1].
FEATURES = (
    "score",
    "centred",
    "log_probe_speech",
    "log_template_speech",
    "log_recordings",
    "centre_share",
)
PAIRS = tuple(f"{template}/{probe}" for template in BANDS for probe in BANDS)
ANY = ""  # in place of a pair of bands


@dataclass(frozen=True)
class Side:
    """What is known of one side of a comparison: of a template, all its recordings together."""

    net_speech_s: float
    recordings: int = 1
    band: Band = "wide"


@dataclass(frozen=True, eq=False)
class Sides:
    """Many of them, `[n]` each: seconds of net speech, numbers of recordings, whether the band is narrow."""

    net_speech_s: Floats
    recordings: NDArray[np.int64]
    narrow: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.recordings)

    @classmethod
    def of(cls, sides: Sequence[Side]) -> Sides:
        """The same sides, as arrays."""
        return cls(
            np.array([side.net_speech_s for side in sides], np.float64),
            np.array([side.recordings for side in sides], np.int64),
            np.array([side.band == "narrow" for side in sides], np.bool_),
        )

    def take(self, rows: NDArray[np.int64]) -> Sides:
        """Some of them, by index; an index may come twice."""
        return Sides(self.net_speech_s[rows], self.recordings[rows], self.narrow[rows])


@dataclass(frozen=True)
class Range:
    """From `low` to `high`, both included."""

    low: float
    high: float

    def holds(self, value: float) -> bool:
        """Tell whether `value` lies within the range."""
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Conditions:
    """What a calibration has seen. Beyond it an LLR is an extrapolation and states no error rate."""

    probe_speech_s: Range
    template_speech_s: Range
    bands: tuple[str, ...]  # "template/probe", such as "wide/narrow"
    tenant_sizes: tuple[int, ...] = ()

    def outside(self, template: Side, probe: Side) -> tuple[str, ...]:
        """Name what of a comparison the calibration has not seen; empty when it has seen the like."""
        named = []
        if not self.probe_speech_s.holds(probe.net_speech_s):
            named.append("probe_speech")
        if not self.template_speech_s.holds(template.net_speech_s):
            named.append("template_speech")
        if f"{template.band}/{probe.band}" not in self.bands:
            named.append("band")
        return tuple(named)


@dataclass(frozen=True)
class Regression:
    """`offset` plus the weighted features is the LLR. A weight that is absent is 0."""

    offset: float
    weights: Mapping[str, float]

    def __post_init__(self) -> None:
        unknown = set(self.weights) - set(FEATURES)
        if unknown:
            raise ValueError(f"unknown features in the calibration: {', '.join(sorted(unknown))}")
        if not self.slope > 0:
            raise ValueError("a higher score must speak for the same speaker")

    @property
    def slope(self) -> float:
        """How much the LLR rises with the cosine."""
        return self.weights.get("score", 0.0) + self.weights.get("centred", 0.0)

    def of(self, columns: Floats) -> Floats:
        """LLRs of a design `[trials, features]`."""
        weights = np.array([self.weights.get(name, 0.0) for name in FEATURES])
        llrs: Floats = columns @ weights + self.offset
        return llrs


@dataclass(frozen=True)
class LlrModel:
    """One regression for each pair of bands that was calibrated, and one for any other.

    `centres` are the mean templates `[dim]` of the calibration's speakers, by band. What a tenant's templates
    differ from them on average counts as theirs: `shift` is that mean, with `centre_weight` templates that do
    not differ beside the tenant's own. Without centres nothing is centred.
    """

    regressions: Mapping[str, Regression]
    centres: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    centre_weight: float = 0.0
    conditions: Conditions | None = None

    def __post_init__(self) -> None:
        if ANY not in self.regressions or not set(self.regressions) <= {ANY, *PAIRS}:
            raise ValueError(
                f"regressions are needed for any pair of bands, and may be for {', '.join(PAIRS)}"
            )
        if self.centres:
            if set(self.centres) != set(BANDS) or len({len(c) for c in self.centres.values()}) != 1:
                raise ValueError(f"centres are needed for the bands {', '.join(BANDS)}, all of one dimension")
            if not self.centre_weight > 0:
                raise ValueError("centres need a centre_weight above 0")

    @classmethod
    def line(cls, slope: float, offset: float) -> LlrModel:
        """LLR = slope * cosine + offset, as a calibration on pairs of recordings gave."""
        return cls({ANY: Regression(offset, {"score": slope})})

    @property
    def slope(self) -> float:
        """How much the LLR rises with the cosine, whatever the bands."""
        return self.regressions[ANY].slope

    @cached_property
    def _centres(self) -> dict[str, Floats]:
        return {band: np.asarray(centre, np.float64) for band, centre in self.centres.items()}

    def centre(self, band: Band) -> Floats:
        """The centre `[dim]` of a band."""
        return self._centres[band]

    def shift(self, difference: Floats, count: int) -> Floats:
        """What is added to each band's centre for a tenant `[dim]`.

        `difference` is the sum, over `count` of its templates, of how each differs from its band's centre.
        """
        return difference / (count + self.centre_weight)

    def llr(
        self,
        template: Vector,
        probe: Vector,
        template_side: Side,
        probe_side: Side,
        difference: Floats | None = None,
        count: int = 0,
    ) -> float:
        """The LLR of one comparison of two unit vectors `[dim]`. `difference` and `count` are as for `shift`,
        the claimed speaker's template left out; None for a tenant that has no others."""
        a, b = template.astype(np.float64), probe.astype(np.float64)
        score = centred = cosine(a, b)
        if self.centres:
            shift = self.shift(difference, count) if difference is not None else 0.0
            centred = cosine(
                a - self.centre(template_side.band) - shift, b - self.centre(probe_side.band) - shift
            )
        many = self.llrs(
            np.array([score]),
            np.array([centred]),
            Sides.of([template_side]),
            Sides.of([probe_side]),
            np.array([count]),
        )
        return float(many[0])

    def llrs(
        self, score: Floats, centred: Floats, templates: Sides, probes: Sides, counts: NDArray[np.int64]
    ) -> Floats:
        """The LLRs `[trials]` of many comparisons; the arguments are as for `design`."""
        columns = self.design(score, centred, templates, probes, counts)
        llrs = self.regressions[ANY].of(columns)
        numbers = pair_numbers(templates, probes)
        for number, pair in enumerate(PAIRS):
            own = numbers == number
            if pair in self.regressions and own.any():
                llrs[own] = self.regressions[pair].of(columns[own])
        return llrs

    def design(
        self,
        score: Floats,
        centred: Floats,
        templates: Sides,
        probes: Sides,
        counts: NDArray[np.int64],
    ) -> Floats:
        """The columns of `FEATURES` for comparisons: float64 `[trials, features]`.

        All arguments have `[trials]`; `counts` are the templates that each was centred on. Net speech outside
        the calibrated conditions counts as that at their edge: nothing is extrapolated.
        """
        spoken = np.column_stack((probes.net_speech_s, templates.net_speech_s))
        if self.conditions is not None:
            limits = (self.conditions.probe_speech_s, self.conditions.template_speech_s)
            spoken = np.clip(spoken, [r.low for r in limits], [r.high for r in limits])
        share = self.centre_weight / (self.centre_weight + counts) if self.centres else np.zeros(len(score))
        return np.column_stack(
            [
                score,
                centred,
                np.log(np.maximum(spoken, SHORTEST_S)),
                np.log(templates.recordings),
                share,
            ]
        ).astype(np.float64)

    def to_dict(self) -> dict[str, Any]:
        """The card's entry, ready for JSON."""
        entry: dict[str, Any] = {
            "regressions": {
                pair: {"offset": r.offset, "weights": dict(r.weights)} for pair, r in self.regressions.items()
            }
        }
        if self.centres:
            entry["centres"] = {band: list(centre) for band, centre in self.centres.items()}
            entry["centre_weight"] = self.centre_weight
        if self.conditions is not None:
            c = self.conditions
            entry["conditions"] = {
                "probe_speech_s": {"low": c.probe_speech_s.low, "high": c.probe_speech_s.high},
                "template_speech_s": {"low": c.template_speech_s.low, "high": c.template_speech_s.high},
                "bands": list(c.bands),
                "tenant_sizes": list(c.tenant_sizes),
            }
        return entry

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> LlrModel:
        """Read what `to_dict` wrote. ValueError, KeyError or TypeError for anything else."""
        conditions = None
        if "conditions" in entry:
            c = entry["conditions"]
            conditions = Conditions(
                Range(**c["probe_speech_s"]),
                Range(**c["template_speech_s"]),
                tuple(c["bands"]),
                tuple(c["tenant_sizes"]),
            )
        return cls(
            {
                str(pair): Regression(
                    float(r["offset"]), {str(name): float(weight) for name, weight in r["weights"].items()}
                )
                for pair, r in entry["regressions"].items()
            },
            {band: tuple(map(float, centre)) for band, centre in entry.get("centres", {}).items()},
            float(entry.get("centre_weight", 0.0)),
            conditions,
        )


def pair_numbers(templates: Sides, probes: Sides) -> NDArray[np.int64]:
    """Which of `PAIRS` each comparison is of, `[trials]`."""
    return 2 * templates.narrow.astype(np.int64) + probes.narrow


def cosine(a: Floats, b: Floats) -> float:
    """Cosine of two vectors `[dim]`; 0 where one has no direction."""
    size = float(np.sqrt(a @ a) * np.sqrt(b @ b))
    return float(np.clip(a @ b / size, -1.0, 1.0)) if size > 0 else 0.0
