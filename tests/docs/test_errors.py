"""docs/errors.md explains every reason of the one table in code, with its status code, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from engine.serving.errors import KINDS, UNEXPECTED

PAGE = (Path(__file__).parents[2] / "docs" / "errors.md").read_text()


def test_every_reason_is_explained_with_its_code_and_none_that_is_gone():
    rows = re.findall(r"^\| `([A-Z_]+)` \| `([A-Z_]+)` \| \S.* \| \S.* \|$", PAGE, re.MULTILINE)
    assert sorted(rows) == sorted((kind.reason, kind.code.name) for kind in (*KINDS, UNEXPECTED))
