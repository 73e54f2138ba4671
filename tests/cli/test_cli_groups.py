"""The command line as a whole: what it lists, what it loads, and where `--json` may stand."""

import json
import subprocess
import sys
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from sayso.cli import app
from sayso.cli.groups import COMMANDS, GROUPS

HEAVY = {"fastapi", "onnxruntime", "faiss", "torch", "uvicorn", "soundfile", "matplotlib"}


@pytest.fixture
def root() -> Any:
    return typer.main.get_command(app)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_says_what_the_command_says(root: Any, name: str) -> None:
    command = root.get_command(None, name)
    assert command is not None
    assert (name in GROUPS) == hasattr(command, "list_commands")
    assert command.help.split("\n\n")[0].replace("\n", " ").strip() == COMMANDS[name][1]


def test_every_command_is_listed(root: Any) -> None:
    text = CliRunner().invoke(app, ["--help"]).output
    for name in COMMANDS:
        assert f" {name} " in text
    assert root.get_command(None, "nothing") is None
    assert "Did you mean" in CliRunner().invoke(app, ["verfy"]).output


@pytest.mark.parametrize(
    "words", [["--help"], ["keys", "list"], ["speakers", "list"], ["tenants", "list"], ["audit", "list"]]
)
def test_short_commands_load_little(words: list[str], tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call of the command line waits for what it imports."""
    monkeypatch.setenv("SAYSO_DATA_DIR", str(tmp_path))
    code = (
        "import sys\nfrom sayso.cli import app\n"
        f"try:\n    app({words!r})\nexcept SystemExit as end:\n    assert not end.code\n"
        f"sys.exit(str({HEAVY!r} & set(sys.modules)) if {HEAVY!r} & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["keys", "list", "--json"],
        ["keys", "--json", "list"],
        ["--json", "keys", "list"],
        ["--json", "speakers", "list", "--limit", "3"],
        ["--json", "inspect", "baseline"],
    ],
)
def test_json_stands_before_or_after_the_command(
    words: list[str], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAYSO_DATA_DIR", str(tmp_path))
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) is not None


def test_json_before_a_command_that_writes_a_file_is_standard_output(root: Any) -> None:
    words = root._json_after_name(None, ["--json", "evaluate", "baseline", "--trials", "t"])
    assert words == ["evaluate", "--json", "-", "baseline", "--trials", "t"]
    assert root._json_after_name(None, ["verify", "ann", "--json"]) == ["verify", "ann", "--json"]


def test_a_command_without_json_says_so() -> None:
    done = CliRunner().invoke(app, ["--json", "serve"])
    assert done.exit_code == 2
    assert "--json" in done.output
