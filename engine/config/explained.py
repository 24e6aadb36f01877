"""Tells what is wrong with a configuration, and never shows a value that may be a secret.

A value is shown only under a setting that exists, and only where it looks like the number, the name or the path that
belongs there. A password may stand under a misspelt key, in a wrong section or in a table where a text belongs, so
unknown keys, tables and lists are named and their contents are not shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo

from engine.config.names import nearest
from engine.config.places import Places
from engine.config.toml_file import Location

_MAX_CHARS = 200
# In the name of a setting that holds a secret.
SECRET_NAME = re.compile("pass|pwd|secret|token|credential|key", re.IGNORECASE)
# Where a value is wrong, a password may stand in the place of the user or of the mechanism.
_MISPLACED = re.compile(f"{SECRET_NAME.pattern}|sasl", re.IGNORECASE)
# Texts that were meant as a number, with or without a unit, or as a switch.
_NUMBER = re.compile(r"[-+]?[0-9.,_]{1,24}(e[-+]?\d{1,3})? ?(ns|us|ms|s|m|h|d|[kMGT]i?B?|B|%)?|[-+]?(inf|nan|infinity)")
_NAME = re.compile(r"[A-Za-z][A-Za-z_/ -]{0,31}|")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_PATH = re.compile(r"[^\x00-\x1f@\x7f]+")

_NUMBER_PROBLEMS = {
    *("greater_than", "greater_than_equal", "less_than", "less_than_equal", "finite_number", "int_from_float"),
    *("int_parsing", "int_parsing_size", "int_type", "float_parsing", "float_type"),
}
_SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def explained(error: ValidationError, kind: type[BaseModel], places: Places) -> list[str]:
    """A line for each setting that is wrong: its place, what is allowed and, where it cannot be a secret, the value.

    Args:
        kind: the settings class that was to be filled.
    """
    lines = []
    for details in error.errors():
        line = _line(details["loc"], details["type"], details["msg"], details["input"], kind)
        lines.append(": ".join([*filter(None, [" and ".join(places.of(details["loc"], line))]), line]))
    return lines


def _line(location: Location, problem: str, message: str, value: Any, kind: type[BaseModel]) -> str:
    name = ".".join(map(str, location))
    if problem == "extra_forbidden":
        return f"{name}: there is no such setting{_suggestion(location, kind)}"
    field, rest = _field(location, kind)
    if problem in ("model_type", "model_attributes_type"):
        return f"{name}: must be a table of settings, [{name}] in the file, got {_shape(value)}"
    if problem in _NUMBER_PROBLEMS and field is not None:
        message = _allowed_number(field)
    message = _without_hidden(message.removeprefix("Value error, "), field, rest, value)
    got = _got(location, field, rest, value)
    has_it = message.endswith(got) or (", got " in message and got == f", got {_shape(value)}")
    return f"{name}: {message}" if has_it else f"{name}: {message}{got}"


def _allowed_number(field: FieldInfo) -> str:
    """The range of a setting's number, or of the numbers in its list or table."""
    number, metadata = next(_numbers(field.annotation, field.metadata))
    bounds = [
        f"{sign} {getattr(one, name):.15g}" for one in metadata for name, sign in _SIGNS.items() if hasattr(one, name)
    ]
    return f"must be a {'whole ' if number is int else ''}number {' and '.join(bounds)}".rstrip()


def _numbers(annotation: Any, metadata: Sequence[Any]) -> Iterator[tuple[type, list[Any]]]:
    """The types of number that a setting's type is or holds, with the constraints of each."""
    if hasattr(annotation, "__metadata__"):
        inner = [
            part for one in annotation.__metadata__ for part in (one.metadata if isinstance(one, FieldInfo) else [one])
        ]
        yield from _numbers(annotation.__origin__, [*metadata, *inner])
    elif annotation in (int, float):
        yield annotation, list(metadata)
    else:
        optional = type(None) in get_args(annotation)
        for part in get_args(annotation):
            yield from _numbers(part, metadata if optional else [])


def _without_hidden(message: str, field: FieldInfo | None, rest: Location, value: Any) -> str:
    """A message in whose text values stand, without the ones that may be secrets."""
    if field is None:
        return message
    section = _section(field)
    if section is None:
        hidden = isinstance(value, str) and not _may_show(value, types_of(field.annotation), rest)
        return message.replace(repr(value), "(not shown)") if hidden else message
    values = value.model_dump() if isinstance(value, BaseModel) else value
    if not isinstance(values, Mapping):
        return message
    for name, text in values.items():
        known = section.model_fields.get(name)
        if isinstance(text, str) and not (known and _may_show(text, types_of(known.annotation), ())):
            message = message.replace(repr(text), "(not shown)")
    return message


def _got(location: Location, field: FieldInfo | None, rest: Location, value: Any) -> str:
    """ ", got VALUE" where the value may be shown, and the shape of the value where that says more than nothing."""
    if field is None or _section(field) is not None or isinstance(value, BaseModel):
        return ""  # The message is about a section as a whole.
    if _is_secret(location, field):
        return ", and the value is not shown"
    if isinstance(value, (Mapping, bytes)):
        return f", got {_shape(value)}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        numbers = all(isinstance(element, (int, float)) for element in value)
        return f", got {list(value)!r:.{_MAX_CHARS}}" if numbers else f", got {_shape(value)}"
    if isinstance(value, Path):
        value = str(value)
    is_topic = str(location[-1]).endswith("_topic") and isinstance(value, str) and _TOPIC.fullmatch(value) is not None
    if isinstance(value, str) and not is_topic and not _may_show(value, types_of(field.annotation), rest):
        return ", and the value is not shown"
    return f", got {value!r}"


def _may_show(text: str, types: set[Any], rest: Location) -> bool:
    if len(text) > _MAX_CHARS:
        return False
    if Path in types:
        return _PATH.fullmatch(text) is not None and "-----" not in text
    if _NUMBER.fullmatch(text):
        return True
    # Under a key that the user has named, in a table of numbers, anything may stand.
    wants_number = bool(types & {int, float, bool}) or any(isinstance(part, str) for part in rest)
    return not wants_number and _NAME.fullmatch(text) is not None


def _is_secret(location: Location, field: FieldInfo) -> bool:
    if SecretStr in types_of(field.annotation):
        return True
    # A path names a file; everything else under such a name is taken for the secret itself.
    return Path not in types_of(field.annotation) and any(_MISPLACED.search(str(part)) for part in location[1:])


def _field(location: Location, kind: type[BaseModel]) -> tuple[FieldInfo | None, Location]:
    """The setting that a location lies in, None for the settings as a whole, and where in its value it lies."""
    field: FieldInfo | None = None
    section: type[BaseModel] | None = kind
    for depth, part in enumerate(location):
        if section is None or part not in section.model_fields:
            return field, location[depth:]
        field = section.model_fields[str(part)]
        section = _section(field)
    return field, ()


def _section(field: FieldInfo) -> type[BaseModel] | None:
    annotation = field.annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def types_of(annotation: Any) -> set[Any]:
    """A type, and all types that it is made of."""
    arguments = get_args(annotation)
    return {annotation}.union(*map(types_of, arguments)) if arguments else {annotation}


def _suggestion(location: Location, kind: type[BaseModel]) -> str:
    """The setting that was probably meant: of the same section by its spelling, or of another section by its name."""
    sections = {name: section for name, field in kind.model_fields.items() if (section := _section(field))}
    if len(location) < 2 or location[0] not in sections:
        return ""
    own, name = str(location[0]), str(location[-1]).lower()
    if len(location) == 2:
        for other, known in sections.items():
            if name in known.model_fields:
                return f"; {other}.{name} is one"
        near = nearest(name, sections[own].model_fields)
        if near is not None:
            return f", did you mean {own}.{near}?"
    return f"; docs/configuration.md lists those of {own}"


def _shape(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, (str, bytes)):
        return "a text"
    if isinstance(value, Sequence):
        return "a list"
    return "a number" if isinstance(value, (int, float)) else "a single value"
