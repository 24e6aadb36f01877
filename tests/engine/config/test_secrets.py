"""No message about a configuration shows a secret, wherever it stands; it names the setting and what is allowed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from engine.config import Config, ConfigError, KafkaConfig, Settings, load_settings
from trainer.config import TrainerConfig

KINDS: list[type[Settings]] = [Config, TrainerConfig]
NAMES = ["sasl_password", "sasl_pasword", "password", "ssl_key_password", "api_token", "hunter", "SASL_PASSWORD"]
# As people make them: with a digit or a sign in them, so that they look like no number, kind or level of logging.
secrets = st.from_regex(r"[A-Za-z]{3,9}[0-9!#%^&*]{1,3}[A-Za-z0-9!#%^&*]{2,9}", fullmatch=True).map("S3kr!t".__add__)


def sections(kind: type[Settings]) -> dict[str, type[BaseModel]]:
    return {
        name: field.annotation for name, field in kind.model_fields.items() if hasattr(field.annotation, "model_fields")
    }  # type: ignore[misc]


def places(kind: type[Settings]) -> Iterator[tuple[str, ...]]:
    """Every setting, and keys that are none in every section and in every table."""
    for name, section in sections(kind).items():
        yield (name,)
        for key in NAMES:
            yield (name, key)
            yield (name, key, "deeper")
        for key, field in section.model_fields.items():
            if not is_path(field.annotation):  # A path that cannot be read is shown.
                yield (name, key)
                yield (name, key, "hunter")


def is_path(annotation: Any) -> bool:
    return annotation is Path or any(map(is_path, get_args(annotation)))


def wrapped(secret: str) -> st.SearchStrategy[Any]:
    """The secret as it may be written down: alone, in a list, in a table, in an address, in the text of a key file."""
    return st.sampled_from(
        [
            secret,
            [secret],
            {"hunter": secret},
            [{"password": secret}],
            f"user:{secret}@broker:9092",
            f"kafka://user:{secret}@broker:9092",
            f"a:9092,user:{secret}@b:9092",
            f"broker:9092?password={secret}",
            f"-----BEGIN PRIVATE KEY-----\n{secret}\n-----END PRIVATE KEY-----",
        ]
    )


def toml(path: tuple[str, ...], value: Any) -> str:
    """One setting as TOML, in inline tables."""
    for key in reversed(path[1:]):
        value = {key: value}
    return f"{path[0]} = {inline(value)}\n"


def inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {inline(inner)}" for key, inner in value.items()) + "}"
    return json.dumps(value) if isinstance(value, str) else "[" + ", ".join(map(inline, value)) + "]"


def message_of(kind: type[Settings], file: Path | None) -> str | None:
    """What is said of a configuration; None where nothing is wrong with it."""
    try:
        load_settings(kind, file)
    except ConfigError as error:
        return str(error)
    return None


def check(message: str | None, secret: str, path: tuple[str, ...]) -> None:
    if message is not None:
        assert secret not in message
        assert secret[6:] not in message
        assert path[:2][-1].lower() in message.lower() or f"OUSEL_{path[0].upper()}" in message


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), secret=secrets)
def test_no_message_shows_a_secret_of_the_file(
    kind: type[Settings], data: st.DataObject, secret: str, tmp_path: Path
) -> None:
    path = data.draw(st.sampled_from(list(places(kind))))
    file = tmp_path / "ousel.toml"
    file.write_text(toml(path, data.draw(wrapped(secret))))
    check(message_of(kind, file), secret, path)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=300)
@given(data=st.data(), secret=secrets, as_json=st.booleans())
def test_no_message_shows_a_secret_of_a_variable(
    kind: type[Settings], data: st.DataObject, secret: str, as_json: bool
) -> None:
    path = data.draw(st.sampled_from(list(places(kind))))
    value = data.draw(wrapped(secret))
    with pytest.MonkeyPatch.context() as patch:
        text = json.dumps(value) if as_json or not isinstance(value, str) else value
        patch.setenv("OUSEL_" + "__".join(path).upper(), text)
        check(message_of(kind, None), secret, path)


@given(
    secret=secrets, line=st.sampled_from(["{0}", "'{0}", '"{0}', "{0}'", "'a' '{0}'", "['{0}'", "{{x = '{0}'", "\\{0}"])
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_that_is_no_toml_is_named_with_the_line_and_without_its_text(
    secret: str, line: str, tmp_path: Path
) -> None:
    file = tmp_path / "ousel.toml"
    file.write_text(f"[kafka]\nsasl_password = {line.format(secret)}\n")
    message = message_of(Config, file)
    assert message is not None and "ousel.toml, line 2: must be TOML in UTF-8: " in message
    assert secret not in message and secret[6:] not in message


@pytest.mark.parametrize("content", [b"[kafka]\nsasl_password = '\xff'\n", b"\xff\xfe[\x00"])
def test_a_file_that_is_no_text_is_one_line(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "ousel.toml"
    file.write_bytes(content)
    message = message_of(Config, file)
    assert message is not None and "must be TOML in UTF-8" in message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("serving = {port = -1}", "serving.port: must be a whole number >= 0 and <= 65535, got -1"),
        ("serving = {port = '60s'}", "serving.port: must be a whole number >= 0 and <= 65535, got '60s'"),
        ("log = {level = 'loud'}", "log.level: Input should be 'debug', 'info', 'warning' or 'error', got 'loud'"),
        ("log_level = 'info'", "log_level: there is no such setting outside the sections, did you mean log.level?"),
        ("ranking = {goal = 'buy'}", "(events.kinds), got 'buy'"),
        ("events = {default_kind = 'buy'}", "got 'buy'"),
        ("events = {time_zone = 'Europe/Berln'}", "got 'Europe/Berln'"),
        ("events = {time_zone = 'hunter2'}", "got (not shown), and the value is not shown"),
        ("kafka = {ssl_cafile = '/no/such.pem'}", "ssl_cafile: must name a file that can be read, got '/no/such.pem'"),
        ("state = {half_lives_s = []}", "state.half_lives_s: "),
        ("kafka = {sasl_pasword = 'x'}", "sasl_pasword: there is no such setting, did you mean kafka.sasl_password?"),
        ("serving = {sasl_password = 'x'}", "sasl_password: there is no such setting; kafka.sasl_password is one"),
        ("serving = {zzz = 'x'}", "zzz: there is no such setting; docs/configuration.md lists those of serving"),
        ("kafka = 'x'", "kafka: must be a table of settings, [kafka] in the file, got a text"),
        ("kafka = {bootstrap = 'me:x@b:1'}", "kafka.bootstrap: must be host:port without a user, a password and an @"),
        ("kafka = {sasl_password = 5}", "sasl_password: Input should be a valid string, and the value is not shown"),
    ],
)  # fmt: skip
def test_a_message_says_what_is_allowed_and_shows_what_is_no_secret(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "ousel.toml"
    file.write_text(text)
    assert said in (message_of(Config, file) or "")


@pytest.mark.parametrize(
    "address", ["b:9092", "broker", "b:1,c:2", "b:1, c:2", "[::1]:9092", "10.0.0.1:9092", "a_b-c.d:1"]
)
def test_addresses_as_brokers_have_them_are_taken(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUSEL_KAFKA__BOOTSTRAP", address)
    assert message_of(Config, None) is None


@pytest.mark.parametrize(
    "address",
    ["localhost:port", "kafka://b:9092", "b:9092/x", "b:9092?password=x", "me:x@b:9092", "a,,b", "::1:9092", ""],
)
def test_other_texts_are_no_addresses(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUSEL_KAFKA__BOOTSTRAP", address)
    assert "kafka.bootstrap: " in (message_of(Config, None) or "")


def test_the_engine_of_a_trainer_needs_its_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """gRPC would look for it at port 443, and the trainer would wait for it without an end."""
    monkeypatch.setenv("OUSEL_TRAINER__ENGINE", "engine-1")
    assert "trainer.engine: must be host:port" in (message_of(TrainerConfig, None) or "")
    monkeypatch.setenv("OUSEL_TRAINER__ENGINE", "engine-1:50051")
    assert message_of(TrainerConfig, None) is None


def test_an_error_that_nobody_explained_shows_no_value_either() -> None:
    with pytest.raises(ValueError) as error:
        KafkaConfig(sasl_pasword="hunter2")  # type: ignore[call-arg]
    assert "sasl_pasword" in str(error.value) and "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    ("topics", "said"),
    [
        ({"dead_letters_topic": "ousel.events"}, "kafka.dead_letters_topic: must differ from kafka.events_topic"),
        ({"events_topic": "ousel.dead-letters"}, "kafka.dead_letters_topic: must differ from kafka.events_topic"),
        ({"dead_letters_topic": "a", "items_topic": "a"}, "dead_letters_topic: must differ from kafka.items_topic"),
        ({"items_topic": "ousel.events"}, "items_topic: must differ from kafka.events_topic, got 'ousel.events'"),
        ({"items_topic": "a b"}, "kafka.items_topic: String should match pattern"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", KINDS)
def test_the_three_topics_must_differ(
    kind: type[Settings], topics: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in topics.items():
        monkeypatch.setenv(f"OUSEL_KAFKA__{name.upper()}", value)
    assert said in (message_of(kind, None) or "")
