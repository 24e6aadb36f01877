"""How lists that were sent are judged by what their users do next."""

from __future__ import annotations

from pydantic import Field

from engine.config.section import DAY_S, Section


class QualityConfig(Section):
    """How lists that were sent are judged by what their users do next, for the live figures of each model version."""

    lists: int = Field(
        20_000, ge=0, le=10_000_000,
        description="The newest list of so many users and sessions waits to be judged, and the one that was sent"
        " longest ago goes first; 0: no list is judged. A list of 20 items takes about 400 bytes.",
    )  # fmt: skip
    window_s: float = Field(
        1800.0, gt=0, le=DAY_S,
        description="A list is judged by the next event of its user within this time. A later event has hardly anything"
        " to do with it.",
    )  # fmt: skip
