"""What may go wrong with the registry of models."""

from __future__ import annotations


class RegistryError(RuntimeError):
    """The registry can't be reached or written now; the message names the setting, the place and the reason."""


class DamagedModel(RegistryError):
    """A file of the registry is not what was stored; the message names it and says what is wrong."""


class PushOvertaken(RuntimeError):
    """Another push was announced first, so that this one is not taken."""


class NoSuchModel(LookupError):
    """The registry has no model of that version."""


class VersionPinned(RuntimeError):
    """A pinned version serves until it is unpinned, whatever else is asked for."""
