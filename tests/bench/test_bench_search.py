"""The search table at small sizes, through the command; and made voices that score as real ones do."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from sayso.bench import search
from sayso.bench.filling import NET_SPEECH_S, filling
from sayso.bench.search import Found, Row, measure, table
from sayso.bench.voices import Voices
from sayso.cli import app
from sayso.enroll.search.index import SpeakerIndex
from sayso.enroll.store import Store
from sayso.service.settings import SHIPPED_MODELS


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "SIZES", (200, 600))
    monkeypatch.setattr(search, "TENANTS", 3)
    monkeypatch.setattr(search, "A_TENANT", 50)
    monkeypatch.setattr(search, "START_WITH", 120)
    monkeypatch.setattr(search, "_CHANGES", 3)
    monkeypatch.setattr(search, "_STARTS", 1)

    def index(store: Store, approximate_from: int = 400) -> SpeakerIndex:
        return SpeakerIndex(store, approximate_from)

    monkeypatch.setattr(search, "SpeakerIndex", index)


def test_each_size_is_measured_and_drawn(tmp_path: Path) -> None:
    picture = tmp_path / "search.svg"
    options = ["--up-to", "1000", "--queries", "40", "--plot", str(picture), "--json"]
    result = CliRunner().invoke(app, ["bench", "search", *options])
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    assert [(r["tenants"], r["speakers"]) for r in found["rows"]] == [(1, 200), (1, 600), (3, 50)]
    for row in found["rows"]:
        assert 0 < row["search"]["p50"] <= row["search"]["p95"] <= row["search"]["p99"]
        assert row["enrol"]["p50"] > 0 < row["delete"]["p50"]
        assert row["recall"] == row["recall_strangers"] == 1.0
        assert row["index_bytes"] >= row["tenants"] * row["speakers"] * 512 * 4
        assert (row["build_s"] > 0.05) == (row["speakers"] == 600)
    assert [start["speakers"] for start in found["starts"]] == [0, 120]
    assert picture.read_text().startswith("<?xml")


def test_the_table_says_what_was_found() -> None:
    models = {"nested": SHIPPED_MODELS / "nested.onnx"}
    done: list[str] = []
    found = measure(200, 20, models, done.append)
    assert [row.speakers for row in found.rows] == [200, 50]
    assert done == ["1 x 200 speakers", "3 x 50 speakers", "start with 0 speakers", "start with 120 speakers"]
    text = table(found)
    assert "| 1 x 200 |" in text
    assert "Ready with 120 speakers after" in text
    assert "| 3 x 50 |" in table(Found([Row(**vars(found.rows[1]))], []))


def test_a_filled_store_is_as_enrolling_leaves_it(tmp_path: Path) -> None:
    path, voices = tmp_path / "sayso.db", Voices()
    templates = voices.templates(voices.speakers(5))
    with filling(path) as filled:
        filled.add("t", ["a" * 64, "b" * 64], templates, enrollments=2)
    with Store(path, NET_SPEECH_S) as store:
        assert store.check() == store.check_templates() == []
        assert [speaker.status for speaker in store.speakers("t").items] == ["enrolled"] * 5
        index = SpeakerIndex(store)
        assert index.search("t", "b" * 64, templates[3], 1)[0][0].speaker_id == "speaker-0000004"
        store.delete_speaker("t", "speaker-0000004")
        assert index.search("t", "b" * 64, templates[3], 5)[1] == 4
        assert index.check() == []


def test_made_voices_score_as_real_ones() -> None:
    voices = Voices()
    speakers = voices.speakers(4000)
    templates, recordings = voices.templates(speakers), voices.recordings(speakers)
    own = (templates * recordings).sum(1)
    assert np.percentile(own, (1, 5, 50, 95)) == pytest.approx(
        (0.52, 0.65, 0.85, 0.93), abs=0.03
    )  # as `sayso.bench.voices` says
    others = (templates * np.roll(recordings, 1, axis=0)).sum(1)
    assert (others.mean(), others.std()) == pytest.approx((0.11, 0.17), abs=0.02)
    again = Voices().speakers(4000)
    assert np.array_equal(speakers, again)
    assert np.linalg.norm(templates, axis=1) == pytest.approx(np.ones(4000), abs=1e-5)
