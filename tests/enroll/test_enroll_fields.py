"""What a caller may write: the limits, on both sides."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sayso.enroll import fields
from sayso.enroll.errors import InvalidField
from sayso.enroll.types import NewEnrollment


@pytest.mark.parametrize("value", ["a", "7", "alice", "a.b_c@d-e", "x" * 128])
def test_ids_that_are_accepted(value: str) -> None:
    assert fields.checked_id("id", value) == value


@pytest.mark.parametrize(
    "value", ["", "x" * 129, "_a", "-a", ".a", "a b", "a/b", 'a"', "é", "alice\n", "a\0"]
)
def test_ids_that_are_refused(value: str) -> None:
    with pytest.raises(InvalidField, match="1 to 128") as caught:
        fields.checked_id("id", value)
    assert caught.value.field == "id"


def test_made_ids_are_acceptable_and_differ() -> None:
    made = {fields.new_id("spk") for _ in range(100)}
    assert len(made) == 100
    assert all(len(fields.checked_id("id", value)) == len("spk_") + 20 for value in made)


@pytest.mark.parametrize("value", [None, "A", "Ærøskøbing 名前", "👩‍🔬", "x" * 200])
def test_names_that_are_accepted(value: str | None) -> None:
    assert fields.checked_name(value) == value


@pytest.mark.parametrize("value", ["", "  ", "x" * 201, "a\nb", "a\0b", "\ud800"])
def test_names_that_are_refused(value: str) -> None:
    with pytest.raises(InvalidField):
        fields.checked_name(value)


def test_groups_are_a_set() -> None:
    assert fields.checked_groups(["b", "a", "b"]) == ("a", "b")
    assert len(fields.checked_groups(f"g{i}" for i in range(32))) == 32


@pytest.mark.parametrize("value", ["staff", ["two words"], [f"g{i}" for i in range(33)]])
def test_groups_that_are_refused(value: Any) -> None:
    with pytest.raises(InvalidField):
        fields.checked_groups(value)


def nested(depth: int) -> dict[str, object]:
    value: dict[str, object] = {}
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    "value",
    [
        {"a": math.nan},
        {"a": {1}},
        {"a": "\ud800"},
        {"a": "x" * 8192},
        [1],
        "text",
        {"a": "é" * 4093},
        nested(100_000),
    ],
)
def test_metadata_that_is_refused(value: Any) -> None:
    with pytest.raises(InvalidField) as caught:
        fields.metadata_json(value)
    assert caught.value.field == "metadata"


def test_metadata_up_to_the_limit_is_accepted() -> None:
    assert len(fields.metadata_json({"a": "x" * (8192 - len('{"a":""}'))})) == 8192
    assert fields.metadata_json(None) == fields.metadata_json({}) == "{}"


reports = st.floats(allow_nan=True, allow_infinity=True)


@given(reports, reports, reports, st.none() | reports)
def test_speech_reports_are_finite_or_refused(
    net_speech_s: float, duration_s: float, clipping: float, snr_db: float | None
) -> None:
    new = NewEnrollment(net_speech_s, duration_s, snr_db, clipping, {})
    amounts = (net_speech_s, duration_s, clipping)
    sound = all(0 <= amount < math.inf for amount in amounts) and math.isfinite(snr_db or 0.0)
    if sound:
        fields.check_report(new)
    else:
        with pytest.raises(InvalidField):
            fields.check_report(new)
