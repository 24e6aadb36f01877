"""How much is logged, and in which form."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from engine.config.section import Section

LogFormat = Literal["text", "json"]


class LogConfig(Section):
    """What every process of Ousel logs, to stderr."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Lines of this level and above are logged."
    )
    format: LogFormat = Field(
        "text",
        description="text: lines for people, in colour on a terminal; json: one object a line for collectors, with what"
        " a line is about (topic, partition, offset, model version, request) in fields of its own",
    )

    @field_validator("level", "format", mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value
