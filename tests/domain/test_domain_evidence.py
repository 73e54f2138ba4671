"""How evidence becomes an LLR: the laws of centring, and what is refused."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sayso.domain.evidence import ANY, Conditions, LlrModel, Range, Regression, Side, Sides

DIM = 16
seeds = st.integers(0, 10_000)


def unit(seed: int) -> np.ndarray:
    vector = np.random.default_rng(seed).standard_normal(DIM)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def model(
    weights: dict[str, float] | None = None,
    offset: float = -4.0,
    pairs: dict | None = None,
    **changes: object,
) -> LlrModel:
    centre = tuple((0.3 * unit(99)).tolist())
    chosen = {"centred": 12.0, "log_probe_speech": -0.5, "centre_share": -1.0} if weights is None else weights
    facts: dict[str, object] = {
        "regressions": {ANY: Regression(offset, chosen), **(pairs or {})},
        "centres": {"wide": centre, "narrow": tuple((0.5 * unit(98)).tolist())},
        "centre_weight": 4.0,
        "conditions": Conditions(Range(1.0, 8.0), Range(2.0, 30.0), ("wide/wide", "wide/narrow")),
    }
    return LlrModel(**(facts | changes))  # type: ignore[arg-type]


@given(seeds, seeds)
def test_a_line_is_slope_times_cosine_plus_offset(a: int, b: int) -> None:
    cosine = float(unit(a).astype(np.float64) @ unit(b).astype(np.float64))
    llr = LlrModel.line(20.0, -8.0).llr(unit(a), unit(b), Side(10.0), Side(3.0))
    assert llr == pytest.approx(20.0 * cosine - 8.0, abs=1e-4)


@given(seeds, seeds, seeds)
def test_what_all_voices_of_a_tenant_share_changes_nothing(a: int, b: int, channel: int) -> None:
    """One channel that adds the same to every vector is taken off with the tenant's mean."""
    plain = model(weights={"centred": 12.0})
    people = [unit(i).astype(np.float64) for i in range(200)]
    shared = 0.7 * unit(channel).astype(np.float64)
    zero = {"wide": (0.0,) * DIM, "narrow": (0.0,) * DIM}
    bare = model(weights={"centred": 12.0}, centres=zero)

    def llr(offset: np.ndarray) -> float:
        difference = np.sum([p + offset for p in people], axis=0)
        sides = (Side(10.0), Side(3.0))
        return bare.llr(unit(a) + offset, unit(b) + offset, *sides, difference=difference, count=len(people))

    assert llr(shared) == pytest.approx(llr(np.zeros(DIM)), abs=0.6)  # all but 4 parts in 204 of the channel
    assert plain.slope == 12.0


@given(seeds, seeds)
def test_an_empty_tenant_is_centred_on_the_calibration(a: int, b: int) -> None:
    centred = model(weights={"centred": 12.0}, offset=0.0)
    first, second = unit(a).astype(float), unit(b).astype(float)
    first, second = first - centred.centre("wide"), second - centred.centre("wide")
    expected = 12.0 * first @ second / np.linalg.norm(first) / np.linalg.norm(second)
    assert centred.llr(unit(a), unit(b), Side(10.0), Side(3.0)) == pytest.approx(expected, abs=1e-4)


def test_either_side_is_centred_on_its_own_band() -> None:
    m = model(weights={"centred": 10.0}, offset=0.0)
    template = (m.centre("wide") + unit(1)).astype(np.float32)
    probe = (m.centre("narrow") + unit(1)).astype(np.float32)
    assert m.llr(template, probe, Side(10.0), Side(3.0, band="narrow")) == pytest.approx(10.0, abs=1e-3)


def test_speech_beyond_the_conditions_counts_as_that_at_their_edge() -> None:
    m = model()
    at_edge = m.llr(unit(1), unit(2), Side(10.0), Side(8.0))
    assert m.llr(unit(1), unit(2), Side(10.0), Side(500.0)) == at_edge
    assert m.llr(unit(1), unit(2), Side(10.0), Side(0.0)) == m.llr(unit(1), unit(2), Side(10.0), Side(1.0))


def test_conditions_name_what_they_have_not_seen() -> None:
    conditions = model().conditions
    assert conditions is not None
    assert conditions.outside(Side(10.0), Side(3.0)) == ()
    assert conditions.outside(Side(10.0), Side(3.0, band="narrow")) == ()
    assert conditions.outside(Side(1.0), Side(9.0)) == ("probe_speech", "template_speech")
    assert conditions.outside(Side(10.0, band="narrow"), Side(3.0)) == ("band",)


def test_many_at_once_are_as_one_by_one() -> None:
    other = Regression(1.0, {"centred": 5.0, "log_recordings": 2.0})
    m = model({"centred": 12.0, "log_recordings": 0.3, "centre_share": -2.0}, pairs={"narrow/narrow": other})
    templates = [Side(5.0, 2), Side(20.0, 5, "narrow"), Side(2.5)]
    probes = [Side(1.5), Side(3.0, band="narrow"), Side(90.0)]
    score, centred = np.array([0.1, 0.5, 0.9]), np.array([0.0, 0.4, 0.8])
    counts = np.array([0, 5, 400])
    together = m.llrs(score, centred, Sides.of(templates), Sides.of(probes), counts)
    assert together[1] == pytest.approx(1.0 + 5.0 * 0.4 + 2.0 * np.log(5))
    for i in range(3):
        one = slice(i, i + 1)
        alone = m.llrs(score[one], centred[one], Sides.of(templates[one]), Sides.of(probes[one]), counts[one])
        assert alone[0] == pytest.approx(together[i])


@pytest.mark.parametrize("m", [model(), LlrModel.line(20.0, -8.0)])
def test_a_model_survives_json(m: LlrModel) -> None:
    assert LlrModel.from_dict(json.loads(json.dumps(m.to_dict()))) == m


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"weights": {"centred": -1.0}}, "higher score"),
        ({"weights": {}}, "higher score"),
        ({"weights": {"centred": 1.0, "loudness": 1.0}}, "loudness"),
        ({"weights": {"centred": float("nan")}}, "higher score"),
        ({"centres": {"wide": (0.0,) * DIM}}, "narrow"),
        ({"centres": {"wide": (0.0,) * DIM, "narrow": (0.0,)}}, "one dimension"),
        ({"centre_weight": 0.0}, "centre_weight"),
        ({"pairs": {"wide/deep": Regression(0.0, {"centred": 1.0})}}, "regressions"),
    ],
)
def test_what_is_no_model_is_refused(changes: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        model(**changes)  # type: ignore[arg-type]
