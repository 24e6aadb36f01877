"""What an event may say."""

from __future__ import annotations

from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator, model_validator

from engine.config.section import DAY_S, YEAR_S, Section

MAX_WEIGHT = 1_000_000.0

# The texts that languages print for a missing value, the user number that shop systems give to guests, and the id that
# phones report where tracking is off.
PLACEHOLDER_IDS = (
    "null", "(null)", "<null>", "undefined", "none", "nil", "<nil>", "nan", "n/a", "false", "true", "0", "-1",
    "[object object]", "00000000-0000-0000-0000-000000000000", "00000000000000000000000000000000",
    "anonymous", "guest", "unknown",
)  # fmt: skip

CLOUDEVENTS, DEBEZIUM, SCHEMA_REGISTRY = "cloudevents", "debezium", "schema-registry"
ENVELOPES = (CLOUDEVENTS, DEBEZIUM, SCHEMA_REGISTRY)

Kind = Annotated[str, Field(min_length=1, max_length=256)]
Weight = Annotated[float, Field(ge=0, le=MAX_WEIGHT)]


class EventsConfig(Section):
    """What an event may say. Whatever breaks a rule goes to the dead-letter topic with the reason."""

    kinds: dict[Kind, Weight] = Field(
        default={
            "view": 1.0,
            "click": 1.0,
            "play": 1.0,
            "cart": 2.0,
            "like": 2.0,
            "rate": 2.0,
            "share": 2.0,
            "purchase": 3.0,
        },
        description="known kinds and the weight of each in decayed popularity; the order numbers them, so append only",
    )
    default_kind: str = "view"
    relations: dict[Kind, Weight] = Field(
        default={"follows": 1.0, "friend": 2.0, "has": 1.0},
        description="known relations of users and of items, and how much each weighs where candidates are proposed,"
        " 0: it proposes none; the order numbers them, so append only",
    )
    default_user_relation: str = Field("follows", description="of an event with target_user_id that names no kind")
    default_item_relation: str = Field("has", description="of an event with entity_id that names no kind")
    max_id_bytes: int = Field(256, ge=8, le=4096, description="longest user, session, item or event id, in UTF-8")
    max_future_s: float = Field(
        DAY_S,
        ge=0,
        le=YEAR_S,
        description="how far ahead of its record an event's time may lie; nearer ones count as of their record",
    )
    earliest_year: int = Field(
        1990,
        ge=1970,
        le=2025,
        description="times of events and of availability before this year are refused as implausible, since seconds"
        " that are taken for milliseconds lie in January 1970",
    )
    time_zone: str = Field(
        "",
        description="the zone of times that name none, such as UTC or Europe/Berlin; empty: such times are refused",
    )
    placeholder_ids: tuple[Annotated[str, Field(max_length=127)], ...] = Field(
        PLACEHOLDER_IDS, max_length=1000,
        description="Users and sessions of these ids are refused, in any case of the letters, since broken producers"
        " send them for everybody and strangers would become one person. An empty list refuses none.",
    )  # fmt: skip
    max_attributes: int = Field(64, ge=0, le=1024, description="how many attributes an item of the catalog may have")
    max_attribute_bytes: int = Field(
        8192,
        ge=0,
        le=1024 * 1024,
        description="longest attributes of one item, names and values together, in UTF-8; the catalog keeps them in"
        " memory, within state.max_catalog_bytes",
    )
    envelope: str = Field(
        "",
        description="envelopes that are read, separated by commas: cloudevents, debezium, schema-registry; records"
        " without an envelope are read all the same",
    )

    @field_validator("placeholder_ids")
    @classmethod
    def _in_lower_case(cls, ids: tuple[str, ...]) -> tuple[str, ...]:
        if not all(one.strip() for one in ids):
            raise ValueError("no placeholder may be empty, since an empty id is refused by other rules")
        return tuple(dict.fromkeys(one.strip().lower() for one in ids))

    @field_validator("envelope")
    @classmethod
    def _envelopes_exist(cls, names: str) -> str:
        for name in filter(None, map(str.strip, names.split(","))):
            if name not in ENVELOPES:
                raise ValueError(f"envelope must be of {', '.join(ENVELOPES)}, separated by commas, got {name[:40]!r}")
        return names

    @field_validator("kinds", "relations", mode="before")
    @classmethod
    def _no_weight_is_negative(cls, weights: Any) -> Any:
        # The usual message would not say that weights below 0 are refused for now only.
        for kind, weight in weights.items() if isinstance(weights, dict) else ():
            if isinstance(weight, int | float) and weight < 0:
                raise ValueError(
                    f"the weight of {str(kind)[:40]!r} must be >= 0, got {weight}: a kind that counts against an item"
                    " needs dislikes, which this version does not have"
                )
        return weights

    @field_validator("time_zone")
    @classmethod
    def _zone_exists(cls, name: str) -> str:
        try:
            if name not in ("", "UTC"):
                ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(
                f"time_zone must be a name of the IANA database of zones, which the system or the package tzdata has,"
                f" got {name!r}"
            ) from None
        return name

    @model_validator(mode="after")
    def _kinds_fit(self) -> EventsConfig:
        if not 1 <= len(self.kinds) <= 127:
            raise ValueError(f"kinds must be 1 to 127 names, got {len(self.kinds)}")
        if self.default_kind not in self.kinds:
            raise ValueError(f"default_kind must be one of {sorted(self.kinds)}, got {self.default_kind!r}")
        if not 1 <= len(self.relations) <= 127:
            raise ValueError(f"relations must be 1 to 127 names, got {len(self.relations)}")
        for name in ("default_user_relation", "default_item_relation"):
            if getattr(self, name) not in self.relations:
                raise ValueError(f"{name} must be one of {sorted(self.relations)}, got {getattr(self, name)!r}")
        return self

    @property
    def envelopes(self) -> tuple[str, ...]:
        """The names in `envelope`."""
        return tuple(name for name in map(str.strip, self.envelope.split(",")) if name)
