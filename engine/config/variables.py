"""The environment variables of Ousel's prefix: which settings they are for, and which are for none.

Kubernetes sets variables such as OUSEL_PORT in every container beside a service named `ousel`. None of these has two
underscores in a row, which every variable of a section has. So one without is at most a typing error and is ignored
with a warning, while one with two underscores that names no setting can only be an error.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from typing import Any, get_origin

from engine.config.names import KnownNames, nearest
from engine.config.toml_file import Location

PREFIX, DELIMITER = "OUSEL_", "__"

# The client's command line reads the address of its engine from this variable.
OTHER_VARIABLES = (
    "OUSEL_ADDRESS", "OUSEL_INSECURE", "OUSEL_TLS", "OUSEL_TLS_CA", "OUSEL_TLS_CERT", "OUSEL_TLS_KEY", "OUSEL_TLS_NAME",
    "OUSEL_TOKEN", "OUSEL_TOKEN_FILE",
)  # fmt: skip

_OF_KUBERNETES = re.compile(r"(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
_ADDRESS_OF_KUBERNETES = re.compile(r"(tcp|udp|sctp)://")


def own_variables() -> dict[str, tuple[str, str]]:
    """The variables of the prefix by their names in capitals; each has its name as written, and its value."""
    return {name.upper(): (name, value) for name, value in os.environ.items() if name.upper().startswith(PREFIX)}


class Variables:
    """The variables of the prefix, as one settings class reads them."""

    def __init__(self, known: KnownNames) -> None:
        self._known = known
        self._given = own_variables()

    def place(self, location: Location) -> str | None:
        """The variable that sets a value or a part of it, or has it within; None where none does."""
        path = [str(part).upper() for part in location]
        for depth in range(len(path), 0, -1):
            name = _joined(path[:depth])
            if name in self._given and (depth == len(path) or _has(self._given[name][1], location[depth:])):
                return self._given[name][0]
        begin = _joined(path) + DELIMITER
        return next((self._given[name][0] for name in sorted(self._given) if name.startswith(begin)), None)

    def unknown(self) -> list[str]:
        """A line for each variable of a section that there is none of."""
        lines = []
        for name, (written, _) in sorted(self._given.items()):
            section, delimiter, key = name.removeprefix(PREFIX).partition(DELIMITER)
            if delimiter and section.lower() not in self._known.sections:
                meant = self._meant(section.lower(), key.lower())
                hint = f", did you mean {meant}?" if meant else "; docs/configuration.md lists the sections"
                lines.append(f"{written}: there is no section {section.lower()!r}{hint}")
        return lines

    def malformed(self) -> list[str]:
        """A line for each variable that must hold JSON and does not."""
        lines = []
        for section, fields in self._known.own.items():
            wanted: dict[tuple[str, ...], str] = {
                (section,): f'a table of settings in JSON, such as {{"{next(iter(fields))}": ...}}'
            }
            for key, annotation in fields.items():
                if get_origin(annotation) is dict:
                    wanted[section, key] = 'a table in JSON, such as {"view": 1}'
                elif get_origin(annotation) is tuple:
                    wanted[section, key] = "a list in JSON, such as [1, 2]"
            for location, form in wanted.items():
                written, text = self._given.get(_joined([part.upper() for part in location]), ("", "null"))
                if not _is_json(text):
                    lines.append(f"{written}: {'.'.join(location)}: must be {form}, and the value is not shown")
        return lines

    def ignored(self) -> str | None:
        """One line about the variables that set nothing and may be meant to; None where there is none."""
        told: list[str] = []
        of_kubernetes: list[str] = []
        for name, (written, value) in sorted(self._given.items()):
            rest = name.removeprefix(PREFIX)
            if DELIMITER in rest or name in OTHER_VARIABLES or rest.lower() in self._known.top_level:
                continue
            if _OF_KUBERNETES.fullmatch(rest) or _ADDRESS_OF_KUBERNETES.match(value):
                of_kubernetes.append(written)
            else:
                meant = self._nearest(rest)
                told.append(f"{written} (did you mean {meant}?)" if meant else written)
        if of_kubernetes:
            told.append(f"{', '.join(of_kubernetes)} (Kubernetes sets such names for a service)")
        return f"no setting is named so, and these variables are ignored: {', '.join(told)}" if told else None

    def _meant(self, section: str, key: str) -> str | None:
        """The variable that was probably meant by one of an unknown section."""
        near = nearest(section, self._known.sections)
        if near is None:
            return self._nearest(f"{section}{DELIMITER}{key}".upper())
        keys = self._known.own.get(near, ())
        return _joined([near, nearest(key, keys) or key]).upper()

    def _nearest(self, rest: str) -> str | None:
        """The variable whose name is nearest to one, both without the prefix."""
        for section in self._known.sections:
            if section not in self._known.own and rest.startswith(f"{section}_".upper()):
                return f"{PREFIX}{section.upper()}{DELIMITER}{rest[len(section) + 1 :].strip('_')}"
        settings = {f"{section}.{key}" for section, fields in self._known.own.items() for key in fields}
        of_key = [name for name in sorted(settings) if name.partition(".")[2] == rest.lower()]
        candidates = {name.replace(".", DELIMITER).upper() for name in settings | self._known.top_level}
        candidates |= {name.removeprefix(PREFIX) for name in OTHER_VARIABLES}
        found = of_key[0].replace(".", DELIMITER).upper() if of_key else nearest(rest, candidates, cutoff=0.75)
        return None if found is None else PREFIX + found


def _joined(path: Sequence[str]) -> str:
    return PREFIX + DELIMITER.join(path)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _has(text: str, location: Location) -> bool:
    """Tells whether a value in JSON has something at a place."""
    try:
        value: Any = json.loads(text)
        for part in location:
            value = value[part]
    except (ValueError, RecursionError, LookupError, TypeError):
        return False
    return True
