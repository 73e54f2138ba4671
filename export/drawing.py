"""A picture of a network, drawn from what its card says was built."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from sayso.runtime.card import ModelCard
from sayso.runtime.errors import ModelError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TRUNK, _NESTED, _BOX, _TEXT = "#555555", "#0072B2", "#E8EEF4", "#222222"
_WIDTH, _GAP = 1.9, 0.9
_FLOOR = -7.2  # where costs are written


def draw(card: ModelCard, path: Path) -> None:
    """Draw the levels, what each one sees, and their cost; SVG, PNG or PDF by the suffix of `path`.

    A box is as high as its feature map has frequencies (square root). Raises `ModelError` without
    matplotlib, and for a card without levels, as exports of version 0.1 have.
    """
    if not card.levels:
        raise ModelError(f"the card of {card.name} lists no levels: export its checkpoint again")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ModelError("drawing needs matplotlib: pip install '.[plots]'") from error

    boxes = [("waveform", f"{card.window_samples}", "", 1)]
    if card.front_end.n_mels:
        frames = card.window_samples // card.front_end.hop_length + 1
        boxes = [("log-mel", f"{card.front_end.n_mels} x {frames}", "", card.front_end.n_mels)]
    boxes += [
        (
            level.name,
            f"{level.channels} x {level.frequencies} x {level.frames}",
            f"{_short(level.parameters)} parameters\n{_short(level.macs)} MACs",
            level.frequencies,
        )
        for level in card.levels
    ]
    rest = card.parameters - sum(level.parameters for level in card.levels)
    pooling = card.options.get("pooling", "")
    boxes.append((pooling or "pooling", str(card.embedding_dim), f"with stem\n{_short(rest)} parameters", 4))

    figure = Figure(figsize=(2.0 * len(boxes), 5.2), layout="constrained")
    axes = figure.add_subplot()
    axes.axis("off")
    spots = {}
    for number, (name, shape, cost, frequencies) in enumerate(boxes):
        spot = _Spot(number * (_WIDTH + _GAP), frequencies**0.5 / 2)
        _box(axes, spot, name, shape, cost)
        spots[name] = spot
    for before, after in pairwise(spots.values()):
        _arrow(axes, (before.right, 0.0), (after.left, 0.0), 0.0, _TRUNK)
    names = [level.name for level in card.levels]
    for number, level in enumerate(card.levels):
        for source in (s for s in level.sees if s in names and s != names[number - 1]):
            start, end = spots[source], spots[level.name]
            _arrow(axes, (start.middle + 0.2, start.half), (end.middle - 0.2, end.half), -0.35, _NESTED)
    if card.architecture == "NestedSpeakerNet":  # all levels are fused before pooling
        last = spots[boxes[-1][0]]
        for name in names[:-1]:
            start = spots[name]
            _arrow(axes, (start.middle, -start.half), (last.middle, -last.half), 0.3, _NESTED)
    top = max(spot.half for spot in spots.values())
    axes.set_xlim(-0.3, len(boxes) * (_WIDTH + _GAP) - _GAP + 0.3)
    axes.set_ylim(_FLOOR - 1.6, top + 2.4)
    axes.set_title(
        f"{card.name}: {card.architecture}, {card.parameters:,} parameters, "
        f"{card.macs / 1e9:.2f} GMACs per {card.window_samples / card.front_end.sample_rate:g} s",
        fontsize=11,
        color=_TEXT,
    )
    figure.savefig(path, dpi=160)


@dataclass(frozen=True)
class _Spot:
    left: float
    half: float

    @property
    def middle(self) -> float:
        return self.left + _WIDTH / 2

    @property
    def right(self) -> float:
        return self.left + _WIDTH


def _box(axes: Axes, spot: _Spot, name: str, shape: str, cost: str) -> None:
    from matplotlib.patches import FancyBboxPatch

    style = "round,pad=0,rounding_size=0.12"
    size = (_WIDTH, 2 * spot.half)
    axes.add_patch(
        FancyBboxPatch((spot.left, -spot.half), *size, style, facecolor=_BOX, edgecolor=_TRUNK, zorder=2)
    )
    axes.text(
        spot.middle, 0.15, name, va="bottom", fontsize=10, color=_TEXT, weight="bold", ha="center", zorder=4
    )
    axes.text(spot.middle, -0.15, shape, va="top", fontsize=8.5, color=_TEXT, ha="center", zorder=4)
    axes.text(spot.middle, _FLOOR, cost, va="top", fontsize=8, color=_TRUNK, ha="center", zorder=4)


def _arrow(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], bend: float, colour: str
) -> None:
    line = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0}
    line["connectionstyle"] = f"arc3,rad={bend}"
    axes.annotate("", xy=end, xytext=start, arrowprops=line, zorder=3)


def _short(count: int) -> str:
    for unit, name in ((1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return str(count)
