"""The study's table: every row's training, accuracy, cost and latency, from the folders of its runs.

A row is a folder with what `make study ROW=name` leaves there: `log.jsonl` of the training, and if
the training came to its end `model.safetensors`, `model.onnx` and `dev.json` (`sayso evaluate`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sayso.bench.anatomy import Anatomy, dissect
from sayso.evaluate.trials import TrialList
from sayso.models.checkpoint import load_checkpoint
from sayso.runtime.audio import SAMPLE_RATE, decode
from sayso.runtime.card import read_card
from sayso.runtime.session import EmbeddingSession
from sayso.runtime.synthesis import synthetic_voice

WINDOW_S = 3.0
_WARM_UP, _ROUNDS = 5, 60
_LONGEST_S = 3600.0


@dataclass(frozen=True)
class Row:
    """One network of the study. Rates are fractions, `latency_ms` the median of one 3 s window.

    `stopped` names what was not finite first, and the epoch; the figures after it are absent then.
    """

    name: str
    epochs: float
    stopped: str | None
    grad_norm: float
    grad_norm_max: float
    crops_per_s: float
    eer: float | None = None
    eer_interval: tuple[float, float] | None = None
    parameters: int | None = None
    macs: int | None = None
    latency_ms: float | None = None
    anatomy: Anatomy | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def collect(
    folders: Mapping[str, Path],
    trials: TrialList,
    root: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Row]:
    """Read each row's folder, time the exported models in turn on one thread, and dissect the networks."""
    latencies = _latencies({n: f / "model.onnx" for n, f in folders.items() if (f / "model.onnx").exists()})
    windows = _windows(trials, root)
    rows = []
    for name, folder in folders.items():
        lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        epochs = [line for line in lines if "epoch" in line]
        stopped = [line for line in lines if "stopped" in line]
        last = epochs[-1] if epochs else lines[-1]
        facts: dict[str, Any] = {}
        if name in latencies:
            card = read_card((folder / "model.onnx").read_bytes(), name)
            result = json.loads((folder / "dev.json").read_text())
            facts = {"eer": result["eer"], "eer_interval": tuple(result["eer_interval"])}
            facts |= {"parameters": card.parameters, "macs": card.macs, "latency_ms": latencies[name]}
            network = load_checkpoint(folder / "model.safetensors").network
            facts["anatomy"] = dissect(network, windows, trials)
        rows.append(
            Row(
                name=name,
                epochs=last.get("epoch", 0.0),
                stopped=", ".join(stopped[-1]["stopped"]) if stopped else None,
                grad_norm=last["grad_norm"],
                grad_norm_max=max(line["grad_norm_max"] for line in lines if "grad_norm_max" in line),
                crops_per_s=last.get("crops_per_s", 0.0),
                **facts,
            )
        )
        progress(len(rows), len(folders))
    return rows


def _latencies(models: Mapping[str, Path]) -> dict[str, float]:
    """Median milliseconds of one 3 s window on one CPU thread, the models taking turns."""
    sessions = {n: EmbeddingSession(p.read_bytes(), n, provider="cpu", threads=1) for n, p in models.items()}
    voice = synthetic_voice(WINDOW_S)[None]
    taken: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(_WARM_UP + _ROUNDS):
        for name, session in sessions.items():
            started = time.perf_counter()
            session.run(voice)
            if turn >= _WARM_UP:
                taken[name].append(time.perf_counter() - started)
    return {name: 1000.0 * float(np.median(times)) for name, times in taken.items()}


def _windows(trials: TrialList, root: Path) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The middle 3 s of each recording; shorter ones are repeated."""
    length = round(WINDOW_S * SAMPLE_RATE)
    cut = []
    for name in trials.recordings:
        x = decode((root / name).read_bytes(), _LONGEST_S).samples
        start = max(0, (len(x) - length) // 2)
        cut.append(np.resize(x[start : start + length], length))
    return np.stack(cut)


def table(rows: Sequence[Row], reference: str) -> str:
    """Rows as Markdown; latencies as ratios to `reference`'s, above 1 for what is faster."""
    base = next((row.latency_ms for row in rows if row.name == reference), None)
    lines = [
        "| row | epochs | ended | gradient norm, mean (largest) | EER (95 %) | parameters | MACs | speed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ended = f"{row.stopped} not finite" if row.stopped else "whole schedule"
        cells = [row.name, f"{row.epochs:.1f}", ended, f"{row.grad_norm:.3g} ({row.grad_norm_max:.3g})"]
        if row.eer is None or row.eer_interval is None or not row.parameters or not row.macs:
            cells += ["", "", "", ""]
        else:
            low, high = row.eer_interval
            cells += [f"{row.eer:.2%} ({low:.2%} to {high:.2%})", f"{row.parameters / 1e6:.2f} M"]
            cells += [f"{row.macs / 1e9:.2f} G", _ratio(base, row.latency_ms)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _ratio(base: float | None, latency: float | None) -> str:
    return f"{base / latency:.2f}x" if base and latency else ""
