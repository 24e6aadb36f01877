"""Where the server listens, and how much it takes on."""

from __future__ import annotations

from pydantic import Field

from engine.config.address import Host
from engine.config.section import Section


class ServingConfig(Section):
    """Where the server listens, and how much it takes on."""

    host: Host = Field("127.0.0.1", description="loopback unless told otherwise")
    port: int = Field(50051, ge=0, le=65535, description="gRPC; 0 takes a free one and says which")
    metrics_host: Host = "127.0.0.1"
    metrics_port: int = Field(9464, ge=0, le=65535, description="Prometheus /metrics; 0 takes a free one")
    metrics_tls: bool = Field(
        False, description="The metrics port is served over TLS as well, by the files and the rules of the section tls."
    )
    health_host: Host = Field("127.0.0.1", description="of serving.health_port")
    health_port: int | None = Field(
        None, ge=0, le=65535,
        description="gRPC health on a port of its own, without TLS and tokens, for the probes of Kubernetes, which know"
        " neither; serving.port has it as well, and both say the same. None: there is no such port; 0 takes a free"
        " one.",
    )  # fmt: skip
    insecure: bool = Field(
        False,
        description="An engine may listen beyond the loopback and ask nobody for credentials; each start says so in the"
        " log. It is for places where something else keeps others from the port.",
    )
    max_streams: int = Field(10_000, ge=1, le=1_000_000, description="open subscriptions; one more is refused")
    max_connections: int = Field(
        10_000, ge=1, le=1_000_000,
        description="So many connections are taken, each of which carries any number of calls and streams; one more is"
        " closed at once. Fewer are taken where the limit of file descriptors leaves fewer than 256 for other uses.",
    )  # fmt: skip
    max_queries: int = Field(10_000, ge=1, le=1_000_000, description="calls waiting for a list; one more is refused")
    max_waiting: int = Field(
        10_000, ge=1, le=1_000_000,
        description="So many `Recommend` calls may wait for the record that their list must reflect; one more is"
        " refused. They take no place of serving.max_queries.",
    )  # fmt: skip
    max_record_wait_ms: int = Field(
        10_000, ge=1, le=3_600_000,
        description="A `Recommend` call waits no longer than this for the record that its list must reflect, and no"
        " longer than its own deadline; then it ends with DEADLINE_EXCEEDED.",
    )  # fmt: skip
    max_backlog: int = Field(
        30_000, ge=1_000, le=1_000_000,
        description="Calls and streams of a burst wait in gRPC until the engine takes them up, up to this many. gRPC"
        " cancels further ones without telling their callers when to come back.",
    )  # fmt: skip
    max_exports: int = Field(
        100, ge=1, le=100_000,
        description="So many `ExportUser` and `ForgetUser` calls may wait for what the engine holds of their user; one"
        " more is refused. They take up to a fifth of the time of the engine's thread.",
    )  # fmt: skip
    max_silence_ms: int = Field(
        10_000, ge=100, le=3_600_000,
        description="A call or a stream must bring its whole first message within this time; then it ends with"
        " DEADLINE_EXCEEDED. Of the calls that have not brought theirs, serving.max_backlog may be open.",
    )  # fmt: skip
    max_wait_ms: float = Field(
        250.0,
        gt=0,
        le=600_000,
        description="calls that would wait longer for their list, as lists cost now, are refused",
    )
    max_batch: int = Field(64, ge=1, le=4096, description="lists computed in one forward")
    list_threads: int | None = Field(
        None, ge=1, le=64,
        description="So many threads make the lists of a batch side by side, while nothing is folded. Where it is not"
        " set, they are as many as the cores that the engine may use, less one for gRPC, and at least one.",
    )  # fmt: skip
    max_log_age_s: float = Field(
        30.0, ge=1, le=86_400,
        description="The engine is not ready while no broker has answered it for longer. A broker that restarts or"
        " hands its partitions over is away for less than half a minute, and all engines would leave the load balancer"
        " at once for it.",
    )  # fmt: skip
    catalog_share: float = Field(
        0.05, ge=0.001, le=1,
        description="Changes of the catalog may keep the engine's thread busy with lists of streams for this share of"
        " the time, after a burst of 0.3 s. Lists that show an item which may not be listed any more may borrow 2 s.",
    )  # fmt: skip
    max_connection_age_s: float = Field(
        1800.0, ge=0, le=2_592_000,
        description="A connection of this age, and by chance up to a tenth more or less, takes no further calls, so"
        " that its client connects again, perhaps to another engine. Otherwise all would gather at the engines that"
        " were restarted first. 0: connections may have any age.",
    )  # fmt: skip
    max_connection_age_grace_s: float = Field(
        1800.0, gt=0, le=2_592_000,
        description="Calls and streams of a connection that takes no further ones have so much longer. A stream ends by"
        " itself after three quarters of this time, or somewhat later, with UNAVAILABLE and a hint to open it again.",
    )  # fmt: skip
    drain_s: float = Field(
        0.5, ge=0, le=3600,
        description="At shutdown health says NOT_SERVING for this long while calls and streams go on, so that balancers"
        " send new ones to other engines; behind Kubernetes' services 5 s are usual.",
    )  # fmt: skip
    grace_s: float = Field(
        2.0, ge=0, le=3600, description="Calls that run may finish within this time, once the streams have ended."
    )
