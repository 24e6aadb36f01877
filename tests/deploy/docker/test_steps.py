"""The steps of a Dockerfile are taken in their order, with its arguments, and a step that is not known is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from deploy.docker.steps import Build, Pattern, StepError, instructions, stages, variables

PYTHON = Path(sys.executable)
TWO_STAGES = """\
# A comment.
ARG VERSION=3.11
FROM python:${VERSION}-slim AS first
ARG PREFIX=/opt/x
WORKDIR /src
COPY one.txt folder/
COPY made made
# Between two lines of a command there may be one more.
RUN mkdir -p "$PREFIX" \\
    # inside
    && cat folder/one.txt made/*.txt > "$PREFIX/all"

FROM first AS second
ENV NAME=$PREFIX/y OTHER="a b"
RUN python -c 'import os; print(os.environ["NAME"], os.environ["OTHER"])' > "$PREFIX/said"
CMD ["x"]
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    folder = tmp_path / "context"
    (folder / "made").mkdir(parents=True)
    (folder / "one.txt").write_text("1\n")
    (folder / "made/two.txt").write_text("2\n")
    (folder / "made/secret.txt").write_text("hush\n")
    (folder / ".dockerignore").write_text("# Nothing else.\n*\n!one.txt\n!made\n**/secret.txt\n")
    return folder


def build(context: Path, dockerfile: str, target: str, **arguments: str) -> Path:
    root = context.parent / "root"
    Build(context, root, arguments, PYTHON).take(target, dockerfile)
    return root


def test_continued_lines_are_one_instruction_and_comments_are_none() -> None:
    found = list(instructions(TWO_STAGES))
    assert [each.word for each in found] == (
        ["ARG", "FROM", "ARG", "WORKDIR", "COPY", "COPY", "RUN", "FROM", "ENV", "RUN", "CMD"]
    )
    assert found[6].text.startswith('mkdir -p "$PREFIX"') and found[6].text.endswith('> "$PREFIX/all"')
    assert found[6].line == 9


def test_a_stage_begins_with_an_image_or_with_a_stage() -> None:
    assert {name: stage.base for name, stage in stages(TWO_STAGES).items()} == (
        {"first": "python:3.11-slim", "second": "first"}
    )


def test_the_steps_of_a_stage_and_of_those_before_it_are_taken(context: Path, tmp_path: Path) -> None:
    prefix = tmp_path / "opt"
    build(context, TWO_STAGES, "second", PREFIX=str(prefix))
    assert (prefix / "all").read_text() == "1\n2\n"  # and not what .dockerignore leaves out
    assert (prefix / "said").read_text() == f"{prefix}/y a b\n"


def test_a_command_that_fails_is_named_by_its_line(context: Path) -> None:
    with pytest.raises(StepError, match=r"line 2: RUN false: .*exit status 1"):
        build(context, "FROM x AS one\nRUN false\n", "one")


@pytest.mark.parametrize("step", ["ADD a b", "COPY --chown=1 one.txt b", 'SHELL ["x"]'])
def test_an_instruction_that_is_not_known_is_refused(context: Path, step: str) -> None:
    with pytest.raises(StepError, match=r"line 2: .* is not known here"):
        build(context, f"FROM x AS one\n{step}\n", "one")


def test_a_file_that_is_not_in_the_context_can_not_be_copied(context: Path) -> None:
    with pytest.raises(StepError, match=r"there is no made/secret.txt in the context, or .dockerignore leaves it out"):
        build(context, "FROM x AS one\nCOPY made/secret.txt .\n", "one")


@pytest.mark.parametrize(
    ("path", "ignored"),
    [("a.txt", True), ("kept/b.txt", False), ("kept/deep/c.txt", False), ("kept/deep/__pycache__/d.pyc", True),
     ("kept/old.egg-info/e", True), ("other/kept/f", True)],
)  # fmt: skip
def test_the_last_rule_that_matches_a_path_or_its_folder_decides(path: str, ignored: bool) -> None:
    assert Pattern(["*", "!kept", "**/__pycache__", "**/*.egg-info"])(Path(path)) == ignored


def test_the_values_of_variables_may_name_others() -> None:
    assert variables("A=$X/1 B=${X}2", {"X": "/x"}) == {"A": "/x/1", "B": "/x2"}
