"""How long the models themselves take: by engine, threads, seconds of speech and batch, in one run."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from sayso.bench.memory import peak_mb
from sayso.bench.peak import core_peak
from sayso.bench.timing import Spread, interleave
from sayso.runtime import windows
from sayso.runtime.audio import SAMPLE_RATE, Samples
from sayso.runtime.card import ModelCard, read_card
from sayso.runtime.session import CPU, EmbeddingSession, Provider, available_cores
from sayso.runtime.synthesis import synthetic_voice
from sayso.service.metrics import STUDY_SECONDS

SECONDS = (1.0, 3.0, 10.0)
BATCHES = (1, 4, 16, 32)
WINDOW_S = 3.0
CHECKPOINTS = Path(str(files("sayso.models") / "weights"))  # of a checkout: the wheel leaves them out
_COLUMNS = [
    "model",
    "part",
    "engine",
    "provider",
    "threads",
    "speech",
    "batch",
    "p50(ms)",
    "p95",
    "p99",
    "recordings/s",
    "over-floor",
]
Job = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """One cell of the table: `batch` recordings of `seconds` at once; `part` is `model` (waveform to
    embedding) or `front-end` (waveform to features) of it."""

    model: str
    part: str
    engine: str
    provider: str
    threads: int
    seconds: float
    batch: int

    @property
    def usual(self) -> bool:
        """One window on one thread of the CPU."""
        facts = (self.part, self.provider, self.threads, self.seconds, self.batch)
        return facts == ("model", CPU, 1, WINDOW_S, 1)


@dataclass(frozen=True)
class Row:
    """A case and its time in milliseconds; recordings a second at the median; and, for the usual case,
    the network's median (without the front-end) over what its MACs take at the core's peak."""

    case: Case
    time: Spread
    per_second: float
    over_floor: float | None

    def to_dict(self) -> dict[str, Any]:
        more = {"per_s": self.per_second, "over_floor": self.over_floor}
        return {**asdict(self.case), **asdict(self.time), **more}


@dataclass(frozen=True)
class Facts:
    """What a model is and takes. `eer` is that of its calibration on a wide band, a fraction; `memory_mb`
    the most that one thread took in ONNX Runtime on the CPU, by batch of 3 s windows."""

    parameters: int
    macs: int
    eer: float | None
    memory_mb: dict[int, float]


@dataclass(frozen=True)
class Latency:
    """`peak` in multiply-accumulates a second of one core."""

    rows: list[Row]
    facts: dict[str, Facts]
    peak: float

    def to_dict(self) -> dict[str, Any]:
        return {
            "peak_macs_per_s": self.peak,
            "models": {name: asdict(facts) for name, facts in self.facts.items()},
            "study_seconds": STUDY_SECONDS,
            "rows": [row.to_dict() for row in self.rows],
        }


def cases(names: list[str], engine: str, provider: str, most_threads: int) -> list[Case]:
    """One factor varied at a time about the usual request: 3 s, alone, one thread."""
    varied = [(1, s, 1) for s in SECONDS] + [(1, WINDOW_S, b) for b in BATCHES if b > 1]
    varied += [(t, WINDOW_S, b) for t in range(2, most_threads + 1) for b in (1, BATCHES[-1])]
    return [Case(n, "model", engine, provider, *rest) for rest in varied for n in names]


def measure(
    models: Mapping[str, Path],
    provider: Provider,
    rounds: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Latency:
    """Time the model files on ONNX Runtime and, where PyTorch and their checkpoints are at hand, the same
    networks in PyTorch (eager), taking turns. Speech is a synthetic voice: the work does not depend on it.
    """
    contents = {name: path.read_bytes() for name, path in models.items()}
    cards = {name: read_card(content, name) for name, content in contents.items()}
    jobs = _in_onnxruntime(contents, provider) | _front_ends(contents) | _in_torch(list(models))
    taken = interleave(jobs, rounds, progress=progress)
    peak = core_peak()
    front_end = {c.model: float(np.median(ms)) for c, ms in taken.items() if c.part == "front-end"}
    rows = []
    for case, times in taken.items():
        median, over = float(np.median(times)), None
        if case.usual and case.model in front_end:
            floor = cards[case.model].macs / peak * 1000.0
            over = round((median - front_end[case.model]) / floor, 2)
        rows.append(Row(case, Spread.of(times), round(case.batch * 1000.0 / median, 2), over))
    return Latency(rows, {name: _facts(card, models[name]) for name, card in cards.items()}, peak)


def _facts(card: ModelCard, path: Path) -> Facts:
    eer = card.calibration.point("eer", "wide/wide").fmr if card.calibration else None
    return Facts(card.parameters, card.macs, eer, peak_mb(path))


def _waveforms(case: Case) -> Samples:
    window = round(WINDOW_S * SAMPLE_RATE)
    return np.tile(windows.cut(synthetic_voice(case.seconds), window), (case.batch, 1))


def _in_onnxruntime(contents: Mapping[str, bytes], provider: Provider) -> dict[Case, Job]:
    """On the provider asked for and, beside a GPU, on the CPU."""
    name = next(iter(contents))
    found = EmbeddingSession(contents[name], name, provider).provider
    jobs: dict[Case, Job] = {}
    for where in sorted({found, CPU}):
        threads = available_cores() if where == CPU else 1
        sessions = {
            (name, count): EmbeddingSession(content, name, "cpu" if where == CPU else provider, count)
            for name, content in contents.items()
            for count in range(1, threads + 1)
        }
        for (name, _), session in sessions.items():
            if where != CPU:
                exactly = EmbeddingSession(contents[name], name, "cpu", 1)
                session.warm(round(WINDOW_S * SAMPLE_RATE), exactly.run)
        for case in cases(list(contents), "onnxruntime", where, threads):
            jobs[case] = partial(sessions[case.model, case.threads].run, _waveforms(case))
    return jobs


def _front_ends(contents: Mapping[str, bytes]) -> dict[Case, Job]:
    """The graphs up to the network's first convolution; needs the package onnx to cut them out."""
    if importlib.util.find_spec("onnx") is None:
        return {}
    from sayso.bench.graphs import front_end_session

    jobs: dict[Case, Job] = {}
    for name, content in contents.items():
        case = Case(name, "front-end", "onnxruntime", CPU, 1, WINDOW_S, 1)
        jobs[case] = partial(front_end_session(content).run, None, {"waveform": _waveforms(case)})
    return jobs


def _in_torch(names: list[str]) -> dict[Case, Job]:
    if importlib.util.find_spec("torch") is None:
        return {}
    import torch

    from sayso.models.checkpoint import load_checkpoint

    kept = {name: CHECKPOINTS / f"{name}.safetensors" for name in names}
    networks = {n: load_checkpoint(path).network.eval() for n, path in kept.items() if path.exists()}

    @torch.inference_mode()
    def run(network: torch.nn.Module, waveforms: torch.Tensor, threads: int) -> object:
        torch.set_num_threads(threads)
        return network(waveforms)

    return {
        case: partial(run, networks[case.model], torch.from_numpy(_waveforms(case)), case.threads)
        for case in cases(list(networks), "pytorch", CPU, available_cores())
    }


def table(found: Latency) -> str:
    """The rows for people, the models' facts above, the study's figures beneath."""
    lines = [
        f"{name}: {facts.parameters / 1e6:.2f} M parameters, {facts.macs / 1e9:.3f} GMACs a 3 s window"
        + (f", EER {facts.eer:.2%}" if facts.eer is not None else "")
        + f", {' / '.join(f'{mb:.0f}' for mb in facts.memory_mb.values())} MB with"
        + f" {' / '.join(map(str, facts.memory_mb))} windows at once"
        for name, facts in found.facts.items()
    ]
    lines += [f"One core's fp32 matrix product: {found.peak / 1e9:.1f} GMAC/s", ""]
    lines += [f"| {' | '.join(_COLUMNS)} |", "|---" * len(_COLUMNS) + "|"]
    for row in found.rows:
        c, t = row.case, row.time
        cells = [c.model, c.part, c.engine, c.provider.removesuffix("ExecutionProvider"), str(c.threads)]
        cells += [f"{c.seconds:g} s", str(c.batch), *(f"{ms:.2f}" for ms in (t.p50, t.p95, t.p99))]
        cells += [f"{row.per_second:.1f}", f"{row.over_floor:.2f}x" if row.over_floor is not None else ""]
        lines.append(f"| {' | '.join(cells)} |")
    study = ", ".join(f"{name} {seconds * 1000:g} ms" for name, seconds in STUDY_SECONDS.items())
    return "\n".join([*lines, "", f"The study's forward pass on 3 s: {study}."])
