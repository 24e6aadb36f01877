"""Prints what the engine, the trainer and the client depend on, a line each, without themselves.

    python deploy/docker/requirements.py [EXTRA...]

The image has these in a layer of their own, which stays the same while only the project's code changes.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_OWN = ("ousel-client", "ousel-engine")


def requirements(root: Path, extras: Sequence[str]) -> list[str]:
    """The requirements of the projects under a folder.

    Raises:
        LookupError: there is no such extra.
    """
    found = []
    for path in (root / "clients/python/pyproject.toml", root / "pyproject.toml"):
        project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
        found += project["dependencies"]
    optional = project.get("optional-dependencies", {})
    for extra in extras:
        if extra not in optional:
            raise LookupError(f"EXTRAS must be of {', '.join(sorted(optional))}, got {extra!r}")
        found += optional[extra]
    return [each for each in dict.fromkeys(found) if not each.startswith(_OWN)]


if __name__ == "__main__":
    try:
        print("\n".join(requirements(_ROOT, sys.argv[1:])))
    except LookupError as error:
        raise SystemExit(f"requirements: {error.args[0]}") from None
