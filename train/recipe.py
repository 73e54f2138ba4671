"""Training recipes: small YAML files that fix everything but the place of the data."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from sayso.domain.errors import SaysoError
from sayso.models.frontend import FrontEndOptions
from sayso.models.network import NetworkConfig, SpeakerNetwork
from sayso.train.waveform import Copy


class RecipeError(SaysoError, ValueError):
    """The recipe file cannot be used; the message says which field and why."""


@dataclass(frozen=True)
class Denoising:
    """The stage in which a DenoisingLSTM's encoder learns to give clean features for those of `copies`.

    `crops` counts its examples. The copies are as fast as the recordings, and augmented.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    crops: int
    copies: tuple[Copy, ...]


@dataclass(frozen=True)
class Recipe:
    """Hyper-parameters of one run. `crops` counts training examples, the unit that costs time.

    An epoch is as many crops as there are training recordings. Where `crop_s` lists several lengths,
    each step draws one for its batch. `copies` are the versions of the recordings that crops are
    drawn from, each as often; `served` cuts long pauses out of them first, as the service does.
    `speaker_balance` is the exponent on a speaker's seconds when speakers are drawn: 1 draws every
    second of speech equally often, 0 every speaker. `margin` grows linearly from 0 over the first
    `margin_ramp` of the run. A weight of 0 leaves its loss out: AAM-softmax, angular prototypical
    (which draws two crops a speaker), the teachers' embeddings through a projection. `mixup` is the
    alpha of its Beta distribution, and `averaging` the decay a step of the moving average of the
    weights, which is what is validated and kept; 0 leaves either out. `gradient_clip` 0 does not clip.
    `heads_first` is the share of the run in which the trunk stands still: where it begins with a trained
    one (`--from`), the new heads' first gradients would spoil it.
    `denoising` trains the encoder of a DenoisingLSTM first.
    `speakers` above 0 trains on that many of the speakers only, drawn once. The corpora named in `leave_out`
    are not trained on. Dev trials are scored every `validate_every` epochs and at the end.
    `sine_floor` and `loss_autocast` are for repeating what went wrong: a floor of 0 is the published
    AAM-softmax, and autocast puts the loss itself into 16 bits.
    """

    name: str
    architecture: str
    options: dict[str, Any]
    front_end: dict[str, Any]
    crops: int
    batch_size: int = 64
    crop_s: float | tuple[float, ...] = 2.0
    copies: tuple[Copy, ...] = (Copy(),)
    served: bool = False
    speakers: int = 0
    leave_out: tuple[str, ...] = ()
    validate_every: int = 1
    speaker_balance: float = 0.7
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    warmup: float = 0.03
    gradient_clip: float = 5.0
    heads_first: float = 0.0
    aam_weight: float = 1.0
    scale: float = 30.0
    margin: float = 0.2
    margin_ramp: float = 0.3
    sine_floor: float = 1e-7
    loss_autocast: bool = False
    prototypical_weight: float = 0.0
    teacher_weight: float = 0.0
    mixup: float = 0.0
    freq_mask: int = 5
    time_mask: int = 20
    masks: int = 2
    averaging: float = 0.0
    denoising: Denoising | None = None
    seed: int = 1

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """Parse a YAML recipe; fields that are unknown, missing or unusable raise `RecipeError`."""
        try:
            values = yaml.safe_load(path.read_text())
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise RecipeError(f"cannot read the recipe {path}: {error}") from error
        if not isinstance(values, dict):
            raise RecipeError(f"the recipe {path} must be a mapping of field: value")
        unknown = set(values) - {f.name for f in fields(cls)}
        if unknown:
            raise RecipeError(f"the recipe {path} has unknown fields: {', '.join(sorted(map(str, unknown)))}")
        try:
            recipe = TypeAdapter(cls).validate_python(values)
        except ValidationError as error:
            wrong = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
            raise RecipeError(f"the recipe {path} cannot be used: {'; '.join(wrong)}") from error
        for name, least in (
            ("crops", recipe.crops),
            ("batch_size", recipe.batch_size),
            ("validate_every", recipe.validate_every),
            ("crop_s", min(recipe.crop_lengths_s, default=0)),
        ):
            if least <= 0:
                raise RecipeError(f"the recipe {path} needs {name} above 0")
        if not recipe.copies or any(c.speed <= 0 for c in recipe.copies):
            raise RecipeError(f"the recipe {path} needs copies, each with a speed above 0")
        if recipe.prototypical_weight and recipe.batch_size % 2:
            raise RecipeError(f"the recipe {path} draws pairs for its prototypes: batch_size must be even")
        if recipe.prototypical_weight and recipe.mixup:
            raise RecipeError(f"the recipe {path} mixes crops, which leaves no pairs for prototypes")
        if recipe.denoising is not None:
            copies = recipe.denoising.copies
            if recipe.architecture != "DenoisingLSTM":
                raise RecipeError(f"the recipe {path} trains an autoencoder: only a DenoisingLSTM has one")
            if recipe.denoising.crops <= 0 or not copies:
                raise RecipeError(f"the recipe {path} needs denoising with crops above 0, and copies")
            if any(c.speed != 1.0 or not c.augmentation for c in copies):
                raise RecipeError(f"the recipe {path} needs denoising copies of speed 1, augmented")
        try:
            SpeakerNetwork(recipe.network())
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise RecipeError(f"the recipe {path} describes no network ({error})") from error
        return recipe

    @property
    def steps(self) -> int:
        return -(-self.crops // self.batch_size)

    @property
    def crop_lengths_s(self) -> tuple[float, ...]:
        return self.crop_s if isinstance(self.crop_s, tuple) else (self.crop_s,)

    @property
    def speeds(self) -> tuple[float, ...]:
        return tuple(sorted({c.speed for c in self.copies}))

    def network(self) -> NetworkConfig:
        return NetworkConfig(self.architecture, self.options, FrontEndOptions(**self.front_end))
