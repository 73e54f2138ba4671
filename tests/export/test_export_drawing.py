"""The picture of a network is drawn from its card."""

from dataclasses import replace
from pathlib import Path

import pytest
from export_samples import Exported

from sayso.export.drawing import draw
from sayso.runtime.card import read_card
from sayso.runtime.errors import ModelError


def test_the_card_lists_the_levels_that_were_built(exported: Exported) -> None:
    levels = read_card(exported.content, "tiny").levels
    assert [level.channels for level in levels] == [8, 8, 8, 8]
    assert sum(level.parameters for level in levels) < exported.card.parameters
    assert sum(level.macs for level in levels) < exported.card.macs


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_network_is_drawn(suffix: str, exported: Exported, tmp_path: Path) -> None:
    picture = tmp_path / f"tiny.{suffix}"
    draw(exported.card, picture)
    content = picture.read_bytes()
    assert content.startswith(b"\x89PNG") if suffix == "png" else b"<svg" in content


def test_what_a_level_sees_is_an_arrow_more(exported: Exported, tmp_path: Path) -> None:
    def paths(card: object) -> int:
        draw(card, tmp_path / "drawn.svg")
        return (tmp_path / "drawn.svg").read_text().count("<path")

    levels = exported.card.levels
    more = (*levels[:-1], replace(levels[-1], sees=("level 1", "level 2", "level 3")))
    assert paths(replace(exported.card, levels=more)) > paths(exported.card)


def test_a_card_without_levels_is_told(exported: Exported, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="lists no levels: export its checkpoint again"):
        draw(replace(exported.card, levels=()), tmp_path / "x.png")
