"""Pages of the docs as blocks of commands, and a page as a script."""

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(p for p in DOCS.rglob("*.md") if p.parent.name != "decisions")]
_BLOCK = re.compile(
    r"(?:^[ ]*<!-- test: (?P<mark>.*?) -->\n)?^(?P<indent>[ ]*)```(?P<language>\S*)\n(?P<body>.*?)^[ ]*```$",
    re.M | re.S,
)
_KEY = re.compile(r"sayso_[0-9a-f]{8}_…")
# What must come as it is shown: decisions, states, and sentences that hold no measured number.
_FIELD = re.compile(r'"(?:decision|status)": ?"\w+"')
_LINE = re.compile(r"^(?:accept|reject|inconclusive|match \w+|deleted \w+|\w+: enrolled|\d+ of \d+ .*)", re.M)


@dataclass(frozen=True)
class Block:
    """One fenced block: `mark` is what the comment before it tells a test, empty without one."""

    line: int
    language: str
    mark: str
    body: str

    @property
    def left_out(self) -> str | None:
        """Why it is not run, None if it is."""
        return self.mark.removeprefix("not run: ") if self.mark.startswith("not run: ") else None

    def commands(self) -> Iterator[tuple[str, str | None]]:
        """(command, output shown): of `sh` the whole block and None, of `console` one a prompt."""
        if self.language == "sh":
            yield self.body, None
            return
        for part in re.split(r"^\$ ", self.body, flags=re.M)[1:]:
            command, _, shown = part.partition("\n")
            yield command, shown


def blocks(page: Path) -> list[Block]:
    """The page's blocks of commands, in order."""
    text = page.read_text()
    return [
        Block(
            text.count("\n", 0, found.start("language")) + 1,
            found["language"],
            found["mark"] or "",
            textwrap.dedent(found["body"]),
        )
        for found in _BLOCK.finditer(text)
        if found["language"] in ("sh", "console")
    ]


def promised(shown: str) -> list[str]:
    """What of a shown output has to come, without blanks after colons."""
    return [text.replace('": "', '":"') for text in _FIELD.findall(shown) + _LINE.findall(shown)]


def script(page: Path, port: str) -> str:
    """The page from top to bottom in one shell; each command's output goes to the file `out.N`.

    A shell has no port 8000 to itself and cannot know a key that was made elsewhere: these two are put in.
    """
    parts = [
        "set -e",
        'stop() { [ -z "${service:-}" ] || kill -TERM -- "-$service" || true; wait || true; }',
        "trap stop EXIT",
    ]
    number = 0
    for block in blocks(page):
        if block.left_out is not None:
            continue
        for command, shown in block.commands():
            text = _KEY.sub("$(sed -n 's/.*export SAYSO_KEY=//p' service.log)", command)
            text = text.replace("127.0.0.1:8000", f"127.0.0.1:{port}").rstrip()
            if text.startswith("SAYSO_MODELS="):  # the thresholds put in are those of the shipped models
                text = f"(\nunset SAYSO_THRESHOLDS\n{text}\n)"
            starts = block.mark == "service" and command.rstrip().endswith("make serve")
            if starts:
                parts += [
                    f"stop\ncat > service.sh <<'SERVICE'\n{text}\nSERVICE",
                    "setsid bash service.sh > service.log 2>&1 & service=$!",
                    'until curl --silent --fail --output out.ready "127.0.0.1:$SAYSO_PORT/readyz"; do',
                    '  kill -0 "$service"; sleep 1\ndone',
                    f"cp service.log out.{number}",
                ]
            else:
                tail = "" if shown is None else " || true"  # a refusal that is shown is no failure
                parts.append(f"{{ {text}\n}} > out.{number} 2>&1{tail}")
            number += 1
    return "\n".join(parts) + "\n"
