"""The parts that every section of the configuration shares."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
YEAR_S = 365 * DAY_S

Precision = Literal["float32", "bfloat16", "int8"]
Device = Annotated[str, Field(pattern=r"^(cpu|cuda(:\d{1,3})?)$")]


def home_resolved(path: Path) -> Path:
    """A path with the home folder in place of a leading `~`, which only shells replace.

    Raises:
        ValueError: the system knows no such home folder.
    """
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError("must not begin with the ~ of a user who has no home folder") from None


def _readable(path: Path) -> Path:
    if not (path.is_file() and os.access(path, os.R_OK)):
        raise ValueError("must name a file that can be read")
    return path


FilePath = Annotated[Path, AfterValidator(home_resolved)]
ReadableFile = Annotated[FilePath, AfterValidator(_readable)]


class ConfigError(ValueError):
    """A setting is missing, unknown or out of range; the message names it, its value and what is allowed."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)
