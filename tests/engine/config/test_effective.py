"""`config` prints what is in force so that it can be read back, names each source, and shows no secret."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, SecretStr
from pydantic.fields import FieldInfo

from engine.config import Config, Section, Settings, load_settings
from engine.config.effective import effective_toml, is_hidden, toml_value
from engine.config.section import FilePath
from trainer.config import TrainerConfig

KINDS: list[type[Settings]] = [Config, TrainerConfig]


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "ousel.toml"
    file.write_text(text)
    return file


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_printed_can_be_read_back_and_gives_the_same_settings(
    kind: type[Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUSEL_STATE__HALF_LIVES_S", "[3600.5, 1e-9]")
    file = written(tmp_path, '[kafka]\nbootstrap = "a:1,b:2"\n[events.kinds]\n"ä \\"kind\\"" = 0.5\nview = 7\n')
    first = load_settings(kind, file)
    again = written(tmp_path, effective_toml(kind, file))
    monkeypatch.delenv("OUSEL_STATE__HALF_LIVES_S")
    assert load_settings(kind, again).model_dump() == first.model_dump()


def test_each_value_names_where_it_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUSEL_SERVING__PORT", "4321")
    monkeypatch.setenv("OUSEL_STATE", '{"history": 99}')
    monkeypatch.setenv("OUSEL_EVENTS__KINDS", '{"buy": 3}')
    file = written(tmp_path, "[serving]\nport = 1\nmax_batch = 7\n\n[events.kinds]\nview = 2\n")
    lines = effective_toml(Config, file).splitlines()
    assert "port = 4321  # OUSEL_SERVING__PORT" in lines
    assert f"max_batch = 7  # {file}, line 3" in lines
    assert "history = 99  # OUSEL_STATE" in lines
    assert "max_streams = 10000  # default" in lines
    assert "# dir is not set" in lines
    (kinds,) = (line for line in lines if line.startswith("kinds = "))
    assert kinds.endswith(f"  # {file}, line 6 and default and OUSEL_EVENTS__KINDS")


def test_only_what_is_set_is_printed_on_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUSEL_SERVING_PORT", "1")  # which sets nothing
    file = written(tmp_path, "[serving]\nport = 50051\n")
    head, warning, *rest = effective_toml(Config, file, only_changed=True).splitlines()
    assert head.startswith("# ") and "OUSEL_SERVING_PORT (did you mean OUSEL_SERVING__PORT?)" in warning
    assert rest == ["", "[serving]", f"port = 50051  # {file}, line 2"]


def test_a_password_is_not_shown_and_its_source_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUSEL_KAFKA__SASL_PASSWORD", "hunter2")
    text = 'security_protocol = "SASL_PLAINTEXT"\nsasl_mechanism = "PLAIN"\nsasl_username = "me"\n'
    shown = effective_toml(Config, written(tmp_path, f"[kafka]\n{text}"))
    assert "hunter2" not in shown
    assert "# sasl_password is not shown, since it is a secret. It is set by: OUSEL_KAFKA__SASL_PASSWORD\n" in shown
    assert 'sasl_username = "me"  # ' in shown


class Hiding(Section):
    """Settings as a section may have them one day."""

    api_token: str | None = None
    client_secret: str = ""
    passwords: tuple[str, ...] = ()
    tokens: dict[str, str] = Field(default={})
    plain: SecretStr | None = None
    many: tuple[SecretStr, ...] = ()
    access_key: str = Field("", max_length=10)
    tokens_file: FilePath | None = None
    token_calls: int = 1
    address: str = ""


def test_every_setting_that_may_hold_a_secret_is_hidden_and_paths_are_not() -> None:
    hidden = {name for name, field in Hiding.model_fields.items() if is_hidden(name, field)}
    assert hidden == {*Hiding.model_fields} - {"tokens_file", "token_calls", "address"}


@pytest.mark.parametrize("kind", KINDS)
def test_no_secret_of_any_section_is_shown(kind: type[Settings]) -> None:
    """A new setting is found here by its type, or by a name that says what it holds."""
    fields: dict[str, FieldInfo] = {}
    for section in kind.model_fields.values():
        fields |= getattr(section.annotation, "model_fields", {})
    wanted = {
        name
        for name, type_ in ((name, str(field.annotation)) for name, field in fields.items())
        if "SecretStr" in type_
        or ("str" in type_ and "Path" not in type_ and any(word in name for word in ("password", "secret", "token")))
    }
    assert "sasl_password" in wanted
    assert {name for name in wanted if not is_hidden(name, fields[name])} == set()


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("s3://AKIA:hush@bucket/models", "s3://...@bucket/models"),
        ("s3://bucket/m?access_key=hush&region=eu&secret_key=hush", "s3://bucket/m?access_key=...&region=eu&secret_key=..."),
        ("/var/lib/ousel", "/var/lib/ousel"),
    ],
)  # fmt: skip
def test_an_address_is_shown_without_its_user_and_its_secrets(address: str, shown: str) -> None:
    assert toml_value(address) == f'"{shown}"'
    assert toml_value(Path("/a/b")) == '"/a/b"'


@given(st.text(st.characters(exclude_categories=["Cs"])).filter(lambda text: "://" not in text and "?" not in text))
def test_any_text_is_valid_toml(text: str) -> None:
    assert tomllib.loads(f"x = {toml_value(text)}\ny = {toml_value({text: 1})}") == {"x": text, "y": {text: 1}}
