"""The console in a browser: what people do with it, and that anybody can."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from console_samples import Person, Tab, enrolled, go, record, wait_for_speech
from process import Server

PAGES = ["Verify", "Identify", "Enrol", "Speakers", "Compare", "Latency"]
pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def picture(tmp_path: Path) -> Callable[[Any, str], None]:
    """Screenshots into the folder that SAYSO_PICTURES names, as `make pictures` does, else thrown away."""
    folder = Path(os.environ.get("SAYSO_PICTURES", tmp_path))

    def take(page: Any, name: str) -> None:
        page.screenshot(path=folder / f"console-{name}.png", full_page=True)

    return take


def verdict(page: Any) -> str:
    shown: str = page.locator(".result .verdict h2").inner_text()
    return shown


def test_enrol_by_microphone_with_a_live_picture(
    open_tab: Callable[..., Tab], people: list[Person], server: Server, picture: Callable[[Any, str], None]
) -> None:
    person = people[0]
    tab = open_tab(person.long)
    page = go(tab, "Enrol")
    page.get_by_label("Speaker id").fill(person.id)
    page.get_by_label("Groups").fill("readers, demo")

    def spoken() -> None:
        page.locator(".said").get_by_text(re.compile(r"\d\.\d\ss more")).wait_for()
        wait_for_speech(page, 4)
        assert page.locator(".level-tip").inner_text()
        picture(page, "enrol")
        page.get_by_text("enough to enrol").wait_for()

    record(page, spoken)
    page.get_by_role("heading", name="Enrolled").wait_for()
    stored = server.client.get(f"/v1/speakers/{person.id}").json()
    assert (stored["status"], stored["groups"], stored["enrollments"]) == ("enrolled", ["demo", "readers"], 1)
    assert stored["net_speech_s"] >= 10
    assert not tab.errors


def test_verify_accepts_the_speaker_and_shows_why(
    open_tab: Callable[..., Tab],
    people: list[Person],
    server: Server,
    picture: Callable[[Any, str], None],
    unit: str,
) -> None:
    enrolled(server, people[0])
    tab = open_tab(people[0].short)
    page = go(tab, "Verify")
    page.get_by_label("Speaker", exact=True).fill(people[0].id)

    def answered() -> None:
        page.get_by_text("So far. More speech makes it surer.").wait_for()
        wait_for_speech(page, 3.2)

    record(page, answered)
    page.get_by_text("So far.").wait_for(state="detached")
    assert verdict(page) == "Accept"
    drawn = page.get_by_role("img", name=re.compile(f"nested: {unit} .*above the threshold of"))
    assert drawn.is_visible()
    if unit == "LLR":  # a score has neither distributions nor odds
        assert page.get_by_text("different speakers").is_visible()
        assert page.get_by_text(re.compile("likelier for one speaker than for two")).is_visible()
    assert page.get_by_label("What was recorded").is_visible()
    picture(page, "verify")
    assert not tab.errors


def test_verify_rejects_somebody_else(
    open_tab: Callable[..., Tab],
    people: list[Person],
    server: Server,
    picture: Callable[[Any, str], None],
    unit: str,
) -> None:
    enrolled(server, people[0])
    tab = open_tab(people[1].short, color_scheme="dark")
    page = go(tab, "Verify")
    page.get_by_label("Speaker", exact=True).fill(people[0].id)
    page.get_by_label("Model").select_option("nested")
    record(page, lambda: wait_for_speech(page, 3.2))
    page.get_by_text("So far.").wait_for(state="detached")
    assert verdict(page) == "Reject"
    assert page.get_by_role("img", name=re.compile(f"nested: {unit} .*below the threshold")).is_visible()
    picture(page, "verify-dark")
    assert not tab.errors


def test_identify_by_dropped_files(
    open_tab: Callable[..., Tab], people: list[Person], server: Server, picture: Callable[[Any, str], None]
) -> None:
    for person in people[:-1]:
        enrolled(server, person, groups=["readers"])
    tab = open_tab()
    page = go(tab, "Identify")
    chooser = page.locator("input[type=file]")
    chooser.set_input_files(people[0].short)
    page.get_by_role("heading", name=re.compile("Match|Ambiguous|Inconclusive")).wait_for()
    assert page.locator("tbody tr th").first.inner_text() == people[0].id
    picture(page, "identify")
    chooser.set_input_files(people[-1].short)
    page.locator(".verdict").get_by_text("Nobody who was searched sounds enough like this.").wait_for()
    assert verdict(page) == "No match"
    page.get_by_label("Search").select_option("readers")
    chooser.set_input_files(people[0].short)
    page.get_by_text(f"{len(people) - 1} speakers").wait_for()
    assert not tab.errors


def test_the_models_side_by_side(
    open_tab: Callable[..., Tab], people: list[Person], server: Server, picture: Callable[[Any, str], None]
) -> None:
    enrolled(server, people[0])
    tab = open_tab()
    page = go(tab, "Compare")
    page.get_by_label("Speaker", exact=True).fill(people[0].id)
    page.locator("input[type=file]").set_input_files(people[0].short)
    page.get_by_role("heading", name=re.compile("Time in the network")).wait_for()
    assert page.get_by_role("article").count() == 2
    shown = page.get_by_role(
        "img", name=re.compile(r"nested [\d.]+ ms, baseline [\d.]+ ms; the study 28.8 ms")
    )
    assert shown.is_visible()
    picture(page, "compare")
    assert not tab.errors


def test_latency_is_read_from_metrics(
    open_tab: Callable[..., Tab], people: list[Person], server: Server, picture: Callable[[Any, str], None]
) -> None:
    enrolled(server, people[0])
    server.post(f"/v1/speakers/{people[0].id}/verify", people[0].short.read_bytes())
    tab = open_tab()
    page = go(tab, "Latency")
    page.get_by_role("img", name=re.compile(r"nested [\d.]+ ms.*the study 28.8 ms")).wait_for()
    for call in ("Verify, nested", "Enrol, all models"):
        assert page.get_by_role("rowheader", name=call).first.is_visible()
    page.get_by_text("Verify: stages").click()
    page.get_by_role("rowheader", name="Finding speech").first.wait_for()
    picture(page, "latency")
    assert not tab.errors


def test_speakers_are_found_changed_and_deleted(
    open_tab: Callable[..., Tab], people: list[Person], server: Server, picture: Callable[[Any, str], None]
) -> None:
    for person in people:
        enrolled(server, person)
    gone = people[-1].id
    tab = open_tab()
    page = go(tab, "Speakers")
    page.get_by_label("Find").fill(gone)
    page.get_by_role("button", name=gone).click()
    page.get_by_label("Groups").fill("guests")
    page.get_by_role("button", name="Save").click()
    page.get_by_label("Group", exact=True).locator("option", has_text="guests").wait_for(state="attached")
    assert server.client.get(f"/v1/speakers/{gone}").json()["groups"] == ["guests"]
    page.get_by_role("button", name="Opt out").click()
    page.get_by_role("button", name="Withdraw the opt-out").wait_for()
    page.get_by_role("button", name="Withdraw the opt-out").click()
    page.get_by_role("button", name="Opt out").wait_for()
    picture(page, "speakers")
    page.get_by_role("button", name="Delete speaker").click()
    page.get_by_role("button", name="Keep").click()
    assert server.client.get(f"/v1/speakers/{gone}").status_code == 200
    page.get_by_role("button", name="Delete speaker").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    page.get_by_text(f"{gone} is deleted.").wait_for()
    assert server.client.get(f"/v1/speakers/{gone}").status_code == 404
    assert not tab.errors


def test_one_enrolment_is_deleted(open_tab: Callable[..., Tab], people: list[Person], server: Server) -> None:
    enrolled(server, people[1])
    tab = open_tab()
    page = go(tab, "Speakers")
    page.get_by_role("button", name=people[1].id).click()
    page.get_by_role("button", name=re.compile("Delete the enrolment of")).first.click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    page.get_by_text("in 0 enrolments").wait_for()
    server.client.delete(f"/v1/speakers/{people[1].id}")
    assert not tab.errors


def test_a_refused_microphone_is_explained(open_tab: Callable[..., Tab], people: list[Person]) -> None:
    tab = open_tab(allowed=False)
    page = go(tab, "Identify")
    page.get_by_role("button", name="Record", exact=True).click()
    page.get_by_role("alert").get_by_text("The microphone was refused.").wait_for()
    assert page.get_by_role("button", name="Record", exact=True).is_enabled()
    page.locator("input[type=file]").set_input_files(people[0].short)
    page.locator(".result .verdict").wait_for()
    assert not tab.errors


def test_a_recording_without_speech_is_explained(open_tab: Callable[..., Tab], tmp_path: Path) -> None:
    import numpy as np
    from sounds import encode

    silence = tmp_path / "silence.wav"
    silence.write_bytes(encode(np.zeros(48_000, np.float32)))
    tab = open_tab()
    page = go(tab, "Identify")
    page.locator("input[type=file]").set_input_files(silence)
    page.get_by_role("alert").get_by_text(re.compile(r"0\.0 s of speech .* are needed")).wait_for()


def test_a_server_that_went_away_and_came_back(
    open_tab: Callable[..., Tab], people: list[Person], server: Server
) -> None:
    tab = open_tab(people[0].short)
    page = go(tab, "Identify")
    page.get_by_role("button", name="Record", exact=True).click()
    wait_for_speech(page, 0.5)
    server.kill()
    page.locator(".capture").get_by_text("The server does not answer.").wait_for()
    go_back = page.get_by_role("navigation").get_by_role("link", name="Speakers")
    go_back.click()
    page.locator("#away").get_by_text("The server does not answer.").wait_for()
    server.start()
    page.locator("#away").get_by_text("The server does not answer.").wait_for(state="detached")
    page.get_by_role("navigation").get_by_role("link", name="Identify").click()
    page.get_by_role("heading", name="Identify", level=1).wait_for()


def test_a_wrong_key_is_refused_and_no_key_is_kept(open_tab: Callable[..., Tab], server: Server) -> None:
    tab = open_tab(key=None)
    page = tab.page
    page.get_by_label("API key").fill("sayso_wrong")
    page.get_by_role("button", name="Go on").click()
    page.get_by_role("alert").get_by_text("unknown, expired or revoked").wait_for()
    page.get_by_label("API key").fill(server.key)
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Verify", level=1).wait_for()
    for name in PAGES:
        go(tab, name)
    kept = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
    assert kept == '[{},{},""]'
    assert not [url for url in tab.asked if server.key in url]
    page.reload()
    page.get_by_label("API key").wait_for()


def test_nothing_is_asked_of_anybody_else(open_tab: Callable[..., Tab], server: Server) -> None:
    tab = open_tab()
    for name in PAGES:
        go(tab, name)
    tab.page.goto(f"http://127.0.0.1:{server.port}/docs")
    tab.page.get_by_text("Is this the speaker?").first.wait_for()
    foreign = [
        url for url in tab.asked if not re.match(rf"(http|ws)://127.0.0.1:{server.port}/|data:|blob:", url)
    ]
    assert foreign == []
    assert not tab.errors


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing_and_nothing_sticks_out(
    open_tab: Callable[..., Tab],
    people: list[Person],
    server: Server,
    picture: Callable[[Any, str], None],
    scheme: Any,
    width: int,
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed").Axe()
    for person in people[:2]:
        enrolled(server, person, groups=["readers"])
    tab = open_tab(key=None, color_scheme=scheme, viewport={"width": width, "height": 800})
    page = tab.page

    def check(what: str) -> None:
        report = axe.run(page)
        assert report.violations_count == 0, f"{what}: {report.generate_report()}"
        assert page.evaluate("document.documentElement.scrollWidth") <= width, what

    check("key")
    page.get_by_label("API key").fill(server.key)
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Verify", level=1).wait_for()
    for name in PAGES:
        go(tab, name)
        check(name)
        if name in ("Verify", "Identify", "Compare"):
            if name != "Identify":
                page.get_by_label("Speaker", exact=True).fill(people[0].id)
            page.locator("input[type=file]").set_input_files(people[0].short)
            page.locator(".verdict").first.wait_for()
            if name == "Compare":
                page.get_by_role("heading", name=re.compile("Time in the network")).wait_for()
            check(f"{name} answered")
        if name == "Speakers":
            page.get_by_role("button", name=people[0].id).click()
            page.get_by_role("heading", name=people[0].id).wait_for()
            check("one speaker")
        if name == "Latency":
            page.get_by_text("Verify: stages").click()
            check("stages")
            page.get_by_role("link", name="the study of 29 December 2025").click()
            page.get_by_role("heading", name="The study", level=1).wait_for()
            check("the study")
            page.go_back()
        if name == "Enrol":
            page.get_by_label("Speaker id").fill(people[0].id)
            page.get_by_label("Speaker id").blur()
            page.get_by_role("heading", name="Enrolled").wait_for()
            check("enrolled")
        picture(page, f"{name.lower()}-{scheme}-{width}")
    assert not tab.errors


def test_by_keyboard_alone(open_tab: Callable[..., Tab], people: list[Person], server: Server) -> None:
    enrolled(server, people[0])
    tab = open_tab(key=None)
    page = tab.page
    page.keyboard.type(server.key)
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Verify", level=1).wait_for()
    reached = []
    for _ in range(16):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                "(document.activeElement.labels?.[0] ?? document.activeElement).innerText.split('\\n')[0]"
            )
        )
    for control in ("Speaker", "Model", "Record", "Drop a recording here or choose a file"):
        assert control in reached, reached


def test_it_says_aloud_what_happens(
    open_tab: Callable[..., Tab], people: list[Person], server: Server
) -> None:
    enrolled(server, people[0])
    tab = open_tab()
    page = go(tab, "Verify")
    page.get_by_label("Speaker", exact=True).fill(people[0].id)
    page.locator("input[type=file]").set_input_files(people[0].short)
    page.get_by_role("status").get_by_text(re.compile("Accept. This sounds like")).wait_for()
