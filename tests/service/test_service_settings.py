"""Every setting is documented, and none is guessed."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from sayso.runtime.added import AddedModels
from sayso.runtime.errors import ModelError
from sayso.service.settings import PORT, SHIPPED, Settings, mistyped, only_models

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


def test_models_of_the_environment_come_beside_the_shipped_ones(tmp_path: Path) -> None:
    own = tmp_path / "own.onnx"
    served = Settings(data_dir=tmp_path, models={"own": own}).served_models()
    assert served == {**SHIPPED, "own": own}
    assert Settings().default_of(served) == "nested"  # not what somebody named first
    AddedModels(tmp_path / "models").add("mine", b"")
    chosen = Settings(data_dir=tmp_path, models={"baseline": None, "own": own})
    assert list(chosen.served_models()) == ["nested", "mine", "own"]
    assert Settings(data_dir=tmp_path, models=only_models({"own": own})).served_models().keys() == {
        "mine",
        "own",
    }
    with pytest.raises(ModelError, match="leaves no model"):
        Settings(data_dir=tmp_path, models={**only_models({}), "mine": None}).served_models()


def test_a_name_stays_with_its_network(tmp_path: Path) -> None:
    """No variable and no file unserves what people are enrolled with by taking its name."""
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(SHIPPED["baseline"].read_bytes())
    assert Settings(data_dir=tmp_path, models={"baseline": copy}).served_models()["baseline"] == copy
    with pytest.raises(ModelError, match=r"'baseline' of SAYSO_MODELS is another network .* null"):
        Settings(data_dir=tmp_path, models={"baseline": SHIPPED["nested"]}).served_models()
    AddedModels(tmp_path / "models").add("baseline", SHIPPED["nested"].read_bytes())
    with pytest.raises(ModelError, match="'baseline' of the data folder is another network"):
        Settings(data_dir=tmp_path).served_models()


def test_the_default_is_chosen_and_served(tmp_path: Path) -> None:
    AddedModels(tmp_path / "models").set_default("nested")
    chosen = Settings(data_dir=tmp_path)
    assert chosen.default_of(SHIPPED) == "nested"
    assert Settings(data_dir=tmp_path, default_model="baseline").default_of(SHIPPED) == "baseline"
    with pytest.raises(ModelError, match=r"'nested', chosen by `sayso models default`, is not served"):
        chosen.default_of(["baseline"])
    with pytest.raises(ModelError, match="'x', chosen by SAYSO_DEFAULT_MODEL, is not served"):
        Settings(data_dir=tmp_path, default_model="x").default_of(SHIPPED)


@pytest.mark.parametrize("link", ["tcp://10.96.0.1:80", "udp://[fd00::1]:80", "TCP://10.0.0.1"])
def test_a_service_link_of_kubernetes_is_no_port(monkeypatch: pytest.MonkeyPatch, link: str) -> None:
    monkeypatch.setenv("SAYSO_PORT", link)
    assert Settings().port == PORT == 8000
    assert Settings(port=9000).port == 9000
    monkeypatch.setenv("SAYSO_PORT", "eight")
    with pytest.raises(ValidationError, match="port"):
        Settings()


@pytest.mark.parametrize("name", Settings.model_fields)
def test_an_empty_variable_is_unset(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(f"SAYSO_{name.upper()}", "")
    assert getattr(Settings(), name) == Settings.model_fields[name].get_default(call_default_factory=True)


def test_the_home_folder_is_expanded_in_every_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("DATA_DIR", "MASTER_KEY_FILE", "TLS_CERT", "TLS_KEY"):
        monkeypatch.setenv(f"SAYSO_{name}", f"~/{name}")
    monkeypatch.setenv("SAYSO_MODELS", '{"own": "~/own.onnx", "other": "relative/~/x.onnx"}')
    chosen = Settings()
    assert chosen.data_dir == tmp_path / "DATA_DIR"
    assert chosen.master_key_file == tmp_path / "MASTER_KEY_FILE"
    assert (chosen.tls_cert, chosen.tls_key) == (tmp_path / "TLS_CERT", tmp_path / "TLS_KEY")
    assert chosen.models == {"own": tmp_path / "own.onnx", "other": Path("relative/~/x.onnx")}
    monkeypatch.setenv("SAYSO_DATA_DIR", "~nobody-of-this-name/x")
    with pytest.raises(ValidationError, match="unknown user"):
        Settings()


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("SAYSO_ADMINKEY", "SAYSO_ADMIN_KEY"),
        ("SAYSO_DATADIR", "SAYSO_DATA_DIR"),
        ("sayso_max_stream", "SAYSO_MAX_STREAMS"),
        ("SAYSOPORT", "SAYSO_PORT"),
        ("SASYO_LOG_LEVEL", "SAYSO_LOG_LEVEL"),
        ("SAYSO_XQZ", None),
    ],
)
def test_a_mistyped_name_is_named(variable: str, meant: str | None) -> None:
    (sentence,) = mistyped(["PATH", "SAYSO_PORT", variable, "SAY", "SAYING_SO"])
    assert sentence.startswith(f"{variable} is no setting")
    assert meant is None or meant in sentence


def test_what_kubernetes_and_clients_set_is_not_mistyped() -> None:
    links = ["SAYSO_SERVICE_HOST", "SAYSO_SERVICE_PORT", "SAYSO_SERVICE_PORT_HTTP", "SAYSO_PORT_80_TCP"]
    links += [
        "SAYSO_PORT_80_TCP_ADDR",
        "SAYSO_PORT_80_UDP_PROTO",
        "SAYSO_METRICS_PORT",
        "SAYSO_WEB_SERVICE_HOST",
    ]
    settings = [f"SAYSO_{name.upper()}" for name in Settings.model_fields]
    assert mistyped([*links, *settings, "SAYSO_KEY", "SAYSO_URL", "sayso_port"]) == []
