"""A link in a page of the project leads to a page, and to a heading, that exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("clients/**/*.md")])


def anchors(page: Path) -> set[str]:
    """The fragments that lead into a page: its headings as GitHub names them, and anchors written by hand."""
    text = page.read_text()
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    named = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return named | set(re.findall(r'<a id="([^"]+)"', text))


def broken(page: Path) -> list[str]:
    found = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, fragment = link.partition("#")
        if "://" in path:
            continue
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (fragment and fragment not in anchors(target)):
            found.append(link)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    assert broken(page) == []


def test_a_link_to_a_page_or_heading_that_is_gone_is_found(tmp_path: Path) -> None:
    (tmp_path / "b.md").write_text('# What it is\n\n<a id="by-hand"></a>\n')
    page = tmp_path / "a.md"
    page.write_text(
        "[1](b.md#what-it-is) [2](b.md#by-hand) [3](c.md) [4](b.md#gone) [5](#here) [6](https://x.org/#y)\n"
    )
    assert broken(page) == ["c.md", "b.md#gone", "#here"]
