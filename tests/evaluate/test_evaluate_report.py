import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sayso.evaluate.bootstrap import speaker_bootstrap
from sayso.evaluate.calibration import fit_llr_line
from sayso.evaluate.metrics import cllr, eer, error_rates, min_cllr, min_dcf
from sayso.evaluate.report import carried_over, check_halves, evaluate_scores, halves
from sayso.evaluate.trials import TrialList, TrialListError, read_trials

Make = Callable[..., tuple[np.ndarray, TrialList]]


def test_an_evaluation_is_its_parts(make_trials: Make) -> None:
    scores, trials = make_trials()
    evaluation = evaluate_scores(scores, trials, resamples=30)
    labels = trials.labels
    assert (evaluation.eer, evaluation.eer_threshold) == eer(scores, labels)
    assert evaluation.min_dcf == min_dcf(scores, labels)
    assert evaluation.min_cllr == min_cllr(scores, labels)
    intervals = speaker_bootstrap(scores, trials, 30)
    assert intervals is not None
    assert (evaluation.eer_interval, evaluation.min_dcf_interval) == (intervals.eer, intervals.min_dcf)
    assert (evaluation.targets, evaluation.nontargets, evaluation.speakers) == (24, 252, 8)
    assert (evaluation.trials, evaluation.trials_sha256) == (trials.name, trials.sha256)


def test_cllr_says_whose_line_it_used(make_trials: Make) -> None:
    scores, trials = make_trials()
    own = evaluate_scores(scores, trials, resamples=1)
    assert own.cllr_calibration == "fitted on these trials"
    slope, offset = fit_llr_line(scores, trials.labels)
    assert own.cllr == cllr(slope * scores + offset, trials.labels)
    given = evaluate_scores(scores, trials, resamples=1, llrs=10 * scores - 4)
    assert given.cllr_calibration == "card"
    assert given.cllr == cllr(10 * scores - 4, trials.labels)
    assert own.min_cllr <= own.cllr <= given.cllr


def test_to_dict_is_json(make_trials: Make) -> None:
    result = evaluate_scores(*make_trials(corpora=2), resamples=5).to_dict()
    assert json.loads(json.dumps(result)) == result
    wanted = {"eer", "min_dcf", "cllr", "min_cllr", "targets", "nontargets", "speakers", "groups"}
    assert wanted | {"eer_interval", "min_dcf_interval"} <= set(result)


def test_groups_are_corpora(make_trials: Make) -> None:
    scores, trials = make_trials(corpora=2)
    groups = evaluate_scores(scores, trials, resamples=1).groups
    assert set(groups) == {"corpus0", "corpus1"}
    half = len(scores) // 2
    assert groups["corpus1"].eer == eer(scores[half:], trials.labels[half:]).rate
    assert (groups["corpus1"].targets, groups["corpus1"].nontargets, groups["corpus1"].speakers) == (
        24,
        252,
        8,
    )


def read(folder: Path, content: str) -> TrialList:
    path = folder / "list.trials"
    path.write_text(content)
    return read_trials(path)


@pytest.mark.parametrize(
    "content",
    [
        "1 id1/a/1.wav id1/b/1.wav\n1 id2/a/1.wav id2/b/1.wav\n0 id1/a/1.wav id2/a/1.wav\n",
        "1 1.wav 2.wav\n1 3.wav 4.wav\n0 1.wav 3.wav\n",
        "1 wav/1.wav wav/2.wav\n1 wav/3.wav wav/4.wav\n0 wav/1.wav wav/3.wav\n",
        "1 id1/1.wav id1/2.wav\n1 id2/1.wav id2/2.wav\n0 id1/1.wav id1/2.wav\n",
    ],
    ids=["the folder is the speaker", "no folders", "one folder", "one wrong label"],
)
def test_lists_without_groups(tmp_path: Path, content: str) -> None:
    assert evaluate_scores([0.8, 0.7, 0.1], read(tmp_path, content), resamples=1).groups == {}


def test_trials_across_groups_belong_to_none(tmp_path: Path) -> None:
    within = "1 x/1 x/2\n0 x/1 x/3\n1 y/1 y/2\n0 y/1 y/3\n"
    groups = evaluate_scores(
        [0.8, 0.1, 0.7, 0.2, 0.9], read(tmp_path, within + "0 x/1 y/1\n"), resamples=1
    ).groups
    assert [(g.eer, g.targets, g.nontargets, g.speakers) for g in groups.values()] == [(0.0, 1, 1, 2)] * 2


def test_order_within_pairs_changes_nothing(make_trials: Make) -> None:
    scores, trials = make_trials(corpora=2)
    swapped = dataclasses.replace(trials, first=trials.second, second=trials.first)
    assert evaluate_scores(scores, swapped, 20) == evaluate_scores(scores, trials, 20)
    assert halves(scores, swapped) == halves(scores, trials)


def test_halves_share_no_speaker(make_trials: Make) -> None:
    scores, trials = make_trials(speakers=24)
    result = halves(scores, trials, seed=1)
    assert set(result.thresholds) == {"eer", "fmr=0.01"}
    carried = result.thresholds["fmr=0.01"]
    assert carried.tuned.fmr <= 0.01
    # 12 speakers x 3 recordings a half: 36 targets, 594 non-targets.
    for rates in (carried.tuned, carried.applied):
        assert rates.fnmr * 36 == pytest.approx(round(rates.fnmr * 36))
        assert rates.fmr * 594 == pytest.approx(round(rates.fmr * 594))
    assert result.min_cllr_tuned <= result.cllr_tuned
    assert result.min_cllr_applied <= result.cllr_applied
    assert halves(scores, trials, seed=1) == result
    assert halves(scores, trials, seed=2) != result
    assert json.loads(json.dumps(result.to_dict()))["thresholds"]["eer"]["tuned"]["fmr"] >= 0


def test_halves_measure_at_the_tuned_threshold(tmp_path: Path) -> None:
    # Four speakers whose non-targets score alike in every half, so either split tells the same.
    speakers = "abcd"
    lines = [f"1 {s}1 {s}2" for s in speakers]
    lines += [f"0 {s}1 {t}1" for s in speakers for t in speakers if s < t]
    trials = read(tmp_path, "\n".join(lines))
    scores = np.array([0.8] * 4 + [0.2] * 6)
    carried = halves(scores, trials).thresholds["eer"]
    assert carried.threshold == pytest.approx(0.5)
    assert carried.applied == error_rates(scores, trials.labels, 0.5) == (0, 0)


def test_too_few_speakers_cannot_be_halved(make_trials: Make) -> None:
    for speakers in (2, 3):
        scores, trials = make_trials(speakers=speakers)
        for refused in (lambda s, t: halves(s, t), carried_over, lambda s, t: check_halves(t)):
            with pytest.raises(TrialListError, match="use a list of more speakers, or leave --halves out"):
                refused(scores, trials)
    check_halves(make_trials(speakers=8)[1])


def test_what_few_speakers_say_is_doubted(make_trials: Make) -> None:
    few = evaluate_scores(*make_trials(speakers=2), resamples=5)
    assert (few.eer_interval, few.min_dcf_interval) == (None, None)
    assert json.loads(json.dumps(few.to_dict()))["eer_interval"] is None
    (doubt,) = few.doubts()
    assert "has 2 speakers: error rates and thresholds set on fewer than 20" in doubt
    assert evaluate_scores(*make_trials(speakers=20), resamples=5).doubts() == []


def test_a_model_that_guesses_is_doubted(make_trials: Make) -> None:
    useless = evaluate_scores(*make_trials(speakers=20, separation=0.02), resamples=5)
    (doubt,) = useless.doubts()
    assert "hardly tells these speakers apart" in doubt
    assert f"an EER of {useless.eer:.0%}" in doubt


def test_results_by_speech_in_the_shorter_recording(make_trials: Make) -> None:
    scores, trials = make_trials()
    assert evaluate_scores(scores, trials, resamples=1).net_speech == {}
    seconds = np.array([0.5 if name.endswith("/0.wav") else 5.0 for name in trials.recordings])
    by_speech = evaluate_scores(scores, trials, resamples=1, net_speech_s=seconds).net_speech
    assert list(by_speech) == ["under 1 s", "4 to 8 s"]
    short = np.minimum(seconds[trials.first], seconds[trials.second]) < 1
    assert by_speech["under 1 s"].eer == eer(scores[short], trials.labels[short]).rate
    assert by_speech["under 1 s"].targets + by_speech["4 to 8 s"].targets == trials.labels.sum()


def test_what_carries_over_is_the_mean_of_halves(make_trials: Make) -> None:
    scores, trials = make_trials(speakers=24)
    parts = [halves(scores, trials, seed) for seed in range(3)]
    told = carried_over(scores, trials, splits=3)
    applied = np.mean([part.thresholds["eer"].applied.fnmr for part in parts])
    assert told["eer"]["applied_fnmr"] == pytest.approx(applied, abs=1e-6)
    assert told["cllr"]["cllr_applied"] == pytest.approx(np.mean([p.cllr_applied for p in parts]), abs=1e-6)
    assert json.loads(json.dumps(told)) == told
