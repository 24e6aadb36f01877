"""The roles that a token may have, and THE table of which call needs which of them; docs/security.md shows the same.

A call that the table does not name is refused to everybody, so that a new one cannot be open by an oversight.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Role(StrEnum):
    """What a token may be used for. No role includes another one."""

    RECOMMEND = "recommend"
    TRACK = "track"
    PUSH = "push"
    ADMIN = "admin"
    METRICS = "metrics"


# One of these roles is enough for the call. The first one is named where a call is refused.
Allowed = tuple[Role, ...]

# Load balancers and the probes of Kubernetes know no token, and health says no more than whether lists are served.
OPEN: Allowed = ()
# The protocol is public, so reflection gives no secret away. It holds a stream open, though, so nobody may have it
# without any token.
_ANY: Allowed = (Role.RECOMMEND, Role.TRACK, Role.PUSH, Role.ADMIN)

ACCESS: Mapping[str, Allowed] = {
    "/ousel.v1.RecommenderService/Recommend": (Role.RECOMMEND,),
    "/ousel.v1.RecommenderService/RecommendBatch": (Role.RECOMMEND,),
    "/ousel.v1.RecommenderService/StreamRecommendations": (Role.RECOMMEND,),
    "/ousel.v1.EventService/Track": (Role.TRACK,),
    "/ousel.v1.ModelService/PushWeights": (Role.PUSH,),
    "/ousel.v1.ModelService/RollBack": (Role.ADMIN,),
    "/ousel.v1.ModelService/ListModels": (Role.PUSH, Role.ADMIN),
    "/ousel.v1.ModelService/PinModel": (Role.ADMIN,),
    "/ousel.v1.ModelService/UnpinModel": (Role.ADMIN,),
    "/ousel.v1.ModelService/PruneModels": (Role.ADMIN,),
    "/ousel.v1.ModelService/GetStatus": (Role.ADMIN, Role.PUSH, Role.RECOMMEND),
    "/ousel.v1.PrivacyService/ForgetUser": (Role.ADMIN,),
    "/ousel.v1.PrivacyService/ExportUser": (Role.ADMIN,),
    "/ousel.v1.StateService/GetDigest": (Role.ADMIN,),
    "/ousel.v1.StateService/TakeSnapshot": (Role.ADMIN,),
    "/grpc.health.v1.Health/Check": OPEN,
    "/grpc.health.v1.Health/Watch": OPEN,
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": _ANY,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": _ANY,
}

# A stream of recommendations may carry events, which are written to the log as those of `Track` are.
EVENT_ON_A_STREAM = Role.TRACK

# The fields of GetStatus that a role shows; None: all of them. A trainer numbers its next model by them, and an app
# sees whether it may expect lists. How many users there are, and where the log stands, is the operator's business.
STATUS_FIELDS: Mapping[Role, frozenset[str] | None] = {
    Role.ADMIN: None,
    Role.PUSH: frozenset(
        {
            *("serving", "model_version", "model_versions", "model_metrics"),
            *("building", "refused", "model_origin", "registry_problem"),
        }
    ),
    Role.RECOMMEND: frozenset({"serving", "model_version"}),
}
