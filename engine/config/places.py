"""Where a value stands: the line of the file or the variable, for the head of a message and beside a value in force."""

from __future__ import annotations

import re

from engine.config.given import Given
from engine.config.names import KnownNames
from engine.config.toml_file import Location, TomlFile
from engine.config.variables import Variables


class Places:
    """The places of a configuration's values. What wins is named: the command line, then a variable, then the file."""

    def __init__(self, known: KnownNames, file: TomlFile | None, variables: Variables, given: Given) -> None:
        self._given = given
        self._known = known
        self._file = file
        self._variables = variables

    def of(self, location: Location, message: str) -> list[str]:
        """Where the values stand that a message is about; nothing where all of them are defaults.

        A rule between two settings is reported at one of them or at their section, and one about a key of a table at
        the table. So the settings and the keys that the message names are looked up first.
        """
        named = [*self._settings(location, message), *self._keys(location, message)]
        places = list(dict.fromkeys(filter(None, map(self.place, named))))
        return places or [place for place in [self.place(location)] if place]

    def place(self, location: Location) -> str | None:
        """The place of the value that wins; None where it is a default."""
        of_file = self._file.place(location) if self._file else None
        return self._given.place(location) or self._variables.place(location) or of_file

    def _settings(self, location: Location, message: str) -> list[Location]:
        """The settings of a section that a message names, where it is not about one that is given."""
        if len(location) > 1 and self.place(location):
            return []
        section = str(location[0])
        named = (key for key in self._known.own.get(section, ()) if re.search(rf"\b{re.escape(key)}\b", message))
        return [(section, key) for key in named]

    def _keys(self, location: Location, message: str) -> list[Location]:
        """The keys of a table that a message quotes."""
        if len(location) < 2 or self._file is None:
            return []
        return [(*location, key) for key in self._file.keys(location) if repr(key) in message]
