"""What a list is made of."""

from __future__ import annotations

from pydantic import Field

from engine.config.section import Section


class RankingConfig(Section):
    """How many candidates each source proposes for one list."""

    index_candidates: int = Field(200, ge=1, le=10_000)
    popular_candidates: int = Field(50, ge=1, le=10_000)
    neighbor_sources: int = Field(
        5, ge=0, le=64, description="last items whose next items, and items with the same entities, are proposed"
    )
    friend_candidates: int = Field(
        50, ge=0, le=1000, description="latest items of users that the user is related to; 0: none"
    )
    entity_candidates: int = Field(
        50, ge=0, le=1000, description="items that share an entity with the last items; 0: none"
    )
    goal: str | None = Field(
        None, description="kind of event whose items lists are for; none: any. The model must be trained by_kind"
    )
    catalog_only: bool = Field(
        False,
        description="Only items that the catalog has a record of are recommended, so that an id that events alone name,"
        ' such as "undefined", is in no list.',
    )
    max_k: int = Field(1000, ge=1, le=1000)
