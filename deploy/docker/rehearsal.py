"""Builds by the Dockerfile's own steps in an empty folder, then starts the engine from what was built.

    python -m deploy.docker.rehearsal [--folder build/docker] [--pip-args "..."]

It shows that the pinned versions install from nothing, that the functions are compiled, and that an engine with the
image's environment serves, answers its health check and writes nothing beside its state. It needs pip's index, and
takes a few minutes. What only a container engine can show, such as the user and the read-only root, it does not.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import ousel
from ousel import OuselError

from deploy.docker.steps import Build, StepError, instructions, is_empty, variables, words
from deploy.local.broker import BrokerError, EmbeddedBroker
from deploy.local.processes import Child, tail

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy/docker/Dockerfile"
_START_S, _STOP_S, _PAUSE_S = 120.0, 30.0, 0.5


class RehearsalError(RuntimeError):
    """What was built does not work; the message says which part of it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Prints a line for each thing that was shown; returns the exit code: 0 all were, 1 one failed, 2 wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m deploy.docker.rehearsal", description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("build/docker"), help="an empty folder to build in")
    parser.add_argument("--python", type=Path, default=Path(sys.base_prefix) / "bin/python3", help="the base image's")
    parser.add_argument("--pip-args", default="", help="the build argument PIP_ARGS, such as an index")
    given = parser.parse_args(argv)
    folder: Path = given.folder.resolve()
    if not is_empty(folder):
        print(f"rehearsal: --folder must be empty or absent, got {str(folder)!r}", file=sys.stderr)
        return 2
    arguments = {"PREFIX": str(folder / "opt/ousel"), "STATE": str(folder / "state"), "PIP_ARGS": given.pip_args}
    try:
        began_s = time.monotonic()
        Build(ROOT, folder, arguments, given.python).take("build", DOCKERFILE.read_text(encoding="utf-8"))
        built_s = time.monotonic() - began_s
        print(f"built      {built_s:.0f} s, {_size_mb(folder / 'opt')} MB in {folder / 'opt'}")
        started_s = _serve(folder, arguments)
    except (StepError, RehearsalError, BrokerError, OuselError) as error:
        print(f"rehearsal: {error}", file=sys.stderr)
        return 1
    print(json.dumps({"built_s": round(built_s, 1), "started_s": round(started_s, 1)}))
    return 0


def image_environment(arguments: Mapping[str, str]) -> dict[str, str]:
    """The variables that the image gives its processes."""
    text, found = DOCKERFILE.read_text(encoding="utf-8"), dict(arguments)
    for each in instructions(text):
        if each.word == "ENV" and "NVIDIA" not in each.text:
            found |= variables(each.text, found)
    return {name: value for name, value in found.items() if name not in arguments}


def health_check() -> list[str]:
    """The command of the image's health check."""
    (check,) = [each for each in instructions(DOCKERFILE.read_text(encoding="utf-8")) if each.word == "HEALTHCHECK"]
    return words(check.text)


def _serve(folder: Path, arguments: Mapping[str, str]) -> float:
    """Runs an engine of what was built until it was seen to serve and to stop; returns how long its start took."""
    (folder / "state").mkdir(mode=0o700)
    before = _listing(folder / "opt")
    with EmbeddedBroker(folder / "broker") as broker:
        environment = image_environment(arguments) | {
            "OUSEL_KAFKA__BOOTSTRAP": broker.bootstrap,
            "OUSEL_SERVING__PORT": "50951",
            "OUSEL_SERVING__METRICS_PORT": "0",
        }
        ask = _command(health_check(), environment)
        if subprocess.run(ask, env=environment, capture_output=True, check=False).returncode != 1:
            raise RehearsalError("the health check must fail before there is an engine")
        began_s = time.monotonic()
        engine = Child("engine", _command(["ousel-engine", "serve"], environment), folder / "engine.log", environment)
        try:
            while subprocess.run(ask, env=environment, capture_output=True, check=False).returncode != 0:
                if engine.wait(_PAUSE_S) is not None or time.monotonic() > began_s + _START_S:
                    raise RehearsalError(f"the engine does not serve:\n{tail(engine.log_path, 20)}")
            started_s = time.monotonic() - began_s
            print(f"started    the health check says yes after {started_s:.1f} s")
            _use("127.0.0.1:50951")
            engine.terminate()
            if engine.wait(_STOP_S) != 0:
                raise RehearsalError(f"the engine does not end well:\n{tail(engine.log_path, 20)}")
            print("stopped    by SIGTERM, with exit code 0")
        finally:
            engine.stop()
        if "functions are compiled for this machine" in engine.log_path.read_text():
            raise RehearsalError("the engine compiled functions at its start that the image should have")
        if (changed := before ^ _listing(folder / "opt")) != set():
            raise RehearsalError(f"the engine wrote into the image: {sorted(changed)[:5]}")
        print("read-only  nothing was written beside the state")
        trainer = _command(["ousel-trainer", "--version"], environment)
        version = subprocess.run(trainer, env=environment, capture_output=True, text=True, check=False)
        if version.returncode != 0:
            raise RehearsalError(f"the trainer does not start: {version.stderr}")
        print(f"trainer    {version.stdout.strip()}")
    return started_s


def _use(address: str) -> None:
    """An event and a list, as an app has them."""
    with ousel.Client(address) as client:
        tracked = client.track("an-item", user_id="a-user", kind="view")
        listed = client.recommend(user_id="another", k=5, after=tracked.position)
    print(f"used       an event was tracked, and a list has {[item.item_id for item in listed.items]}")


def _command(command: list[str], environment: Mapping[str, str]) -> list[str]:
    """A command with its program looked up in the image's PATH, not in that of whoever runs this."""
    found = shutil.which(command[0], path=environment["PATH"])
    if found is None:
        raise RehearsalError(f"there is no {command[0]} in what was built")
    return [found, *command[1:]]


def _listing(folder: Path) -> set[tuple[str, int, int]]:
    """Every file with its size and the time of its last change."""
    found = set()
    for place, _, names in os.walk(folder):
        for name in names:
            about = os.lstat(Path(place) / name)
            found.add((str(Path(place) / name), about.st_size, about.st_mtime_ns))
    return found


def _size_mb(folder: Path) -> int:
    return sum(size for _, size, _ in _listing(folder)) // 10**6


if __name__ == "__main__":
    sys.exit(main())
