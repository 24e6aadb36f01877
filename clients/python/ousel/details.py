"""The details of a failed call: google.rpc's messages, read without the package that has them.

Only the fields that this client shows are described here. protobuf passes over all others, and goes by their numbers,
so that these messages may have names of their own, beside google.rpc's in a process that has both.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

KEY = "grpc-status-details-bin"  # of the trailing metadata
_DOMAIN = "ousel"
_FILE = "ousel/error_details.proto"
_FIELD = descriptor_pb2.FieldDescriptorProto
_MESSAGES: dict[str, dict[str, tuple[int, str, bool]]] = {
    "ErrorInfo": {"reason": (1, "", False), "domain": (2, "", False)},
    "FieldViolation": {"field": (1, "", False), "description": (2, "", False)},
    "BadRequest": {"field_violations": (1, "FieldViolation", True)},
}  # by name: the fields, each with its number, its message and whether it is repeated


@dataclass(frozen=True)
class Details:
    """Why a call failed, for programs.

    Attributes:
        reason: such as "OVERLOADED", see docs/errors.md; None where no engine said one.
        field: path of the value that was refused, such as "query.k"; None where none was.
    """

    reason: str | None = None
    field: str | None = None


def read(packed: Any) -> Details:
    """The details in the trailing metadata of a status; none where they are damaged, or of another server."""
    if not isinstance(packed, bytes):
        return Details()
    try:
        return _read(packed)
    except (DecodeError, UnicodeDecodeError):
        return Details()


def _read(packed: bytes) -> Details:
    reason = field = None
    for detail in _kind("Status").FromString(packed).details:
        match detail.type_url.rpartition("/")[2]:
            case "google.rpc.ErrorInfo":
                info = _kind("ErrorInfo").FromString(detail.value)
                reason = info.reason if info.domain == _DOMAIN else None
            case "google.rpc.BadRequest":
                violations = _kind("BadRequest").FromString(detail.value).field_violations
                field = violations[0].field or None if violations else None
    return Details(reason, field) if reason else Details()


@cache
def _kind(name: str) -> Any:
    pool = _pool()
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"ousel.errors.{name}"))


@cache
def _pool() -> descriptor_pool.DescriptorPool:
    file = descriptor_pb2.FileDescriptorProto(name=_FILE, package="ousel.errors", syntax="proto3")
    file.dependency.append("google/protobuf/any.proto")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind, repeated) in fields.items():
            message.field.append(_described(field, number, f".ousel.errors.{kind}" if kind else "", repeated))
    status = file.message_type.add(name="Status")
    status.field.append(_described("details", 3, ".google.protobuf.Any", repeated=True))
    pool = descriptor_pool.DescriptorPool()
    any_file = descriptor_pb2.FileDescriptorProto()
    any_pb2.DESCRIPTOR.CopyToProto(any_file)
    pool.Add(any_file)
    pool.Add(file)
    return pool


def _described(name: str, number: int, kind: str, repeated: bool) -> descriptor_pb2.FieldDescriptorProto:
    return _FIELD(
        name=name,
        number=number,
        type=_FIELD.TYPE_MESSAGE if kind else _FIELD.TYPE_STRING,
        type_name=kind or None,
        label=_FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL,
    )
