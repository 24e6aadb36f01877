"""Client of the Ousel recommender engine: recommend, stream, track."""

from ousel.aio import AsyncClient, AsyncSubscription
from ousel.client import Client
from ousel.errors import (
    DeadlineExceeded,
    InvalidArgument,
    OuselError,
    ResourceExhausted,
    StreamEnded,
    Unavailable,
)
from ousel.subscription import Subscription
from ousel.types import (
    Cause,
    Origin,
    Position,
    Recommendation,
    RecommendationList,
    Source,
    Status,
    Tracked,
    Update,
)

__all__ = [
    "AsyncClient",
    "AsyncSubscription",
    "Cause",
    "Client",
    "DeadlineExceeded",
    "InvalidArgument",
    "Origin",
    "OuselError",
    "Position",
    "Recommendation",
    "RecommendationList",
    "ResourceExhausted",
    "Source",
    "Status",
    "StreamEnded",
    "Subscription",
    "Tracked",
    "Unavailable",
    "Update",
]
