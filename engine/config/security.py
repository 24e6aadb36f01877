"""Who gets in."""

from __future__ import annotations

from pydantic import Field

from engine.config.section import FilePath, Section


class SecurityConfig(Section):
    """Who gets in."""

    tokens_file: FilePath | None = Field(
        None,
        description="Calls must bring one of the tokens whose digests stand in this file, and the roles that stand"
        " there say which calls. A change of the file counts within 2 s. None: no token is asked for.",
    )
