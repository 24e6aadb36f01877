"""A misspelt name ends the start with one line that has its place and the nearest right name, or is warned of."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from engine.config import Config, ConfigError, Settings, ignored_variables, load_settings
from engine.config.names import OTHER_SECTIONS
from engine.config.variables import OTHER_VARIABLES
from trainer.config import TrainerConfig

ROOT = Path(__file__).parents[3]
both = pytest.mark.parametrize("kind", [Config, TrainerConfig])


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("OUSEL_")]:
        monkeypatch.delenv(name)


def refusal(kind: type[Settings], file: Path | None = None) -> str:
    with pytest.raises(ConfigError) as refused:
        load_settings(kind, file)
    message = str(refused.value)
    assert "\n" not in message
    return message


@both
@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("\n[kafak]\nbootstrap = 'a:1'\n", 2, "kafak: there is no such section, did you mean kafka?"),
        ("[Kafka]\n", 1, "Kafka: there is no such section, did you mean kafka?"),
        ("kafak.bootstrap = 'a:1'\n", 1, "kafak: there is no such section, did you mean kafka?"),
        ("[trainr]\nseed = 1\n", 1, "trainr: there is no such section, did you mean trainer?"),
        ("[zzz]\n", 1, "zzz: there is no such section or setting; docs/configuration.md lists them"),
        ("# x\nbootstrap = 'a:1'\n", 2, "bootstrap: there is no such setting outside the sections; kafka.bootstrap is"),
        (
            "log_level = 'info'\n",
            1,
            "log_level: there is no such setting outside the sections, did you mean log.level?",
        ),
        ("log_levle = 'info'\n", 1, "there is no such setting outside the sections, did you mean log.level?"),
        ("[kafka]\n\nbootstrp = 'a:1'\n", 3, "kafka.bootstrp: there is no such setting, did you mean kafka.bootstrap?"),
        ("[kafka]\nhistory = 3\n", 2, "kafka.history: there is no such setting; state.history is one"),
        ("'a\\nb' = 1\n".replace("'", '"'), 1, "there is no such section or setting"),
    ],
)
def test_a_misspelt_name_in_the_file_ends_the_start_with_the_line_and_the_nearest_right_name(
    kind: type[Settings], text: str, line: int, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "ousel.toml"
    file.write_text(text)
    message = refusal(kind, file)
    assert message.startswith(f"{file}, line {line}: ")
    assert said in message


@both
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("OUSEL_KAFAK__BOOTSTRAP", "there is no section 'kafak', did you mean OUSEL_KAFKA__BOOTSTRAP?"),
        ("OUSEL_KAFAK__BOOTSTRP", "there is no section 'kafak', did you mean OUSEL_KAFKA__BOOTSTRAP?"),
        ("OUSEL__KAFKA__BOOTSTRAP", "did you mean OUSEL_KAFKA__BOOTSTRAP?"),
        ("OUSEL_TRAINR__SEED", "there is no section 'trainr', did you mean OUSEL_TRAINER__SEED?"),
        ("OUSEL_LOG_LEVEL__X", "there is no section 'log_level'"),
        ("OUSEL_ZZZ__X", "there is no section 'zzz'; docs/configuration.md lists the sections"),
        ("OUSEL_KAFKA__BOOTSTRP", "kafka.bootstrp: there is no such setting, did you mean kafka.bootstrap?"),
        ("ousel_kafak__bootstrap", "there is no section 'kafak', did you mean OUSEL_KAFKA__BOOTSTRAP?"),
    ],
)
def test_a_misspelt_variable_ends_the_start_with_its_name_and_the_nearest_right_one(
    kind: type[Settings], name: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "hunter2")
    message = refusal(kind)
    assert message.startswith(f"{name}: ")
    assert said in message and "hunter2" not in message


@both
@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("OUSEL_KAFKA_BOOTSTRAP", "OUSEL_KAFKA__BOOTSTRAP"),
        ("OUSEL_BOOTSTRAP", "OUSEL_KAFKA__BOOTSTRAP"),
        ("OUSEL_STATE_SESION_GAP_S", "OUSEL_STATE__SESSION_GAP_S"),
        ("OUSEL_LOG_LEVLE", "OUSEL_LOG__LEVEL"),
        ("OUSEL_LOG_LEVEL", "OUSEL_LOG__LEVEL"),
        ("OUSEL_ADRESS", "OUSEL_ADDRESS"),
        ("OUSEL_TRAINER_SEED", "OUSEL_TRAINER__SEED"),
        ("OUSEL_QQQ", None),
    ],
)
def test_a_variable_without_two_underscores_is_ignored_with_a_warning_that_has_the_nearest_right_name(
    kind: type[Settings], name: str, meant: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "hunter2")
    load_settings(kind, None)
    warning = ignored_variables(kind)
    assert warning is not None and "hunter2" not in warning
    assert warning.endswith(f": {name} (did you mean {meant}?)" if meant else f": {name}")


@both
@pytest.mark.parametrize("service", ["", "ENGINE_"])
def test_what_kubernetes_sets_for_a_service_brings_one_warning_and_no_end(
    kind: type[Settings], service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = "tcp://10.0.0.1:50051"
    given = {
        "SERVICE_HOST": "10.0.0.1", "SERVICE_PORT": "50051", "SERVICE_PORT_GRPC": "50051", "PORT": address,
        "PORT_50051_TCP": address, "PORT_50051_TCP_PROTO": "tcp", "PORT_50051_TCP_PORT": "50051",
        "PORT_50051_TCP_ADDR": "10.0.0.1",
    }  # fmt: skip
    for name, value in given.items():
        monkeypatch.setenv(f"OUSEL_{service}{name}", value)
    load_settings(kind, None)
    warning = ignored_variables(kind) or ""
    assert warning.count("Kubernetes") == 1 and "did you mean" not in warning
    assert all(f"OUSEL_{service}{name}" in warning for name in given)


@both
def test_what_ousels_other_programs_read_is_accepted_without_a_word(
    kind: type[Settings], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "ousel.toml"
    file.write_text("[serving]\nport = 1\n[trainer]\nseed = 7\n")
    for name in ("OUSEL_SERVING__PORT", "OUSEL_TRAINER__SEED"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("OUSEL_ADDRESS", "127.0.0.1:50051")
    monkeypatch.setenv("OUSEL_LOG__LEVEL", "DEBUG")
    assert load_settings(kind, file).log.level == "debug"
    assert ignored_variables(kind) is None


def test_the_list_of_other_programs_has_every_section_and_every_variable_that_they_read() -> None:
    assert set(TrainerConfig.model_fields) <= set(Config.model_fields) | set(OTHER_SECTIONS)
    sources = [*(ROOT / "clients" / "python").rglob("*.py"), *(ROOT / "deploy").rglob("*.py")]
    sources += [path for room in ("engine", "trainer") for path in (ROOT / room).rglob("*.py")]
    used = {name for path in sources for name in re.findall(r"environ[^\n]*?\b(OUSEL_[A-Z_]+)", path.read_text())}
    used |= {name for path in sources for name in re.findall(r"^[A-Z_]+ = \"(OUSEL_[A-Z_]+)\"", path.read_text(), re.M)}
    used.discard("OUSEL_")
    assert "OUSEL_ADDRESS" in used
    assert {name for name in used if "__" not in name} <= set(OTHER_VARIABLES)
