"""A real server and a real browser, whose microphone plays a file."""

import csv
import io
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import soxr
from process import Server
from sounds import encode, voice_of

sys.path.append(str(Path(__file__).parent))  # importlib mode leaves a test's own folder out

from console_samples import Person, Tab

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--use-fake-device-for-media-stream",
]
NAMES = ["alice", "bob", "carol", "dave", "erin", "frank"]
ALLOWED = "--use-fake-ui-for-media-stream"


def _real(root: Path, folder: Path) -> list[Person]:
    """Six LibriSpeech readers under other names, each with about 26 s for enrolment and 7 s besides."""
    files = defaultdict(list)
    with (root / "manifest.csv").open() as manifest:
        for row in csv.DictReader(manifest):
            if row["corpus"] == "librispeech" and row["split"] == "dev" and float(row["seconds"]) > 6:
                files[row["speaker"]].append(root / row["path"])
    people = []
    for _, paths in sorted(files.items()):
        if len(paths) < 3:
            continue
        samples = [sf.read(path)[0] for path in paths]
        long = np.concatenate(samples[:-1])[: 26 * 16_000]
        if len(long) < 20 * 16_000:
            continue
        id = NAMES[len(people)]
        person = Person(id, folder / f"{id}-long.wav", folder / f"{id}-short.wav")
        person.long.write_bytes(_file(long))
        person.short.write_bytes(_file(samples[-1][: 8 * 16_000]))
        people.append(person)
        if len(people) == len(NAMES):
            break
    return people


def _made(folder: Path) -> list[Person]:
    people = []
    for name in ("ann", "bob", "cat"):
        person = Person(name, folder / f"{name}-long.wav", folder / f"{name}-short.wav")
        for path, take, seconds in ((person.long, 1, 22), (person.short, 2, 8)):
            samples = sf.read(io.BytesIO(voice_of(name, take, seconds)))[0]
            path.write_bytes(_file(samples))
        people.append(person)
    return people


def _file(samples: np.ndarray) -> bytes:
    """A WAV at 48 kHz, as browsers' microphones have it, with the breath before and after it."""
    rest = np.zeros(6_000)
    return encode(soxr.resample(np.concatenate([rest, samples, rest]), 16_000, 48_000), 48_000)


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> list[Person]:
    """Real voices where there are any, else synthetic ones."""
    folder = tmp_path_factory.mktemp("voices")
    try:
        root = request.getfixturevalue("speech")
    except pytest.skip.Exception:
        return _made(folder)
    return _real(root, folder)


@pytest.fixture(scope="session")
def unit(people: list[Person]) -> str:
    """What decides: an LLR, or a score set by hand, since synthetic voices are more alike than people are."""
    return "LLR" if people[0].id == NAMES[0] else "score"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, people: list[Person], unit: str) -> Iterator[Server]:
    settings = {"SAYSO_THREADS": "1", "SAYSO_REPLAY_DAYS": "0", "SAYSO_ATTEMPTS_BEFORE_DELAY": "0"}
    if unit == "score":
        settings["SAYSO_THRESHOLDS"] = '{"baseline": 0.95, "nested": 0.9}'
    running = Server(tmp_path_factory.mktemp("console") / "data", **settings)
    yield running
    running.close()


# Not for the whole session: while it is open, an event loop runs in this thread and no other can.
@pytest.fixture(scope="module")
def playwright() -> Iterator[Any]:
    api = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install '.[dev]'"
    )
    if not CHROMIUM.exists():
        pytest.skip("no /usr/bin/chromium here: apt-get install chromium")
    with api.sync_playwright() as running:
        yield running


@pytest.fixture
def open_tab(playwright: Any, server: Server) -> Iterator[Callable[..., Tab]]:
    """`open_tab(microphone=FILE)`: the console in a browser of its own."""
    browsers = []

    usual = server

    def opened(
        microphone: Path | None = None,
        allowed: bool = True,
        key: str | None = "",
        server: Server = usual,
        **options: Any,
    ) -> Tab:
        flags = [*FLAGS, *([ALLOWED] if allowed else [])]
        if microphone is not None:
            flags.append(f"--use-file-for-fake-audio-capture={microphone}")
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=flags)
        browsers.append(browser)
        context = browser.new_context(
            **{"viewport": {"width": 1280, "height": 900}, "locale": "en-GB", **options}
        )
        tab = Tab(context.new_page())
        tab.page.set_default_timeout(120_000)  # a busy machine is slow, not wrong
        tab.page.on(
            "console", lambda m: tab.errors.append(m.text) if m.type in ("error", "warning") else None
        )
        tab.page.on("pageerror", lambda error: tab.errors.append(str(error)))
        tab.page.on("request", lambda request: tab.asked.append(request.url))
        tab.page.on("websocket", lambda socket: tab.asked.append(socket.url))
        tab.page.goto(f"http://127.0.0.1:{server.port}/")
        if key is not None:
            tab.page.get_by_label("API key").fill(key or server.key)
            tab.page.get_by_role("button", name="Go on").click()
            tab.page.get_by_role("heading", name="Verify", level=1).wait_for()
        return tab

    yield opened
    for browser in browsers:
        browser.close()
