"""Journals become a picture, whatever is in them."""

import json
from pathlib import Path

import pytest

from sayso.train.plots import draw_journals


def journal(path: Path, epochs: int, stopped: bool = False, gates: bool = False) -> Path:
    lines = [
        {"step": 10 * e, "epoch": e, "aam": 5 / e, "teacher": 9 / e, "loss": 14 / e, "dev_eer": 0.4 / e}
        | {"grad_norm": 3.0, "grad_norm_max": 10.0 * e, "embedding_norm": 20.0}
        | {"gates": {"sources.2.0.gate": 0.1 * e} if gates else {}}
        for e in range(1, epochs + 1)
    ]
    if stopped:
        lines.append({"step": 10 * epochs + 3, "stopped": ["loss"], "largest_outputs": {}})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.mark.parametrize(
    ("epochs", "stopped", "gates"), [(1, False, True), (4, True, True), (0, True, False)]
)
def test_one_run_is_drawn(epochs: int, stopped: bool, gates: bool, tmp_path: Path) -> None:
    picture = tmp_path / "run.png"
    draw_journals({"run": journal(tmp_path / "log.jsonl", epochs, stopped, gates)}, picture)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_several_runs_are_drawn_together(tmp_path: Path) -> None:
    runs = {name: journal(tmp_path / name, n, stopped=n == 2) for name, n in (("a", 2), ("b", 5), ("c", 3))}
    draw_journals(runs, tmp_path / "runs.svg")
    drawn = (tmp_path / "runs.svg").read_text()
    assert "<svg" in drawn
    assert "NaN" not in drawn
