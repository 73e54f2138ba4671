"""What the training tests share: synthetic speakers on disk, and their features computed once."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent))  # importlib mode leaves a test's own folder out

from train_samples import Corpus, make_corpus, recipe

from evaluate.trials import read_trials
from train.features import FeatureStore, Manifest, cache_features
from train.trainer import TrainingData


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that features are kept in; full once `features` was asked for."""
    return tmp_path_factory.mktemp("work") / "features"


@pytest.fixture(scope="session")
def features(corpus: Corpus, cache: Path) -> FeatureStore:
    return cache_features(Manifest.read(corpus.manifest), recipe().network().front_end, cache, workers=1)


@pytest.fixture(scope="session")
def data(corpus: Corpus, features: FeatureStore) -> TrainingData:
    teacher = np.load(corpus.teacher).astype(np.float32)
    return TrainingData(Manifest.read(corpus.manifest), features, read_trials(corpus.trials), teacher)
