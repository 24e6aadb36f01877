"""The settings in force, as TOML that can be read back, each with the place that it comes from and without secrets."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from engine.config.explained import SECRET_NAME, types_of
from engine.config.load import Settings, ignored_variables, load_with_places
from engine.config.places import Places
from engine.config.toml_file import Location
from engine.log_output import one_line

DEFAULT = "default"

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
# The user, the password and the parameters of an address may be what a store is opened with.
_USER_OF_ADDRESS = re.compile(r"(?<=://)[^/@\s]*@")
_PARAMETER_OF_ADDRESS = re.compile(rf"([?&][^=&\s]*(?:{SECRET_NAME.pattern})[^=&\s]*=)[^&\s]*", re.IGNORECASE)


def effective_toml(kind: type[Settings], path: Path | None, *, only_changed: bool = False) -> str:
    """Reads a configuration as a start would, and tells what came of it.

    Args:
        kind: the settings class of the program.
        path: a file of settings, or None for defaults and variables alone.
        only_changed: whether settings that have their default, and that nothing sets, are left out.

    Returns:
        TOML with a comment behind each value: a variable, a line of the file, or "default". A setting that has no value
        and one that is a secret are comments as a whole.

    Raises:
        ConfigError: as `load_settings`.
    """
    settings, places = load_with_places(kind, path)
    lines = ["# These are the settings in force. Behind each value stands where it comes from."]
    ignored = ignored_variables(kind)
    if ignored is not None:
        lines.append(f"# {one_line(ignored)}")
    tables: list[str] = []
    for name, field in kind.model_fields.items():
        value = getattr(settings, name)
        if not isinstance(value, BaseModel):
            lines += _told((name,), field, value, places, only_changed)
            continue
        told = [
            line
            for key, inner in type(value).model_fields.items()
            for line in _told((name, key), inner, getattr(value, key), places, only_changed)
        ]
        if told:
            tables += ["", f"[{name}]", *told]
    return "\n".join([*lines, *tables]) + "\n"


def is_hidden(name: str, field: FieldInfo) -> bool:
    """Whether a setting may hold a secret. A path names a file, and neither a number nor a fixed choice is a secret."""
    types = types_of(field.annotation)
    return SecretStr in types or (str in types and SECRET_NAME.search(name) is not None)


def _told(location: Location, field: FieldInfo, value: Any, places: Places, only_changed: bool) -> Iterator[str]:
    """The line of one setting; nothing where it is to be left out."""
    name = str(location[-1])
    source = " and ".join(_sources(location, value, places))
    if only_changed and source == DEFAULT:
        return
    if value is None:
        yield f"# {name} is not set"
    elif is_hidden(name, field):
        yield f"# {name} is not shown, since it is a secret. It is set by: {source}"
    else:
        yield f"{name} = {toml_value(value)}  # {source}"


def _sources(location: Location, value: Any, places: Places) -> list[str]:
    """The places of a value; those of a table's keys, which may come from several."""
    inner = [(*location, key) for key in value] if isinstance(value, Mapping) else []
    found = (places.place(one) or DEFAULT for one in inner or [location])
    return [one_line(source) for source in dict.fromkeys(found)]


def toml_value(value: Any) -> str:
    """A value of a setting as TOML has it, in one line; the user and the secrets of an address are replaced."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case Mapping():
            return "{" + ", ".join(f"{_key(key)} = {toml_value(inner)}" for key, inner in value.items()) + "}"
        case tuple() | list():
            return "[" + ", ".join(map(toml_value, value)) + "]"
        case _:
            return _text(_PARAMETER_OF_ADDRESS.sub(r"\1...", _USER_OF_ADDRESS.sub("...@", str(value))))


def _key(key: object) -> str:
    return str(key) if _BARE_KEY.fullmatch(str(key)) else _text(str(key))


def _text(text: str) -> str:
    # JSON and TOML write texts alike, but for one control character that TOML wants escaped.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
