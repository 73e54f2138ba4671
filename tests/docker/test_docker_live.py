"""What Prometheus and Grafana ask for, at a live /metrics, and the dashboard by Grafana's own types."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from process import Server
from sounds import voice_of

DOCKER = Path(__file__).parents[2] / "docker"
DASHBOARD = DOCKER / "grafana/dashboards/sayso.json"
GRAFANA = "12.1.0"  # that of docker-compose.yml


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The metrics of a server that has enrolled, verified, searched and refused."""
    server = Server(tmp_path_factory.mktemp("live") / "data", SAYSO_THREADS="1")
    try:
        server.enroll("ann", [voice_of("ann", 1, 16)])
        server.post("/v1/speakers/ann/verify", voice_of("ann", 2))
        server.post("/v1/identify", voice_of("ann", 3))
        assert server.client.get("/v1/speakers/nobody").status_code == 404
        yield server.client.get("/metrics").text
    finally:
        server.close()


def expressions() -> list[str]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    rules = yaml.safe_load((DOCKER / "prometheus/rules.yml").read_text())["groups"]
    asked = [target["expr"] for panel in panels for target in panel["targets"]]
    return asked + [rule["expr"] for group in rules for rule in group["rules"]]


def test_every_series_asked_for_is_there(text: str) -> None:
    """By name, and with every label that is asked for or grouped by."""
    series: dict[str, set[str]] = {"up": {"job", "instance"}}  # Prometheus' own
    for name, labels in re.findall(r"^(\w+)(?:\{(.*)\})? ", text, re.M):
        series.setdefault(name, set()).update(re.findall(r'(\w+)="', labels or ""))
    known = set().union(*series.values())
    for expression in expressions():
        for name, asked in re.findall(r"\b(sayso_\w+|up)\b(?:\{([^}]*)\})?", expression):
            assert name in series, f"{name} in {expression}"
            assert set(re.findall(r"(\w+)\s*[=!]", asked)) <= series[name], expression
        for grouped in re.findall(r"\b(?:by|ignoring|on) \(([^)]*)\)", expression):
            assert set(re.findall(r"\w+", grouped)) <= known, expression


def test_the_exposition_is_prometheus_own(text: str) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed here: apt-get install prometheus")
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(600)
def test_the_dashboard_is_one_of_grafanas_own_types(tmp_path: Path) -> None:
    """@grafana/schema describes it; tsc tells what it does not know, down to fields of one panel."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("no node or npm here: apt-get install nodejs npm")
    assert f"grafana/grafana:{GRAFANA}" in (DOCKER.parent / "docker-compose.yml").read_text()
    install = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"]
    packages = [f"@grafana/schema@{GRAFANA}", "typescript@5.9"]
    installed = subprocess.run(
        [*install, *packages], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    if installed.returncode != 0:
        pytest.skip(f"npm cannot install here, most likely without a registry: {installed.stderr[-300:]}")
    compiler = "npx tsc --noEmit --strict --skipLibCheck --module nodenext --moduleResolution nodenext"
    good = DASHBOARD.read_text()
    for text, accepted in ((good, True), (good.replace('"graphTooltip"', '"graphTooltipp"'), False)):
        (tmp_path / "check.ts").write_text(
            f'import type {{ Dashboard }} from "@grafana/schema";\nexport const d: Dashboard = {text};\n'
        )
        done = subprocess.run(
            [*compiler.split(), "check.ts"], cwd=tmp_path, capture_output=True, text=True, timeout=250
        )
        assert (done.returncode == 0) is accepted, done.stdout
