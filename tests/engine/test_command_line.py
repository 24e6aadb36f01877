"""Every command of the engine and of the trainer refuses a wrong value in the same way, and reads `~` in a path."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import get_args, get_type_hints

import pytest
from typer import Typer
from typer.testing import CliRunner

from engine.__main__ import app as engine_app
from engine.__main__ import main as engine_main
from trainer.__main__ import app as trainer_app
from trainer.__main__ import main as trainer_main

PROGRAMS = {"ousel-engine": (engine_app, engine_main), "ousel-trainer": (trainer_app, trainer_main)}
# Each command that reads settings, with the options that it cannot do without.
COMMANDS = {
    ("ousel-engine", "serve"): [],
    ("ousel-engine", "dead-letters"): [],
    ("ousel-engine", "check"): [],
    ("ousel-engine", "config"): [],
    ("ousel-engine", "health"): [],
    ("ousel-trainer", "run"): [],
    ("ousel-trainer", "train"): ["--out", "x.safetensors"],
    ("ousel-trainer", "push"): ["x.safetensors"],
    ("ousel-trainer", "check"): [],
    ("ousel-trainer", "config"): [],
}
commands = pytest.mark.parametrize(("program", "command"), COMMANDS)


def run(monkeypatch: pytest.MonkeyPatch, program: str, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", [program, *arguments])
    with pytest.raises(SystemExit) as ended:
        PROGRAMS[program][1]()
    code = ended.value.code
    assert isinstance(code, int)  # Python would print a text, and end with 1.
    return code


@commands
def test_a_wrong_setting_is_one_line_with_its_place_and_exit_code_2(
    program: str, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "ousel.toml"
    file.write_text("[kafak]\nbootstrap = 'a:1'\n")
    assert run(monkeypatch, program, command, *COMMANDS[program, command], "--config", str(file)) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert err.startswith(program) and err.endswith(
        f": {file}, line 1: kafak: there is no such section, did you mean kafka?\n"
    )


def test_a_wrong_variable_ends_an_evaluation_before_its_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OUSEL_KAFAK__BOOTSTRAP", "a:1")
    assert run(monkeypatch, "ousel-trainer", "evaluate", "--events", "none.csv", "--protocol", "sessions") == 2
    said = "OUSEL_KAFAK__BOOTSTRAP: there is no section 'kafak', did you mean OUSEL_KAFKA__BOOTSTRAP?"
    assert capsys.readouterr().err == f"ousel-trainer evaluate: {said}\n"


def test_a_shell_that_completes_the_engines_commands_waits_for_nothing_that_serving_needs() -> None:
    code = "import sys, engine.__main__; print(*{'torch', 'engine.pipeline'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "\n"


@commands
def test_a_tilde_in_the_name_of_the_file_of_settings_is_the_home_folder(
    program: str, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "ousel.toml").write_text("[kafak]\n")
    assert run(monkeypatch, program, command, *COMMANDS[program, command], "--config=~/ousel.toml") == 2
    assert f"{tmp_path / 'ousel.toml'}, line 1" in capsys.readouterr().err
    assert run(monkeypatch, program, command, *COMMANDS[program, command], "--config=~nobody-here/x") == 2
    assert "--config" in capsys.readouterr().err


def test_a_tilde_in_an_option_that_takes_a_path_is_the_home_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run(monkeypatch, "ousel-trainer", "push", "~/none.safetensors") == 2
    assert f"ousel-trainer push: {tmp_path / 'none.safetensors'}: can't be read" in capsys.readouterr().err
    assert run(monkeypatch, "ousel-trainer", "train", "--out=~/model.txt") == 2
    assert f"--out must end in .safetensors, got '{tmp_path / 'model.txt'}'" in capsys.readouterr().err


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_version_is_that_of_the_distribution(program: str) -> None:
    done = CliRunner().invoke(PROGRAMS[program][0], ["--version"])
    assert (done.exit_code, done.output) == (0, f"{program} {metadata.version('ousel-engine')}\n")


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_the_commands(program: str, shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    app: Typer = PROGRAMS[program][0]
    variable = f"_{program.replace('-', '_').upper()}_COMPLETE"
    words = {"COMP_WORDS": f"{program} ", "COMP_CWORD": "1", "_TYPER_COMPLETE_ARGS": f"{program} "}
    words["_TYPER_COMPLETE_FISH_ACTION"] = "get-args"
    done = CliRunner().invoke(app, [], prog_name=program, env={variable: f"complete_{shell}"} | words)
    for command in {command for _, command in COMMANDS}:
        assert (command in done.output) == ((program, command) in COMMANDS)


def test_a_wrong_option_is_a_plain_line_with_the_option_the_value_and_what_is_allowed() -> None:
    done = CliRunner().invoke(engine_app, ["dead-letters", "--limit", "-1"])
    assert done.exit_code == 2
    last = done.output.strip().splitlines()[-1]
    assert last == "Error: Invalid value for '--limit': must be a whole number from 0 to 1000000, got '-1'"


@pytest.mark.parametrize(("program", "command"), [("ousel-engine", "dead-letters"), ("ousel-trainer", "push")])
def test_a_variable_that_sets_nothing_is_one_warning_in_the_log_of_a_command(
    program: str, command: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setenv("OUSEL_KAFKA_BOOTSTRAP", "nohost:1")
    monkeypatch.setenv("OUSEL_KAFKA__BOOTSTRAP", "127.0.0.1:1")
    for module in ("engine.commands.dead_letters._show", "trainer.commands.push.push_next"):
        monkeypatch.setattr(module, ends)
    monkeypatch.setattr("trainer.commands.push.load_model", lambda _: SimpleNamespace(figures={}, data=b"", metrics={}))
    CliRunner().invoke(PROGRAMS[program][0], [command, *COMMANDS[program, command]])
    (warning,) = [record for record in caplog.records if record.name == "engine.log_start"]
    assert warning.levelname == "WARNING"
    assert "OUSEL_KAFKA_BOOTSTRAP (did you mean OUSEL_KAFKA__BOOTSTRAP?)" in warning.getMessage()


def ends(*_: object, **__: object) -> object:
    """Stands for the work of a command."""
    raise SystemExit(0)


@pytest.mark.parametrize(
    ("program", "command", "option", "value", "allowed"),
    [
        ("ousel-engine", "dead-letters", "--limit", "many", "a whole number from 0 to 1000000"),
        ("ousel-trainer", "evaluate", "--most", "many", "a whole number"),
        ("ousel-trainer", "evaluate", "--most", "1.5", "a whole number"),
        ("ousel-trainer", "evaluate", "--cold-share", "nan", "a finite number"),
    ],
)
def test_an_option_that_takes_a_number_says_what_it_got(
    program: str, command: str, option: str, value: str, allowed: str
) -> None:
    done = CliRunner().invoke(PROGRAMS[program][0], [command, option, value])
    assert done.exit_code == 2
    last = done.output.strip().splitlines()[-1]
    assert last == f"Error: Invalid value for '{option}': must be {allowed}, got {value!r}"


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_option_that_takes_a_number_or_a_path_is_read_here(program: str) -> None:
    """The library's own readers leave out the value, and leave a `~` as it is."""
    for command in PROGRAMS[program][0].registered_commands:
        assert command.callback is not None
        for name, annotated in get_type_hints(command.callback, include_extras=True).items():
            if name == "return":
                continue
            kind, option = annotated.__origin__, annotated.__metadata__[0]
            if {kind, *get_args(kind)} & {int, float, Path}:
                assert option.parser is not None, f"{command.callback.__name__}: {name}"


def test_a_folder_for_models_that_cannot_be_written_to_ends_the_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "models"
    file.touch()
    monkeypatch.setenv("OUSEL_TRAINER__MODELS_DIR", str(file))
    assert run(monkeypatch, "ousel-trainer", "run") == 2
    assert capsys.readouterr().err.startswith(f"ousel-trainer: trainer.models_dir must name a folder, got '{file}'")
