"""The names that sections and settings may have, and which of them was meant by a misspelt one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel

# The sections of Ousel's other programs, beside the engine's: one file may serve all of them.
OTHER_SECTIONS = ("trainer",)


@dataclass(frozen=True)
class KnownNames:
    """The names that one program may find in a file and in variables.

    Attributes:
        own: the sections that it reads, and the type of each setting in them.
        sections: of all of Ousel's programs.
        top_level: what may stand outside a section: the sections themselves, and the settings without a section.
    """

    own: Mapping[str, Mapping[str, Any]]
    sections: frozenset[str]
    top_level: frozenset[str]

    @staticmethod
    def of(kind: type[BaseModel], *others: type[BaseModel]) -> KnownNames:
        """The names of `kind`, and of the settings of other programs, which it passes over."""
        own = _sections(kind)
        sections = frozenset(own).union(OTHER_SECTIONS, *map(_sections, others))
        return KnownNames(own, sections, sections.union(kind.model_fields))

    def unknown(self, top_level: Iterable[str]) -> list[tuple[str, str]]:
        """The names outside a section that no program has, each with what to say about it."""
        return [(name, self._problem(name)) for name in top_level if name not in self.top_level]

    def _problem(self, name: str) -> str:
        holders = [section for section, fields in self.own.items() if name in fields]
        if holders:
            return f"there is no such setting outside the sections; {holders[0]}.{name} is one"
        section, _, key = name.partition("_")
        meant = nearest(key, self.own.get(section, ()))
        if meant is not None:
            return f"there is no such setting outside the sections, did you mean {section}.{meant}?"
        near = nearest(name, self.top_level)
        if near is None:
            return "there is no such section or setting; docs/configuration.md lists them"
        return f"there is no such {'section' if near in self.sections else 'setting'}, did you mean {near}?"


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known name that is spelt most like one; None where each is too far from it."""
    by_lower = {one.lower(): one for one in known}
    found = get_close_matches(name.lower(), sorted(by_lower), n=1, cutoff=cutoff)
    return by_lower[found[0]] if found else None


def _sections(kind: type[BaseModel]) -> dict[str, dict[str, Any]]:
    return {
        name: {key: one.annotation for key, one in field.annotation.model_fields.items()}
        for name, field in kind.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }
