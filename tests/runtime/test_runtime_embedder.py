"""Speech in, one unit vector out, the same alone and in company."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runtime_samples import DIM, card, toy_model, toy_network

from sayso.runtime.card import write_card
from sayso.runtime.embedder import Embedder
from sayso.runtime.errors import EmbeddingFailed, ModelError, Overloaded
from sayso.runtime.session import CPU, EmbeddingSession
from sayso.runtime.synthesis import synthetic_voice


@pytest.fixture(scope="module")
def embedder(model_path: Path) -> Iterator[Embedder]:
    with Embedder(model_path, provider="cpu", threads=1) as opened:
        yield opened


def test_a_model_says_what_it_is(embedder: Embedder) -> None:
    assert embedder.card == card()
    assert embedder.provider == CPU
    assert len(embedder.sha256) == 64
    assert embedder.queue_depth == 0


@given(seconds=st.floats(0.05, 12.0), pitch=st.floats(90, 250))
@settings(max_examples=10, deadline=None)
def test_embeddings_have_unit_length(embedder: Embedder, seconds: float, pitch: float) -> None:
    embedding = embedder.embed(synthetic_voice(seconds, pitch))
    assert embedding.vector.shape == (DIM,)
    assert embedding.vector.dtype == np.float32
    assert np.linalg.norm(embedding.vector) == pytest.approx(1.0, abs=1e-6)
    assert embedding.windows == max(1, int(np.ceil(round(seconds * 16_000) / 48_000)))


def test_the_same_speech_gives_the_same_vector(embedder: Embedder, model_path: Path) -> None:
    speech = synthetic_voice(5.0)
    first = embedder.embed(speech).vector
    np.testing.assert_array_equal(embedder.embed(speech.copy()).vector, first)
    with Embedder(model_path, provider="cpu", threads=1) as other:
        np.testing.assert_array_equal(other.embed(speech).vector, first)


def test_long_speech_is_the_mean_of_its_windows(embedder: Embedder) -> None:
    speech = synthetic_voice(7.5, seed=4)
    session = EmbeddingSession(toy_network(), "toy", provider="cpu", threads=1)
    starts = np.linspace(0, len(speech) - 48_000, 3).round().astype(int)
    vectors = np.concatenate([session.run(speech[None, start : start + 48_000]) for start in starts])
    mean = vectors.mean(axis=0)
    embedding = embedder.embed(speech)
    assert embedding.windows == 3
    np.testing.assert_allclose(embedding.vector, mean / np.linalg.norm(mean), atol=1e-6)


def test_short_speech_is_wrapped(embedder: Embedder) -> None:
    speech = synthetic_voice(0.7)
    once, filled = embedder.embed(speech), embedder.embed(np.resize(speech, 48_000))
    np.testing.assert_array_equal(once.vector, filled.vector)


def test_silence_embeds_without_a_fault(embedder: Embedder) -> None:
    embedding = embedder.embed(np.zeros(100_000, np.float32))
    assert np.linalg.norm(embedding.vector) == pytest.approx(1.0, abs=1e-6)


def test_many_callers_get_what_each_would_alone(embedder: Embedder) -> None:
    speeches = [synthetic_voice(1.0 + i % 5, 90 + 10 * i, seed=i) for i in range(12)]
    alone = [embedder.embed(speech).vector for speech in speeches]
    with ThreadPoolExecutor(8) as pool:
        together = [embedding.vector for embedding in pool.map(embedder.embed, speeches)]
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_beside_others_each_takes_one_thread_and_gets_the_same(model_path: Path) -> None:
    speech = synthetic_voice(7.0)
    with Embedder(model_path, provider="cpu", threads=2) as embedder:
        assert embedder._wide is not embedder._narrow
        alone, beside = (embedder.embed(speech, alone=alone).vector for alone in (True, False))
        np.testing.assert_allclose(alone, beside, atol=1e-6)
    with Embedder(model_path, provider="cpu", threads=1) as embedder:
        assert embedder._wide is embedder._narrow


def test_poison_fails_alone(embedder: Embedder) -> None:
    poison = np.full(48_000, np.nan, np.float32)
    with pytest.raises(EmbeddingFailed, match="not finite"):
        embedder.embed(poison)
    assert embedder.embed(synthetic_voice(1.0)).windows == 1


def test_batches_are_observed(model_path: Path) -> None:
    observed: list[int] = []
    with Embedder(model_path, provider="cpu", threads=1, observe_batch=observed.append) as embedder:
        embedder.embed(synthetic_voice(7.0))
    assert observed == [3]


def test_a_closed_embedder_refuses(model_path: Path) -> None:
    embedder = Embedder(model_path, provider="cpu", threads=1)
    embedder.close()
    with pytest.raises(Overloaded, match="shutting down"):
        embedder.embed(synthetic_voice(1.0))


def test_calibrating_keeps_the_identity(embedder: Embedder, tmp_path: Path) -> None:
    path = tmp_path / "toy.onnx"
    path.write_bytes(toy_model())
    write_card(path, card(evaluation={"eer": 0.05}))
    with Embedder(path, provider="cpu", threads=1) as other:
        assert other.sha256 == embedder.sha256
        assert other.card.evaluation == {"eer": 0.05}


def test_files_that_cannot_be_served_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot read the model .*absent\.onnx: No such file"):
        Embedder(tmp_path / "absent.onnx")
    plain = tmp_path / "plain.onnx"
    plain.write_bytes(toy_network())
    with pytest.raises(ModelError, match=r"plain\.onnx has no Sayso card"):
        Embedder(plain)
    plain.write_bytes(toy_model()[:-5])
    with pytest.raises(ModelError, match=r"plain\.onnx"):
        Embedder(plain)
