"""Training learns, resumes to the same weights, and stops where a number is no longer one."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from train_samples import TRAIN, recipe

from sayso.train.features import Features, FeatureStore
from sayso.train.recipe import RecipeError
from sayso.train.teacher import Teacher
from sayso.train.trainer import NonFiniteLoss, Trainer, TrainingData

Facts = dict[str, float]


class Killed(BaseException):
    """The process is gone: nothing may tidy up after it."""


def quiet(step: int, facts: Facts) -> None: ...


def start(data: TrainingData, work: Path, **changes: Any) -> Trainer:
    return Trainer(recipe(**changes), data, work, "cpu", compile_trunk=False)


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.trained.state_dict().items()}


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(tensor, second[name], atol=1e-6, rtol=1e-6, msg=name)


def logged(work: Path) -> list[Facts]:
    return [json.loads(line) for line in (work / "log.jsonl").read_text().splitlines()]


def test_the_loss_falls(data: TrainingData, tmp_path: Path) -> None:
    losses: list[float] = []
    trainer = start(data, tmp_path)
    dev_eer = trainer.run(lambda step, facts: losses.append(facts["loss"]))
    assert len(losses) == 20
    assert np.mean(losses[-4:]) < 0.7 * np.mean(losses[:4])
    assert 0.0 <= dev_eer <= 1.0
    assert trainer.speakers == len(TRAIN)
    last = logged(tmp_path)[-1]
    assert last["step"] == 20
    assert last["dev_eer"] == pytest.approx(dev_eer, abs=1e-5)
    assert last["crops_per_s"] > 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["log.jsonl", "state.pt"]


def test_rate_warms_up_and_decays_and_the_margin_grows(data: TrainingData, tmp_path: Path) -> None:
    seen: list[Facts] = []
    changes = {"warmup": 0.25, "margin_ramp": 0.5, "margin": 0.3, "learning_rate": 0.004}
    start(data, tmp_path, crops=8 * 16, **changes).run(lambda step, facts: seen.append(facts))
    cosine = [0.5 * (1 + math.cos(math.pi * i / 8)) for i in range(8)]
    warm = [0.0, 0.5, *[1.0] * 6]
    np.testing.assert_allclose([f["rate"] for f in seen], 0.004 * np.multiply(cosine, warm), rtol=1e-6)
    ramp = [0.0, 0.25, 0.5, 0.75, *[1.0] * 4]
    np.testing.assert_allclose([f["margin"] for f in seen], 0.3 * np.array(ramp), atol=1e-9)


def test_a_run_is_the_same_each_time(data: TrainingData, tmp_path: Path) -> None:
    runs = [start(data, tmp_path / name, crops=5 * 16) for name in ("a", "b")]
    for trainer in runs:
        torch.manual_seed(len(str(trainer.work)))  # what others draw in between has no say
        trainer.run(quiet)
    assert_same(weights(runs[0]), weights(runs[1]))


@pytest.mark.parametrize(("killed_after", "resumed_at"), [(7, 6), (8, 6), (2, 0)])
def test_a_killed_run_resumes_to_the_same_weights(
    killed_after: int, resumed_at: int, data: TrainingData, tmp_path: Path
) -> None:
    def kill(step: int, facts: Facts) -> None:
        if step == killed_after:
            raise Killed

    changes = {"crops": 10 * 16, "teacher_weight": 2.0, "averaging": 0.8, "mixup": 0.3}
    whole = start(data, tmp_path / "whole", **changes)
    dev_eer = whole.run(quiet)
    with pytest.raises(Killed):
        start(data, tmp_path / "cut", **changes).run(kill, save_every=3)
    (tmp_path / "cut" / "state.partial").write_bytes(b"torn while saving")
    torch.manual_seed(12345)
    resumed = start(data, tmp_path / "cut", **changes)
    assert resumed.step == resumed_at
    assert resumed.run(quiet, save_every=3) == pytest.approx(dev_eer, abs=1e-6)
    assert_same(weights(resumed), weights(whole))


def test_a_finished_run_only_validates(data: TrainingData, tmp_path: Path) -> None:
    first = start(data, tmp_path, crops=3 * 16)
    dev_eer = first.run(quiet)
    steps: list[int] = []
    again = start(data, tmp_path, crops=3 * 16)
    assert again.run(lambda step, facts: steps.append(step)) == pytest.approx(dev_eer, abs=1e-6)
    assert steps == []
    assert_same(weights(again), weights(first))


def test_the_state_of_another_recipe_is_refused(data: TrainingData, tmp_path: Path) -> None:
    start(data, tmp_path, crops=16).run(quiet)
    with pytest.raises(RecipeError, match=r"state\.pt belongs to another recipe: give another --work"):
        start(data, tmp_path, crops=16, margin=0.3)


def test_a_loss_that_is_not_finite_stops_at_its_step(data: TrainingData, tmp_path: Path) -> None:
    trainer = start(data, tmp_path, crops=12 * 16)
    kept: list[bytes] = []

    def poison(step: int, facts: Facts) -> None:
        if step == 4:
            kept.append(trainer.state_file.read_bytes())
            trainer.network.trunk.get_parameter("fc.weight").data[0, 0] = math.nan

    with pytest.raises(
        NonFiniteLoss, match=r"step 5 of 12: aam, loss, grad_norm, embedding_norm not finite.*state\.pt"
    ):
        trainer.run(poison, save_every=2)
    assert trainer.step == 4
    assert trainer.state_file.read_bytes() == kept[0]
    resumed = start(data, tmp_path, crops=12 * 16)
    assert resumed.step == 4
    assert all(torch.isfinite(tensor).all() for tensor in weights(resumed).values())
    assert 0.0 <= resumed.run(quiet) <= 1.0  # the poison was ours, so the run now ends well


def test_a_gradient_that_is_not_finite_stops_before_it_is_applied(data: TrainingData, tmp_path: Path) -> None:
    trainer = start(data, tmp_path)
    parameter = trainer.network.trunk.get_parameter("layer2.0.conv1.weight")
    parameter.register_hook(lambda gradient: gradient * math.inf)
    before = {name: p.detach().clone() for name, p in trainer.trained.named_parameters()}
    with pytest.raises(
        NonFiniteLoss, match=r"step 1 of 20: grad_norm not finite.*in .*layer2\.0\.conv1\.weight"
    ):
        trainer.run(quiet)
    assert all(torch.equal(p, before[name]) for name, p in trainer.trained.named_parameters())
    assert not trainer.state_file.exists()


def test_features_that_are_not_finite_stop_the_run(data: TrainingData, tmp_path: Path) -> None:
    frames = np.array(data.features.plain.frames)
    frames[:, 3] = np.nan
    spoilt = Features(frames, data.features.plain.start)
    with pytest.raises(NonFiniteLoss, match="step 1 of 20"):
        start(dataclasses.replace(data, features=FeatureStore(spoilt, (spoilt,))), tmp_path).run(quiet)


def test_a_teacher_is_followed(data: TrainingData, tmp_path: Path) -> None:
    seen: list[Facts] = []
    trainer = start(data, tmp_path, teacher_weight=5.0, scale=1.0, margin=0.0)
    trainer.run(lambda step, facts: seen.append(facts))
    told = [facts["teacher"] for facts in seen]
    assert np.mean(told[-4:]) < 0.8 * np.mean(told[:4])
    assert all(f["loss"] == pytest.approx(f["aam"] + f["teacher"], rel=1e-5) for f in seen)


def test_what_all_teacher_vectors_share_teaches_nothing(data: TrainingData, tmp_path: Path) -> None:
    [teacher] = data.teachers
    moved = Teacher(teacher.speeds, teacher.embeddings + np.linspace(0, 9, 12, dtype=np.float32))
    shifted = dataclasses.replace(data, teachers=(moved,))
    told: list[list[float]] = []
    for name, given in (("plain", data), ("shifted", shifted)):
        run: list[float] = []
        trainer = start(given, tmp_path / name, teacher_weight=5.0, crops=3 * 16)
        trainer.run(lambda step, facts, run=run: run.append(facts["teacher"]))
        told.append(run)
    assert told[0] == pytest.approx(told[1], rel=1e-3)


def test_a_teacher_without_weight_is_left_out(data: TrainingData, tmp_path: Path) -> None:
    seen: list[Facts] = []
    start(data, tmp_path, crops=16, teacher_weight=0.0).run(lambda step, facts: seen.append(facts))
    assert "teacher" not in seen[0]


def test_norms_and_biases_are_not_decayed(data: TrainingData, tmp_path: Path) -> None:
    trainer = start(data, tmp_path, weight_decay=0.5)
    groups = trainer.optimizer.param_groups
    assert {group["weight_decay"] for group in groups} == {0.5, 0.0}
    for group in groups:
        assert all((p.ndim > 1) == (group["weight_decay"] > 0) for p in group["params"])
    assert sum(len(group["params"]) for group in groups) == len(list(trainer.trained.parameters()))


def test_validation_leaves_the_run_as_it_was(
    data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    often = start(data, tmp_path / "often", crops=6 * 16)
    often.run(quiet)
    never = start(data, tmp_path / "never", crops=6 * 16)
    monkeypatch.setattr(Trainer, "validate", lambda self: 0.5)
    never.run(quiet)
    assert_same(weights(often), weights(never))


def test_dev_rows_follow_the_trial_list(data: TrainingData) -> None:
    rows = data.validation_rows()
    assert tuple(data.manifest.paths[i] for i in rows) == data.trials.recordings
    assert not data.manifest.train[rows].any()


def test_an_epoch_is_as_many_crops_as_recordings_and_each_is_logged(
    data: TrainingData, tmp_path: Path
) -> None:
    trainer = start(data, tmp_path, crops=7 * 4, batch_size=4)
    assert trainer.steps_per_epoch == 3  # of 12 recordings
    seen: list[Facts] = []
    trainer.run(lambda step, facts: seen.append(facts))
    lines = logged(tmp_path)
    assert [line["step"] for line in lines] == [3, 6, 7]
    assert [line["epoch"] for line in lines] == pytest.approx([1, 2, 7 / 3], rel=1e-4)
    assert lines[0]["loss"] == pytest.approx(np.mean([f["loss"] for f in seen[:3]]), rel=1e-3)
    assert lines[1]["grad_norm_max"] == pytest.approx(max(f["grad_norm"] for f in seen[3:6]), rel=1e-3)
    assert {"dev_eer", "grad_norm", "embedding_norm", "gates", "crops_per_s"} <= lines[2].keys()
    assert ["dev_eer" in f for f in seen] == [False, False, True, False, False, True, True]


def test_short_epochs_need_not_each_be_validated(data: TrainingData, tmp_path: Path) -> None:
    start(data, tmp_path, crops=10 * 4, batch_size=4, validate_every=2).run(quiet)
    scored = {line["step"]: "dev_eer" in line for line in logged(tmp_path)}
    assert scored == {3: False, 6: True, 9: False, 10: True}


def test_what_stops_a_run_is_logged_with_each_layers_largest_output(
    data: TrainingData, tmp_path: Path
) -> None:
    trainer = start(data, tmp_path)

    def poison(step: int, facts: Facts) -> None:
        if step == 2:
            trainer.network.trunk.get_parameter("layer3.0.bn1.weight").data[0] = math.inf

    with pytest.raises(NonFiniteLoss):
        trainer.run(poison)
    report = logged(tmp_path)[-1]
    assert report["step"] == 2
    assert "loss" in report["stopped"]
    outputs = report["largest_outputs"]
    finite = [name for name, value in outputs.items() if math.isfinite(value)]
    assert {"conv1", "layer1.0", "layer2.0", "layer3.0.conv1"} <= set(finite)
    assert "layer3.0.bn1" not in finite


def test_averaged_weights_trail_the_trained_ones(data: TrainingData, tmp_path: Path) -> None:
    trainer = start(data, tmp_path, crops=32 * 16, averaging=0.75)
    history: list[Tensor] = []
    trainer.run(
        lambda s, f: history.append(trainer.network.trunk.get_parameter("fc.weight").detach().clone())
    )
    expected = history[0]  # an average starts at the first weights it sees
    for steps, now in enumerate(history[1:], start=1):
        kept = min(0.75, (1 + steps) / (10 + steps))  # and soon forgets them
        expected = kept * expected + (1 - kept) * now
    torch.testing.assert_close(trainer.validated.get_parameter("fc.weight"), expected)
    assert start(data, tmp_path / "plain").validated is not trainer.validated


def test_mixing_changes_what_is_seen_and_nothing_else(data: TrainingData, tmp_path: Path) -> None:
    trainer = start(data, tmp_path, mixup=0.4, masks=0)
    batch = trainer.sampler.batch(0, 16)
    features, partner, share = trainer._features(batch)
    plain, alone, whole = start(data, tmp_path / "plain", masks=0)._features(batch)
    assert (alone == np.arange(16)).all()
    assert whole == 1.0
    assert 0.0 < share < 1.0
    torch.testing.assert_close(features, share * plain + (1 - share) * plain[partner])
    assert sorted(partner) == list(range(16))


def test_pairs_train_prototypes_without_aam(data: TrainingData, tmp_path: Path) -> None:
    seen: list[Facts] = []
    trainer = start(data, tmp_path, prototypical_weight=1.0, aam_weight=0.0, batch_size=8)
    trainer.run(lambda step, facts: seen.append(facts))
    assert "aam" not in seen[0]
    told = [f["prototypical"] for f in seen]
    assert np.mean(told[-8:]) < 0.8 * np.mean(told[:8])


def test_a_nested_networks_gates_are_logged(data: TrainingData, tmp_path: Path) -> None:
    options = {"n_mels": 24, "embedding_dim": 16, "channels": [8, 8, 8, 8], "blocks": [1, 1, 1]}
    options |= {"strides": [[2, 2], [2, 2]], "fusion": 16, "variant": "per-source"}
    start(data, tmp_path, architecture="NestedSpeakerNet", options=options, crops=4 * 16).run(quiet)
    first, *_, last = logged(tmp_path)
    assert set(first["gates"]) == {"sources.1.0.gate", "sources.2.0.gate", "sources.2.1.gate"}
    assert all(0.08 < value < 0.2 for value in first["gates"].values())  # they start almost closed
    assert first["gates"] != last["gates"]


def test_new_heads_learn_before_a_trained_trunk_moves(data: TrainingData, tmp_path: Path) -> None:
    trainer = start(data, tmp_path, heads_first=0.5)
    trunk = {n: p.detach().clone() for n, p in trainer.network.trunk.named_parameters()}
    heads = {n: p.detach().clone() for n, p in trainer.objective.named_parameters()}
    stopped_at = trainer.recipe.steps // 2
    moved: dict[int, bool] = {}

    def look(step: int, facts: dict[str, float]) -> None:
        moved[step] = any(not torch.equal(p, trunk[n]) for n, p in trainer.network.trunk.named_parameters())

    trainer.run(look)

    assert not any(moved[step] for step in range(1, stopped_at + 1))
    assert moved[stopped_at + 2]
    assert any(not torch.equal(p, heads[n]) for n, p in trainer.objective.named_parameters())
