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
from ousel.model_types import (
    ModelBuild,
    ModelList,
    ModelOrigin,
    ModelState,
    RefusedModel,
    RegisteredModel,
    RolledBack,
)
from ousel.status import Status
from ousel.subscription import Subscription
from ousel.types import (
    Cause,
    Exported,
    Forgotten,
    HeldSubject,
    Origin,
    PartitionDigest,
    Position,
    Query,
    Recommendation,
    RecommendationList,
    RememberedEvent,
    RememberedRelation,
    Source,
    StateDigest,
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
    "ModelBuild",
    "ModelList",
    "ModelOrigin",
    "ModelState",
    "Origin",
    "OuselError",
    "OutOfRange",
    "PartitionDigest",
    "Position",
    "Query",
    "Recommendation",
    "RecommendationList",
    "RefusedModel",
    "RegisteredModel",
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
