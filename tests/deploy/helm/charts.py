"""The chart as Helm renders it, and its settings as the programs read them."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.tools import tool

FOLDER = Path(__file__).parents[3] / "deploy/helm"
CHART = FOLDER / "ousel"
VALUES = {path.stem: path for path in sorted((FOLDER / "ci").glob("*.yaml"))}


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Helm with folders of its own, so that nobody's settings count."""
    home = {name: str(FOLDER / "none") for name in ("HELM_CONFIG_HOME", "HELM_CACHE_HOME", "HELM_DATA_HOME")}
    return subprocess.run(
        [tool("helm"), *arguments], env=os.environ | home, capture_output=True, text=True, check=False, timeout=60
    )


@cache
def rendered(name: str) -> tuple[dict[str, Any], ...]:
    """The objects that the chart makes of one set of values."""
    done = helm("template", "shop", str(CHART), "--namespace", "shop", "--values", str(VALUES[name]))
    assert done.returncode == 0, done.stderr
    return tuple(one for one in yaml.safe_load_all(done.stdout) if one)


def of_kind(name: str, kind: str) -> list[dict[str, Any]]:
    return [one for one in rendered(name) if one["kind"] == kind]


def pods(name: str) -> dict[str, dict[str, Any]]:
    """The templates of pods, by what they run."""
    templates = [one["spec"]["template"] for one in of_kind(name, "StatefulSet")]
    return {one["metadata"]["labels"]["app.kubernetes.io/component"]: one for one in templates}


def on_this_machine(text: str, folder: Path) -> str:
    """Settings with the files that pods mount below /etc as files in a folder of this machine."""
    for path in set(re.findall(r'"(/etc/[^"]+)"', text)):
        placed = folder / path.lstrip("/")
        placed.parent.mkdir(parents=True, exist_ok=True)
        placed.write_text("of-no-meaning\n")
        text = text.replace(f'"{path}"', f'"{placed}"')
    return text


def toml(sections: Mapping[str, Any]) -> str:
    """Settings as a file, written in the plainest way."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in sections.items() if not isinstance(value, dict)]
    for section, settings in sections.items():
        if isinstance(settings, dict):
            lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in settings.items())]
    return "\n".join(lines)
