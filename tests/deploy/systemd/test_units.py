"""systemd takes the units, they run as a user of their own that can do little, and the settings beside them hold."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from engine.config import load_config, load_settings
from tests.tools import tool
from trainer.config import TrainerConfig

FOLDER = Path(__file__).parents[3] / "deploy/systemd"
UNITS = ("ousel-engine.service", "ousel-trainer.service")
_MOST_EXPOSED = 1.6  # of 10, by systemd's own account


def directives(unit: str) -> dict[str, str]:
    return dict(re.findall(r"^(\w+)=(.*)$", (FOLDER / unit).read_text(), re.MULTILINE))


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units, beside programs of the names that they start."""
    for name in ("ousel-engine", "ousel-trainer"):
        program = tmp_path / name
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    for unit in UNITS:
        (tmp_path / unit).write_text((FOLDER / unit).read_text().replace("/opt/ousel/bin", str(tmp_path)))
    return tmp_path


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_finds_nothing_wrong_in_a_unit(unit: str, installed: Path) -> None:
    command = [tool("systemd-analyze"), "verify", "--man=no", str(installed / unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_can_do_little_by_systemds_own_account(unit: str, installed: Path) -> None:
    command = [tool("systemd-analyze"), "security", "--offline=yes", f"--threshold={_MOST_EXPOSED * 10:.0f}"]
    done = subprocess.run([*command, str(installed / unit)], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout[-400:] + done.stderr


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_keeps_what_must_last_and_does_not_restart_after_a_wrong_setting(unit: str) -> None:
    found, name = directives(unit), unit.partition(".")[0]
    assert found["User"] == "ousel" and re.search("^u ousel ", (FOLDER / "ousel.sysusers").read_text(), re.MULTILINE)
    assert (found["StateDirectory"], found["StateDirectoryMode"], found["UMask"]) == (name, "0700", "0077")
    assert found["RestartPreventExitStatus"] == "2"
    assert found["KillMode"] == "mixed"  # Else systemd would stop the process that reads the log by itself.


def test_an_engine_has_the_time_to_end_well() -> None:
    minutes = re.fullmatch(r"(\d+)min", directives("ousel-engine.service")["TimeoutStopSec"])
    assert minutes and 60 * int(minutes[1]) > load_config().serving.grace_s + 60


def test_the_settings_beside_them_are_ones_that_both_programs_take() -> None:
    path = FOLDER / "ousel.toml"
    trainer = load_settings(TrainerConfig, path).trainer
    assert trainer.engine == f"127.0.0.1:{load_config(path).serving.port}"
    state = Path("/var/lib") / directives("ousel-trainer.service")["StateDirectory"]
    for folder in (trainer.archive_dir, trainer.models_dir):
        assert folder is not None and folder.is_relative_to(state)
