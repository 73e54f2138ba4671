"""Whose voices the console's tests use, and the page they use them in."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from process import Server


@dataclass(frozen=True)
class Person:
    """Somebody's recordings as WAV files: `long` enough to enrol with, and another `short` one."""

    id: str
    long: Path
    short: Path


@dataclass
class Tab:
    """A page of the console and everything it complained about or asked for."""

    page: Any
    errors: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


def go(tab: Tab, name: str) -> Any:
    """Open one of the console's pages by its link."""
    tab.page.get_by_role("navigation").get_by_role("link", name=name, exact=True).click()
    tab.page.get_by_role("heading", name=re.compile(name), level=1).wait_for()
    return tab.page


def record(page: Any, until: Callable[[], None]) -> None:
    """Press Record, wait for what is expected while it records, press Stop."""
    page.get_by_role("button", name="Record", exact=True).click()
    page.get_by_role("button", name="Stop").wait_for()
    until()
    page.get_by_role("button", name="Stop").click()
    page.get_by_text(re.compile(r"Recorded \d")).wait_for()


def wait_for_speech(page: Any, seconds: float) -> None:
    """Wait for so much net speech; the page's policy forbids Playwright's own way, an eval."""
    for _ in range(900):
        if page.locator("progress").evaluate("bar => bar.value") > seconds:
            return
        page.wait_for_timeout(100)
    pytest.fail(f"{seconds} s of speech did not come: {page.locator('.said').inner_text()}")


def enrolled(server: Server, person: Person, **facts: Any) -> None:
    """Enrol through the API what a test needs and does not show."""
    if server.client.get(f"/v1/speakers/{person.id}").json().get("status") != "enrolled":
        server.client.delete(f"/v1/speakers/{person.id}")
        server.client.post("/v1/speakers", json={"id": person.id, **facts})
        server.post(f"/v1/speakers/{person.id}/enrollments", person.long.read_bytes())
