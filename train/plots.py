"""Draws the journals of training runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import cycle
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sayso.evaluate.plots import COLOURS

_LOSSES = ("aam", "prototypical", "teacher")


def draw_journals(journals: Mapping[str, Path], picture: Path) -> None:
    """Draw named `log.jsonl` files: losses, dev EER, gradient and embedding norm, gates, by epoch.

    A cross marks where a run met a value that is not finite. With several journals the losses are
    summed and the gates left out, so that the runs can be told apart.
    """
    runs = {name: _read(path) for name, path in journals.items()}
    alone = len(runs) == 1
    names = ["loss", "dev EER (%)", "gradient norm", "embedding norm"]
    gated = alone and any(line.get("gates") for lines in runs.values() for line in lines)
    names += ["gates"] if gated else []
    figure = Figure(figsize=(3.6 * len(names), 3.4), layout="constrained")
    panels = dict(zip(names, figure.subplots(1, len(names), squeeze=False)[0], strict=True))
    for name, axes in panels.items():
        axes.set(title=name, xlabel="epoch")
        axes.spines[["top", "right"]].set_visible(False)
    panels["gradient norm"].set_yscale("log")
    for (name, lines), colour in zip(runs.items(), cycle(COLOURS), strict=False):
        _draw(panels, name, lines, colour, alone)
    for axes in panels.values():
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=8)
    figure.savefig(picture, dpi=160)


def _draw(
    panels: Mapping[str, Axes], name: str, lines: list[dict[str, Any]], colour: str, alone: bool
) -> None:
    done = [line for line in lines if "epoch" in line]
    epochs = [line["epoch"] for line in done]
    scored = [line for line in done if "dev_eer" in line]
    if alone:
        for loss, shade in zip((k for k in _LOSSES if done and k in done[0]), COLOURS, strict=False):
            panels["loss"].plot(epochs, [line[loss] for line in done], color=shade, label=loss, marker=".")
    else:
        panels["loss"].plot(epochs, [line["loss"] for line in done], color=colour, label=name, marker=".")
    rates = [100 * line["dev_eer"] for line in scored]
    panels["dev EER (%)"].plot([line["epoch"] for line in scored], rates, color=colour, marker=".")
    panels["embedding norm"].plot(epochs, [line["embedding_norm"] for line in done], color=colour, marker=".")
    for fact, style, label in (("grad_norm", "-", "mean"), ("grad_norm_max", ":", "largest")):
        norms = [line[fact] for line in done]
        panels["gradient norm"].plot(
            epochs, norms, style, marker=".", color=colour, label=label if alone else None
        )
    if "gates" in panels:
        for gate, shade in zip(done[0]["gates"], cycle(COLOURS), strict=False):
            level, source = (int(part) + 1 for part in gate.split(".")[1:3])
            panels["gates"].plot(
                epochs,
                [d["gates"][gate] for d in done],
                color=shade,
                label=f"level {level} from {source}",
                marker=".",
            )
    if any("stopped" in line for line in lines):
        for axes in panels.values():
            axes.plot([epochs[-1] if epochs else 0], [axes.get_ylim()[1]], "x", color=colour, clip_on=False)


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
