"""Every setting is documented, and none is guessed."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from sayso.service.settings import Settings

DOCS = Path(__file__).parents[2] / "docs" / "settings.md"


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_in_the_docs(name: str) -> None:
    assert f"`SAYSO_{name.upper()}`" in DOCS.read_text()
    assert Settings.model_fields[name].description


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAYSO_MODELS", '{"own": "/models/own.onnx"}')
    monkeypatch.setenv("SAYSO_IDENTIFY_FPIR", "0.01")
    chosen = Settings()
    assert chosen.models == {"own": Path("/models/own.onnx")}
    assert chosen.identify_fpir == 0.01
    monkeypatch.setenv("SAYSO_IDENTIFY_FPIR", "1.5")
    with pytest.raises(ValidationError, match="identify_fpir"):
        Settings()
