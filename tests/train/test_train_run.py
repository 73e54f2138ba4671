"""From files to a checkpoint that loads."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch
from train_samples import RECIPE, Corpus, make_corpus

from sayso.evaluate.trials import TrialListError
from sayso.models.checkpoint import load_checkpoint
from sayso.models.errors import CheckpointError
from sayso.runtime.synthesis import synthetic_voice
from sayso.train import run
from sayso.train.features import FeatureStore
from sayso.train.manifest import DataError
from sayso.train.recipe import RecipeError
from sayso.train.run import Prepared


@pytest.fixture
def work(cache: Path, features: FeatureStore, tmp_path: Path) -> Path:
    """A work folder whose features are there already."""
    made = tmp_path / "work"
    made.mkdir()
    (made / "features").symlink_to(cache, target_is_directory=True)
    return made


def prepared(corpus: Corpus, work: Path, teacher: Path | None = None, **changes: Any) -> Prepared:
    recipe = corpus.recipe(work, **changes)
    teachers = [[teacher]] if teacher else []
    return run.prepare(
        recipe, [corpus.manifest], corpus.trials, teachers, work / "features", 1, lambda done, total: None
    )


@pytest.mark.parametrize("taught", [False, True])
def test_a_run_ends_in_a_checkpoint_that_loads(
    taught: bool, corpus: Corpus, work: Path, tmp_path: Path
) -> None:
    weight = 3.0 if taught else 0.0
    made = prepared(corpus, work, corpus.teacher if taught else None, crops=4 * 16, teacher_weight=weight)
    trainer = run.trainer(made, work, "cpu", compile_trunk=False)
    dev_eer = trainer.run(lambda step, facts: None)
    out = tmp_path / "models" / "tiny.safetensors"
    run.finish(trainer, made, dev_eer, out)

    loaded = load_checkpoint(out)
    audio = torch.from_numpy(synthetic_voice(2.0))[None]
    with torch.inference_mode():
        assert torch.equal(loaded.network(audio), trainer.network.eval()(audio))
    told = loaded.training
    assert told["recipe"] == RECIPE | told["recipe"]
    assert told["teacher"] is taught
    assert (told["speakers"], told["recordings"], told["corpora"]) == (4, 12, ["synthetic"])
    assert told["manifest_sha256"] == made.data.manifest.sha256
    assert told["dev_eer_one_window"] == pytest.approx(dev_eer, abs=1e-5)
    assert str(tmp_path) not in str(told)  # a checkpoint is shared, its maker's folders are not


def test_a_later_run_takes_up_the_work(corpus: Corpus, work: Path) -> None:
    made = prepared(corpus, work, crops=2 * 16)
    run.trainer(made, work, "auto" if not torch.cuda.is_available() else "cpu", False).run(lambda s, f: None)
    assert run.trainer(made, work, "cpu", compile_trunk=False).step == 2


def test_what_is_missing_is_refused(corpus: Corpus, work: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'tiny' learns from a teacher: give --teacher"):
        prepared(corpus, work, teacher_weight=2.0)
    with pytest.raises(DataError, match=r"no teacher has embeddings at the recipe's speeds \[0\.9\]"):
        prepared(corpus, work, corpus.teacher, teacher_weight=2.0, copies=[{"speed": 1.0}, {"speed": 0.9}])
    with pytest.raises(DataError, match=r"cannot read the teacher's embeddings .*absent\.npy"):
        prepared(corpus, work, tmp_path / "absent.npy", teacher_weight=2.0)
    with pytest.raises(RecipeError, match="unknown fields: epochs"):
        prepared(corpus, work, epochs=3)


@pytest.mark.parametrize(
    ("vectors", "told"),
    [
        (np.ones((17, 12)), r"teacher\.npy: 17 rows; the manifest has 18 rows"),
        (np.ones(18), r"shape \(1, 18\)"),
        (np.full((18, 12), np.nan), "not finite"),
        (np.array([object()]), "cannot read the teacher's embeddings"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(
    vectors: np.ndarray, told: str, corpus: Corpus, work: Path, tmp_path: Path
) -> None:
    np.save(tmp_path / "teacher.npy", vectors, allow_pickle=True)
    with pytest.raises(DataError, match=told):
        prepared(corpus, work, tmp_path / "teacher.npy", teacher_weight=2.0)


def test_trials_must_be_of_listed_recordings(corpus: Corpus, work: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.trials"
    other.write_text("1 dev/eve/0.wav dev/eve/9.wav\n0 dev/eve/0.wav elsewhere.wav\n")
    recipe = corpus.recipe(tmp_path)
    with pytest.raises(
        DataError, match=r"the trials name 2 recordings that no manifest lists, such as dev/eve/9\.wav"
    ):
        run.prepare(recipe, [corpus.manifest], other, [], work / "features", 1, lambda done, total: None)
    other.write_text("no trials\n")
    with pytest.raises(TrialListError):
        run.prepare(recipe, [corpus.manifest], other, [], work / "features", 1, lambda done, total: None)


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA works on this machine")
def test_cuda_is_refused_where_there_is_none(corpus: Corpus, work: Path) -> None:
    with pytest.raises(DataError, match="CUDA was asked for, but PyTorch finds no GPU: use --device cpu"):
        run.trainer(prepared(corpus, work), work, "cuda", compile_trunk=False)


def test_a_folder_of_speakers_trains_like_a_manifest(corpus: Corpus, work: Path, tmp_path: Path) -> None:
    """As VoxCeleb lies on a disk, with its own trial list; and the average of the weights is what is kept."""
    wav, trials = tmp_path / "wav", tmp_path / "trials.txt"
    for source in sorted(corpus.root.glob("*/*/*")):
        target = wav / source.parent.name / "video" / source.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(source)
    trials.write_text("1 eve/video/0.wav eve/video/1.wav\n0 eve/video/0.wav fay/video/1.wav\n")
    recipe = corpus.recipe(tmp_path, crops=3 * 16, averaging=0.5)
    made = run.prepare(recipe, [wav], trials, [], tmp_path / "features", 1, lambda done, total: None)
    assert set(np.array(made.data.manifest.speakers)[made.data.manifest.train]) == {
        "ann",
        "bob",
        "cat",
        "dan",
    }
    trainer = run.trainer(made, tmp_path / "work", "cpu", compile_trunk=False)
    dev_eer = trainer.run(lambda step, facts: None)
    last = {name: p.clone() for name, p in trainer.network.trunk.named_parameters()}
    run.finish(trainer, made, dev_eer, tmp_path / "model.safetensors")
    kept = dict(load_checkpoint(tmp_path / "model.safetensors").network.trunk.named_parameters())
    assert not torch.equal(kept["fc.weight"], last["fc.weight"])
    averaged = dict(trainer.validated.named_parameters())
    assert all(torch.equal(p, averaged[name]) for name, p in kept.items())


def test_a_run_may_begin_with_an_earlier_ones_weights(corpus: Corpus, work: Path, tmp_path: Path) -> None:
    first = prepared(corpus, work, crops=16, seed=1)
    trainer = run.trainer(first, work / "first", "cpu", compile_trunk=False)
    earlier = tmp_path / "earlier.safetensors"
    run.finish(trainer, first, trainer.run(lambda step, facts: None), earlier)

    second = prepared(corpus, work, crops=16, seed=2)
    trainer = run.trainer(second, work / "second", "cpu", False, earlier)
    begun = load_checkpoint(earlier).network.trunk.state_dict()
    assert all(torch.equal(t, begun[name]) for name, t in trainer.network.trunk.state_dict().items())
    out = tmp_path / "later.safetensors"
    run.finish(trainer, second, trainer.run(lambda step, facts: None), out, earlier)
    told = load_checkpoint(out).training
    assert told["recipe"]["seed"] == 2
    assert told["started_from"]["recipe"]["seed"] == 1

    other = prepared(corpus, work, options=RECIPE["options"] | {"pooling": "ASP"})
    with pytest.raises(CheckpointError, match=r"earlier\.safetensors is another network than the recipe's"):
        run.trainer(other, work / "other", "cpu", False, earlier)


def test_norms_of_training_are_folded_away_and_begin_anew(corpus: Corpus, work: Path, tmp_path: Path) -> None:
    options = {**RECIPE["options"], "embedding_norm": True}
    first = prepared(corpus, work, crops=3 * 16, options=options)
    trainer = run.trainer(first, work / "first", "cpu", compile_trunk=False)
    kept = tmp_path / "kept.safetensors"
    run.finish(trainer, first, trainer.run(lambda step, facts: None), kept)
    loaded = load_checkpoint(kept).network
    assert loaded.config.options == RECIPE["options"]
    audio = torch.from_numpy(synthetic_voice(2.0))[None]
    with torch.inference_mode():
        torch.testing.assert_close(loaded(audio), trainer.network.eval()(audio), atol=1e-5, rtol=0)

    second = prepared(corpus, work, crops=16, options=options, seed=2)
    again = run.trainer(second, work / "second", "cpu", False, kept).network.trunk
    assert torch.equal(again.fc.weight, loaded.trunk.fc.weight)
    assert torch.equal(again.fc_norm.weight, torch.ones(RECIPE["options"]["embedding_dim"]))


def test_several_manifests_train_together(corpus: Corpus, tmp_path: Path) -> None:
    """Each with its own file of the teacher; the corpora of `leave_out` stay unheard."""
    second = make_corpus(tmp_path / "second", "letters", {"gus": (150, 1.0), "ida": (215, 1.1)}, {})
    first = tmp_path / "first"
    first.symlink_to(corpus.root, target_is_directory=True)
    manifests = [first / "manifest.csv", second.manifest]
    teachers = [[corpus.teacher, second.teacher]]

    def prepare(**changes: Any) -> Prepared:
        recipe = corpus.recipe(tmp_path, crops=2 * 16, teacher_weight=2.0, **changes)
        return run.prepare(
            recipe, manifests, corpus.trials, teachers, tmp_path / "features", 1, lambda done, total: None
        )

    both = prepare()
    trainer = run.trainer(both, tmp_path / "both", "cpu", compile_trunk=False)
    assert trainer.speakers == 6
    listed = [both.data.manifest.paths[i] for i in both.data.validation_rows()]
    assert listed == [f"first/{recording}" for recording in both.data.trials.recordings]
    out = tmp_path / "both.safetensors"
    run.finish(trainer, both, trainer.run(lambda step, facts: None), out)
    assert load_checkpoint(out).training["corpora"] == ["letters", "synthetic"]

    one = prepare(leave_out=["letters"])
    assert run.trainer(one, tmp_path / "one", "cpu", compile_trunk=False).speakers == 4
    assert one.data.manifest.paths == both.data.manifest.paths
    with pytest.raises(DataError, match="no manifest trains on: digits"):
        prepare(leave_out=["digits"])


def test_every_recording_that_cannot_be_read_is_named_before_the_work(corpus: Corpus, tmp_path: Path) -> None:
    """An empty file, text, one that is missing, samples that are no numbers, and FLAC cut in the middle."""
    root = tmp_path / "bad"
    shutil.copytree(corpus.root, root)
    (root / "train/bob/0.wav").write_bytes(b"")
    (root / "train/bob/1.wav").write_text("no recording")
    (root / "train/cat/0.wav").unlink()
    sf.write(root / "train/cat/1.wav", np.full(16_000, np.nan, np.float32), 16_000, subtype="FLOAT")
    cut = (root / "train/ann/2.flac").read_bytes()
    (root / "train/ann/2.flac").write_bytes(cut[: len(cut) // 2])
    listed, recipe = root / "manifest.csv", corpus.recipe(tmp_path)

    def prepare() -> None:
        run.prepare(recipe, [listed], corpus.trials, [], tmp_path / "f", 2, lambda done, total: None)

    with pytest.raises(DataError, match="5 of 18 recordings cannot be read") as caught:
        prepare()
    for name in ("bob/0.wav", "bob/1.wav", "cat/0.wav", "cat/1.wav", "ann/2.flac"):
        assert f"train/{name}: " in str(caught.value)
    assert not list((tmp_path / "f").iterdir())  # no features were computed


def test_fewer_than_two_speakers_are_refused(corpus: Corpus, work: Path, tmp_path: Path) -> None:
    rows = (corpus.root / "manifest.csv").read_text().splitlines()
    alone = corpus.root / "alone.csv"
    alone.write_text("\n".join(row for row in rows if ",train," not in row or ",ann," in row) + "\n")
    recipe = corpus.recipe(tmp_path)
    with pytest.raises(DataError, match="only the speaker ann is left to train on"):
        run.prepare(recipe, [alone], corpus.trials, [], work / "features", 1, lambda done, total: None)
    with pytest.raises(DataError, match="telling speakers apart takes two or more"):
        prepared(corpus, work, speakers=1)
