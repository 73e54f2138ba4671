"""What a trained network's levels do: paths through them, how alike they are, what each source is worth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sayso.evaluate.metrics import eer
from sayso.evaluate.trials import TrialList
from sayso.models.describe import LevelFacts, describe
from sayso.models.nested import NestedSpeakerNet
from sayso.models.network import SpeakerNetwork

_BATCH = 16
Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class SourceFacts:
    """An earlier level on its way into a later one.

    `share` is its standard deviation over that of the main path it is added to, `correlation`
    Pearson's between the two, and `eer_without` the EER of the network with this source silenced.
    """

    level: int
    source: int
    gate: float | None
    share: float
    correlation: float
    eer_without: float


@dataclass(frozen=True)
class Anatomy:
    """`paths` lead from the stem to the last level; `similarity[i][j]` is the linear CKA of two levels."""

    paths: int
    eer: float
    similarity: list[list[float]]
    sources: list[SourceFacts]


def count_paths(levels: Sequence[LevelFacts]) -> int:
    """Ways from the stem to the last level; 2^(N-2) where each of N levels sees all before it."""
    ways = {"stem": 1}
    for level in levels:
        ways[level.name] = sum(ways[source] for source in level.sees)
    return ways[levels[-1].name]


def dissect(network: SpeakerNetwork, waveforms: Matrix, trials: TrialList) -> Anatomy:
    """Measure a network on one window of each of the trials' recordings, `[recordings, samples]`."""
    network.eval()
    levels = list(cast(Any, network.trunk.levels))
    sources = _sources(network)
    pooled: list[list[Matrix]] = [[] for _ in levels]
    sums = {key: _Sum() for key in sources}
    hooks: dict[nn.Module, Callable[..., Any]] = {}
    for level, kept in zip(levels, pooled, strict=True):
        hooks[level] = lambda m, i, output, kept=kept: kept.append(output.flatten(2).mean(dim=2).numpy())
    for key, source in sources.items():
        # A source is called with its level's output and the main path, which it is to be like.
        hooks[source] = lambda m, given, output, key=key: sums[key].add(given[1], output)
    with _hooked(hooks):
        whole = _eer(network, waveforms, trials)
    facts = []
    for (level, earlier), source in sources.items():
        with _hooked({source: lambda m, i, output: torch.zeros_like(output)}):
            without = _eer(network, waveforms, trials)
        gate = getattr(source, "gate", None)
        worth = None if gate is None else torch.sigmoid(gate).item()
        added = sums[level, earlier]
        facts.append(SourceFacts(level, earlier, worth, added.share, added.correlation, without))
    seen = [np.concatenate(kept) for kept in pooled]
    similarity = [[linear_cka(a, b) for b in seen] for a in seen]
    return Anatomy(count_paths(describe(network)), whole, similarity, facts)


def linear_cka(a: Matrix, b: Matrix) -> float:
    """Linear centred kernel alignment (Kornblith et al. 2019, arXiv:1905.00414) of `[samples, dim]`.

    1 for the same representation up to rotation and scale, 0 for unrelated ones.
    """
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    cross = np.linalg.norm(a.T @ b) ** 2
    return float(cross / (np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b)))


class _Sum:
    """Moments of what a source adds and of the main path that it is added to."""

    def __init__(self) -> None:
        self.moments = np.zeros(6)

    def add(self, main: Tensor, added: Tensor) -> None:
        x, y = main.double(), added.double()
        terms = (torch.ones_like(x), x, y, x * x, y * y, x * y)
        self.moments += [float(term.sum()) for term in terms]

    @property
    def _spread(self) -> tuple[float, float, float]:
        n, x, y, xx, yy, xy = self.moments
        return xx / n - (x / n) ** 2, yy / n - (y / n) ** 2, xy / n - x * y / n**2

    @property
    def share(self) -> float:
        main, added, _ = self._spread
        return float(np.sqrt(added / main))

    @property
    def correlation(self) -> float:
        main, added, both = self._spread
        return float(both / np.sqrt(main * added)) if main * added > 0 else 0.0


def _sources(network: SpeakerNetwork) -> dict[tuple[int, int], nn.Module]:
    """A nested network's sources by (level, source), counted from 1."""
    trunk = network.trunk
    if not isinstance(trunk, NestedSpeakerNet):
        return {}
    return {
        (k, j): source
        for k, sources in enumerate(trunk.sources, start=1)
        for j, source in enumerate(sources.children(), start=1)
    }


@contextmanager
def _hooked(hooks: dict[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    handles = [module.register_forward_hook(hook) for module, hook in hooks.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.inference_mode()
def _eer(network: SpeakerNetwork, waveforms: Matrix, trials: TrialList) -> float:
    starts = range(0, len(waveforms), _BATCH)
    parts = [network(torch.from_numpy(waveforms[i : i + _BATCH])) for i in starts]
    return eer(trials.scores(torch.cat(parts).numpy()), trials.labels)[0]
