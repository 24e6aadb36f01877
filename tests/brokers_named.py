"""Says at the end of a run which brokers it had, also where workers of pytest-xdist had them."""

from __future__ import annotations

from typing import Any, cast

import pytest

_brokers = pytest.StashKey[list[str]]()


def brokers_of(config: pytest.Config) -> list[str]:
    """The names of the brokers that this process has started so far. A worker hands its list on when it ends."""
    if hasattr(config, "workeroutput"):
        return cast("list[str]", config.workeroutput.setdefault("brokers", []))
    return config.stash.setdefault(_brokers, [])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    brokers_of(node.config).extend(getattr(node, "workeroutput", {}).get("brokers", ()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for name in sorted(set(brokers_of(config))):
        terminalreporter.write_line(f"tests/integration ran against {name}")
