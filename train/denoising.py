"""The stage before training in which an encoder learns to hear through noise, as half of an autoencoder."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from sayso.models.denoising_lstm import DenoisingLSTM
from sayso.models.network import SpeakerNetwork
from sayso.train.features import Features, seconds_to_frames
from sayso.train.recipe import Recipe


class Decoder(nn.Sequential):
    """The code `[batch, code, frames]` to normalised log-mel features `[batch, n_mels, frames]`."""

    def __init__(self, code: int, n_mels: int) -> None:
        super().__init__(
            nn.Conv1d(code, code, 3, padding=1),
            nn.BatchNorm1d(code),
            nn.ReLU(),
            nn.Conv1d(code, n_mels, 5, padding=2),
        )


def pretrain(
    network: SpeakerNetwork,
    recipe: Recipe,
    clean: Features,
    noisy: Sequence[Features],
    rows: NDArray[np.int64],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[float, float]:
    """Train the encoder, and a decoder that is thrown away, to give `clean` features for `noisy` ones.

    `noisy` are copies of the `rows` in step with `clean`. Returns the mean squared error over the first and
    the last tenth of the stage; features have a variance of 1.
    """
    plan, trunk = recipe.denoising, network.trunk
    if plan is None or not isinstance(trunk, DenoisingLSTM):
        raise ValueError(f"the recipe {recipe.name!r} has no autoencoder to train")
    device = next(trunk.parameters()).device
    decoder = Decoder(trunk.options.code, trunk.options.n_mels).to(device)
    autoencoder = nn.Sequential(trunk.encoder, decoder).train()
    optimizer = torch.optim.AdamW(autoencoder.parameters(), recipe.learning_rate)
    steps, frames = -(-plan.crops // recipe.batch_size), seconds_to_frames(recipe.crop_lengths_s[0])
    losses: list[float] = []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * 0.5 * (1.0 + math.cos(math.pi * step / steps))
        rng = np.random.default_rng([recipe.seed, step])
        pairs = []
        for row in rng.choice(rows, recipe.batch_size):
            copy, at = noisy[int(rng.integers(len(noisy)))], rng.random()
            pairs.append([features.crop(row, frames, at) for features in (copy, clean)])
        heard, wanted = (
            network.front_end.normalise(_batch([pair[k] for pair in pairs], device)) for k in (0, 1)
        )
        loss = F.mse_loss(autoencoder(heard), wanted)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
        progress(step + 1, steps)
    tenth = max(1, steps // 10)
    return float(np.mean(losses[:tenth])), float(np.mean(losses[-tenth:]))


def _batch(crops: list[NDArray[np.float16]], device: torch.device) -> Tensor:
    return torch.from_numpy(np.stack(crops)).to(device).float().transpose(1, 2)
