"""Where and how often the state is saved."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from engine.config.section import DAY_S, FilePath, Section


class SnapshotConfig(Section):
    """Where the state is saved, so that a restart need not read the whole log again."""

    enabled: bool = Field(
        True,
        description="Snapshots are taken, and a start restores the newest; false: it reads the log from its begin.",
    )
    dir: FilePath | None = Field(
        None,
        description="folder of the snapshots; none: $STATE_DIRECTORY/snapshots, as systemd gives it, or"
        " ousel/snapshots in $XDG_STATE_HOME, which is ~/.local/state unless it is set; a folder for each log in it",
    )
    engine: str | None = Field(
        None, description="name of this engine in that folder, its own and lasting; none: host name and serving.port"
    )
    on_mismatch: Literal["refuse", "replay"] = Field(
        "refuse",
        description="a start that would lose what a snapshot holds, since neither it nor the log can give it back,"
        " is refused; replay: it begins with what the log still has, and the snapshot is kept",
    )
    interval_s: float = Field(
        60.0, gt=0, le=7 * DAY_S, description="from the end of one snapshot to the start of the next"
    )
    keep: int = Field(3, ge=1, le=1000, description="newest snapshots of this engine that are kept")
    piece_bytes: int = Field(
        4 * 2**20,
        ge=4096,
        le=2**30,
        description="copied per step while a snapshot is taken; more ends sooner, and pauses longer",
    )
