"""Settings of the whole suite: generated inputs are the same in every run."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

from engine import limited_log

pytest_plugins = ("tests.brokers_named",)

settings.register_profile("suite", max_examples=50, deadline=None, derandomize=True)
settings.load_profile("suite")
torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def own_state_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No engine that a test starts finds or leaves snapshots in the default folder of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("STATE_DIRECTORY", raising=False)
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        # A command of the trainer that runs in this process would leave it behind all others of the machine.
        patch.setattr(os, "nice", lambda _: 0)
        yield


@pytest.fixture(autouse=True)
def own_log_lines() -> Iterator[None]:
    """Lines that a test's limited logs hold back are dropped with it: a later test would find them in its log."""
    yield
    for limited in list(limited_log._all):
        with limited._lock:
            limited._kinds.clear()
