"""Who gets in."""

from __future__ import annotations

from pydantic import Field, ValidationInfo, field_validator

from engine.config.section import FilePath, Section


class SecurityConfig(Section):
    """Who gets in."""

    tokens_file: FilePath | None = Field(
        None,
        description="Calls must bring one of the tokens whose digests stand in this file, and the roles that stand"
        " there say which calls. A change of the file counts within 2 s. None: no token is asked for.",
    )
    metrics_token: bool = Field(
        False,
        description="Whoever reads the metrics port must bring a token, too: one with the role metrics. Prometheus"
        " sends one by `authorization` in its scrape_config.",
    )

    @field_validator("metrics_token")
    @classmethod
    def _has_tokens(cls, asked: bool, info: ValidationInfo) -> bool:
        if asked and info.data.get("tokens_file", "wrong") is None:
            raise ValueError("needs security.tokens_file, in which the token with the role metrics stands")
        return asked
