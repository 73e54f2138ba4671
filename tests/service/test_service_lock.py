"""What is served is pinned: every dependency in the lock file, at a version that fits, with its hashes."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

TOP = Path(__file__).parents[2]
LOCK = (TOP / "requirements.lock").read_text()
PLACE = {
    "sys_platform": "linux",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "python_version": "3.11",
    "extra": "",
}
ENTRIES = re.split(r"^(?=\S)", LOCK, flags=re.MULTILINE)[1:]
PINS = {entry.partition("==")[0]: entry.partition("==")[2].split()[0] for entry in ENTRIES}
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
SERVED = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["postgres"]
NEEDED = [
    requirement
    for requirement in map(Requirement, SERVED)
    if requirement.marker is None or requirement.marker.evaluate(PLACE)
]


@pytest.mark.parametrize("requirement", NEEDED, ids=lambda requirement: requirement.name)
def test_each_dependency_is_pinned_where_it_fits(requirement: Requirement) -> None:
    assert requirement.name in PINS, "run `make lock`"
    assert requirement.specifier.contains(PINS[requirement.name]), "run `make lock`"


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.partition("==")[0])
def test_each_pin_has_its_hashes(entry: str) -> None:
    assert re.match(r"[a-z0-9-]+==[0-9][^ ;]* ", entry)
    assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry)


def test_nothing_of_training_is_served() -> None:
    assert not {"torch", "onnx", "matplotlib", "pip-audit", "pytest"} & PINS.keys()
    assert "index-url" not in LOCK
    assert "file:" not in LOCK
