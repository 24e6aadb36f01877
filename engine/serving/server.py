"""The server: our services, health and reflection on one port, /metrics on another, and health alone on a third."""

from __future__ import annotations

import asyncio

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from ousel.v1 import (
    event_service_pb2,
    event_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
    privacy_service_pb2,
    privacy_service_pb2_grpc,
    recommender_service_pb2,
    recommender_service_pb2_grpc,
    state_service_pb2,
    state_service_pb2_grpc,
)

from engine import metrics
from engine.config import Config, ServingConfig
from engine.config.address import host_and_port
from engine.descriptors import connections, limit
from engine.metrics_server import MetricsServer, Refusal
from engine.registry.models import Models
from engine.security.guard import Guard
from engine.security.limits import ClientLimits
from engine.security.metrics_access import MetricsAccess
from engine.security.token_file import TokenFile
from engine.serving.arrivals import Arrivals
from engine.serving.calls import CallObserver
from engine.serving.certificates import Certificates
from engine.serving.engine import Engine
from engine.serving.event_servicer import EventServicer
from engine.serving.event_writer import EventLog, EventWriter
from engine.serving.first_message import FirstMessages
from engine.serving.health_port import HealthPort
from engine.serving.model_servicer import ModelServicer
from engine.serving.ports import PortTaken, check_free, port_taken
from engine.serving.privacy_servicer import PrivacyServicer
from engine.serving.recommender_servicer import RecommenderServicer
from engine.serving.reflection import add_reflection
from engine.serving.state_servicer import StateServicer
from engine.serving.subscriptions import Subscriptions

SERVICES = (
    recommender_service_pb2.DESCRIPTOR.services_by_name["RecommenderService"].full_name,
    event_service_pb2.DESCRIPTOR.services_by_name["EventService"].full_name,
    model_service_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name,
    privacy_service_pb2.DESCRIPTOR.services_by_name["PrivacyService"].full_name,
    state_service_pb2.DESCRIPTOR.services_by_name["StateService"].full_name,
)

# By this name health says that the engine runs, whether or not it serves: an engine that reads the log, or whose broker
# is away, must not be started again for that.
ALIVE = "ousel.alive"

_FIRST_FRAME_MS = 10_000  # from a connection to the first frame on it
_UNREQUESTED_S = 86_400  # that a call may wait for the event loop
_IDLE_MS = 300_000  # of a connection without any call or stream
_PING_MS, _PING_ANSWER_MS = 60_000, 20_000  # from one ping of ours to the next, and how long a client may take over it
_CLIENT_PING_MS = 10_000  # A client that pings more often than this loses its connection.
_MAX_REQUEST_BYTES = 4 * 2**20
_MAX_METADATA_BYTES = 16 * 2**10
_ANY_AGE = 2**31 - 1  # as gRPC has it
_RELOAD_S = 1.0  # between two looks at the files of certificates


class Server:
    """Serves one engine in the running event loop.

    Args:
        log: where events are written; None answers every write with UNAVAILABLE.
        registry: of models; None answers everything about it with FAILED_PRECONDITION.

    Attributes:
        port: of gRPC, once started; the one taken where the configuration says 0.
        metrics_port: of /metrics, likewise.
        health_port: of health alone, likewise; None where the configuration has none.
    """

    def __init__(
        self,
        config: Config,
        engine: Engine,
        subscriptions: Subscriptions,
        log: EventLog | None,
        registry: Models | None = None,
    ) -> None:
        self._config = config
        self._engine = engine
        self._subscriptions = subscriptions
        self._log = log
        self._registry = registry
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]
        self._grpc: grpc.aio.Server | None = None
        self._http: MetricsServer | None = None
        self._health_port: HealthPort | None = None
        self._certificates: Certificates | None = None
        self._reloading: asyncio.Task[None] | None = None
        self._following: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self.port = 0
        self.metrics_port = 0
        self.health_port: int | None = None

    async def start(self) -> None:
        """Listens. Health says NOT_SERVING until `set_serving(True)`; calls are answered from now on.

        Raises:
            PortTaken: one of the addresses can't be listened on; then none is.
            CertificateError: the files of TLS can't be used; likewise.
            ConfigError: the tokens file can't be used; likewise.
        """
        serving, tokens_file = self._config.serving, self._config.security.tokens_file
        if self._config.tls.certificate is not None:
            self._certificates = Certificates(self._config.tls)
        first = FirstMessages(serving.max_backlog, serving.max_silence_ms / 1000)
        tokens = TokenFile(tokens_file) if tokens_file else None
        guard = Guard(tokens, ClientLimits(self._config.clients))
        calls = CallObserver(first, guard, self._closing)
        server = grpc.aio.server(interceptors=[calls], options=_options(serving))
        metrics.CALLS_UNSEEN.set_function(Arrivals(lambda: calls.taken).unseen)
        self._register(server, calls, first)
        await self.set_serving(False)
        # The metrics first, because gRPC doesn't give a port back that it never served.
        try:
            tls = self._certificates.context if self._certificates and serving.metrics_tls else None
            self._http = MetricsServer(
                serving.metrics_host, serving.metrics_port, tls, refusal=_metrics_refusal(self._config, tokens)
            )
        except OSError as error:
            raise port_taken("metrics", serving.metrics_host, serving.metrics_port, error) from None
        self.metrics_port = self._http.port
        try:
            if serving.health_port is not None:
                health_port = HealthPort(self._health, [CallObserver(first, guard, self._closing)], _options(serving))
                self.health_port = await health_port.start(serving.health_host, serving.health_port)
                self._health_port = health_port
            self.port = _bind(server, serving.host, serving.port, self._certificates)
        except PortTaken:
            await self._stop_beside()
            raise
        await server.start()
        await self._health.set(ALIVE, health_pb2.HealthCheckResponse.SERVING)
        self._grpc = server
        if self._certificates is not None:
            self._reloading = asyncio.create_task(_reload(self._certificates))
        self._following = asyncio.create_task(guard.follow())

    def _register(self, server: grpc.aio.Server, calls: CallObserver, first: FirstMessages) -> None:
        writer = EventWriter(self._log, self._config)
        recommender_service_pb2_grpc.add_RecommenderServiceServicer_to_server(
            RecommenderServicer(self._config, self._engine, self._subscriptions, writer, first), server
        )
        event_service_pb2_grpc.add_EventServiceServicer_to_server(EventServicer(writer), server)
        self.models = ModelServicer(self._config, self._engine, self._subscriptions, calls, self._registry)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(self.models, server)
        privacy_service_pb2_grpc.add_PrivacyServiceServicer_to_server(
            PrivacyServicer(self._config, self._engine, writer), server
        )
        state_service_pb2_grpc.add_StateServiceServicer_to_server(StateServicer(self._config, self._engine), server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        add_reflection((*SERVICES, health.SERVICE_NAME), server)

    async def set_serving(self, serving: bool) -> None:
        """Sets the answer of health, for the server as a whole ("") and for each of our services."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in ("", *SERVICES):
            await self._health.set(service, status)

    async def stop(self, grace_s: float, drain_s: float = 0.0) -> None:
        """Turns callers away, then ends what is open, and frees all ports. Safe to call twice, and before `start`.

        Args:
            grace_s: how long calls that run may go on.
            drain_s: how long everything goes on while health says NOT_SERVING.
        """
        # Step 1. Balancers hear of it first, while everybody is still answered.
        await self._health.enter_graceful_shutdown()
        if self._grpc is not None and drain_s > 0:
            await asyncio.sleep(drain_s)
        # Step 2. Streams end with UNAVAILABLE and a hint, and so do those who watch health.
        self._subscriptions.shut()
        self._closing.set()
        # Step 3. No new calls, and the end of those that run.
        if self._grpc is not None:
            await self._grpc.stop(grace_s)
            self._grpc = None
        if self._following is not None:
            self._following.cancel()
        # Step 4. Health and the metrics last, so that a probe and a scrape can still see the end.
        await self._stop_beside()

    async def _stop_beside(self) -> None:
        """Frees the ports beside the main one."""
        if self._health_port is not None:
            health_port, self._health_port = self._health_port, None
            await health_port.stop()
        if self._reloading is not None:
            self._reloading.cancel()
            await asyncio.wait([self._reloading])
        if self._http is not None:
            http, self._http = self._http, None
            await asyncio.to_thread(http.close)


def _metrics_refusal(config: Config, tokens: TokenFile | None) -> Refusal | None:
    return MetricsAccess(tokens).refusal if tokens is not None and config.security.metrics_token else None


def _options(serving: ServingConfig) -> tuple[tuple[str, int], ...]:
    return (
        # Connections beyond what the limit of descriptors leaves would take the log, the metrics and snapshots theirs.
        ("grpc.max_allowed_incoming_connections", min(serving.max_connections, connections(limit()))),
        # Nor may connections keep their place that say nothing: before their first frame, and later without a call.
        ("grpc.server_handshake_timeout_ms", _FIRST_FRAME_MS),
        ("grpc.max_connection_idle_ms", _IDLE_MS),
        ("grpc.so_reuseport", 0),  # or a second engine would share the port and nobody would notice
        ("grpc.max_receive_message_length", _MAX_REQUEST_BYTES),
        # Between its two limits gRPC refuses metadata by chance.
        ("grpc.max_metadata_size", _MAX_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", _MAX_METADATA_BYTES),
        # By default gRPC cancels calls by chance once 1,000 of them wait for the event loop, and all beyond 3,000. Such
        # a caller gets no status that says when to come back, and nothing counts the call. With both limits equal
        # chance has no part in it, and up to there the engine itself answers or refuses every call.
        ("grpc.server.max_pending_requests", serving.max_backlog),
        ("grpc.server.max_pending_requests_hard_limit", serving.max_backlog),
        # Nor does it then cancel, without such a status, those that have waited for 30 s; their deadlines end them.
        ("grpc.server_max_unrequested_time_in_server", _UNREQUESTED_S),
        # A client that vanished without a word, with its power or its network, gives its stream free after 80 s.
        ("grpc.keepalive_time_ms", _PING_MS),
        ("grpc.keepalive_timeout_ms", _PING_ANSWER_MS),
        # A client hears by GOAWAY that its connection is old, and opens another for its next call.
        ("grpc.max_connection_age_ms", _or_any(serving.max_connection_age_s)),
        ("grpc.max_connection_age_grace_ms", round(serving.max_connection_age_grace_s * 1000)),
        # And clients may look after us in the same way.
        ("grpc.http2.min_ping_interval_without_data_ms", _CLIENT_PING_MS),
        ("grpc.keepalive_permit_without_calls", 1),
    )


def _or_any(age_s: float) -> int:
    """An age in ms as gRPC takes it, for which 0 stands for any."""
    return round(age_s * 1000) or _ANY_AGE


async def _reload(certificates: Certificates) -> None:
    """Looks at the files again and again; in a thread, because they may lie on a slow or a far disk."""
    while True:
        await asyncio.sleep(_RELOAD_S)
        await asyncio.to_thread(certificates.reload)


def _bind(server: grpc.aio.Server, host: str, port: int, certificates: Certificates | None) -> int:
    # gRPC prints lines of its own about a port that is taken, and raises without the reason: ask the system first.
    if port:
        check_free("gRPC", host, port)
    try:
        if certificates is None:
            return server.add_insecure_port(host_and_port(host, port))
        return server.add_secure_port(host_and_port(host, port), certificates.grpc_credentials())
    except (OSError, RuntimeError) as error:
        raise port_taken("gRPC", host, port, error) from None
