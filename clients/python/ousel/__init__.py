"""Client of the Ousel recommender engine: recommend, stream, track; forget, export and look after it."""

from ousel.aio import AsyncClient
from ousel.aio_subscription import AsyncSubscription
from ousel.client import Client
from ousel.credentials import Credentials
from ousel.errors import (
    DeadlineExceeded,
    InvalidArgument,
    OuselError,
    OutOfRange,
    ResourceExhausted,
    StreamEnded,
    Unavailable,
)
from ousel.subscription import Subscription
from ousel.types import (
    Cause,
    Exported,
    Forgotten,
    HeldSubject,
    Origin,
    PartitionDigest,
    Position,
    Recommendation,
    RecommendationList,
    RememberedEvent,
    RememberedRelation,
    RolledBack,
    Source,
    StateDigest,
    Status,
    Subject,
    Tracked,
    Update,
)

__all__ = [
    "AsyncClient",
    "AsyncSubscription",
    "Cause",
    "Client",
    "Credentials",
    "DeadlineExceeded",
    "Exported",
    "Forgotten",
    "HeldSubject",
    "InvalidArgument",
    "Origin",
    "OuselError",
    "OutOfRange",
    "PartitionDigest",
    "Position",
    "Recommendation",
    "RecommendationList",
    "RememberedEvent",
    "RememberedRelation",
    "ResourceExhausted",
    "RolledBack",
    "Source",
    "StateDigest",
    "Status",
    "StreamEnded",
    "Subject",
    "Subscription",
    "Tracked",
    "Unavailable",
    "Update",
]
