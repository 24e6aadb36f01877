"""Scripts that have a shell complete the commands and options of `ousel`, made from its own parser."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator
from typing import Any

SHELLS = ("bash", "zsh", "fish")

_BASH = """\
# Has bash complete ousel's commands and options. In ~/.bashrc: source <(ousel completion bash)
_ousel_complete() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" previous="${{COMP_WORDS[COMP_CWORD-1]}}" command="" words="" i
    for ((i = 1; i < COMP_CWORD; i++)); do
        case "${{COMP_WORDS[i]}}" in
            {leading}) i=$((i + 1)) ;;
            -*) ;;
            *) command="${{COMP_WORDS[i]}}"; break ;;
        esac
    done
    case "$previous" in
        {valued}) return ;;  # The value of an option is nothing that a shell could know.
    esac
    case "$command" in
{cases}
    esac
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -F _ousel_complete ousel
"""
_ZSH = """\
# Has zsh complete ousel's commands and options. In ~/.zshrc, below compinit: source <(ousel completion zsh)
autoload -U +X bashcompinit && bashcompinit
"""
_FISH = (
    "# Has fish complete ousel's commands and options: ousel completion fish > ~/.config/fish/completions/ousel.fish"
)


def script(shell: str, parser: argparse.ArgumentParser) -> str:
    """The script for one of `SHELLS`."""
    if shell == "fish":
        return "\n".join([_FISH, "complete -c ousel -f", *_fish(parser)])
    commands = _commands(parser)
    cases = [("''", " ".join([*commands, *_flags(parser)]))]
    cases += [(name, " ".join([*_flags(one), *_choices(one)])) for name, one in commands.items()]
    valued = {flag for one in (parser, *commands.values()) for flag in _flags(one, valued_only=True)}
    bash = _BASH.format(
        leading="|".join(_flags(parser, valued_only=True)),
        valued="|".join(sorted(valued)),
        cases="\n".join(f"        {name}) words={shlex.quote(words)} ;;" for name, words in cases),
    )
    return (_ZSH if shell == "zsh" else "") + bash


def _fish(parser: argparse.ArgumentParser) -> Iterator[str]:
    help_of = {one.dest: one.help for action in _subparsers(parser) for one in action._choices_actions}
    yield from _fish_options("__fish_use_subcommand", parser)
    for name, command in _commands(parser).items():
        yield f"complete -c ousel -n __fish_use_subcommand -a {name} -d {_fish_quoted(help_of[name])}"
        seen = f"'__fish_seen_subcommand_from {name}'"
        yield from _fish_options(seen, command)
        for choice in _choices(command):
            yield f"complete -c ousel -n {seen} -a {choice}"


def _fish_options(condition: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        flags = [f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in action.option_strings]
        if flags:
            needs_value = "" if action.nargs == 0 else "-x "
            yield f"complete -c ousel -n {condition} {' '.join(flags)} {needs_value}-d {_fish_quoted(action.help)}"


def _fish_quoted(text: str | None) -> str:
    escaped = (text or "").replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _subparsers(parser: argparse.ArgumentParser) -> list[Any]:
    return [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    return {name: command for action in _subparsers(parser) for name, command in action.choices.items()}


def _flags(parser: argparse.ArgumentParser, *, valued_only: bool = False) -> list[str]:
    return [
        flag for action in parser._actions for flag in action.option_strings if action.nargs != 0 or not valued_only
    ]


def _choices(parser: argparse.ArgumentParser) -> list[str]:
    """The words that a command takes as its argument; an id is none that a shell could know."""
    return [str(one) for action in parser._actions if not action.option_strings for one in action.choices or ()]
