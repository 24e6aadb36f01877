"""`ousel-engine config`: the settings in force, and where each comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from engine.command_line import config_option, only_changed_option
from engine.config import Config
from engine.config.effective import effective_toml
from engine.failures import WrongValue


def config(
    config: Annotated[Path | None, config_option()] = None,
    only_changed: Annotated[bool, only_changed_option()] = False,
) -> None:
    """Print the settings in force as TOML, and where each comes from. Secrets are not shown."""
    try:
        print(effective_toml(Config, config, only_changed=only_changed), end="")
    except ValueError as error:
        raise WrongValue(f"ousel-engine config: {error}") from None
