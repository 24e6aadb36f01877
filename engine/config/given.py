"""Settings that a command was given, each as SECTION.NAME=VALUE."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from engine.config.names import KnownNames, nearest
from engine.config.toml_file import Location

FLAG = "--set"


class Given:
    """Settings of the command line, which win over variables and files.

    Attributes:
        data: by section and name, as text or, where it is a list or a table, as JSON has it.
        problems: a line for each that names no setting; what is wrong with a value is found by whoever reads it.
    """

    def __init__(self, given: Iterable[str], known: KnownNames) -> None:
        self.data: dict[str, dict[str, Any]] = {}
        self.problems: list[str] = []
        for each in given:
            name, equals, text = each.partition("=")
            section, _, key = name.partition(".")
            if not equals or section not in known.own or key not in known.own[section]:
                self.problems.append(f"{FLAG} must be SECTION.NAME=VALUE, got {each!r}{_meant(name, known.own)}")
            else:
                self.data.setdefault(section, {})[key] = _value(text)

    def place(self, location: Location) -> str | None:
        """`--set` where it gave the setting of a location."""
        found = len(location) > 1 and location[1] in self.data.get(str(location[0]), {})
        return FLAG if found else None


def _value(text: str) -> Any:
    if text[:1] in ("[", "{"):
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text


def _meant(name: str, own: Mapping[str, Mapping[str, Any]]) -> str:
    names = [f"{section}.{key}" for section, keys in own.items() for key in keys]
    alike = [one for one in names if one.endswith(f".{name}")]
    near = alike[0] if alike else nearest(name, names)
    return f", did you mean {near}?" if near else ""
