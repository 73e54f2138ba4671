"""The autoencoder's stage teaches the encoder before training, and only where a recipe asks for it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from train_samples import RECIPE, Corpus

from sayso.models.network import SpeakerNetwork
from sayso.train import run
from sayso.train.denoising import pretrain
from sayso.train.recipe import Recipe, RecipeError
from sayso.train.run import Prepared

LSTM: dict[str, Any] = {
    "architecture": "DenoisingLSTM",
    "options": {"embedding_dim": 16, "n_mels": 24, "code": 16, "cells": 8},
    "denoising": {"crops": 60 * 16, "copies": [{"augmentation": 1}]},
}


@pytest.fixture(scope="module")
def prepared(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("denoising")
    recipe = corpus.recipe(folder, **LSTM, crops=2 * 16)
    return run.prepare(
        recipe, [corpus.manifest], corpus.trials, [], folder / "features", 1, lambda done, total: None
    )


def denoised(prepared: Prepared) -> tuple[SpeakerNetwork, tuple[float, float]]:
    torch.manual_seed(1)
    network, data = SpeakerNetwork(prepared.recipe.network()), prepared.data
    rows = np.flatnonzero(data.manifest.train)
    return network, pretrain(network, prepared.recipe, data.features.plain, data.noisy, rows)


def test_copies_keep_step_with_the_recordings(prepared: Prepared) -> None:
    data = prepared.data
    assert len(data.features.copies) == len(data.noisy) == 1
    for row in np.flatnonzero(data.manifest.train):
        clean, noisy = data.features.plain.recording(row), data.noisy[0].recording(row)
        assert clean.shape == noisy.shape
    assert any((data.noisy[0].recording(r) != data.features.plain.recording(r)).any() for r in (0, 1, 2))


def test_the_encoder_learns_to_hear_through_noise(prepared: Prepared) -> None:
    network, (first, last) = denoised(prepared)
    assert last < 0.8 * first
    again, _ = denoised(prepared)
    for one, other in zip(network.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_run_begins_with_it_and_a_resumed_one_does_not(prepared: Prepared, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    trainer = run.trainer(
        prepared, tmp_path, "cpu", False, on_denoising=lambda done, total: steps.append((done, total))
    )
    assert steps[-1] == (60, 60)
    before = trainer.network.trunk.encoder[0].weight.clone()
    trainer.run(lambda step, facts: None)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines[0]["denoising_last"] < lines[0]["denoising_first"]
    resumed = run.trainer(
        prepared, tmp_path, "cpu", False, on_denoising=lambda done, total: steps.append((done, total))
    )
    assert len(steps) == 60
    assert resumed.step == 2
    assert not torch.equal(resumed.network.trunk.encoder[0].weight, before)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"architecture": "ResNetSE34L", "options": RECIPE["options"]}, "only a DenoisingLSTM has one"),
        ({"denoising": {"crops": 0, "copies": [{"augmentation": 1}]}}, "denoising with crops above 0"),
        ({"denoising": {"crops": 16, "copies": []}}, "and copies"),
        ({"denoising": {"crops": 16, "copies": [{"augmentation": 0}]}}, "copies of speed 1, augmented"),
        ({"denoising": {"crops": 16, "copies": [{"augmentation": 1, "speed": 1.1}]}}, "copies of speed 1"),
        ({"denoising": {"crops": 16}}, "denoising.copies"),
        ({"denoising": {"crops": 16, "copies": [{"augmentation": 1}], "noise": 1}}, "denoising.noise"),
    ],
)
def test_a_stage_that_cannot_be_is_refused(
    changed: dict[str, Any], named: str, corpus: Corpus, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=named):
        Recipe.read(corpus.recipe(tmp_path, **(LSTM | changed)))
