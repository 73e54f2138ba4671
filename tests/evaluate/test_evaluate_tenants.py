"""Calibration on template trials: on voices made of speaker, channel and noise, where the truth is known."""

import json

import numpy as np
import pytest

from sayso.domain.calibration import Calibration, TrialIdentity
from sayso.domain.evidence import ANY, LlrModel, Regression, Sides
from sayso.evaluate.calibration import fit_on_templates, held_out
from sayso.evaluate.tenants import (
    Comparisons,
    Evidence,
    Voices,
    balanced,
    centres,
    gather,
    of_groups,
    search_rates,
)

DIM = 24
GROUPS, SPEAKERS, PROBES = 4, 30, 3
LIST = TrialIdentity("made.trials", "0" * 64, 1, 1, 1)


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def sides(count: int, seconds: float, recordings: int = 1, narrow: bool = False) -> Sides:
    return Sides(np.full(count, seconds), np.full(count, recordings), np.full(count, narrow))


def corpus(seed: int = 0, band: str = "wide/wide", noise: float = 0.1) -> Comparisons:
    """Four corpora, each through a channel of its own, with strangers among the probes; everybody is compared
    with everybody of the corpus. A narrow band adds the same to every voice."""
    rng = np.random.default_rng(seed)
    line = np.random.default_rng(99).standard_normal(DIM) * 0.3
    template_line, probe_line = (line * (part == "narrow") for part in band.split("/"))
    templates, probes, owner, groups, near = [], [], [], [], []
    for group in range(GROUPS):
        channel = np.random.default_rng(100 + group).standard_normal(DIM) * (0.05 + 0.2 * group)
        for speaker in range(SPEAKERS + 10):
            voice = np.random.default_rng(1000 * group + speaker).standard_normal(DIM) / np.sqrt(DIM)
            if speaker < SPEAKERS:
                templates.append(voice + channel + template_line + noise * rng.standard_normal(DIM) / 3)
                groups.append(group)
            for _ in range(PROBES):
                probes.append(voice + channel + probe_line + noise * rng.standard_normal(DIM))
                owner.append(group * SPEAKERS + speaker if speaker < SPEAKERS else -1)
                near.append(group)
    template, probe = np.meshgrid(np.arange(len(templates)), np.arange(len(probes)), indexing="ij")
    same_group = np.array(groups)[template.ravel()] == np.array(near)[probe.ravel()]
    template, probe = template.ravel()[same_group], probe.ravel()[same_group]
    return Comparisons(
        Voices(unit(np.array(templates)), sides(len(templates), 20.0, 4, band.startswith("narrow"))),
        Voices(unit(np.array(probes)), sides(len(probes), 3.0, narrow=band.endswith("narrow"))),
        np.array(owner)[probe] == template,
        template,
        probe,
        np.array(groups),
        band,
    )


@pytest.fixture(scope="module")
def conditions() -> list[Comparisons]:
    return [corpus(1), corpus(2, "wide/narrow"), corpus(3, "narrow/narrow")]


@pytest.fixture(scope="module")
def fitted(conditions: list[Comparisons]) -> Calibration:
    return fit_on_templates(conditions, [LIST])


def llrs_of(calibration: Calibration, tried: Evidence) -> np.ndarray:
    return tried.llrs(calibration.llr)


def test_one_threshold_serves_every_channel(fitted: Calibration) -> None:
    """On fresh noise: each channel has the promised rate, where one threshold of the cosine has not."""
    fresh = corpus(77)
    tried = gather(fitted.llr, fresh, (400,))
    threshold = fitted.point("fmr=0.01", "wide/wide").threshold
    llrs = llrs_of(fitted, tried)
    raw = np.quantile(tried.score[~tried.labels], 0.99)
    rates, raw_rates = [], []
    for group in range(GROUPS):
        strangers = (tried.group == group) & ~tried.labels
        rates.append(float(np.mean(llrs[strangers] >= threshold)))
        raw_rates.append(float(np.mean(tried.score[strangers] >= raw)))
    assert max(rates) < 0.02
    assert max(raw_rates) > 2 * max(rates)


def test_a_corpus_that_was_held_out_has_the_promised_rate(conditions: list[Comparisons]) -> None:
    rows = held_out(conditions, [[0], [1, 2]], 2.0)
    assert {(row.group, row.condition) for row in rows} == {
        (str(group), c.condition) for group in (0, 1, 2) for c in conditions
    }
    assert max(row.fmr for row in rows) < 0.03
    assert all(row.targets == SPEAKERS * PROBES for row in rows)


def test_what_is_promised_is_had_on_the_trials_themselves(
    fitted: Calibration, conditions: list[Comparisons]
) -> None:
    for name, rate in (("fmr=0.01", 0.01), ("fmr=0.001", 0.001)):
        assert set(fitted.operating_points[name]) == {ANY, *(c.condition for c in conditions)}
        for point in fitted.operating_points[name].values():
            assert 0.5 * rate < point.fmr <= rate
    for point in fitted.operating_points["eer"].values():
        assert point.fmr == pytest.approx(point.fnmr, abs=0.01)


def test_searches_have_the_promised_rate(fitted: Calibration) -> None:
    """A search of 30 people by a stranger, at the threshold for a false-positive rate of 5 %."""
    threshold = fitted.search_threshold(0.05, SPEAKERS, "wide/wide").threshold
    rates = search_rates(fitted.llr, corpus(55), (SPEAKERS,), np.array([threshold]), repeats=1)
    rate, searches = rates[SPEAKERS]
    assert searches == GROUPS * 10 * PROBES
    assert 0.01 < rate[0] < 0.12


def test_many_comparisons_are_as_one_by_one(fitted: Calibration) -> None:
    """What a calibration is fitted to is what the service computes."""
    c = corpus(5)
    tried = gather(fitted.llr, c, (400,))
    llrs = llrs_of(fitted, tried)
    model = fitted.llr
    for trial in (0, 100, 2000):
        t, p = int(c.template[trial]), int(c.probe[trial])
        others = [i for i in np.flatnonzero(c.groups == c.groups[t]) if i != t]
        difference = np.sum([c.templates.vectors[i] - model.centre("wide") for i in others], axis=0)
        single = model.llr(
            c.templates.vectors[t],
            c.probes.vectors[p],
            side(c.templates.sides, t),
            side(c.probes.sides, p),
            difference,
            len(others),
        )
        assert single == pytest.approx(llrs[trial], abs=1e-4)


def side(many: Sides, i: int) -> object:
    from sayso.domain.evidence import Side

    return Side(float(many.net_speech_s[i]), int(many.recordings[i]), "narrow" if many.narrow[i] else "wide")


def test_a_calibration_survives_the_card(fitted: Calibration) -> None:
    read = Calibration.from_dict(json.loads(json.dumps(fitted.to_dict())))
    assert read == fitted
    assert sum(np.diff(read.histogram.edges) * read.histogram.target) == pytest.approx(1.0, abs=1e-3)


def test_every_group_and_condition_counts_alike(conditions: list[Comparisons]) -> None:
    model = LlrModel(
        {ANY: Regression(0.0, {"centred": 1.0})}, dict.fromkeys(("wide", "narrow"), (0.0,) * DIM), 2.0
    )
    few = of_groups(conditions[0], np.array([0]))
    tried = Evidence.joined([gather(model, c, (20,)) for c in (few, *conditions[1:])])
    drawn = balanced(tried, each=50)
    for group, condition in ((0, "wide/wide"), (3, "narrow/narrow")):
        own = (drawn.group == group) & (drawn.condition == condition)
        assert (drawn.labels[own].sum(), (~drawn.labels[own]).sum()) == (50, 50)
    assert not np.any((drawn.group == 1) & (drawn.condition == "wide/wide"))


def test_the_claimed_speaker_is_not_in_the_cohort(conditions: list[Comparisons]) -> None:
    model = LlrModel(
        {ANY: Regression(0.0, {"centred": 1.0})}, dict.fromkeys(("wide", "narrow"), (0.0,) * DIM), 2.0
    )
    alone = gather(model, conditions[0], (1,))
    assert not alone.others.any()
    assert alone.centred == pytest.approx(alone.score, abs=1e-6)
    assert set(gather(model, conditions[0], (400,)).others) == {SPEAKERS - 1}


def test_centres_are_of_each_band(conditions: list[Comparisons]) -> None:
    found = centres(conditions)
    line = np.random.default_rng(99).standard_normal(DIM)
    shift = found["narrow"] - found["wide"]
    assert shift @ line / np.linalg.norm(shift) / np.linalg.norm(line) > 0.9
    only_wide = centres(conditions[:1])
    assert only_wide["narrow"] == pytest.approx(only_wide["wide"])


def test_trials_without_both_classes_are_refused() -> None:
    c = corpus()
    strangers = np.flatnonzero(~c.labels)
    alone = Comparisons(
        c.templates,
        c.probes,
        c.labels[strangers],
        c.template[strangers],
        c.probe[strangers],
        c.groups,
        "wide/wide",
    )
    with pytest.raises(ValueError, match="both targets and non-targets"):
        fit_on_templates([alone], [LIST])
    with pytest.raises(ValueError, match="voices need vectors"):
        Voices(np.zeros((3, DIM), np.float32), sides(2, 1.0))


def test_a_single_corpus_cannot_be_held_out(conditions: list[Comparisons]) -> None:
    groups = np.unique(conditions[0].groups).tolist()
    with pytest.raises(ValueError, match="beside another"):
        held_out(conditions, [groups], 2.0)
