"""gRPC health on a port of its own, without TLS and tokens: the probes of Kubernetes know neither.

It is the same health that the main port has, so both always say the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import grpc
from grpc_health.v1 import health_pb2_grpc

from engine.config.address import host_and_port
from engine.serving.ports import check_free, port_taken

MAX_CONNECTIONS = 1000


class HealthPort:
    """A server of health alone.

    Args:
        health: the servicer that the main port has, too.
        interceptors: those of the main port, which keep calls within their limits.
        options: of gRPC, those of the main port.
    """

    def __init__(
        self,
        health: health_pb2_grpc.HealthServicer,
        interceptors: Sequence[grpc.aio.ServerInterceptor],
        options: Sequence[tuple[str, int]],
    ) -> None:
        limit = "grpc.max_allowed_incoming_connections"
        own = [(name, min(value, MAX_CONNECTIONS) if name == limit else value) for name, value in options]
        self._grpc = grpc.aio.server(interceptors=interceptors, options=own)
        health_pb2_grpc.add_HealthServicer_to_server(health, self._grpc)

    async def start(self, host: str, port: int) -> int:
        """Listens; returns the port, which is a free one where 0 is asked for.

        Raises:
            PortTaken: the address can't be listened on.
        """
        if port:
            check_free("health", host, port)
        try:
            taken = self._grpc.add_insecure_port(host_and_port(host, port))
        except (OSError, RuntimeError) as error:
            raise port_taken("health", host, port, error) from None
        await self._grpc.start()
        return taken

    async def stop(self) -> None:
        """Ends what is open, and gives the port free."""
        await self._grpc.stop(0)
