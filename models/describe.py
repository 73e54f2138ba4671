"""What a built network is made of: each level's feature map, cost, and what it sees."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from sayso.models.cost import macs_by_module
from sayso.models.ecapa import ECAPATDNN
from sayso.models.nested import NestedSpeakerNet
from sayso.models.network import SpeakerNetwork
from sayso.models.rawnet3 import RawNet3


@dataclass(frozen=True)
class LevelFacts:
    """One level's output for a waveform, and its cost with that of its sources.

    `sees` names the earlier levels that come in: the one before, and those that are aggregated. A level
    of convolutions over time alone has one frequency.
    """

    name: str
    channels: int
    frequencies: int
    frames: int
    parameters: int
    macs: int
    sees: tuple[str, ...]


def describe(network: SpeakerNetwork, samples: int = 48_000) -> tuple[LevelFacts, ...]:
    """The levels of a network as built, in order, for a waveform of `samples`."""
    trunk = network.trunk
    modules: list[nn.Module] = list(cast(Iterable[nn.Module], trunk.levels))
    sources: list[nn.Module] = [nn.ModuleList() for _ in modules]
    if isinstance(trunk, NestedSpeakerNet):
        sources = list(trunk.sources)
    shapes: dict[int, torch.Size] = {}

    def note(k: int) -> Callable[[nn.Module, Any, Tensor], None]:
        return lambda module, inputs, output: shapes.__setitem__(k, output.shape)

    hooks = [module.register_forward_hook(note(k)) for k, module in enumerate(modules)]
    try:
        macs = macs_by_module(network, samples)
    finally:
        for hook in hooks:
            hook.remove()
    names = [f"level {k + 1}" for k in range(len(modules))]
    facts = []
    for k, (module, into) in enumerate(zip(modules, sources, strict=True)):
        own = [*module.modules(), *into.modules()]
        before = names[k - 1] if k else "stem"
        aggregated = names[: len(list(into.children()))]
        if isinstance(trunk, ECAPATDNN) and trunk.variant.summed:
            aggregated = ["stem", *names[:k]]
        if isinstance(trunk, RawNet3) and k == 2:
            aggregated = names[:k]
        _, channels, *frequencies, frames = shapes[k]
        facts.append(
            LevelFacts(
                name=names[k],
                channels=channels,
                frequencies=frequencies[0] if frequencies else 1,
                frames=frames,
                parameters=sum(p.numel() for part in (module, into) for p in part.parameters()),
                macs=sum(macs.get(m, 0) for m in own),
                sees=tuple(dict.fromkeys([*aggregated, before])),
            )
        )
    return tuple(facts)
