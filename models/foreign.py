"""What checkpoints of other projects have in common: their wrapping, their names, the way to a network."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from sayso.models.errors import CheckpointError, require_cover
from sayso.models.frontend import LogMel
from sayso.models.network import NetworkConfig, SpeakerNetwork

_WRAPPERS = ("model_state_dict", "model", "state_dict")
# What the network and the loss are called where a file holds both: voxceleb_trainer, TaoRuijie/ECAPA-TDNN.
_NETWORK, _LOSS = ("__S__", "speaker_encoder"), ("__L__", "speaker_loss")

# Names of theirs beside names of ours; `{}` stands for a number. A name covers what is below it.
Names = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Foreign:
    """A checkpoint under our names, and the network that it is of.

    window, filterbank: the file's own, `[400]` and `[257, n_mels]`, where it holds them.
    idle: what the file holds and its network never runs; it must be there all the same.
    shown: turns a name of ours into the file's, for messages.
    """

    source: str
    config: NetworkConfig
    trunk: Mapping[str, Tensor]
    shown: Callable[[str], str]
    window: Tensor | None = None
    filterbank: Tensor | None = None
    idle: Mapping[str, Tensor] = field(default_factory=dict)

    def network(self) -> SpeakerNetwork:
        """Build the network, in evaluation mode.

        Raises `CheckpointError` with the names of what is missing, unexpected or misshapen.
        """
        try:
            network = SpeakerNetwork(self.config)
        except (ArithmeticError, RuntimeError, ValueError) as error:  # sizes that make no network
            raise CheckpointError(
                f"the checkpoint does not fit {self.config.architecture}: {error}"
            ) from error
        expected = {**network.trunk.state_dict(), **self.idle}
        require_cover(self.config.architecture, expected, self.trunk, self.shown)
        network.trunk.load_state_dict(self.trunk, strict=False)  # require_cover has checked which are absent
        front_end = network.front_end
        if isinstance(front_end, LogMel) and self.window is not None and self.filterbank is not None:
            front_end.use(self.window, self.filterbank)
        return network.eval()


def unwrapped(content: object) -> dict[str, Tensor]:
    """Return the network's tensors in `content`, what `torch.load` returned, without prefixes or the loss."""
    for name in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
            break
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError("the file holds no state_dict: a mapping of names to tensors was expected")
    tensors = {}
    for key, value in content.items():
        parts = [part for part in str(key).split(".") if part != "module"]
        if parts and parts[0] in _LOSS:
            continue
        if not isinstance(value, Tensor):
            raise CheckpointError(f"the file holds {type(value).__name__} under {key!r}, not a tensor")
        name = ".".join(parts[1:] if parts and parts[0] in _NETWORK else parts)
        if name in tensors:
            raise CheckpointError(f"the file holds {name} twice, under different prefixes")
        tensors[name] = value
    return tensors


def renamed(name: str, names: Names) -> str:
    """Turn a name of theirs into ours by the first pair that covers it; others stay as they are."""
    for theirs, ours in names:
        match = re.fullmatch(re.escape(theirs).replace(r"\{\}", r"(\d+)") + r"(\..+)?", name)
        if match:
            *numbers, below = match.groups(default="")
            return ours.format(*numbers) + below
    return name


def shown_by(names: Names) -> Callable[[str], str]:
    """Return the way back, from our names to theirs."""
    swapped = [(ours, theirs) for theirs, ours in names]
    return lambda name: renamed(name, swapped)


def require_sizes(
    what: str, tensors: Mapping[str, Tensor], dimensions: Mapping[str, int], shown: Callable[[str], str]
) -> None:
    """Raise `CheckpointError` unless the tensors that tell a network's sizes are there, and not empty."""
    missing = [shown(name) for name in dimensions if name not in tensors]
    if missing:
        raise CheckpointError(f"not a {what} checkpoint: missing {', '.join(missing)}")
    for name, expected in dimensions.items():
        shape = tuple(tensors[name].shape)
        if len(shape) != expected or 0 in shape:
            raise CheckpointError(f"{shown(name)} has shape {shape}, expected {expected} dimensions")


def numbers_below(tensors: Mapping[str, Tensor], name: str) -> int:
    """Count the distinct parts that follow `name`.

    The highest number plus one would let a key ask for a million blocks.
    """
    depth = name.count(".") + 1
    return len({key.split(".")[depth] for key in tensors if key.startswith(f"{name}.")})
