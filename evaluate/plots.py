"""Plots of error rates and scores, written to a file (PNG, SVG or PDF by its suffix).

matplotlib is imported when a plot is asked for, so that the rest of this room works without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sayso.domain.errors import SaysoError
from sayso.evaluate.arrays import FloatArray, checked_trials
from sayso.evaluate.metrics import DetCurve, det_curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, told apart in every common form of colour blindness; yellow is too pale for a line.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
LINES = ("-", "--", "-.", (0, (1, 1)))  # dashes differ as well, for print and for more curves than colours
TARGET_COLOUR, NONTARGET_COLOUR, GREY = "#0072B2", "#D55E00", "#555555"

DET_TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 40)  # per cent
DET_LIMITS = (0.05, 60.0)  # per cent
BINS = 80
DOTS_PER_INCH = 160


class PlotsUnavailableError(SaysoError, ImportError):
    """matplotlib is not installed."""


def det_plot(curves: Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]], path: str | Path) -> None:
    """Draw DET curves of named (scores, labels) on probit axes, each with its EER point, and write `path`.

    Martin et al., "The DET curve in assessment of detection task performance", Eurospeech 1997. ValueError
    when there is nothing to draw, PlotsUnavailableError without matplotlib.
    """
    if not curves:
        raise ValueError("no curves to draw")
    figure, axes = _figure(width=6.0, height=6.6)
    _probit_axes(axes)
    for number, (name, (scores, labels)) in enumerate(curves.items()):
        _draw_det(axes, name, det_curve(scores, labels), number)
    # Above the axes: a weak model's curve runs through the corner that a legend would take.
    figure.legend(loc="outside upper center", frameon=False, handlelength=3)
    _save(figure, path)


def _probit_axes(axes: Axes) -> None:
    low, high = (_probit(limit / 100) for limit in DET_LIMITS)
    axes.set(xlim=(low, high), ylim=(low, high), aspect="equal", autoscale_on=False)
    axes.set(xlabel="False match rate, FMR (%)", ylabel="False non-match rate, FNMR (%)")
    places, names = [_probit(tick / 100) for tick in DET_TICKS], [f"{tick:g}" for tick in DET_TICKS]
    axes.set_xticks(places, names)
    axes.set_yticks(places, names)
    axes.grid(color="#E5E5E5", linewidth=0.8)
    axes.plot((low, high), (low, high), color="#BBBBBB", linewidth=0.8, zorder=1)


def _draw_det(axes: Axes, name: str, curve: DetCurve, number: int) -> None:
    colour, line = COLOURS[number % len(COLOURS)], LINES[number % len(LINES)]
    rate = curve.eer().rate
    label = f"{name} (EER {100 * rate:.2f} %)"
    axes.plot(
        _probits(curve.fmr), _probits(curve.fnmr), color=colour, linestyle=line, linewidth=1.8, label=label
    )
    place = _probits(np.array([rate]))
    axes.plot(place, place, marker="o", markersize=7, color=colour, markeredgecolor="white", zorder=3)


def score_plot(
    scores: npt.ArrayLike, labels: npt.ArrayLike, thresholds: Mapping[str, float], path: str | Path
) -> None:
    """Draw how target and non-target scores are spread, with named thresholds across, and write `path`.

    PlotsUnavailableError without matplotlib.
    """
    array, target = checked_trials(scores, labels)
    figure, axes = _figure(width=8.0, height=4.5)
    low, high = float(array.min()), float(array.max())
    edges = np.linspace(low, max(high, low + 1e-6), BINS + 1).tolist()
    for name, chosen, colour in (
        ("Non-targets", array[~target], NONTARGET_COLOUR),
        ("Targets", array[target], TARGET_COLOUR),
    ):
        axes.hist(
            chosen,
            edges,
            density=True,
            histtype="stepfilled",
            facecolor=(colour, 0.3),
            edgecolor=colour,
            linewidth=1.6,
            label=f"{name} ({chosen.size:,})",
        )
    _draw_thresholds(axes, thresholds)
    axes.set(xlabel="Score (cosine)", ylabel="Density")
    axes.margins(x=0.02)
    figure.legend(loc="outside upper center", frameon=False, ncols=3, handlelength=3)
    _save(figure, path)


def _draw_thresholds(axes: Axes, thresholds: Mapping[str, float]) -> None:
    """Draw vertical lines, named in the legend: beside the lines, the names of near ones would collide."""
    for number, (name, value) in enumerate(sorted(thresholds.items(), key=lambda item: item[1])):
        style = LINES[1 + number % (len(LINES) - 1)]
        axes.axvline(value, color=GREY, linewidth=1.4, linestyle=style, label=f"{name}: {value:.3f}")


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure in inches, outside pyplot's global state so that any thread may draw one."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PlotsUnavailableError("plots need matplotlib: pip install '.[plots]'") from error
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    return figure, axes


def _save(figure: Figure, path: str | Path) -> None:
    figure.savefig(path, dpi=DOTS_PER_INCH, bbox_inches="tight", pad_inches=0.12)


_probit: Callable[[float], float] = NormalDist().inv_cdf


def _probits(rates: FloatArray) -> FloatArray:
    """Probits of `rates`; 0 and 1, which have none, are put well outside the axes."""
    return np.array([_probit(rate) for rate in np.clip(rates, 1e-9, 1 - 1e-9).tolist()])
