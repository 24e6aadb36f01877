"""How much of the log is remembered."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from engine.config.section import DAY_S, HOUR_S, YEAR_S, Section, home_resolved

_RECORD_BYTES = 5 * 2**10  # half of it for a record's texts, and as much again where events name another item


class StateConfig(Section):
    """Sizes of what is remembered. Memory follows the events there are, up to these limits."""

    max_users: int = Field(
        1_000_000, ge=1, le=2**30,
        description="users and anonymous sessions, in equal parts for the partitions of the events topic;"
        " beyond that the longest idle of a partition are forgotten",
    )  # fmt: skip
    max_items: int = Field(
        200_000, ge=1, le=2**30,
        description="Items that events of one partition have named, of which the longest idle are forgotten beyond"
        " this; and records of the catalog, of which those updated last are kept beyond this, and the records of all"
        " other items that events name.",
    )  # fmt: skip
    max_catalog_bytes: int | None = Field(
        None, ge=2**20, le=2**40,
        description="Memory that the records of the catalog may take: half of it the max_items records updated last,"
        " and half of it the other records whose items events name. Beyond that the longest not updated are dropped."
        " Where it is not set, it is 5 KiB for each of max_items, and at least 1 GiB.",
    )  # fmt: skip
    catalog_recall_s: float = Field(
        600.0, gt=0, le=YEAR_S,
        description="Where events name items whose records a full catalog has dropped before, the items topic is read"
        " again for these records, at most once in this time.",
    )  # fmt: skip

    history: int = Field(512, ge=2, le=4096, description="most recent events kept per user or anonymous session")
    neighbors: int = Field(16, ge=1, le=1024, description="most recent users, and most recent next items, per item")
    relations: int = Field(32, ge=1, le=256, description="latest relations kept per user, per item, and per entity")
    max_targets: int = Field(
        200_000, ge=1, le=2**30,
        description="users and entities that relations of one partition lead to;"
        " beyond that the longest not named are forgotten",
    )  # fmt: skip
    max_session_users: int = Field(
        4, ge=0, le=5,
        description="A session that more users than this have named links none of them to its anonymous events, since"
        " strangers share its id. A household with one device are a few users. 0 links no session to any user.",
    )  # fmt: skip
    session_gap_s: float = Field(
        1800.0, gt=0, le=YEAR_S, description="idle time that starts a new session where none is named"
    )
    half_lives_s: tuple[Annotated[float, Field(gt=0, le=100 * YEAR_S)], ...] = Field(
        (7 * DAY_S, DAY_S, HOUR_S), min_length=1, max_length=8,
        description="decayed popularity halves in this event time; the first one orders the ready list",
    )  # fmt: skip
    user_item_weight: float = Field(
        8.0, ge=1, le=1_000_000,
        description="What the events of one user add to the decayed popularity of one item is at most this many times"
        " the weight of one event, at any moment and under each half-life. So nobody makes an item popular alone.",
    )  # fmt: skip
    repeated_pairs: int = Field(
        65_536, ge=1, le=2**24,
        description="Pairs of a user and an item that came again, per partition, of which the state remembers what the"
        " user has added to the item's popularity. Beyond that the pairs that have added least by now are forgotten.",
    )  # fmt: skip
    popular: int = Field(1000, ge=1000, le=100_000, description="length of the ready list; a page may ask for 1,000")
    duplicates_window: int = Field(
        65_536, ge=0, le=2**24,
        description="event ids remembered per partition, each with the subject of its event, to fold a producer's"
        " repeat once; 0: none",
    )  # fmt: skip
    features_dim: int = Field(0, ge=0, le=4096, description="length of Item.features; 0: the field must be empty")
    content_dim: int = Field(
        128, ge=8, le=4096, description="width of what is made of an item's categories and title; a model gives its own"
    )
    content_encoder: Literal["hashed", "sentence-transformer"] = Field(
        "hashed", description="hashed words cost nothing; a model (extra `text`) knows what they mean, item by item"
    )
    content_model: str | None = Field(
        None, description="name or folder of the sentence-transformer, where content_encoder is that"
    )

    @property
    def catalog_bytes(self) -> int:
        """`max_catalog_bytes`, or what stands for it where it is not set."""
        if self.max_catalog_bytes is None:
            return max(2**30, _RECORD_BYTES * self.max_items)
        return self.max_catalog_bytes

    @field_validator("content_model")
    @classmethod
    def _folder_in_a_home(cls, model: str | None) -> str | None:
        return str(home_resolved(Path(model))) if model is not None and model.startswith("~") else model

    @model_validator(mode="after")
    def _model_where_one_is_needed(self) -> StateConfig:
        if (self.content_encoder == "sentence-transformer") != (self.content_model is not None):
            raise ValueError(
                "content_model must be set where content_encoder is sentence-transformer, and only there,"
                f" got {self.content_model!r} and {self.content_encoder!r}"
            )
        return self
