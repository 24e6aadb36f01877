"""Kubernetes takes what the chart makes of its values, and the programs take the settings in it."""

from __future__ import annotations

import copy
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.config import load_config, load_settings
from engine.security.exposure import check_exposure
from engine.serving.server import ALIVE
from tests.deploy.helm.charts import CHART, VALUES, helm, of_kind, on_this_machine, pods, rendered
from tests.tools import tool
from trainer.config import TrainerConfig

DASHBOARDS = CHART.parents[1] / "grafana/dashboards"
RULES = CHART.parents[1] / "prometheus/rules"
KUBERNETES = "1.37"
CUSTOM = "monitoring.coreos.com/"
PLACES_OF_MODELS = {
    "minimal": "/var/lib/ousel/registry",
    "production": "s3://shop-models/ousel",
    "gpu": "/var/lib/ousel-registry",
}
every_set = pytest.mark.parametrize("name", VALUES)


@every_set
def test_helm_finds_nothing_wrong(name: str) -> None:
    done = helm("lint", "--strict", str(CHART), "--values", str(VALUES[name]))
    assert done.returncode == 0, done.stdout + done.stderr


@every_set
def test_every_object_is_one_that_kubernetes_knows(name: str) -> None:
    kubernetes = pytest.importorskip("kubernetes_validate", reason="there is no kubernetes-validate")
    for each in rendered(name):
        if not each["apiVersion"].startswith(CUSTOM):
            kubernetes.validate(copy.deepcopy(each), KUBERNETES, strict=True)


@every_set
def test_names_are_of_the_release_and_used_once(name: str) -> None:
    names = [(each["kind"], each["metadata"]["name"]) for each in rendered(name)]
    assert len(set(names)) == len(names)
    assert all(found.startswith("shop-ousel") for _, found in names)


@every_set
def test_pods_can_do_as_little_as_possible(name: str) -> None:
    for template in pods(name).values():
        pod = template["spec"]
        assert pod["enableServiceLinks"] is False and pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            limits = container["securityContext"]
            assert limits["readOnlyRootFilesystem"] is True and limits["allowPrivilegeEscalation"] is False
            assert limits["capabilities"] == {"drop": ["ALL"]}
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            assert mounted == {"state"} | {volume["name"] for volume in pod["volumes"]}  # with the StatefulSet's claim


def settings_of(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """The settings of the engine and of the trainer, as the pods have them."""
    (config,) = [one for one in of_kind(name, "ConfigMap") if "ousel.toml" in one["data"]]
    path = tmp_path / "ousel.toml"
    path.write_text(on_this_machine(config["data"]["ousel.toml"], tmp_path))
    if "sasl_mechanism" in path.read_text():
        monkeypatch.setenv("OUSEL_KAFKA__SASL_PASSWORD", "from the secret")
    for variable in pods(name)["engine"]["spec"]["containers"][0]["env"]:
        monkeypatch.setenv(variable["name"], variable.get("value", "shop-ousel-engine-0"))
    return load_config(path), load_settings(TrainerConfig, path)


@every_set
def test_the_programs_take_the_settings_in_the_config_map(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, trainer = settings_of(name, tmp_path, monkeypatch)
    check_exposure(engine)
    assert engine.snapshot.engine == "shop-ousel-engine-0"
    assert engine.kafka == trainer.kafka and engine.events == trainer.events
    assert engine.registry.dir == PLACES_OF_MODELS[name]
    kept = [engine.snapshot.dir, trainer.trainer.archive_dir, trainer.trainer.models_dir]
    assert all(path is not None and path.is_relative_to("/var/lib/ousel") for path in kept)


def test_the_order_of_kinds_is_the_one_that_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, _ = settings_of("production", tmp_path, monkeypatch)
    assert list(engine.events.kinds)[-2:] == ["wishlist", "add-to-cart"]  # behind those that are known by default


@every_set
def test_ports_and_services_are_those_of_the_settings(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, trainer = settings_of(name, tmp_path, monkeypatch)
    (container,) = pods(name)["engine"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {
        "grpc": engine.serving.port,
        "metrics": engine.serving.metrics_port,
        "health": engine.serving.health_port,
    }
    services = {one["metadata"]["name"]: one["spec"] for one in of_kind(name, "Service")}
    host, _, port = trainer.trainer.engine.partition(":")
    assert int(port) in {each["port"] for each in services[host]["ports"]}
    for service in services.values():
        pod = pods(name)[service["selector"]["app.kubernetes.io/component"]]
        assert service["selector"].items() <= pod["metadata"]["labels"].items()
        ports = {port["name"]: port["containerPort"] for port in pod["spec"]["containers"][0]["ports"]}
        assert {each["targetPort"]: each["port"] for each in service["ports"]}.items() <= ports.items()
    assert {one["spec"]["serviceName"] for one in of_kind(name, "StatefulSet")} <= services.keys()


@every_set
def test_secrets_are_mounted_where_the_settings_name_them(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, trainer = settings_of(name, tmp_path, monkeypatch)
    push = trainer.trainer
    files = {
        "engine": [engine.security.tokens_file, engine.tls.certificate, engine.tls.key, engine.tls.client_authorities],
        "trainer": [push.token_file, push.tls_authorities, push.tls_certificate, push.tls_key],
    }
    for part, template in pods(name).items():
        pod = template["spec"]
        secrets = {volume["name"] for volume in pod["volumes"] if "secret" in volume} - {"kafka-ca"}
        mounts = [mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] in secrets]
        folders = {str(tmp_path) + mount["mountPath"] for mount in mounts}
        assert folders == {str(path.parent) for path in files[part] if path is not None}


def test_the_rules_and_what_is_asked_for_metrics_go_by_the_same_names() -> None:
    found = of_kind("production", "PrometheusRule")
    rules = {one["metadata"]["name"].removeprefix("shop-ousel-"): one["spec"] for one in found}
    assert rules == {path.stem: yaml.safe_load(path.read_text()) for path in RULES.glob("*.yml")}
    monitors = of_kind("production", "ServiceMonitor")
    endpoints = [end for one in monitors for end in one["spec"]["endpoints"]]
    jobs = {label["replacement"] for end in endpoints for label in end["relabelings"]}
    assert set(re.findall(r'job="([^"]+)"', str(rules))) <= jobs
    for one in monitors:
        wanted = one["spec"]["selector"]["matchLabels"].items()
        services = [each for each in of_kind("production", "Service") if wanted <= each["metadata"]["labels"].items()]
        assert [port["name"] for each in services for port in each["spec"]["ports"] if port["name"] == "metrics"]
        assert len(services) == 1  # or each pod would be asked twice


def test_every_dashboard_is_a_config_map_that_grafana_looks_for() -> None:
    found = [one for one in of_kind("production", "ConfigMap") if "grafana_dashboard" in one["metadata"]["labels"]]
    files = {name: json.loads(text) for one in found for name, text in one["data"].items()}
    assert files == {path.name: json.loads(path.read_text()) for path in DASHBOARDS.glob("*.json")}


def test_prometheus_takes_the_rules_of_the_custom_resources(tmp_path: Path) -> None:
    for one in of_kind("production", "PrometheusRule"):
        path = tmp_path / f"{one['metadata']['name']}.yml"
        path.write_text(yaml.safe_dump(one["spec"]))
        command = [tool("promtool"), "check", "rules", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr


@every_set
def test_an_engine_is_asked_whether_it_serves_and_has_the_time_to_end_well(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, _ = settings_of(name, tmp_path, monkeypatch)
    pod = pods(name)["engine"]["spec"]
    (container,) = pod["containers"]
    assert container["readinessProbe"]["grpc"] == {"port": engine.serving.health_port}
    # Health says no while a log is read or a broker is away, and a restart would begin anew.
    for probe in ("startupProbe", "livenessProbe"):
        assert container[probe]["grpc"] == {"port": engine.serving.health_port, "service": ALIVE}
    assert pod["terminationGracePeriodSeconds"] > engine.serving.drain_s + engine.serving.grace_s + 60


def test_a_change_of_the_settings_starts_the_pods_anew() -> None:
    def sums(*given: str) -> set[str]:
        done = helm("template", "shop", str(CHART), "--values", str(VALUES["gpu"]), *given)
        return set(re.findall(r"checksum/settings: (\w{64})", done.stdout))

    assert len(sums()) == 1  # of both programs
    assert sums() != sums("--set", "config.state.history=64")


def test_values_that_the_schema_refuses_make_nothing() -> None:
    done = helm("template", "shop", str(CHART), "--set", "engine.replicas=0")
    assert done.returncode != 0 and "replicas" in done.stderr


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("security.tokensSecret=,security.mutualTls=false", "security.tokensSecret must name a Secret"),
        ("registry.address=", "registry.address or registry.claim must say where several engines"),
        ("security.tlsSecret=", "security.tlsSecret must name a Secret"),
        ("security.trainerTlsSecret=", "security.trainerTlsSecret must name a Secret"),
        ("security.trainerTokenSecret=", "security.trainerTokenSecret must name a Secret"),
    ],
)
def test_what_could_not_work_or_would_let_everybody_in_is_refused(given: str, said: str) -> None:
    done = helm("template", "shop", str(CHART), "--values", str(VALUES["production"]), "--set", given)
    assert done.returncode != 0 and said in done.stderr


def test_every_variable_that_the_chart_sets_is_a_setting() -> None:
    text = "".join(path.read_text() for path in CHART.rglob("*") if path.suffix in (".yaml", ".tpl"))
    assert set(re.findall(r"OUSEL_\w+__\w+", text)) <= {"OUSEL_SNAPSHOT__ENGINE", "OUSEL_KAFKA__SASL_PASSWORD"}
