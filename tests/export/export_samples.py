"""An exported network and what it came from."""

from dataclasses import dataclass
from pathlib import Path

from sayso.models.network import SpeakerNetwork
from sayso.runtime.card import ModelCard


@dataclass(frozen=True)
class Exported:
    checkpoint: Path
    network: SpeakerNetwork
    path: Path
    card: ModelCard

    @property
    def content(self) -> bytes:
        return self.path.read_bytes()
