"""The commands of docs/deploy.md save a running engine's state, and bring it back on a machine that has nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import ousel
import pytest

from engine.config import KafkaConfig
from tests.integration.engines import DEADLINE_S, load, running

pytestmark = pytest.mark.integration

PAGE = Path(__file__).parents[2] / "docs/deploy.md"


def commands(step: str) -> str:
    """The block of the page that begins with a comment of this name."""
    part = PAGE.read_text().split("\n## Backup and restore\n")[1].split("\n## ")[0]
    (found,) = re.findall(rf"^```sh\n(# {step}\n.*?)^```$", part, re.MULTILINE | re.DOTALL)
    return found


def run(step: str, **variables: str) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-eu", "-c", commands(step)],
        env=os.environ | variables | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 0, done.stderr


def test_a_backup_of_a_running_engine_is_restored_on_an_empty_machine(
    kafka_config: KafkaConfig, tmp_path: Path
) -> None:
    load(kafka_config)
    first, other, backup = tmp_path / "first", tmp_path / "other", tmp_path / "backup.tar.gz"
    settings = {"OUSEL_SNAPSHOT__ENGINE": "one", "OUSEL_SNAPSHOT__INTERVAL_S": "3600"}
    with running(kafka_config, tmp_path / "first.log", **settings, OUSEL_SNAPSHOT__DIR=f"{first}/snapshots") as engine:
        run("backup", STATE=str(first), BACKUP=str(backup), OUSEL_ADDRESS=engine.address)
        assert backup.stat().st_mode & 0o777 == 0o600
        assert not (first / ".backup").exists()
        # The log goes on behind the backup.
        with ousel.Client(engine.address, DEADLINE_S) as client:
            newest = client.track("i01", user_id="late", kind="purchase").position
            client.recommend(user_id="late", k=5, after=newest)
            expected = client.get_digest()
    run("restore", STATE=str(other), BACKUP=str(backup))
    assert not any(path.stat().st_mode & 0o077 for path in (other / "snapshots").rglob("*"))
    with (
        running(kafka_config, tmp_path / "other.log", **settings, OUSEL_SNAPSHOT__DIR=f"{other}/snapshots") as engine,
        ousel.Client(engine.address, DEADLINE_S) as client,
    ):
        assert engine.log().count("restored at offset") == kafka_config.events_partitions
        assert client.get_digest() == expected
