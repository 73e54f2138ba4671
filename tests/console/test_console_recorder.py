"""The code of docs/how-to/recordings.md, as it stands there, in a browser."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from console_samples import Person, Tab, enrolled
from process import Server

from sayso.runtime.audio import decode
from sayso.runtime.errors import UndecodableAudio

PAGE = Path(__file__).parents[2] / "docs/how-to/recordings.md"
pytestmark = pytest.mark.timeout(600)


def code() -> str:
    return "\n".join(re.findall(r"^```js\n(.*?)^```$", PAGE.read_text(), re.M | re.S))


def webm_is_read() -> bool:
    """The refusal of a WebM file that holds nothing lists the formats that are read."""
    try:
        decode(b"\x1a\x45\xdf\xa3" + bytes(60), 10.0)
    except UndecodableAudio as refusal:
        return "WebM" in str(refusal)
    return True


def test_what_mediarecorder_makes_is_decided_on(
    open_tab: Callable[..., Tab], people: list[Person], server: Server
) -> None:
    if not webm_is_read():
        pytest.skip("sayso.runtime does not read WebM yet, which Chromium's MediaRecorder makes")
    enrolled(server, people[0])
    page = open_tab(people[0].short, key=None).page
    html = f"<!doctype html><title>Recorder</title><script>{code()}</script>"
    page.route("**/recorder", lambda route: route.fulfill(body=html, content_type="text/html"))
    page.goto(f"http://127.0.0.1:{server.port}/recorder")
    page.evaluate("() => onRecord()")
    page.wait_for_timeout(7_000)
    decision = page.evaluate("([speaker, key]) => onStop(speaker, key)", [people[0].id, server.key])
    assert decision in ("accept", "inconclusive")
