"""Paths, similarity and lesions say what was built and what each source does."""

import numpy as np
import pytest
import torch

from sayso.bench.anatomy import count_paths, dissect, linear_cka
from sayso.evaluate.trials import TrialList, read_trials
from sayso.models.describe import describe
from sayso.models.frontend import FrontEndOptions
from sayso.models.network import NetworkConfig, SpeakerNetwork
from sayso.runtime.synthesis import synthetic_voice

SIZES = {"n_mels": 24, "embedding_dim": 16, "pooling": "SAP"}
NESTED = SIZES | {"channels": [8, 8, 16, 16, 16], "blocks": [1] * 4, "strides": [[2, 2]] * 3, "fusion": 16}


def network(variant: str) -> SpeakerNetwork:
    torch.manual_seed(0)
    options = NESTED | {"variant": variant}
    return SpeakerNetwork(NetworkConfig("NestedSpeakerNet", options, FrontEndOptions(n_mels=24))).eval()


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> TrialList:
    path = tmp_path_factory.mktemp("trials") / "t.trials"
    names = [f"{speaker}{take}" for speaker in "abc" for take in range(2)]
    pairs = [(x, y) for i, x in enumerate(names) for y in names[:i]]
    path.write_text("".join(f"{int(x[0] == y[0])} {x} {y}\n" for x, y in pairs))
    return read_trials(path)


@pytest.fixture(scope="module")
def waveforms(trials: TrialList) -> np.ndarray:
    pitches = {"a": 100, "b": 150, "c": 210}
    return np.stack([synthetic_voice(1.0, pitches[n[0]], 1.0, seed=int(n[1])) for n in trials.recordings])


def test_paths_double_with_every_level() -> None:
    assert (
        count_paths(describe(network("full"), 16_000)) == 4
    )  # 2^(4 - 2): the first level sees the stem alone
    sizes = SIZES | {"filters": [8] * 4, "blocks": [1] * 4}
    plain = SpeakerNetwork(NetworkConfig("ResNetSE34L", sizes, FrontEndOptions(n_mels=24)))
    assert count_paths(describe(plain, 16_000)) == 1


def test_alike_is_one_and_unrelated_near_zero() -> None:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((4_000, 6)).astype(np.float32)
    rotation = np.linalg.qr(rng.standard_normal((6, 6)))[0].astype(np.float32)
    assert linear_cka(a, 3.0 * a @ rotation + 1.0) == pytest.approx(1.0, abs=1e-4)
    assert linear_cka(a, rng.standard_normal((4_000, 5)).astype(np.float32)) < 0.01


def test_a_network_is_dissected(waveforms: np.ndarray, trials: TrialList) -> None:
    built = network("gated")
    before = {name: t.clone() for name, t in built.state_dict().items()}
    told = dissect(built, waveforms, trials)
    places = [(s.level, s.source) for s in told.sources]
    assert places == [(2, 1), (3, 1), (3, 2), (4, 1), (4, 2), (4, 3)]
    for source in told.sources:
        assert source.gate == pytest.approx(0.5)
        assert source.share > 0
        assert -1 <= source.correlation <= 1
        assert 0 <= source.eer_without <= 1
    assert np.diag(told.similarity) == pytest.approx(np.ones(4), abs=1e-4)
    np.testing.assert_allclose(told.similarity, np.transpose(told.similarity), atol=1e-5)
    assert all(torch.equal(t, before[name]) for name, t in built.state_dict().items())
    assert not any(m._forward_hooks for m in built.modules())


def test_a_source_that_adds_nothing_is_worth_nothing(waveforms: np.ndarray, trials: TrialList) -> None:
    built = network("gated")
    built.trunk.sources[3][0].gate.data.fill_(-1e9)
    told = dissect(built, waveforms, trials)
    silent = next(s for s in told.sources if (s.level, s.source) == (4, 1))
    assert silent.gate == 0.0
    assert silent.share == 0.0
    assert silent.eer_without == told.eer


def test_what_is_added_is_compared_with_the_main_path(waveforms: np.ndarray, trials: TrialList) -> None:
    """A source that hands on its level's own output is in step with it."""
    built = network("full")
    source = built.trunk.sources[1][0]
    source.project.weight.data = torch.eye(8)[:, :, None, None]
    told = dissect(built, waveforms, trials)
    assert (told.sources[0].level, told.sources[0].source) == (2, 1)
    assert told.sources[0].correlation == pytest.approx(1.0, abs=1e-4)
    assert told.sources[0].share == pytest.approx(0.5, abs=1e-3)
