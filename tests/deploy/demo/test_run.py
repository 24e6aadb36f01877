"""The demo's wait for its first model."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from rich.console import Console

from deploy.demo.run import DemoError, _Demo

OVER = "more training on this log brings nothing: the next begins after 1600 new events or 60 minutes"


def test_it_ends_once_the_training_is_over_and_no_model_serves() -> None:
    services = Mock()
    services.log_paths.return_value = [Path("trainer.log")]
    demo = _Demo(Mock(live_view=False), services, Console(), AsyncExitStack())
    none, one = (SimpleNamespace(model_versions=versions, building=None) for versions in ((), (1,)))
    services.last_line.return_value = "not pushed: ndcg@20 must be above that of frequency, got 0.1 and 0.2"
    for _ in range(3):
        demo._show_training(Mock(), none)  # the next model of the same training may pass
    services.last_line.return_value = OVER
    demo._show_training(Mock(), none)  # its last model may have come since the status was asked for
    demo._show_training(Mock(), one)
    demo._show_training(Mock(), None)  # an engine that does not answer has said nothing
    with pytest.raises(DemoError, match=r"try more --train-minutes, see trainer\.log"):
        demo._show_training(Mock(), none)
