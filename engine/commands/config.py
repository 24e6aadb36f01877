"""`ousel-engine config`: the settings in force, and where each comes from."""

from __future__ import annotations

from pathlib import Path

from engine.config import Config
from engine.config.effective import effective_toml
from engine.failures import WrongValue


def show_config(config: Path | None, only_changed: bool) -> None:
    """Prints the settings in force as TOML, and where each comes from. Secrets are not shown.

    Args:
        config: the file of settings.
        only_changed: whether settings that nothing sets are left out.

    Raises:
        WrongValue: a setting is wrong.
    """
    try:
        print(effective_toml(Config, config, only_changed=only_changed), end="")
    except ValueError as error:
        raise WrongValue(f"ousel-engine config: {error}") from None
