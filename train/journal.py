"""The log of a run: a JSON line for each epoch, with the means over its steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class Journal:
    """Gathers each step's facts; `write` adds their means (and the largest gradient norm) as a line."""

    def __init__(self, path: Path, step: int) -> None:
        """Lines of a run that was cut off after its last save, beyond `step`, are dropped."""
        self.path = path
        self.facts: list[dict[str, float]] = []
        if path.exists():
            lines = [line for line in path.read_text().splitlines() if json.loads(line)["step"] <= step]
            path.write_text("".join(f"{line}\n" for line in lines))

    def add(self, facts: dict[str, float]) -> None:
        self.facts.append(dict(facts))

    def write(self, step: int, **extra: Any) -> None:
        line: dict[str, Any] = {"step": step}
        if self.facts:
            count = len(self.facts)
            line |= {name: sum(f[name] for f in self.facts) / count for name in self.facts[0]}
            line["grad_norm_max"] = max(f["grad_norm"] for f in self.facts)
        with self.path.open("a") as log:
            log.write(json.dumps(_rounded(line | extra)) + "\n")
        self.facts.clear()


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    return float(f"{value:.5g}") if isinstance(value, float) else value
