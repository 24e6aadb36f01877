"""Takes the steps of a Dockerfile's stage in a folder, without a container engine.

It copies what COPY copies, runs what RUN runs, and keeps to .dockerignore. It does not stand in for a container: the
commands see the whole machine, and the base image is whatever Python is given. So absolute paths that a step writes to
must be build arguments, which are then set to folders of one's own. An instruction that it does not know is refused.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import translate
from pathlib import Path

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_ALIAS = re.compile(r"(?P<base>\S+)(?:\s+AS\s+(?P<name>\S+))?", re.IGNORECASE)
# What a stage says of the image that it becomes, and what no step depends on.
_OF_THE_IMAGE = {"CMD", "ENTRYPOINT", "EXPOSE", "HEALTHCHECK", "LABEL", "STOPSIGNAL", "USER", "VOLUME"}


class StepError(RuntimeError):
    """A step failed, or is one that can't be taken here; the message names it by its line."""


@dataclass(frozen=True)
class Instruction:
    """One instruction: its word in capitals, what follows it on one line, and the number of its first line."""

    word: str
    text: str
    line: int


@dataclass
class Stage:
    """A stage: the image or stage that it begins with, and its instructions after FROM."""

    base: str
    instructions: list[Instruction] = field(default_factory=list)


def instructions(text: str) -> Iterator[Instruction]:
    """The instructions of a Dockerfile, with continued lines joined and comments left out."""
    pending, begin = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("#") or not (line.strip() or pending):
            continue
        begin = begin if pending else number
        pending += line.strip()
        if pending.endswith("\\"):
            pending = pending[:-1]
            continue
        word, _, rest = pending.partition(" ")
        yield Instruction(word.upper(), rest.strip(), begin)
        pending = ""


def stages(text: str) -> dict[str, Stage]:
    """The named stages of a Dockerfile, with the arguments before the first one replaced in their bases."""
    before: dict[str, str] = {}
    found: dict[str, Stage] = {}
    stage: Stage | None = None
    for each in instructions(text):
        if each.word == "FROM":
            alias = _ALIAS.fullmatch(each.text)
            if alias is None or alias["name"] is None:
                raise StepError(f"line {each.line}: every stage must have a name, got FROM {each.text}")
            stage = found[alias["name"]] = Stage(_replaced(alias["base"], before))
        elif stage is None:
            name, _, value = each.text.partition("=")
            before[name] = value
        else:
            stage.instructions.append(each)
    return found


class Build:
    """One stage, and those that it is made from, taken in a folder.

    Args:
        context: the folder that COPY copies from.
        root: the folder that is the image's root directory for WORKDIR and COPY; it must be empty or absent.
        arguments: the build arguments by name, as `docker build --build-arg` gives them.
        python: the interpreter that stands in for that of the base image, as `python`.

    Attributes:
        environment: the variables that a command of the stage last taken has.
    """

    def __init__(self, context: Path, root: Path, arguments: Mapping[str, str], python: Path) -> None:
        self._context, self._root, self._arguments = context, root.resolve(), arguments
        self._ignored = ignored_by((context / ".dockerignore").read_text(encoding="utf-8"))
        commands = self._root / "base/bin"
        commands.mkdir(parents=True)
        (commands / "python").symlink_to(python)
        home = self._root / "root"
        home.mkdir()
        self.environment = {"PATH": f"{commands}:/usr/local/bin:/usr/bin:/bin", "HOME": str(home)}
        self._folder = self._root

    def take(self, target: str, dockerfile: str) -> None:
        """Takes the steps of a stage, after those of the stages that it begins with.

        Raises:
            StepError: a step can't be taken, or its command failed.
        """
        known = stages(dockerfile)
        stage = known[target]
        if stage.base in known:
            self.take(stage.base, dockerfile)
        for step in stage.instructions:
            try:
                self._take(step)
            except (OSError, ValueError, subprocess.CalledProcessError) as error:
                raise StepError(f"line {step.line}: {step.word} {step.text[:80]}: {error}") from None

    def _take(self, step: Instruction) -> None:
        if step.word == "ARG":
            name, _, default = step.text.partition("=")
            self.environment.setdefault(name, self._arguments.get(name, default.strip('"')))
        elif step.word == "ENV":
            self.environment |= variables(step.text, self.environment)
        elif step.word == "WORKDIR":
            self._folder = self._placed(_replaced(step.text, self.environment))
            self._folder.mkdir(parents=True, exist_ok=True)
        elif step.word == "COPY":
            self._copy(step.text)
        elif step.word == "RUN":
            subprocess.run(["sh", "-c", step.text], cwd=self._folder, env=self.environment, check=True)
        elif step.word not in _OF_THE_IMAGE:
            raise ValueError("such an instruction is not known here")

    def _placed(self, path: str) -> Path:
        """A path of the image as one under the root."""
        return self._root / path.lstrip("/") if path.startswith("/") else self._folder / path

    def _copy(self, text: str) -> None:
        if text.startswith("--"):
            raise ValueError("COPY with an option is not known here")
        *sources, target = text.split()
        placed = self._placed(target)
        for source in sources:
            path = self._context / source
            paths = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
            copied = [each for each in paths if not self._ignored(each.relative_to(self._context))]
            if not copied:
                raise ValueError(f"there is no {source} in the context, or .dockerignore leaves it out")
            for each in copied:
                inside = Path(each.name) if path.is_file() else each.relative_to(path)
                (placed / inside).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(each, placed / inside)


def variables(text: str, known: Mapping[str, str]) -> dict[str, str]:
    """The variables that an ENV instruction sets, with those that are known replaced in their values."""
    pairs = (each.partition("=") for each in shlex.split(text))
    return {name: _replaced(value, known) for name, _, value in pairs}


def ignored_by(text: str) -> Pattern:
    """The rules of a .dockerignore."""
    return Pattern([line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")])


class Pattern:
    """Tells whether a path is left out of the context: of the rules that match it or a folder above, the last decides.

    Args:
        rules: the lines of the file; one that begins with `!` takes back.
    """

    def __init__(self, rules: list[str]) -> None:
        self._rules = [(not rule.startswith("!"), _expression(rule.lstrip("!").strip("/"))) for rule in rules]

    def __call__(self, path: Path) -> bool:
        names = [str(path), *(str(parent) for parent in path.parents[:-1])]
        decisions = [ignored for ignored, rule in self._rules if any(rule.fullmatch(name) for name in names)]
        return bool(decisions) and decisions[-1]


def _expression(rule: str) -> re.Pattern[str]:
    """A rule as an expression: `*` stays within a folder, and a leading `**/` stands for any folders or none."""
    anywhere, rest = (True, rule[3:]) if rule.startswith("**/") else (False, rule)
    parts = [translate(part).removesuffix(r"\Z").replace(".*", "[^/]*") for part in rest.split("/")]
    return re.compile(("(?:.*/)?" if anywhere else "") + "/".join(parts), re.DOTALL)


def _replaced(text: str, known: Mapping[str, str]) -> str:
    return _VARIABLE.sub(lambda found: known.get(found[1] or found[2], ""), text)


def words(text: str) -> list[str]:
    """The words of a CMD or of a check in its form as a JSON list."""
    return [str(word) for word in json.loads(text[text.index("[") :])]


def is_empty(folder: Path) -> bool:
    """Tells whether a folder can be built in: it is absent, or nothing lies in it."""
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
