"""Every command of the README and of the docs runs as it stands, page by page, from top to bottom."""

import subprocess
from pathlib import Path

import pytest
from docs_samples import DOCS, PAGES, ROOT, Block, blocks, promised, script

from sayso.cli import app
from sayso.service.metrics import Metrics

RUN = [page for page in PAGES if any(block.left_out is None for block in blocks(page))]
LEFT_OUT = [(page, block) for page in PAGES for block in blocks(page) if block.left_out is not None]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("page", RUN, ids=name)
def test_a_page_runs_as_written(
    page: Path, checkout: Path, environment: dict[str, str], request: pytest.FixtureRequest
) -> None:
    if "resnetse34l.model" in page.read_text():
        request.getfixturevalue("networks")
    (checkout / "page.sh").write_text(script(page, environment["SAYSO_PORT"]))
    done = subprocess.run(
        ["bash", "page.sh"], cwd=checkout, env=environment, capture_output=True, text=True, timeout=3500
    )
    outputs = [
        out.read_text() for out in sorted(checkout.glob("out.[0-9]*"), key=lambda p: int(p.suffix[1:]))
    ]
    assert done.returncode == 0, "\n".join([done.stderr, *outputs[-2:]])
    shown = [s for block in blocks(page) if block.left_out is None for _, s in block.commands()]
    assert len(outputs) == len(shown)
    for output, expected in zip(outputs, shown, strict=True):
        for text in promised(expected or ""):
            assert text in output.replace('": "', '":"'), f"{text!r} was promised, and came:\n{output}"


@pytest.mark.parametrize(("page", "block"), LEFT_OUT, ids=[f"{name(p)}:{b.line}" for p, b in LEFT_OUT])
def test_what_cannot_run_here_is_said(page: Path, block: Block) -> None:
    pytest.skip(f"{name(page)}: {block.left_out}")


def test_every_mark_is_understood() -> None:
    for page in PAGES:
        for block in blocks(page):
            assert block.mark in ("", "service") or block.left_out, f"{name(page)}:{block.line}"


def test_commands_are_in_blocks_that_are_found() -> None:
    """Another language's name would hide a command from this test."""
    for page in PAGES:
        fences = [
            line.strip("` ") for line in page.read_text().splitlines() if line.lstrip().startswith("```")
        ]
        # tests/console runs what is in `js`
        assert set(fences) <= {"", "sh", "console", "json", "python", "text", "js"}, name(page)
        assert len(fences) % 2 == 0


def commands() -> list[str]:
    found = [c.name or c.callback.__name__ for c in app.registered_commands if c.callback is not None]
    for group in app.registered_groups:
        assert group.typer_instance is not None
        of_group = group.typer_instance.registered_commands
        found += [f"{group.name} {c.name or c.callback.__name__}" for c in of_group if c.callback is not None]
    return [one.replace("_", "-") for one in found]


def test_the_reference_has_every_command_and_no_other() -> None:
    text = (ROOT / "docs/cli.md").read_text()
    rows = [line.split("`")[1] for line in text.splitlines() if line.startswith("| `sayso ")]
    known = commands()
    assert len(known) > 30
    listed = {" ".join(row.split()[1 : 3 if " ".join(row.split()[1:3]) in known else 2]) for row in rows}
    assert listed == set(known)


def test_the_reference_has_every_metric_and_no_other() -> None:
    text = (ROOT / "docs/metrics.md").read_text()
    listed = {line.split("`")[1] for line in text.splitlines() if line.startswith("| `sayso_")}
    types = dict(
        line.split()[2:4] for line in Metrics().text().decode().splitlines() if line.startswith("# TYPE")
    )
    assert listed == set(types)
    for line in text.splitlines():
        if line.startswith("| `sayso_"):
            assert line.split("|")[2].strip() == types[line.split("`")[1]]


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text()
    for page in PAGES[1:]:
        assert f" {page.relative_to(DOCS)}\n" in navigation, f"add {name(page)} to mkdocs.yml"
