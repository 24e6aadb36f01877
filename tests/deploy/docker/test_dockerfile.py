"""The image runs as nobody special, holds no secret, and is made of what the project's own files pin."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from deploy.docker.rehearsal import DOCKERFILE, ROOT, health_check, image_environment
from deploy.docker.requirements import requirements
from deploy.docker.steps import Pattern, Stage, instructions, stages
from engine.config import ServingConfig
from tests.tools import tool

TEXT = DOCKERFILE.read_text()
STAGES = stages(TEXT)


def of(stage: Stage, word: str) -> list[str]:
    return [each.text for each in stage.instructions if each.word == word]


def test_both_images_are_the_one_that_does_not_run_as_root() -> None:
    assert of(STAGES["cpu"], "USER") == ["10001:10001"]  # as a number, which Kubernetes asks for
    assert {name for name, stage in STAGES.items() if stage.base == "cpu"} == {"cuda", "image"}
    assert list(STAGES)[-1] == "image"  # what is built where no target is named


def test_all_that_is_written_lies_in_the_folder_of_the_state() -> None:
    environment = image_environment({"PREFIX": "/opt/ousel", "STATE": "/state"})
    for name in ("HOME", "STATE_DIRECTORY", "XDG_CACHE_HOME"):
        assert environment[name].startswith("/state")
    assert of(STAGES["cpu"], "VOLUME") == ["$STATE"]


def test_it_listens_where_the_engine_does_by_default() -> None:
    serving = ServingConfig()
    assert of(STAGES["cpu"], "EXPOSE") == [f"{serving.port} {serving.metrics_port}"]
    assert health_check() == ["ousel-engine", "health"]


def test_no_argument_and_no_variable_of_it_is_for_a_secret() -> None:
    named = [each.text for each in instructions(TEXT) if each.word in ("ARG", "ENV")]
    assert not re.search("pass|secret|token|key|credential", " ".join(named), re.IGNORECASE)


def test_its_context_holds_the_sources_and_nothing_that_may_lie_about() -> None:
    ignored = Pattern([line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] not in ("#", "")])
    for path in ("engine/pipeline.py", "trainer/train.py", "clients/python/ousel/client.py", "pyproject.toml"):
        assert not ignored(Path(path)), path
    for path in (".git/config", ".env", "key.pem", "deploy/compose/.env", "engine/__pycache__/a.kernel", "build/x"):
        assert ignored(Path(path)), path


def test_every_requirement_is_one_that_constraints_pin() -> None:
    pinned = {
        line.partition("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
    }
    needed = requirements(ROOT, ["curves"])
    assert not any(each.startswith("ousel") for each in needed)
    names = {re.match(r"[\w-]+", each)[0].lower() for each in needed if "win32" not in each}
    assert {"torch", "grpcio", "matplotlib"} <= names <= pinned


def test_an_extra_that_does_not_exist_is_named() -> None:
    script = ROOT / "deploy/docker/requirements.py"
    done = subprocess.run([sys.executable, script, "txet"], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "EXTRAS must be of curves, demo, dev" in done.stderr and "'txet'" in done.stderr


def test_hadolint_finds_nothing() -> None:
    done = subprocess.run([tool("hadolint"), DOCKERFILE], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")
