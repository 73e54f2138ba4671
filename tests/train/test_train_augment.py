"""SpecAugment masks what it may, where its generator says, for each example by itself."""

import pytest
import torch

from sayso.train.augment import spec_augment


def masked(seed: int = 0, freq: int = 5, time: int = 20, masks: int = 2, mels: int = 40) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return spec_augment(torch.ones(32, mels, 100), freq, time, masks, generator) == 0


def test_masks_are_bands_of_at_most_the_width_asked() -> None:
    holes = masked(masks=1)
    for example in holes:
        mels, frames = example.all(dim=1), example.all(dim=0)
        assert torch.equal(example, mels[:, None] | frames[None, :])
        assert mels.sum() <= 5
        assert frames.sum() <= 20
        for band in (mels, frames):
            assert band.int().diff().eq(1).sum() <= 1  # in one piece
    assert holes.all(dim=2).sum(dim=1).max() == 5  # the widest does come
    assert holes.all(dim=1).sum(dim=1).min() < 5


def test_every_place_may_be_masked() -> None:
    mels = torch.zeros(40)
    frames = torch.zeros(100)
    for seed in range(20):
        holes = masked(seed)
        mels += holes.all(dim=2).sum(dim=0)
        frames += holes.all(dim=1).sum(dim=0)
    assert (mels > 0).all()
    assert (frames > 0).all()


@pytest.mark.parametrize(("masks", "mels", "frames"), [(1, 5, 20), (2, 10, 40), (3, 15, 60)])
def test_several_masks_add_up(masks: int, mels: int, frames: int) -> None:
    holes = masked(masks=masks)
    assert holes.all(dim=2).sum(dim=1).max() <= mels
    assert holes.all(dim=1).sum(dim=1).max() <= frames


def test_the_generator_alone_decides() -> None:
    torch.manual_seed(1)
    first = masked(seed=7)
    torch.manual_seed(2)
    assert torch.equal(masked(seed=7), first)
    assert not torch.equal(masked(seed=8), first)


def test_each_example_has_its_own() -> None:
    holes = masked()
    assert len({tuple(example.flatten().tolist()) for example in holes}) > 25


def test_the_rest_is_left_alone() -> None:
    features = torch.randn(8, 24, 50)
    before = features.clone()
    augmented = spec_augment(features, 4, 9, 2, torch.Generator().manual_seed(0))
    assert torch.equal(features, before)
    assert ((augmented == features) | (augmented == 0)).all()
    assert (augmented == 0).any()


def test_nothing_to_mask_masks_nothing() -> None:
    assert not masked(freq=0, time=0).any()
    assert not masked(masks=0).any()


def test_a_mask_wider_than_the_features_stays_within() -> None:
    assert masked(freq=60, mels=8).shape == (32, 8, 100)
