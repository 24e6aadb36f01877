"""Server reflection under both of its names: current tools ask for v1, and older ones for v1alpha.

grpcio-reflection serves v1alpha alone. The messages of both are the same on the wire, so one servicer answers for both.
"""

from __future__ import annotations

from collections.abc import Iterable

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

V1 = "grpc.reflection.v1.ServerReflection"
_V1_FILE = "grpc/reflection/v1/reflection.proto"
_METHOD = "ServerReflectionInfo"


def add_reflection(services: Iterable[str], server: grpc.aio.Server) -> None:
    """Has a server tell of some services and of reflection itself."""
    _describe_v1()
    names = (*services, reflection.SERVICE_NAME, V1)
    servicer = reflection.aio.ReflectionServicer(names)  # type: ignore[attr-defined]
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(V1, {_METHOD: handler}),))


def _describe_v1() -> None:
    """Makes v1 known to the pool that reflection reads: tools ask for the description of each service they list."""
    pool = descriptor_pool.Default()
    try:
        pool.FindServiceByName(V1)
        return  # A library has brought it.
    except KeyError:
        pass
    file = FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(file)
    old, new = f".{file.package}.", f".{V1.rpartition('.')[0]}."
    file.name, file.package = _V1_FILE, new.strip(".")
    for message in file.message_type:
        for field in message.field:
            if field.type_name:  # To set it on a field of a plain type would make it one of a message.
                field.type_name = field.type_name.replace(old, new)
    for service in file.service:
        for method in service.method:
            method.input_type = method.input_type.replace(old, new)
            method.output_type = method.output_type.replace(old, new)
    pool.Add(file)
