"""What a failed call carries beside its code and its text, for programs: google.rpc's messages, as AIP-193 has them."""

from __future__ import annotations

from collections.abc import Mapping

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

DETAILS_KEY = "grpc-status-details-bin"  # of the trailing metadata, where gRPC's libraries look for them
DOMAIN = "ousel"
_MOST_CHARS = 1024  # of a text, so that trailing metadata stays below what clients take


def packed(
    code: grpc.StatusCode,
    text: str,
    reason: str,
    *,
    field: str | None = None,
    retry_ms: int | None = None,
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    """The google.rpc.Status of a failed call.

    Args:
        reason: of ErrorInfo, in UPPER_SNAKE_CASE; it never changes its meaning.
        field: path of the wrong value from the request on, for BadRequest; None where no value is wrong.
        retry_ms: when to come back, for RetryInfo; None where nobody can say.
        metadata: of ErrorInfo.
    """
    text = text[:_MOST_CHARS]
    messages: list[Message] = [error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata)]
    if field is not None:
        violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=text, reason=reason)
        messages.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if retry_ms is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(retry_ms)
        messages.append(retry)
    status = status_pb2.Status(code=code.value[0], message=text)
    for message in messages:
        detail = Any()
        detail.Pack(message)
        status.details.append(detail)
    return status.SerializeToString()
