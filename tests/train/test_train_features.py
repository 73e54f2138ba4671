"""What is cached is what the front-end computes, and what cannot be cached is named."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import soxr
import torch
from train_samples import Corpus

from sayso.models.frontend import FrontEndOptions, LogMel
from sayso.runtime.synthesis import synthetic_voice
from sayso.train import features as module
from sayso.train.features import Features, FeatureStore, cache_features, seconds_to_frames
from sayso.train.manifest import DataError, Manifest
from sayso.train.waveform import Copy

HEADER = "path,speaker,split\n"


class InThisProcess:
    """A pool without processes, for what need not pay for starting them."""

    def __init__(self, *_: object) -> None: ...

    def __enter__(self) -> "InThisProcess":
        return self

    def __exit__(self, *_: object) -> None: ...

    def map(self, function: Callable[..., Any], items: Iterable[Any]) -> Iterator[Any]:
        return map(function, items)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(module, "ProcessPoolExecutor", InThisProcess)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def manifest(folder: Path, text: str | bytes) -> Manifest:
    path = folder / "manifest.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return Manifest.read([path])


def test_cached_features_are_the_front_ends(corpus: Corpus, features: FeatureStore) -> None:
    front_end = LogMel(FrontEndOptions(n_mels=24))
    listed = Manifest.read([corpus.manifest])
    plain = features.plain
    assert len(plain.start) == len(listed.paths) + 1
    for i, name in enumerate(listed.paths):
        audio, rate = sf.read(corpus.root / name, dtype="float32", always_2d=True)
        mono = soxr.resample(audio.mean(axis=1), rate, 16_000)
        if len(mono) < 401:
            mono = np.resize(mono, 401)
        expected = front_end.unnormalised(torch.from_numpy(mono)[None])[0].T.numpy()
        assert plain.recording(i).dtype == np.float16
        np.testing.assert_allclose(plain.recording(i), expected, rtol=1e-3, atol=1e-3)


def test_features_are_computed_once(
    corpus: Corpus, features: FeatureStore, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unexpected(*_: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(module, "ProcessPoolExecutor", unexpected)
    listed = Manifest.read([corpus.manifest])
    again = cache_features(listed, FrontEndOptions(n_mels=24), cache)
    np.testing.assert_array_equal(again.plain.frames, features.plain.frames)
    np.testing.assert_array_equal(again.plain.start, features.plain.start)
    with pytest.raises(AssertionError, match="computed again"):
        cache_features(listed, FrontEndOptions(n_mels=40), cache)


@pytest.mark.usefixtures("at_once")
def test_progress_is_told_and_a_torn_cache_is_made_anew(corpus: Corpus, tmp_path: Path) -> None:
    listed, options = Manifest.read([corpus.manifest]), FrontEndOptions(n_mels=8)
    told: list[tuple[int, int]] = []
    whole = cache_features(listed, options, tmp_path, progress=lambda *done: told.append(done))
    assert told[-1] == (len(listed.paths), len(listed.paths))
    frames, start = sorted(tmp_path.iterdir())  # and nothing else
    assert (frames.suffixes, start.suffixes) == ([".frames", ".npy"], [".start", ".npy"])
    start.unlink()  # as after a crash between the two
    frames.write_bytes(b"torn")
    again = cache_features(listed, options, tmp_path)
    np.testing.assert_array_equal(again.plain.frames, whole.plain.frames)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(
    ("name", "write", "told"),
    [
        ("absent.wav", lambda path: None, "cannot be read"),
        ("text.wav", lambda path: path.write_text("no audio"), "cannot be read"),
        ("nan.wav", lambda path: sf.write(path, np.full(9_000, np.nan), 16_000, "FLOAT"), "not finite"),
    ],
)
def test_recordings_that_cannot_be_used_are_named(
    name: str, write: Callable[[Path], Any], told: str, tmp_path: Path
) -> None:
    write(tmp_path / name)
    listed = manifest(tmp_path, f"{HEADER}{name},ann,train\n")
    with pytest.raises(DataError, match=told) as caught:
        cache_features(listed, FrontEndOptions(), tmp_path / "cache")
    assert name in str(caught.value)
    assert not list((tmp_path / "cache").glob("*.npy"))


@pytest.mark.usefixtures("at_once")
def test_what_16_bits_cannot_hold_is_refused(tmp_path: Path) -> None:
    sf.write(tmp_path / "loud.wav", np.sin(np.arange(16_000)), 16_000)
    listed = manifest(tmp_path, f"{HEADER}loud.wav,ann,train\n")
    options = FrontEndOptions(sample_scale=32768.0, log_input=False)
    with pytest.raises(DataError, match=r"loud\.wav are not finite in 16 bits"):
        cache_features(listed, options, tmp_path / "cache")


@pytest.mark.usefixtures("at_once")
def test_an_empty_recording_is_silence(tmp_path: Path) -> None:
    sf.write(tmp_path / "empty.wav", np.zeros(0), 16_000)
    store = cache_features(
        manifest(tmp_path, f"{HEADER}empty.wav,ann,train\n"), FrontEndOptions(), tmp_path / "cache"
    )
    np.testing.assert_allclose(store.plain.recording(0), np.log(1e-6), rtol=1e-3)


def test_crops_run_from_the_first_to_the_last_frame() -> None:
    frames = np.arange(30, dtype=np.float16)[:, None] * np.ones((1, 4), np.float16)
    store = Features(frames, np.array([0, 20, 23, 30]))
    assert store.crop(0, 5, 0.0)[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert store.crop(0, 5, 1.0)[:, 0].tolist() == [15, 16, 17, 18, 19]
    assert store.crop(0, 20, 0.7)[:, 0].tolist() == list(range(20))
    assert store.crop(1, 7, 0.9).tolist() == [[v] * 4 for v in (20, 21, 22, 20, 21, 22, 20)]
    assert store.crop(2, 7, 0.5)[:, 0].tolist() == list(range(23, 30))


@pytest.mark.parametrize(("seconds", "frames"), [(3.0, 301), (2.0, 201), (0.8, 81), (0.005, 1)])
def test_seconds_are_frames_of_the_front_end(seconds: float, frames: int) -> None:
    assert seconds_to_frames(seconds) == frames
    samples = max(201, round(seconds * 16_000))
    assert LogMel(FrontEndOptions())(torch.zeros(1, samples)).shape[2] >= frames


@pytest.mark.usefixtures("at_once")
def test_copies_are_made_of_the_training_recordings_alone(corpus: Corpus, tmp_path: Path) -> None:
    listed, options = Manifest.read([corpus.manifest]), FrontEndOptions(n_mels=8)
    copies = (Copy(), Copy(0.8), Copy(1.0, augmentation=1), Copy(1.0, augmentation=2))
    store = cache_features(listed, options, tmp_path, copies)
    plain, slow, first, second = store.copies
    np.testing.assert_array_equal(plain.frames, store.plain.frames)
    for i, train in enumerate(listed.train):
        frames = len(plain.recording(i))
        if not train:
            assert len(slow.recording(i)) == len(first.recording(i)) == 0
        elif frames > 10:
            assert len(slow.recording(i)) == pytest.approx(frames / 0.8, abs=2)
            assert len(first.recording(i)) == frames
            assert not np.array_equal(first.recording(i), second.recording(i))
    again = cache_features(listed, options, tmp_path / "again", copies[2:3], progress=lambda *done: None)
    np.testing.assert_array_equal(again.copies[0].frames, first.frames)  # whatever else was asked for


@pytest.mark.usefixtures("at_once")
def test_served_features_are_of_what_the_service_embeds(tmp_path: Path) -> None:
    voice = synthetic_voice(3.0, 150, 1.0, seed=1)
    silence = np.zeros(8 * 16_000, np.float32)
    sf.write(tmp_path / "long.wav", np.concatenate([voice, silence, voice]), 16_000)
    sf.write(tmp_path / "silent.wav", silence[:16_000], 16_000)
    sf.write(tmp_path / "empty.wav", np.zeros(0), 16_000)
    rows = "".join(f"{name}.wav,ann,train\n" for name in ("long", "silent", "empty"))
    listed = manifest(tmp_path, HEADER + rows)
    store = cache_features(listed, FrontEndOptions(n_mels=8), tmp_path / "cache", served=True)
    whole = cache_features(listed, FrontEndOptions(n_mels=8), tmp_path / "cache")
    frames = [len(store.plain.recording(i)) for i in range(3)]
    assert 500 < frames[0] < 850
    assert len(whole.plain.recording(0)) == 1_401
    assert frames[1:] == [101, 3]  # nothing was heard: all of it
