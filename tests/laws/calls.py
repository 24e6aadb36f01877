"""Messages of every call that the server knows, for law 10."""

from __future__ import annotations

import hashlib
from typing import Any

from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from ousel.v1 import (
    event_service_pb2,
    model_service_pb2,
    privacy_service_pb2,
    recommender_service_pb2,
    state_service_pb2,
)
from ousel.v1.event_pb2 import Event

QUERY = recommender_service_pb2.Query(user_id="u1", k=5)
WEIGHTS = b"weights"
HEADER = model_service_pb2.WeightsHeader(
    version=4, size_bytes=len(WEIGHTS), sha256=hashlib.sha256(WEIGHTS).digest(), metrics={}
)
UPDATE = recommender_service_pb2.StreamRecommendationsRequest
LIST_SERVICES = reflection_pb2.ServerReflectionRequest(list_services="")

# The messages of a call that succeeds where it is allowed.
REQUESTS: dict[str, list[Any]] = {
    "/ousel.v1.RecommenderService/Recommend": [recommender_service_pb2.RecommendRequest(query=QUERY)],
    "/ousel.v1.RecommenderService/RecommendBatch": [recommender_service_pb2.RecommendBatchRequest(queries=[QUERY])],
    "/ousel.v1.RecommenderService/StreamRecommendations": [UPDATE(subscribe=QUERY)],
    "/ousel.v1.EventService/Track": [
        event_service_pb2.TrackRequest(event=Event(user_id="u1", item_id="a", kind="view"))
    ],
    "/ousel.v1.ModelService/PushWeights": [
        model_service_pb2.PushWeightsRequest(header=HEADER), model_service_pb2.PushWeightsRequest(chunk=WEIGHTS)
    ],
    "/ousel.v1.ModelService/RollBack": [model_service_pb2.RollBackRequest()],
    "/ousel.v1.ModelService/ListModels": [model_service_pb2.ListModelsRequest()],
    "/ousel.v1.ModelService/PinModel": [model_service_pb2.PinModelRequest(version=2)],
    "/ousel.v1.ModelService/UnpinModel": [model_service_pb2.UnpinModelRequest()],
    "/ousel.v1.ModelService/PruneModels": [model_service_pb2.PruneModelsRequest()],
    "/ousel.v1.ModelService/GetStatus": [model_service_pb2.GetStatusRequest()],
    "/ousel.v1.PrivacyService/ForgetUser": [privacy_service_pb2.ForgetUserRequest(user_id="u1")],
    "/ousel.v1.PrivacyService/ExportUser": [privacy_service_pb2.ExportUserRequest(user_id="u1")],
    "/ousel.v1.StateService/GetDigest": [state_service_pb2.GetDigestRequest()],
    "/ousel.v1.StateService/TakeSnapshot": [state_service_pb2.TakeSnapshotRequest()],
    "/grpc.health.v1.Health/Check": [health_pb2.HealthCheckRequest()],
    "/grpc.health.v1.Health/Watch": [health_pb2.HealthCheckRequest()],
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": [LIST_SERVICES],
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": [LIST_SERVICES],
}  # fmt: skip
