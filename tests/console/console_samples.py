"""Whose voices the console's tests use, and the page they use them in."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


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
