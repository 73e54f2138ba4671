"""A whole speaker model: front-end and trunk, waveform in, unit-length embedding out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from sayso.models.denoising_lstm import DenoisingLSTM, DenoisingLSTMOptions
from sayso.models.ecapa import ECAPATDNN, ECAPAOptions
from sayso.models.frontend import FrontEndOptions, front_end_of
from sayso.models.nested import NestedOptions, NestedSpeakerNet
from sayso.models.rawnet3 import RawNet3, RawNet3Options
from sayso.models.resnetse34l import ResNetSE34L, ResNetSE34LOptions
from sayso.models.resnetse34v2 import ResNetSE34V2, ResNetSE34V2Options
from sayso.models.vggvox import VGGVox, VGGVoxOptions


def _tuples(value: Any) -> Any:
    """Lists, as JSON and YAML have them, as the tuples that options are made of."""
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


ARCHITECTURES: dict[str, Callable[[dict[str, Any]], nn.Module]] = {
    "ResNetSE34L": lambda options: ResNetSE34L(ResNetSE34LOptions(**options)),
    "DenoisingLSTM": lambda options: DenoisingLSTM(DenoisingLSTMOptions(**options)),
    "ECAPA-TDNN": lambda options: ECAPATDNN(ECAPAOptions(**options)),
    "NestedSpeakerNet": lambda options: NestedSpeakerNet(NestedOptions(**options)),
    "RawNet3": lambda options: RawNet3(RawNet3Options(**options)),
    "ResNetSE34V2": lambda options: ResNetSE34V2(ResNetSE34V2Options(**options)),
    "VGGVox": lambda options: VGGVox(VGGVoxOptions(**options)),
}


@dataclass(frozen=True)
class NetworkConfig:
    """Everything needed to build a `SpeakerNetwork` again: architecture, its options, front-end."""

    architecture: str
    options: dict[str, Any]
    front_end: FrontEndOptions


class SpeakerNetwork(nn.Module):
    """Waveform `[batch, samples]`, 16 kHz in [-1, 1], to unit-length `[batch, embedding_dim]`."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        if config.architecture not in ARCHITECTURES:
            known = ", ".join(ARCHITECTURES)
            raise ValueError(f"unknown architecture {config.architecture!r}: known are {known}")
        mels = config.options.get("n_mels", 0), config.front_end.n_mels
        if mels[0] != mels[1]:
            raise ValueError(
                "the trunk and the front-end must have the same number of mels: n_mels are "
                f"{mels[0]} and {mels[1]}"
            )
        self.config = config
        self.front_end = front_end_of(config.front_end)
        self.trunk = ARCHITECTURES[config.architecture]({k: _tuples(v) for k, v in config.options.items()})

    @property
    def embedding_dim(self) -> int:
        return int(self.config.options["embedding_dim"])

    @property
    def min_samples(self) -> int:
        """The shortest waveform that the network can embed."""
        return self.front_end.min_samples(getattr(self.trunk, "min_length", 1))

    def folded(self) -> SpeakerNetwork:
        """The network that computes the same in evaluation, without what only training needs."""
        if not isinstance(self.trunk, ResNetSE34L) or not self.trunk.options.embedding_norm:
            return self
        options = {name: value for name, value in self.config.options.items() if name != "embedding_norm"}
        plain = SpeakerNetwork(replace(self.config, options=options))
        plain.front_end = self.front_end
        plain.trunk = self.trunk.folded()
        return plain.train(self.training)

    def forward(self, waveform: Tensor) -> Tensor:
        return F.normalize(self.trunk(self.front_end(waveform)), dim=1)
