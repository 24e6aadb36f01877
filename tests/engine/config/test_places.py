"""An error of a file names the file and the line, and one of a variable names the variable."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.config import Config, ConfigError, load_config, load_settings
from engine.config.toml_file import read_toml
from trainer.config import TrainerConfig


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("OUSEL_")]:
        monkeypatch.delenv(name)


def refusal(file: Path | None) -> str:
    with pytest.raises(ConfigError) as refused:
        load_config(file)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("[serving]\n# a comment\nport = -1\n", 3, "serving.port: must be a whole number >= 0 and <= 65535, got -1"),
        ("[serving]\r\n\r\nport = 'x'\r\n", 3, "serving.port: must be a whole number"),
        ("serving.port = 1.5\n", 1, "serving.port: must be a whole number >= 0 and <= 65535, got 1.5"),
        (
            "[state]\nhalf_lives_s = [\n  1,\n  -2,\n]\nhistory = 5\n",
            2,
            "state.half_lives_s.1: must be a number > 0 and",
        ),
        ("[state]\nhalf_lives_s = [\n  1,\n]\nhistory = nan\n", 5, "state.history: must be a whole number"),
        ("[state]\nsession_gap_s = inf\n", 2, "state.session_gap_s: must be a number > 0 and <= 31536000, got inf"),
        ("[state]\nsession_gap_s = 1e999\n", 2, "state.session_gap_s: must be a number > 0 and <= 31536000, got inf"),
        ("[events.kinds]\nview = 1\nbad = -1\n", 3, "events.kinds: the weight of 'bad' must be >= 0, got -1"),
        ("[events.kinds]\nview = 1\nbad = nan\n", 3, "events.kinds.bad: must be a number >= 0 and <= 1000000, got nan"),
        ("\nkafka = 5\n", 2, "kafka: must be a table of settings"),
        ("[[kafka]]\nbootstrap = 'a:1'\n", 1, "kafka: must be a table of settings"),
        ('[kafka]\nevents_topic = """\n a b\n"""\nbootstrap = "x:1"\n', 2, "kafka.events_topic: "),
        ("[kafka]\nbootstrap = 'x:1'\nsasl_username = 'me'\n", 3, "kafka.security_protocol: must be SASL_PLAINTEXT"),
        ("[events]\ndefault_kind = 'buy'\n", 2, "events: default_kind must be one of"),
        ("[ranking]\nmax_k = 5\ngoal = 'buy'\n", 3, "ranking: goal must be one of"),
        ("[serving]\nport = \n", 2, "must be TOML in UTF-8: Invalid value"),
        ("[serving]\nport = 1\nhost = '''\n", 3, "must be TOML in UTF-8: Expected"),
        ("[serving]\nport = 1\n[serving]\n", 3, "must be TOML in UTF-8: Cannot declare"),
        ("[serving]\nport = " + "1" * 5000, 2, "must be TOML in UTF-8: "),
        ("[serving]\nport = " + "[" * 5000, 2, "must be TOML in UTF-8: "),
    ],
)
def test_an_error_in_the_file_names_the_file_and_the_line(text: str, line: int, said: str, tmp_path: Path) -> None:
    file = tmp_path / "ousel.toml"
    file.write_bytes(text.encode())
    assert f"{file}, line {line}: {said}" in refusal(file)


def test_a_rule_between_settings_names_the_line_of_each(tmp_path: Path) -> None:
    file = tmp_path / "ousel.toml"
    file.write_text("[trainer]\nmin_events = 200\nseed = 1\nmax_log_events = 100\n")
    with pytest.raises(ConfigError) as refused:
        load_settings(TrainerConfig, file)
    assert str(refused.value).startswith(f"{file}, line 2 and {file}, line 4: trainer: min_events must be <= ")


def test_a_line_is_found_in_a_long_file_too(tmp_path: Path) -> None:
    file = tmp_path / "ousel.toml"
    names = [f'name{n} = """\n{n}\n"""' for n in range(300)]
    file.write_text("\n".join(["[x]", *names, "[y]", "here = 1", *names]))
    read = read_toml(file)
    assert read.place(("y", "here")) == f"{file}, line 903"
    assert read.place(("x", "name150")) == f"{file}, line 452"
    assert read.place(("y", "nowhere")) is None


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("OUSEL_STATE__SESSION_GAP_S", "inf", "state.session_gap_s: must be a number > 0 and <= 31536000, got 'inf'"),
        ("OUSEL_STATE__SESSION_GAP_S", "nan", "state.session_gap_s: must be a number > 0 and <= 31536000, got 'nan'"),
        ("OUSEL_STATE__HISTORY", "1e400", "state.history: must be a whole number >= 2 and <= 4096, got '1e400'"),
        ("OUSEL_STATE__HISTORY", "9" * 5000, "state.history: must be a whole number >= 2 and <= 4096"),
        ("OUSEL_EVENTS__KINDS", "watch=1", "events.kinds: must be a table in JSON, such as"),
        ("OUSEL_EVENTS__KINDS", "[1]", "events.kinds: Input should be a valid dictionary, got [1]"),
        ("OUSEL_EVENTS__KINDS", '{"view": 1, "bad": NaN}', "events.kinds.bad: must be a number >= 0 and <= 1000000"),
        ("OUSEL_EVENTS__KINDS", '{"a":' * 9999, "events.kinds: must be a table in JSON"),
        ("OUSEL_STATE__HALF_LIVES_S", "1,2", "state.half_lives_s: must be a list in JSON, such as [1, 2]"),
        (
            "OUSEL_STATE__HALF_LIVES_S",
            "[1, -2]",
            "state.half_lives_s.1: must be a number > 0 and <= 3153600000, got -2",
        ),
        ("OUSEL_SERVING", "x", "serving: must be a table of settings in JSON, such as"),
        ("OUSEL_SERVING", '{"port": -1}', "serving.port: must be a whole number >= 0 and <= 65535, got -1"),
        ("OUSEL_LOG__LEVEL", "verbose", "log.level: Input should be 'debug', 'info', 'warning' or 'error'"),
        ("ousel_serving__port", "-1", "serving.port: must be a whole number >= 0 and <= 65535, got '-1'"),
    ],
)
def test_an_error_in_a_variable_names_the_variable(
    name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    assert refusal(None).startswith(f"{name}: {said}")


def test_a_variable_wins_over_the_file_also_as_the_place_of_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "ousel.toml"
    file.write_text("[serving]\nport = 1\nmax_batch = 0\n")
    monkeypatch.setenv("OUSEL_SERVING__PORT", "-1")
    message = refusal(file)
    assert message.startswith("OUSEL_SERVING__PORT: serving.port: ")
    assert f"; {file}, line 3: serving.max_batch: " in message


@pytest.mark.parametrize("head", [b"\xef\xbb\xbf", b""])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_byte_order_mark_and_the_line_ends_of_windows_are_read(head: bytes, end: bytes, tmp_path: Path) -> None:
    file = tmp_path / "ousel.toml"
    file.write_bytes(head + b"[serving]" + end + b"port = 7" + end)
    assert load_config(file).serving.port == 7


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[serving]\nport = 7\n".encode("utf-16"), "line 1: must be TOML in UTF-8: it seems to be UTF-16"),
        (b"[serving]\n# caf\xe9\n", "line 2: must be TOML in UTF-8: byte 0xe9 is none of it"),
    ],
)
def test_a_file_in_another_encoding_is_one_line(content: bytes, said: str, tmp_path: Path) -> None:
    file = tmp_path / "ousel.toml"
    file.write_bytes(content)
    assert refusal(file) == f"{file}, {said}"


def test_a_file_that_is_none_or_cannot_be_read_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal(tmp_path) == f"--config must name a file, got the folder {str(tmp_path)!r}"
    assert refusal(tmp_path / "none.toml") == f"--config must name a file, got {str(tmp_path / 'none.toml')!r}"
    assert refusal(Path("~nobody-here/x")) == (
        "--config must not begin with the ~ of a user who has no home folder, got '~nobody-here/x'"
    )
    file = tmp_path / "ousel.toml"
    file.write_text("")

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert refusal(file) == f"--config {str(file)!r} can't be read: Permission denied"


def test_a_file_may_come_through_a_pipe(tmp_path: Path) -> None:
    """As `--config <(command)` gives it."""
    reader, writer = os.pipe()
    try:
        os.write(writer, b"[serving]\nport = 7\n")
        os.close(writer)
        assert load_config(Path(f"/dev/fd/{reader}")).serving.port == 7
    finally:
        os.close(reader)


BESIDE = {
    "kafka.ssl_keyfile": ["kafka.ssl_certfile"],
    "tls.certificate": ["tls.key"],
    "tls.key": ["tls.certificate"],
    "tls.client_authorities": ["tls.certificate", "tls.key"],
    "trainer.tls_certificate": ["trainer.tls_key"],
    "trainer.tls_key": ["trainer.tls_certificate"],
}  # settings without which another one is refused


def test_a_tilde_stands_for_the_home_folder_in_every_setting_that_is_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "it.pem").write_text("it")
    (tmp_path / "ousel.toml").write_text("[serving]\nport = 7\n[kafka]\nsecurity_protocol = 'SSL'\n")
    paths = 0
    for kind in (Config, TrainerConfig):
        for section, of_section in kind.model_fields.items():
            for name, field in getattr(of_section.annotation, "model_fields", {}).items():
                if "Path" not in str(field.annotation):
                    continue
                paths += 1
                with monkeypatch.context() as patch:
                    patch.setenv(f"OUSEL_{section}__{name}".upper(), "~/it.pem")
                    for other in BESIDE.get(f"{section}.{name}", ()):
                        patch.setenv(f"OUSEL_{other}".upper().replace(".", "__"), "~/it.pem")
                    settings = load_settings(kind, Path("~/ousel.toml"))
                assert getattr(getattr(settings, section), name) == tmp_path / "it.pem"
    assert paths >= 8
    monkeypatch.setenv("OUSEL_STATE__CONTENT_MODEL", "~/encoder")
    monkeypatch.setenv("OUSEL_STATE__CONTENT_ENCODER", "sentence-transformer")
    assert load_config().state.content_model == str(tmp_path / "encoder")
