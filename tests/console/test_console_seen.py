"""What a person sees in the console: one thing said once, about the right person, where they look."""

import io
import json
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from console_samples import Person, Tab, enrolled, go, record, wait_for_speech
from process import Server

pytestmark = pytest.mark.timeout(600)
PHONE = {"width": 390, "height": 844}
ODDS = re.compile("likelier for")
MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"


def changed(page: Any, path: str, change: Callable[[Any], None]) -> None:
    """Let `change` edit the JSON that the service answers at `path`."""

    def answer(route: Any) -> None:
        response = route.fetch()
        body = response.json()
        change(body)
        route.fulfill(response=response, body=json.dumps(body))

    page.route(path, answer)


def outline(page: Any, name: str) -> list[tuple[float, float]]:
    """The corners of a distribution as it is drawn."""
    path = page.locator(f".chart path.outline.{name}").first.get_attribute("d")
    return [(float(x), float(y)) for x, y in re.findall(r"[ML]([-\d.]+),([-\d.]+)", path)]


def test_the_next_speaker_sees_nothing_of_the_one_before(
    open_tab: Callable[..., Tab], people: list[Person], server: Server
) -> None:
    tab = open_tab()
    page = go(tab, "Enrol")
    who = page.get_by_label("Speaker id")
    who.fill("first-of-two")
    page.get_by_label("Name").fill("Somebody")
    page.get_by_label("Groups").fill("readers")
    page.locator("input[type=file]").set_input_files(people[0].long)
    page.locator(".log li").wait_for()
    who.fill("second-of-two")
    page.get_by_text("How much speech is enrolled appears here.").wait_for()
    assert page.locator(".log li").count() == 0
    assert not page.get_by_role("heading", name="Enrolled").is_visible()
    assert (page.get_by_label("Name").input_value(), page.get_by_label("Groups").input_value()) == ("", "")
    page.locator("input[type=file]").set_input_files(people[1].long)
    page.locator(".log li").wait_for()
    assert page.locator(".log li").count() == 1
    who.fill("first-of-two")
    page.get_by_role("heading", name="Enrolled").wait_for()
    assert page.locator(".log li").count() == 0
    for id in ("first-of-two", "second-of-two"):
        server.client.delete(f"/v1/speakers/{id}")
    assert not tab.errors


def test_an_answer_goes_when_the_question_changes(
    open_tab: Callable[..., Tab], people: list[Person], server: Server
) -> None:
    for person in people[:2]:
        enrolled(server, person)
    page = go(open_tab(), "Verify")
    page.get_by_label("Speaker", exact=True).fill(people[0].id)
    page.locator("input[type=file]").set_input_files(people[0].short)
    page.locator(".verdict").wait_for()
    page.get_by_label("Speaker", exact=True).fill(people[1].id)
    page.get_by_text("The answer appears here.").wait_for()
    assert page.locator(".verdict").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_levels_are_drawn_in_the_themes_colours(
    open_tab: Callable[..., Tab], people: list[Person], scheme: Any
) -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed: pip install '.[dev]'")
    page = go(open_tab(people[0].short, color_scheme=scheme), "Identify")
    shots = []

    def spoken() -> None:
        wait_for_speech(page, 1.5)
        shots.append(page.locator(".levels").screenshot())

    record(page, spoken)
    pixels = list(image.open(io.BytesIO(shots[0])).convert("RGB").get_flattened_data())
    coloured = [p for p in pixels if p[1] > p[0] + 60]  # green above red: the accent of speech
    black = [p for p in pixels if max(p) < 12]
    assert len(coloured) > 200
    assert not black


def test_there_is_one_count_while_somebody_speaks(
    open_tab: Callable[..., Tab], people: list[Person], server: Server
) -> None:
    tab = open_tab(people[0].long)
    page = go(tab, "Enrol")
    page.get_by_label("Speaker id").fill("counted")
    seen = []

    def spoken() -> None:
        wait_for_speech(page, 3)
        seen.append(
            page.evaluate(
                "[document.querySelector('.said').textContent,"
                " document.querySelector('.gathered h2').textContent,"
                " document.querySelectorAll('.ring-part').length]"
            )
        )

    record(page, spoken)
    ((beside_the_levels, beside_the_ring, arcs),) = seen
    more = re.search(r"[\d.]+\ss more|enough", beside_the_levels)
    assert more is not None
    assert beside_the_ring == (more[0] if "more" in more[0] else "Enough speech")
    assert arcs == 1
    page.locator(".log li").wait_for()
    server.client.delete("/v1/speakers/counted")
    assert not tab.errors


@pytest.mark.parametrize("width", [390, 360, 320])
def test_a_phone_shows_all_pages_in_one_row_and_no_column_is_cut(
    open_tab: Callable[..., Tab], people: list[Person], server: Server, width: int
) -> None:
    enrolled(server, people[0], groups=["readers"])
    page = go(open_tab(viewport={"width": width, "height": 844}), "Speakers")
    links = page.get_by_role("navigation").get_by_role("link")
    boxes = [links.nth(i).bounding_box() for i in range(links.count())]
    assert len({round(box["y"]) for box in boxes}) == (1 if width > 352 else 2)
    assert max(box["x"] + box["width"] for box in boxes) <= width
    assert page.get_by_role("banner").bounding_box()["height"] < 120
    page.get_by_role("button", name=people[0].id).click()
    page.get_by_role("heading", name=people[0].id).wait_for()
    regions = page.locator(".scroll")
    for i in range(regions.count()):
        assert regions.nth(i).evaluate("region => region.scrollWidth - region.clientWidth") == 0
    for head in ("Cohesion", "Clipped"):
        assert page.locator(f"td[data-head={head}]").first.is_visible()


def test_a_phone_shows_the_verdict_at_once(
    open_tab: Callable[..., Tab], people: list[Person], server: Server
) -> None:
    enrolled(server, people[0])
    tab = open_tab(people[0].short, viewport=PHONE, reduced_motion="reduce")
    page = go(tab, "Verify")
    page.get_by_label("Speaker", exact=True).fill(people[0].id)

    def in_view(what: Any) -> None:
        what.wait_for()
        page.wait_for_timeout(100)
        box = what.bounding_box()
        assert 0 <= box["y"] <= PHONE["height"] - box["height"]

    page.locator("input[type=file]").set_input_files(people[0].short)
    in_view(page.locator(".verdict"))
    page.evaluate("scrollTo(0, 0)")
    record(page, lambda: wait_for_speech(page, 3.2))
    page.get_by_text("So far.").wait_for(state="detached")
    in_view(page.locator(".verdict"))
    go(tab, "Compare")
    page.locator("input[type=file]").set_input_files(people[0].short)
    in_view(page.locator(".verdict").first)
    go(tab, "Speakers")
    page.get_by_role("button", name=people[0].id).click()
    in_view(page.get_by_role("heading", name=people[0].id))


def test_a_recording_is_compared_as_often_as_one_likes(
    open_tab: Callable[..., Tab], people: list[Person], tmp_path: Path, playwright: Any
) -> None:
    strict = Server(tmp_path / "data", SAYSO_THREADS="1", SAYSO_THRESHOLDS='{"baseline": -1, "nested": -1}')
    try:
        enrolled(strict, people[0])
        page = open_tab(people[0].short, server=strict).page
        go(Tab(page), "Verify")
        page.get_by_label("Speaker", exact=True).fill(people[0].id)
        chooser = page.locator("input[type=file]")
        chooser.set_input_files(people[0].short)
        page.locator(".verdict").wait_for()
        chooser.set_input_files(people[0].short)
        refusal = page.get_by_role("alert").filter(has_text="used for this speaker before")
        refusal.wait_for()
        assert "Idempotency-Key" not in refusal.inner_text()
        refusal.get_by_role("link", name="Compare").click()
        page.get_by_role("heading", name="Compare the models", level=1).wait_for()
        page.get_by_label("Speaker", exact=True).fill(people[0].id)
        for _ in range(2):
            chooser.set_input_files(people[0].short)
            page.locator("article .verdict").nth(1).wait_for()
        record(page, lambda: page.get_by_text(re.compile(r"[3-9]\.\d\ss recorded")).wait_for())
        page.locator("article .verdict").nth(1).wait_for()
        assert page.get_by_role("alert").filter(has_text=re.compile(".")).count() == 0
        heard = strict.client.get("/metrics").text
        assert 'sayso_refusals_total{code="recording_replayed"} 1.0' in heard
    finally:
        strict.close()


@pytest.mark.parametrize(
    ("call", "decision", "llr", "threshold", "odds"),
    [
        ("identify", "no_match", 2.3, 0.9, None),
        ("identify", "match", 4.2, 0.1, "67 times likelier for one speaker than for two"),
        ("verify", "reject", 2.3, 0.9, None),
        ("verify", "accept", -1.2, -0.5, None),
        ("verify", "reject", -2.3, 0.9, "10 times likelier for two speakers than for one"),
    ],
)
def test_the_evidence_never_contradicts_the_verdict(
    open_tab: Callable[..., Tab],
    people: list[Person],
    server: Server,
    call: str,
    decision: str,
    llr: float,
    threshold: float,
    odds: str | None,
) -> None:
    enrolled(server, people[0])
    page = go(open_tab(), call.capitalize())

    def answer(body: Any) -> None:
        body.update(decision=decision, llr=llr, reason=None, speaker_id=people[0].id)
        body["threshold"]["llr"] = threshold

    changed(page, f"**/{call}*", answer)
    if call == "verify":
        page.get_by_label("Speaker", exact=True).fill(people[0].id)
    page.locator("input[type=file]").set_input_files(people[0].short)
    page.locator(".verdict").wait_for()
    evidence = page.locator(".evidence").inner_text()
    if odds is None:
        assert not ODDS.search(evidence)
        side = "above" if decision == "accept" else "below"
        assert re.search(rf"LLR {str(llr).replace('-', MINUS)}, {side} the threshold of LLR", evidence)
    else:
        assert odds in evidence


def test_no_part_takes_longer_than_the_whole(
    open_tab: Callable[..., Tab], people: list[Person], server: Server
) -> None:
    enrolled(server, people[0])
    page = go(open_tab(), "Compare")

    def answer(body: Any) -> None:
        for result in body["results"]:
            result["embed_ms"] = [56.0] * 5
            result["identification"]["timings_ms"].update(embed=40.0, total=46.0)

    changed(page, "**/v1/models/compare*", answer)
    page.locator("input[type=file]").set_input_files(people[0].short)
    page.get_by_role("img", name=re.compile("nested 56.0 ms")).wait_for()
    assert not re.search(r"46(\.0)?\sms", page.locator("main").inner_text())


@pytest.mark.parametrize("bins", [1, 3, 6])
def test_few_bins_are_drawn_as_bars(
    open_tab: Callable[..., Tab], people: list[Person], server: Server, bins: int
) -> None:
    enrolled(server, people[0])
    tab = open_tab(key=None)
    page = tab.page
    heights = {1: [1.0], 3: [0.2, 1.0, 0.4], 6: [0.0, 0.1, 0.8, 0.0, 0.3, 0.0]}[bins]

    def card(body: Any) -> None:
        edges = [-0.6 + 1.2 * i / bins for i in range(bins + 1)]
        for model in body["items"]:
            histogram = {"edges": edges, "target": heights, "nontarget": [0.0] * bins}
            model["card"]["calibration"]["histogram"] = histogram

    def calibrated(body: Any) -> None:  # synthetic voices are decided on a score, which has no histogram
        body["threshold"].update(llr=2.2, score=None)

    changed(page, "**/v1/models", card)
    changed(page, "**/v1/identify*", calibrated)
    page.get_by_label("API key").fill(server.key)
    page.get_by_role("button", name="Go on").click()
    go(tab, "Identify")
    page.locator("input[type=file]").set_input_files(people[0].short)
    page.locator(".chart").wait_for()
    points = outline(page, "target")
    floor = points[0][1]
    assert points[-1][1] == floor
    assert all(a[0] == b[0] or a[1] == b[1] for a, b in pairwise(points))
    used = [i for i, height in enumerate(heights) if height]
    assert len(points) == 2 * (used[-1] - used[0] + 1) + 2
    assert page.locator(".chart path.outline.nontarget").count() == 0
    assert not tab.errors


def test_latency_answers_what_people_ask(
    open_tab: Callable[..., Tab], people: list[Person], tmp_path: Path, playwright: Any
) -> None:
    fresh = Server(tmp_path / "data", SAYSO_THREADS="1", SAYSO_REPLAY_DAYS="0")
    try:
        enrolled(fresh, people[0])
        fresh.post(f"/v1/speakers/{people[0].id}/verify", people[0].short.read_bytes())
        page = open_tab(server=fresh).page
        go(Tab(page), "Latency")
        row = page.get_by_role("row").filter(has=page.get_by_role("rowheader", name="Verify, nested"))
        row.wait_for()
        cells = row.get_by_role("cell").all_inner_texts()
        assert cells[0] == "1"
        assert cells[1].endswith("(mean)")
        assert cells[2] == DASH
        shown = page.locator("main").inner_text()
        assert "{" not in shown
        assert "p99" not in shown
        for _ in range(20):
            fresh.post(f"/v1/speakers/{people[0].id}/verify", people[0].short.read_bytes())
        row.get_by_role("cell", name="21", exact=True).wait_for()
        cells = row.get_by_role("cell").all_inner_texts()
        assert all(re.fullmatch(r"[\d.]+\sms", cell) for cell in cells[1:]), cells
        page.get_by_role("link", name="the study of 29 December 2025").click()
        page.get_by_role("heading", name="The study", level=1).wait_for()
        page.get_by_role("rowheader", name="ResNetSE34L").wait_for()
    finally:
        fresh.close()
