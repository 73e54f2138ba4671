"""The exported graph is the same function, at lengths and batches the export itself did not try."""

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
from export_samples import Exported

from sayso.export.exporter import in_torch
from sayso.export.parity import measure, speech_from
from sayso.runtime.session import EmbeddingSession
from sayso.runtime.synthesis import synthetic_voice


@pytest.mark.parametrize("seconds", [0.02, 0.77, 3.0, 6.123, 13.0])
@pytest.mark.parametrize("batch", [1, 5])
def test_equal_at_other_lengths_and_batches(seconds: float, batch: int, exported: Exported) -> None:
    voices = [synthetic_voice(seconds, 100 + 25 * i, 0.85 + 0.07 * i, seed=i) for i in range(batch)]
    session = EmbeddingSession(exported.content, "tiny", provider="cpu", threads=1)
    got = session.run(np.stack(voices))
    with torch.inference_mode():
        expected = exported.network(torch.from_numpy(np.stack(voices))).numpy()
    assert got.shape == (batch, 32)
    assert np.abs(got - expected).max() < 1e-4
    assert np.sum(got * expected, axis=1).min() > 0.99999
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1.0, atol=1e-5)


def test_voices_are_told_apart_so_the_comparison_means_something(exported: Exported) -> None:
    voices = np.stack([synthetic_voice(3.0, 100, 0.88), synthetic_voice(3.0, 220, 1.15, seed=1)])
    vectors = EmbeddingSession(exported.content, "tiny", provider="cpu").run(voices)
    assert np.abs(vectors[0] - vectors[1]).max() > 0.02


def test_silence_and_full_scale_stay_finite(exported: Exported) -> None:
    session = EmbeddingSession(exported.content, "tiny", provider="cpu", threads=1)
    loud = np.sign(synthetic_voice(1.0)).astype(np.float32)
    vectors = session.run(np.stack([np.zeros(16_000, np.float32), loud, np.ones(16_000, np.float32)]))
    assert np.isfinite(vectors).all()


def test_a_batch_does_not_change_its_members(exported: Exported) -> None:
    voices = np.stack([synthetic_voice(2.0, 100 + 20 * i, seed=i) for i in range(6)])
    session = EmbeddingSession(exported.content, "tiny", provider="cpu", threads=1)
    together = session.run(voices)
    for voice, vector in zip(voices, together, strict=True):
        np.testing.assert_allclose(session.run(voice[None])[0], vector, atol=1e-6)


def test_recordings_are_taken_from_all_over_a_folder(tmp_path: Path) -> None:
    alternating = np.where(np.arange(800) % 2 == 0, 1.0, -1.0)
    for i in range(24):
        speaker = tmp_path / f"s{i // 3}"
        speaker.mkdir(exist_ok=True)
        sf.write(speaker / f"{i % 3}.{'flac' if i % 2 else 'WAV'}", i / 100 * alternating, 16_000)
    (tmp_path / "notes.txt").write_text("not a recording")
    voices, named = speech_from(tmp_path)
    assert named == "8 recordings and noise"
    levels = [round(float(voice[0]) * 100) for voice in voices]
    assert levels == list(range(0, 24, 3))


def test_equal_on_real_speech(exported: Exported, speech: Path) -> None:
    voices, named = speech_from(speech / "dev")
    told = measure(in_torch(exported.network), exported.content, voices, named)
    assert named == "8 recordings and noise"
    assert told.max_abs_difference < 1e-4
    assert told.min_cosine > 0.99999
