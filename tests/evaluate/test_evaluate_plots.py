import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sayso.evaluate import plots as module
from sayso.evaluate.plots import PlotsUnavailableError, det_plot, score_plot

PNG = b"\x89PNG\r\n\x1a\n"


def made(separation: float) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(400) < 100
    return np.random.default_rng(0).normal(0.2 + separation * labels, 0.1), labels


def test_det_plot_draws_good_and_hopeless_models(tmp_path: Path) -> None:
    curves = {"nested": made(0.3), "separated": made(9.0), "blind": made(0.0)}
    det_plot(curves, tmp_path / "det.png")
    assert (tmp_path / "det.png").read_bytes().startswith(PNG)


def test_score_plot_draws_thresholds(tmp_path: Path) -> None:
    score_plot(*made(0.3), {"eer": 0.35, "fmr=0.01": 0.43}, tmp_path / "scores.svg")
    assert "<svg" in (tmp_path / "scores.svg").read_text()


def test_names_of_near_thresholds_do_not_collide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They stand in the legend, where each has a place of its own; nothing is written over the curves."""
    kept: list[Any] = []
    monkeypatch.setattr(module, "_save", lambda figure, path: kept.append(figure))
    score_plot(*made(0.3), {"eer": 0.350, "fmr=0.01": 0.351, "fmr=0.001": 0.352}, tmp_path / "s.png")
    (figure,) = kept
    figure.draw_without_rendering()
    assert not figure.axes[0].texts
    boxes = [text.get_window_extent() for text in figure.legends[0].get_texts()]
    assert len(boxes) == 5
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_a_plot_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no curves"):
        det_plot({}, tmp_path / "det.png")


def test_without_matplotlib_the_message_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(PlotsUnavailableError, match=r"pip install '\.\[plots\]'"):
        det_plot({"nested": made(0.3)}, tmp_path / "det.png")


def test_the_room_imports_without_matplotlib_or_scipy() -> None:
    program = (
        "import sys; sys.modules.update(dict.fromkeys(['matplotlib', 'scipy', 'torch']));"
        "import sayso.evaluate.plots, sayso.evaluate.report, sayso.evaluate.calibration"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])
