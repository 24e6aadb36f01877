"""Where traces go, and how many calls are traced."""

from __future__ import annotations

from pydantic import Field

from engine.config.section import Section


class TracesConfig(Section):
    """OpenTelemetry traces of the way from Track to the list that is pushed; needs the extra `traces`."""

    endpoint: str | None = Field(
        None,
        pattern=r"^https?://[^\s@]+$",
        description="URL of an OTLP collector that takes spans by gRPC, such as http://localhost:4317; none: nothing is"
        " traced",
    )
    share: float = Field(
        0.01, ge=0, le=1,
        description="This share of the Track calls is traced. A call whose caller names a span by traceparent is traced"
        " where that span is.",
    )  # fmt: skip
