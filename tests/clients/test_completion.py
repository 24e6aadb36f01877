"""A shell proposes the commands of `ousel`, and the options of each."""

import re
import shutil
import subprocess

import pytest
from ousel.cli import main
from ousel.cli_arguments import make_parser
from ousel.completion import SHELLS, script

PARSER = make_parser()
COMMANDS = [
    *("recommend", "watch", "track", "status", "export", "forget", "digest", "snapshot", "rollback"),
    *("models", "completion"),
]
ALL = [
    *("--address", "--tls-ca", "--tls-cert", "--tls-key", "--tls-name", "--token-file", "--tls", "--insecure"),
]  # options that every command has


def proposed(*words: str) -> list[str]:
    """Returns the proposals of bash for the last of some words."""
    line = " ".join(f"'{word}'" for word in ("ousel", *words))
    ask = f"COMP_WORDS=({line}); COMP_CWORD={len(words)}; _ousel_complete; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    bash = ["bash", "--norc", "-c", f"{script('bash', PARSER)}\n{ask}"]
    return subprocess.run(bash, capture_output=True, text=True, check=True, timeout=30).stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["re"], ["recommend"]),
        (["ro"], ["rollback"]),
        (["--address", "h:1", "st"], ["status"]),
        (["recommend", "ann", "--ex"], ["--exclude", "--exclude-history"]),
        (["track", "ann", "apple", "--ti"], ["--time"]),
        (["--address", "h:1", "watch", "ann", "--up"], ["--updates"]),
        (["--token-file", "t", "st"], ["status"]),
        (["completion", ""], ["-h", "--help", *ALL, "bash", "zsh", "fish"]),
        (["recommend", "ann", "--category", ""], []),
        (["status", "--ti"], []),
    ],
)
def test_bash_proposes_commands_and_the_options_of_each(words, expected):
    assert proposed(*words) == expected


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
def test_bash_proposes_every_command():
    assert set(proposed("")) == {*COMMANDS, "-h", "--help", "--version", *ALL}


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_names_every_command_and_every_option(shell, capsys):
    assert main(["completion", shell]) == 0
    text = capsys.readouterr().out
    for command in COMMANDS:
        assert re.search(rf"\b{command}\b", text)
    for option in ("category", "exclude-history", "time", "expect", "json", "yes", "version", "session"):
        assert re.search(rf"(--|-l ){option}\b", text)


def test_fish_says_what_each_is_for():
    lines = script("fish", PARSER).splitlines()
    assert "complete -c ousel -n __fish_use_subcommand -a recommend -d 'one ranked list, now'" in lines
    assert any(
        line.startswith("complete -c ousel -n '__fish_seen_subcommand_from track' -l time -x -d '") for line in lines
    )
    assert any("-l yes -d 'don\\'t ask'" in line for line in lines)
