"""What the training tests share: synthetic speakers on disk, and their features computed once."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))  # importlib mode leaves a test's own folder out

from train_samples import Corpus, make_corpus, recipe

from sayso.evaluate.trials import read_trials
from sayso.train.features import FeatureStore, cache_features
from sayso.train.manifest import Manifest
from sayso.train.teacher import Teacher
from sayso.train.trainer import TrainingData


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that features are kept in; full once `features` was asked for."""
    return tmp_path_factory.mktemp("work") / "features"


@pytest.fixture(scope="session")
def features(corpus: Corpus, cache: Path) -> FeatureStore:
    made = recipe()
    return cache_features(
        Manifest.read([corpus.manifest]), made.network().front_end, cache, made.copies, workers=1
    )


@pytest.fixture(scope="session")
def data(corpus: Corpus, features: FeatureStore) -> TrainingData:
    listed = Manifest.read([corpus.manifest])
    teacher = Teacher.load([corpus.teacher], len(listed.paths))
    return TrainingData(listed, features, read_trials(corpus.trials), (teacher,))
