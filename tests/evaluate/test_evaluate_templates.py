"""Trials of templates: which recordings each is made of, and what it is compared with."""

from pathlib import Path

import numpy as np
import pytest

from sayso.evaluate.report import carried_over, evaluate_scores
from sayso.evaluate.trials import TemplateTrials, TrialListError, read_template_trials

MAP = "ann a/1.wav a/2.wav\nbob b/1.wav\n"
TRIALS = "1 ann a/3.wav\n0 ann b/2.wav\n1 bob b/2.wav\n0 bob c/1.wav\n0 ann c/1.wav\n"


def read(folder: Path, trials: str = TRIALS, map_: str = MAP) -> TemplateTrials:
    (folder / "t.trials").write_text(trials)
    (folder / "t.map").write_text(map_)
    return read_template_trials(folder / "t.trials", folder / "t.map")


def test_a_list_and_its_map_are_read(tmp_path: Path) -> None:
    listed = read(tmp_path)
    assert [(t.name, [listed.recordings[r] for r in t.recordings]) for t in listed.templates] == [
        ("ann", ["a/1.wav", "a/2.wav"]),
        ("bob", ["b/1.wav"]),
    ]
    assert listed.labels.tolist() == [True, False, True, False, False]
    assert listed.template.tolist() == [0, 0, 1, 1, 0]
    probes = [listed.recordings[r] for r in listed.probe]
    assert probes == ["a/3.wav", "b/2.wav", "b/2.wav", "c/1.wav", "c/1.wav"]
    identity = listed.identity()
    assert (identity.name, identity.targets, identity.nontargets, identity.speakers) == ("t.trials", 2, 3, 2)
    assert read(tmp_path, map_=MAP + "cat d/1.wav\n").sha256 != listed.sha256


@pytest.mark.parametrize(
    "map_",
    [
        "# who\nann a/1.wav\na/unused.wav z.wav\nbob b/1.wav\nann a/2.wav\n",
        "modelid\tsegmentid\nann\ta/1.wav\nann\ta/2.wav\nbob\tb/1.wav\n",
        "template,recording\nann,a/1.wav\nann,a/2.wav\nbob,b/1.wav\n",
        "ann,a/1.wav,a/2.wav\r\nbob,b/1.wav\r\n",
    ],
    ids=["several lines", "NIST", "CSV", "CSV by speaker"],
)
def test_maps_are_written_in_several_ways(tmp_path: Path, map_: str) -> None:
    listed = read(tmp_path, map_=map_)
    made_of = {t.name: [listed.recordings[r] for r in t.recordings] for t in listed.templates}
    assert made_of["ann"] == ["a/1.wav", "a/2.wav"]
    assert made_of["bob"] == ["b/1.wav"]
    assert "template" not in made_of
    assert "modelid" not in made_of


def test_trials_of_templates_may_be_in_any_spelling(tmp_path: Path) -> None:
    kaldi = "".join(
        f"{a} {b} {'target' if x == '1' else 'nontarget'}\n"
        for x, a, b in map(str.split, TRIALS.splitlines())
    )
    plain, other = read(tmp_path), read(tmp_path, kaldi)
    assert other.labels.tolist() == plain.labels.tolist()
    assert other.template.tolist() == plain.template.tolist()
    assert other.recordings == plain.recordings


@pytest.mark.parametrize(
    ("trials", "map_", "problem"),
    [
        (TRIALS, "ann a/1.wav\nbob\n", r"t\.map:2: the template bob has no recordings"),
        (
            TRIALS,
            "ann a/1.wav a/1.wav\nbob b/1.wav\n",
            r"t\.map:1: a/1\.wav is listed twice for the template ann",
        ),
        (TRIALS, "", "no templates"),
        (TRIALS + "1 cat c/2.wav\n", MAP, r"t\.trials:6: the template cat is not in .*t\.map"),
        ("1 ann a/3.wav\n", MAP, "are all targets"),
        ("1 a/3.wav ann\n0 b/2.wav ann\n", MAP, r"t\.trials:1: the template a/3\.wav is not in"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, trials: str, map_: str, problem: str) -> None:
    with pytest.raises(TrialListError, match=problem):
        read(tmp_path, trials, map_)


def test_templates_are_the_stores_and_scores_their_cosines(tmp_path: Path) -> None:
    from sayso.enroll.vectors import mean_direction

    listed = read(tmp_path)
    rows = np.random.default_rng(0).normal(size=(len(listed.recordings), 16)).astype(np.float32)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    made = listed.make_templates(rows)  # of any length: only directions count
    assert made.shape == (2, 16)
    for template, vector in zip(listed.templates, made, strict=True):
        stored = mean_direction([unit[r] for r in template.recordings])
        np.testing.assert_allclose(vector, stored, atol=1e-6)
    expected = [made[t] @ unit[p] for t, p in zip(listed.template, listed.probe, strict=True)]
    np.testing.assert_allclose(listed.scores(rows), expected, atol=1e-6)


def test_recordings_that_cancel_have_no_template(tmp_path: Path) -> None:
    listed = read(tmp_path)
    rows = np.ones((len(listed.recordings), 4))
    rows[1] = -1
    with pytest.raises(ValueError, match="the recordings of ann cancel out"):
        listed.scores(rows)
    rows[1] = 0
    with pytest.raises(ValueError, match=r"a/2\.wav is zero"):
        listed.scores(rows)
    with pytest.raises(ValueError, match="a row per recording"):
        listed.scores(rows[1:])


def test_who_speaks_follows_from_templates_and_targets(tmp_path: Path) -> None:
    listed = read(tmp_path, TRIALS + "1 ann2 a/3.wav\n", MAP + "ann2 a/9.wav\n")
    templates, recordings = listed.speakers()
    number = dict(zip(listed.recordings, recordings.tolist(), strict=True))
    assert templates[0] == templates[2] == number["a/1.wav"] == number["a/3.wav"] == number["a/9.wav"]
    assert templates[1] == number["b/1.wav"] == number["b/2.wav"]
    assert len({templates[0], templates[1], number["c/1.wav"]}) == 3  # the last one is a stranger
    assert listed.identity().speakers == 2
    first, second = listed.speaker_pairs()
    assert ((first == second) == listed.labels).all()


@pytest.fixture
def made(tmp_path: Path) -> tuple[np.ndarray, TemplateTrials]:
    """Two corpora of eight people: each template of two recordings meets everybody's two probes."""
    rng = np.random.default_rng(0)
    people = [(c, p) for c in range(2) for p in range(8)]
    map_ = "".join(f"t{c}{p} dev/c{c}/{p}/0.wav dev/c{c}/{p}/1.wav\n" for c, p in people)
    trials = "".join(
        f"{int(p == q)} t{c}{p} dev/c{c}/{q}/{r}.wav\n" for c, p in people for q in range(8) for r in (2, 3)
    )
    listed = read(tmp_path, trials, map_)
    return np.clip(rng.normal(0.2 + 0.5 * listed.labels, 0.15), -1, 1), listed


def test_results_by_corpus_and_by_speech_of_the_probe(made: tuple[np.ndarray, TemplateTrials]) -> None:
    scores, listed = made
    seconds = np.array([1.5 if name.endswith("2.wav") else 30.0 for name in listed.recordings])
    result = evaluate_scores(scores, listed, resamples=20, net_speech_s=seconds)
    assert (result.targets, result.nontargets, result.speakers) == (32, 224, 16)
    assert {name: (g.targets, g.nontargets) for name, g in result.groups.items()} == {
        "c0": (16, 112),
        "c1": (16, 112),
    }
    assert {name: (g.targets, g.nontargets) for name, g in result.net_speech.items()} == {
        "1 to 2 s": (16, 112),
        "8 s and more": (16, 112),
    }
    assert result.eer_interval is not None
    assert result.eer_interval[0] <= result.eer <= result.eer_interval[1]
    assert carried_over(scores, listed, splits=2)["cllr"]["cllr_applied"] > 0
