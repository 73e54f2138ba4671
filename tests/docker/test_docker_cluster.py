"""What runs Sayso on more than one machine: manifests, proxy, Triton. Each by its own tool."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import numpy as np
import onnxruntime as ort
import pytest
import yaml
from google.protobuf import text_format
from pgserver import Server, ServerUnavailable, programs
from tools import checked, tool

from sayso.runtime.batcher import Batcher
from sayso.service.drain import GRACE_S
from sayso.service.metrics import Metrics
from sayso.service.settings import SHIPPED_MODELS, Settings

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
KUBERNETES = DOCKER / "kubernetes"
VERSIONS = ("1.30", "1.33", "1.37")  # what is in use, and the newest whose schemas there are


@pytest.fixture(scope="module", params=["base", "gpu"])
def manifests(request: pytest.FixtureRequest) -> dict[str, Any]:
    """By kind, as kustomize makes them."""
    text = checked(tool("kubectl"), "kustomize", KUBERNETES / request.param)
    return {one["kind"]: one for one in yaml.safe_load_all(text)}


@pytest.mark.parametrize("version", VERSIONS)
def test_manifests_follow_kubernetes_own_schemas(manifests: dict[str, Any], version: str) -> None:
    kinds = {
        "Deployment",
        "Service",
        "HorizontalPodAutoscaler",
        "PodDisruptionBudget",
        "ConfigMap",
        "NetworkPolicy",
    }
    assert manifests.keys() == kinds
    for one in manifests.values():
        kubernetes_validate.validate(one, version, strict=True)


def test_no_service_sets_a_variable_of_ours(manifests: dict[str, Any]) -> None:
    assert manifests["Deployment"]["spec"]["template"]["spec"]["enableServiceLinks"] is False


def test_a_manifest_with_a_slip_is_refused(manifests: dict[str, Any]) -> None:
    spec = manifests["Deployment"]["spec"]["template"]["spec"]
    wrong = {**spec, "terminationGraceperiodSeconds": 1}
    broken = {**manifests["Deployment"]}
    broken["spec"] = {**broken["spec"], "template": {**broken["spec"]["template"], "spec": wrong}}
    with pytest.raises(kubernetes_validate.ValidationError, match="terminationGraceperiodSeconds"):
        kubernetes_validate.validate(broken, VERSIONS[-1], strict=True)


def test_a_pod_is_asked_stopped_and_scaled_by_what_the_service_has(manifests: dict[str, Any]) -> None:
    spec = manifests["Deployment"]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    environment = manifests["ConfigMap"]["data"]
    known = {f"SAYSO_{name.upper()}" for name in Settings.model_fields}
    for name in [*environment, *(one["name"] for one in container["env"])]:
        assert not name.startswith("SAYSO_") or name in known, name
    assert spec["terminationGracePeriodSeconds"] > float(environment["SAYSO_DRAIN_S"]) + GRACE_S
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    asked = container["readinessProbe"]["periodSeconds"] * container["readinessProbe"]["failureThreshold"]
    assert asked < float(environment["SAYSO_DRAIN_S"])  # the endpoint is gone before the socket is closed
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert spec["securityContext"]["runAsUser"] == 10001
    metric = manifests["HorizontalPodAutoscaler"]["spec"]["metrics"][0]["pods"]["metric"]["name"]
    assert f"# TYPE {metric} gauge" in Metrics().text().decode()
    (rule,) = yaml.safe_load((KUBERNETES / "prometheus-adapter.yaml").read_text())["rules"]["custom"]
    assert metric in rule["metricsQuery"]
    assert rule["name"]["as"] == metric
    labels = manifests["Deployment"]["spec"]["selector"]["matchLabels"]
    for kind, key in (
        ("Service", "selector"),
        ("PodDisruptionBudget", "selector"),
        ("NetworkPolicy", "podSelector"),
    ):
        chosen = manifests[kind]["spec"][key]
        assert chosen.get("matchLabels", chosen) == labels


def test_the_gpu_variant_asks_for_one_and_will_not_do_without() -> None:
    text = checked(tool("kubectl"), "kustomize", KUBERNETES / "gpu")
    by_kind = {one["kind"]: one for one in yaml.safe_load_all(text)}
    (container,) = by_kind["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert "sayso-cuda:" in container["image"]
    assert by_kind["ConfigMap"]["data"]["SAYSO_PROVIDER"] == "cuda"
    assert [m["type"] for m in by_kind["HorizontalPodAutoscaler"]["spec"]["metrics"]] == ["Pods"]


def test_nothing_secret_is_written_down() -> None:
    for path in [*KUBERNETES.rglob("*.yaml"), *KUBERNETES.rglob("*.env"), ROOT / "docker-compose.yml"]:
        for name in ("PASSWORD", "ADMIN_KEY", "MASTER_KEY"):
            for value in re.findall(rf"{name}\s*[:=]\s*(\S+)", path.read_text()):
                assert value.startswith(("${", "…", "$(")), f"{path}: {name} is {value}"


def test_the_cluster_is_two_replicas_of_one_service_that_nginx_knows() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    members = {name: one for name, one in compose.items() if one.get("profiles") == ["cluster"]}
    assert members.keys() == {"replica-1", "replica-2", "postgres", "nginx"}
    first, second = members["replica-1"], members["replica-2"]
    assert first["environment"] == second["environment"]
    for name in first["environment"]:
        known = {f"SAYSO_{field.upper()}" for field in Settings.model_fields}
        assert not name.startswith("SAYSO_") or name in known, name
    assert int(first["stop_grace_period"].removesuffix("s")) > first["environment"]["SAYSO_DRAIN_S"] + GRACE_S
    assert [name for name, one in members.items() if "ports" in one] == ["nginx"]
    named = re.findall(r"^server (\S+):8000 ", (DOCKER / "replicas.conf").read_text(), re.M)
    assert set(named) == {"replica-1", "replica-2"}


def test_the_proxys_limits_are_the_services_own() -> None:
    text = (DOCKER / "nginx.conf").read_text()

    def seconds(directive: str) -> list[float]:
        return [float(value) for value in re.findall(rf"{directive} (\d+)s;", text)]

    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    (size,) = re.findall(r"client_max_body_size (\d+)m;", text)
    assert int(size) * 2**20 == defaults["max_body_bytes"]
    assert seconds("client_body_timeout") == [defaults["client_timeout_s"]]
    ordinary, stream = seconds("proxy_read_timeout")
    assert ordinary > defaults["request_timeout_s"]
    assert stream > defaults["max_stream_s"]
    assert "proxy_request_buffering off" not in text  # what was not kept cannot be sent again


def triton(name: str) -> Any:
    """A configuration as Triton's own description of it reads it."""
    package = importlib.util.find_spec("tritonclient")
    assert package is not None
    assert package.submodule_search_locations is not None
    # By its file: the package around it wants gRPC.
    path = Path(package.submodule_search_locations[0]) / "grpc/model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = (DOCKER / f"triton/{name}/config.pbtxt").read_text()
    return module, text_format.Parse(text, module.ModelConfig())


@pytest.mark.parametrize("name", ["baseline", "nested"])
def test_triton_is_told_what_the_model_file_says(name: str) -> None:
    module, config = triton(name)
    assert (config.name, config.backend) == (name, "onnxruntime")
    session = ort.InferenceSession(SHIPPED_MODELS / f"{name}.onnx", providers=["CPUExecutionProvider"])
    for described, tensors in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
        assert [one.name for one in described] == [one.name for one in tensors]
        for ours, model in zip(described, tensors, strict=True):
            assert (ours.data_type, model.type) == (module.TYPE_FP32, "tensor(float)")
            batch, *rest = model.shape
            assert isinstance(batch, str)  # dynamic, and in Triton's file not named
            assert list(ours.dims) == [size if isinstance(size, int) else -1 for size in rest]
    assert config.max_batch_size == Batcher.__init__.__defaults__[0]  # type: ignore[index]
    assert config.HasField("dynamic_batching")
    (warm,) = config.model_warmup
    one = np.zeros((warm.batch_size, *warm.inputs["waveform"].dims), np.float32)
    (vectors,) = session.run(["embedding"], {"waveform": np.repeat(one, config.max_batch_size, axis=0)})
    assert vectors.shape == (config.max_batch_size, *config.output[0].dims)


def test_the_proxys_configuration_is_nginxs(tmp_path: Path) -> None:
    text = (DOCKER / "nginx.conf").read_text().replace("/tmp/", f"{tmp_path}/")
    (tmp_path / "nginx.conf").write_text(text)
    (tmp_path / "replicas.conf").write_text("server 127.0.0.1:8000;\n")
    checked(tool("nginx"), "-t", "-q", "-e", "stderr", "-c", tmp_path / "nginx.conf")


def test_the_role_of_the_service_owns_its_database_and_is_no_superuser() -> None:
    """docker/postgres.sql as the image's entry point runs it: by psql, as the superuser, once."""
    try:
        psql, server = programs() / "psql", Server().create()
    except ServerUnavailable as unavailable:
        pytest.skip(str(unavailable))
    try:
        server.boss("DROP ROLE sayso")
        text = (DOCKER / "postgres.sql").read_text()
        command = [tool("env"), "POSTGRES_PASSWORD=it's a secret", psql, server.url("postgres", "boss")]
        checked(*command, "-v", "ON_ERROR_STOP=1", "-f", DOCKER / "postgres.sql")
        assert "it's a secret" not in text
        who = "SELECT rolsuper, rolbypassrls, rolpassword IS NOT NULL FROM pg_authid WHERE rolname = 'sayso'"
        assert server.boss(who) == [(False, False, True)]
        assert server.boss("SELECT extname FROM pg_extension WHERE extname = 'vector'", "sayso")
    finally:
        server.remove()
