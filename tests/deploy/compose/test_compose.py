"""compose.yaml is what its schema allows, mounts what exists, and gives the programs settings that they have."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from engine.config import Config, load_config, load_settings
from engine.security.exposure import check_exposure
from engine.security.roles import Role
from engine.security.tokens import parse_tokens
from tests.tools import tool
from trainer.config import TrainerConfig

FOLDER = Path(__file__).parents[3] / "deploy/compose"
TEXT = (FOLDER / "compose.yaml").read_text()
COMPOSE = yaml.safe_load(TEXT)
SERVICES = COMPOSE["services"]
OWN = {name for name, service in SERVICES.items() if "OUSEL_IMAGE" in service["image"]}
SETTINGS = load_config(FOLDER / "ousel.toml")


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the script makes, with the engine of this Python in place of the image's."""
    tmp_path = tmp_path_factory.mktemp("compose")
    shutil.copy(FOLDER / "secrets.sh", tmp_path)
    root = FOLDER.parents[1]
    command = f"env PYTHONPATH={root}:{root}/clients/python {sys.executable} -m engine"
    for _ in range(2):  # The second time everything is there.
        subprocess.run([tmp_path / "secrets.sh"], env={"PATH": "/usr/bin:/bin", "ENGINE_COMMAND": command}, check=True)
    return tmp_path / "secrets"


def trainer_settings(secrets: Path) -> TrainerConfig:
    """What the trainer makes of the settings, with its token where the script has put it."""
    path = secrets.parent / "ousel.toml"
    path.write_text((FOLDER / "ousel.toml").read_text().replace("/run/secrets", str(secrets)))
    return load_settings(TrainerConfig, path)


def sources(service: dict) -> list[str]:
    """What a service mounts."""
    return [volume.partition(":")[0] for volume in service.get("volumes", [])]


def inside_ports(service: dict) -> set[int]:
    return {int(port.rpartition(":")[2]) for port in service.get("ports", [])}


def test_its_schema_allows_it() -> None:
    schemas = pytest.importorskip("check_jsonschema", reason="there is no check-jsonschema, which has the schema")
    validator = pytest.importorskip("jsonschema").Draft202012Validator
    path = Path(schemas.__file__).parent / "builtin_schemas/vendor/compose-spec.json"
    errors = list(validator(json.loads(path.read_text())).iter_errors(COMPOSE))
    assert [f"{error.json_path}: {error.message}" for error in errors] == []


def test_its_programs_are_the_engine_and_the_trainer_with_the_settings_beside_it() -> None:
    assert {name: SERVICES[name]["command"] for name in OWN} == {
        "engine": ["ousel-engine", "serve", "--config", "/etc/ousel/ousel.toml"],
        "trainer": ["ousel-trainer", "run", "--config", "/etc/ousel/ousel.toml"],
    }
    for name in OWN:
        assert "./ousel.toml:/etc/ousel/ousel.toml:ro" in SERVICES[name]["volumes"]


def test_the_settings_are_ones_that_both_programs_take(secrets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OWN:
        for variable, value in SERVICES[name].get("environment", {}).items():
            monkeypatch.setenv(variable, value)
    engine = load_config(FOLDER / "ousel.toml")
    trainer = trainer_settings(secrets)
    check_exposure(engine)
    assert engine.kafka == trainer.kafka
    assert engine.kafka.bootstrap == "kafka:9092" and "kafka" in SERVICES
    assert trainer.trainer.engine == f"engine:{engine.serving.port}" and "engine" in SERVICES


def test_the_secrets_are_made_once_and_let_each_do_its_work(secrets: Path) -> None:
    assert secrets.stat().st_mode & 0o777 == 0o700
    tokens = parse_tokens((secrets / "tokens").read_text())
    roles = {"trainer": {Role.PUSH}, "app": {Role.RECOMMEND, Role.TRACK}, "admin": {Role.ADMIN}}
    assert len(tokens) == len(roles)
    for name, may in roles.items():
        found = tokens.of((secrets / f"{name}-token").read_text().strip())
        assert found is not None and (found.name, found.roles) == (name, may)


def test_a_service_has_the_secrets_that_its_settings_name_and_no_other(secrets: Path) -> None:
    files = {name: secret["file"] for name, secret in COMPOSE["secrets"].items()}
    assert all((secrets.parent / file).is_file() for file in files.values())
    assert str(SETTINGS.security.tokens_file) == f"/run/secrets/{SERVICES['engine']['secrets'][0]}"
    assert trainer_settings(secrets).trainer.token_file == secrets / SERVICES["trainer"]["secrets"][0]
    used = [name for service in SERVICES.values() for name in service.get("secrets", [])]
    assert sorted(used) == sorted(files)


def test_all_that_is_kept_lies_in_a_volume(secrets: Path) -> None:
    trainer = trainer_settings(secrets).trainer
    for path in (SETTINGS.snapshot.dir, SETTINGS.registry.dir, trainer.archive_dir, trainer.models_dir):
        assert path is not None and Path(path).is_relative_to("/var/lib/ousel")
    for name in OWN:
        assert f"{name}:/var/lib/ousel" in SERVICES[name]["volumes"] and name in COMPOSE["volumes"]


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_what_a_service_mounts_is_there(name: str) -> None:
    for source in sources(SERVICES[name]):
        assert source in COMPOSE["volumes"] or (FOLDER / source).exists(), source


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_no_port_is_published_beyond_the_loopback(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


def test_the_ports_inside_are_those_of_the_settings() -> None:
    assert inside_ports(SERVICES["engine"]) == {SETTINGS.serving.port, SETTINGS.serving.metrics_port}


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_service_comes_back_is_limited_and_of_a_pinned_version(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert service["deploy"]["resources"]["limits"]["memory"]
    assert "healthcheck" in service
    if name not in OWN:
        assert re.search(r":v?\d+\.\d+\.\d+$", service["image"]), service["image"]


@pytest.mark.parametrize("name", sorted(OWN))
def test_our_own_containers_can_do_as_little_as_possible(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] and service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "user" not in service  # The image's own is none that may do much.


def test_prometheus_asks_both_programs_where_they_answer_and_by_the_names_of_the_rules(secrets: Path) -> None:
    asked = yaml.safe_load((FOLDER / "prometheus.yml").read_text())["scrape_configs"]
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in asked}
    trainer = trainer_settings(secrets).trainer
    assert targets["ousel-engine"] == [f"engine:{SETTINGS.serving.metrics_port}"]
    assert targets["ousel-trainer"] == [f"trainer:{trainer.metrics_port}"] and trainer.metrics_host == "0.0.0.0"
    assert f"127.0.0.1:{trainer.metrics_port}/" in SERVICES["trainer"]["healthcheck"]["test"][-1]
    rules = "".join(path.read_text() for path in (FOLDER / "../prometheus/rules").glob("*.yml"))
    assert set(re.findall(r'job="([^"]+)"', rules)) <= targets.keys()


def test_grafana_finds_the_metrics_and_every_dashboard() -> None:
    (source,) = yaml.safe_load((FOLDER / "grafana-datasources.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090" and source["isDefault"]  # The dashboards take the usual one.
    (provider,) = yaml.safe_load((FOLDER / "grafana-dashboards.yml").read_text())["providers"]
    mounts = dict(volume.split(":")[:2][::-1] for volume in SERVICES["grafana"]["volumes"])
    assert list((FOLDER / mounts[provider["options"]["path"]]).glob("*.json"))


def test_prometheus_takes_its_settings(tmp_path: Path) -> None:
    rules = (FOLDER / "../prometheus/rules").resolve()
    path = tmp_path / "prometheus.yml"
    path.write_text((FOLDER / "prometheus.yml").read_text().replace("/etc/prometheus/rules", str(rules)))
    command = [tool("promtool"), "check", "config", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_engine_has_the_time_to_end_well() -> None:
    minutes = re.fullmatch(r"(\d+)m", SERVICES["engine"]["stop_grace_period"])
    assert minutes and 60 * int(minutes[1]) > SETTINGS.serving.grace_s + 60


def test_an_example_names_every_variable_of_the_file_and_no_other() -> None:
    example = re.findall(r"^(\w+)=", (FOLDER / ".env.example").read_text(), re.MULTILINE)
    assert sorted(set(re.findall(r"\$\{(\w+)", TEXT))) == sorted(example)
    # The ones of Ousel's own settings would not reach the programs.
    sections = {name.upper() for name in Config.model_fields}
    assert not any(name.removeprefix("OUSEL_").partition("__")[0] in sections for name in example)
