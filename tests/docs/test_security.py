"""docs/security.md shows the very table of roles that calls are asked by, and a tokens file that can be read."""

from __future__ import annotations

import re
from pathlib import Path

from engine.security.roles import ACCESS, EVENT_ON_A_STREAM, STATUS_FIELDS, Role
from engine.security.tokens import parse_tokens

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()


def test_the_table_of_roles_is_the_one_in_force():
    shown = {}
    for call, roles, without in re.findall(r"^\| `([\w.]+/\w+)` \| ([^|]+) \| (\w+) \|$", PAGE, re.MULTILINE):
        prefix = "" if call.startswith("grpc.") else "ousel.v1."
        shown[f"/{prefix}{call}"] = tuple(re.findall(r"`(\w+)`", roles))
        assert without == ("refused" if shown[f"/{prefix}{call}"] else "answered")
    assert shown == {call: tuple(map(str, allowed)) for call, allowed in ACCESS.items()}


def test_what_the_status_shows_to_a_role_is_said():
    text = " ".join(PAGE.split())
    assert f"An event on a stream of recommendations needs `{EVENT_ON_A_STREAM}`" in text
    for role in (Role.PUSH, Role.RECOMMEND):
        [said] = re.findall(rf"[Tt]o `{role}` it shows ([^.;,]*(?:, [^.;,]*)*)", text)
        named = set(re.findall(r"`(\w+)`", said.split(", by")[0]))
        assert named == STATUS_FIELDS[role]


def test_each_threat_has_tests_and_they_exist():
    rows = [line for line in PAGE.split("## Threats")[1].split("\n## ")[0].splitlines() if line.startswith("| ")][2:]
    assert len(rows) > 10
    for row in rows:
        shown = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
        assert shown, row
        for path, name in shown:
            assert re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text(), re.MULTILINE), f"{path}::{name}"


def test_the_tokens_file_that_it_shows_can_be_read():
    [example] = re.findall(r"```\n(# The shop.*?)```", PAGE, re.DOTALL)
    assert len(parse_tokens(example)) == 2
