"""Measurements as pictures: latencies with the study's figures, searches, a load beside its simulation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from sayso.bench.latency import WINDOW_S, Latency
from sayso.bench.path import Served
from sayso.bench.search import Found
from sayso.bench.timing import Spread
from sayso.evaluate.plots import COLOURS, GREY
from sayso.service.metrics import STUDY_SECONDS


def draw_latency(found: Latency, served: Served, peers: Mapping[str, Spread], picture: Path) -> None:
    """Medians of 3 s on one thread, with lines to their 95th percentile; the format is the suffix's."""
    bars = [
        (f"{r.case.model}, {r.case.engine}", r.time, COLOURS[0 if r.case.engine == "onnxruntime" else 4])
        for r in found.rows
        if (r.case.part, r.case.threads, r.case.seconds, r.case.batch) == ("model", 1, WINDOW_S, 1)
    ]
    bars += [
        (f"{r.model}, whole call over HTTP", r.http, COLOURS[2])
        for r in served.rows
        if (r.seconds, r.sample_rate) == (WINDOW_S, 16_000)
    ]
    bars += [(name, time, COLOURS[3]) for name, time in peers.items() if name not in found.facts]
    figure = Figure(figsize=(8.0, 1.2 + 0.42 * len(bars)), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    for place, (_, time, colour) in enumerate(bars):
        axes.barh(place, time.p50, color=colour, height=0.62)
        axes.plot((time.p50, time.p95), (place, place), color=GREY, linewidth=1.2)
        axes.annotate(
            f"{time.p50:.1f}",
            (max(time.p50, time.p95), place),
            (4, 0),
            textcoords="offset points",
            va="center",
            zorder=4,
            bbox={"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none"},
        )
    for number, (network, seconds) in enumerate(STUDY_SECONDS.items()):
        axes.axvline(
            seconds * 1000,
            color=COLOURS[1],
            linestyle=("--", ":")[number],
            linewidth=1.4,
            zorder=0,
            label=f"the study's {network}: {seconds * 1000:g} ms",
        )
    figure.legend(loc="outside upper center", frameon=False, ncols=2)
    axes.set_yticks(range(len(bars)), [name for name, _, _ in bars])
    axes.invert_yaxis()
    axes.set_xlabel("ms for 3 s of speech, one thread: median, and line to the 95th percentile")
    figure.savefig(picture, dpi=160)


def draw_search(found: Found, picture: Path) -> None:
    """Medians by the number of speakers in one tenant, with lines to the 95th percentile."""
    rows = [row for row in found.rows if row.tenants == 1]
    sizes = [row.speakers for row in rows]
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    for name, times, colour in (
        ("every speaker compared", [row.exact for row in rows], GREY),
        ("as served", [row.search for row in rows], COLOURS[0]),
    ):
        axes.plot(sizes, [time.p50 for time in times], color=colour, marker="o", label=name)
        axes.vlines(sizes, [t.p50 for t in times], [t.p95 for t in times], color=colour, linewidth=1.2)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("speakers in the tenant")
    axes.set_ylabel("ms a search: median, and line to the 95th")
    axes.legend(frameon=False)
    figure.savefig(picture, dpi=160)


def draw_scale(facts: dict[str, Any], picture: Path) -> None:
    """The measured latencies over the rate, the simulated ones beside them (`sayso.bench.scale.work_out`)."""
    figure = Figure(figsize=(8.0, 4.2), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    rates = [step["rate"] for step in facts["curve"]]
    for number, name in enumerate(("p50", "p95", "p99")):
        measured = [step["measured"][name] for step in facts["curve"]]
        simulated = [step["simulated"][name] for step in facts["curve"]]
        axes.plot(rates, measured, "o-", color=COLOURS[number], label=f"{name}, measured")
        axes.plot(
            rates, simulated, "s--", color=COLOURS[number], fillstyle="none", label=f"{name}, simulated"
        )
    saturated = max(step["measured"]["served"] for step in facts["curve"])
    axes.axvline(saturated, color=GREY, linestyle=":", linewidth=1.2, zorder=0)
    axes.annotate(
        f"most served: {saturated:.0f}/s", (saturated, 1.0), (4, 2), xycoords=("data", "axes fraction"),
        textcoords="offset points", fontsize=8, color=GREY,
    )  # fmt: skip
    axes.set_yscale("log")
    axes.set(xlabel="verify calls a second that arrive", ylabel="ms that a caller waits")
    figure.legend(frameon=False, ncols=3, loc="outside upper center")
    figure.savefig(picture, dpi=160)
