"""docs/deploy.md names only settings and commands that exist, and the formats that this version writes and reads."""

from __future__ import annotations

import re
from pathlib import Path

from engine.model import weights
from engine.snapshot.upgrades import FORMAT, OLDEST_FORMAT
from tests.docs.test_operations import settings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/deploy.md").read_text()


def row(first: str) -> list[str]:
    """The cells of the table row that begins with a text."""
    (found,) = [line for line in PAGE.splitlines() if line.startswith(f"| {first} |")]
    return [cell.strip().strip("`") for cell in found.strip("|").split("|")]


def test_the_formats_are_those_of_the_code() -> None:
    assert row("snapshots")[1:3] == [str(FORMAT), f"{OLDEST_FORMAT} to {FORMAT}"]
    assert row("models")[1:3] == [weights.FORMAT, weights.FORMAT]


def test_every_setting_it_names_exists() -> None:
    known = settings()
    sections = "|".join({name.split(".")[0] for name in known})
    named = set(re.findall(rf"`((?:{sections})\.[a-z_]+)`", PAGE))
    assert len(named) > 15
    # Values of the chart look alike, and have names in one word.
    assert {name for name in named if not re.fullmatch(r"(security|trainer)\.[a-z]+", name)} <= known


def test_every_command_it_names_exists() -> None:
    found = re.findall(r"(?:`|bin/)ousel-(engine|trainer) ([a-z-]+)", PAGE)
    assert len(found) > 4
    for program, command in found:
        assert (ROOT / program / "commands" / f"{command.replace('-', '_')}.py").exists(), f"{program} {command}"


def test_the_limit_of_memory_is_what_its_rule_says() -> None:
    rows = re.findall(r"^\| [\d,]+, [\d,]+ \| ([\d.]+) GB \| ([\d.]+) GB \| ([\d.]+) GB \| ", PAGE, re.MULTILINE)
    assert len(rows) >= 3
    for state, model, limit in rows:
        assert float(limit) == round(3 * (float(state) + float(model)), 1)
