"""How models are built, tried and run."""

from __future__ import annotations

from pydantic import Field

from engine.config.section import DAY_S, Device, Precision, Section


class ModelConfig(Section):
    """How inference runs. The shape of the model itself travels with its weights."""

    threads: int = Field(1, ge=1, le=256, description="intra-op threads; on few cores 1 is steadier and no slower")
    max_weights_bytes: int = Field(2**30, ge=2**10, le=2**36, description="largest pushed file that is accepted")
    push_silence_s: float = Field(
        30.0, gt=0, le=3600, allow_inf_nan=False,
        description="A push that sends nothing for longer than this ends with DEADLINE_EXCEEDED.",
    )  # fmt: skip
    push_receive_s: float = Field(
        300.0, gt=0, le=86_400, allow_inf_nan=False,
        description="All of a pushed file must come within this time; else the push ends with DEADLINE_EXCEEDED, so"
        " that a slow one does not keep the only place.",
    )  # fmt: skip
    build_share: float = Field(
        0.5, gt=0, le=1, description="of a core, and of the engine's thread, that a push takes; more swaps sooner"
    )
    build_nice: int = Field(
        0, ge=0, le=19,
        description="lowers the priority of the thread that builds (Linux); a busy machine may then stop it while it"
        " holds what lists need",
    )  # fmt: skip


class CanaryConfig(Section):
    """What a pushed model must show before it serves, beside the serving one and the scorers that count."""

    users: int = Field(
        200, ge=0, le=10_000, description="recent users whose newest basket both are asked for; 0: neither is"
    )
    min_hit_rate_share: float = Field(
        0.5, ge=0, le=1, description="of the serving model's hits, where it has 20 or more; 0: any"
    )
    min_scorer_share: float = Field(
        1.0, ge=0, le=10, allow_inf_nan=False,
        description="A pushed model must have this times the hits of the best scorer that counts (co-visitation, the"
        " user's own frequency, popularity), less what may be chance, where either has 20 or more. At 0 any is taken.",
    )  # fmt: skip
    min_overlap: float = Field(0.0, ge=0, le=1, description="share of items that the lists of both have; 0: any")


class InferenceConfig(Section):
    """How far and how fast a moved embedding spreads."""

    epsilon: float = Field(0.1, ge=0, le=2, description="a user whose vector moved less (L2) does not touch its items")
    spread_rows: int = Field(
        32, ge=0, le=1_000_000, description="rows recomputed in a step because a neighbor moved; the rest waits"
    )
    chunk_rows: int = Field(4096, ge=1, le=1_000_000, description="rows in one forward; bounds its memory")
    device: Device = Field("cpu", description="cpu, cuda or cuda:N: where all items and users are embedded for a model")
    precision: Precision = Field(
        "float32",
        description="of the session encoder's products; less pays from a width of about 256 on",
    )
    sessions: int = Field(
        2048, ge=0, le=2**24,
        description="sessions whose keys and values are kept from one list to the next, the longest not asked for"
        " evicted first; about 65 kB each at the default shape; 0: each list computes its session anew",
    )  # fmt: skip
    queries: int = Field(
        131_072, ge=0, le=2**24,
        description="sessions whose query is kept until they have a new event, so that a list without one encodes"
        " nothing; 64 floats each, at the model's width of 64; 0: each list encodes its session",
    )  # fmt: skip


class IndexConfig(Section):
    """The HNSW graph, and when it is built anew."""

    m: int = Field(16, ge=2, le=128, description="HNSW links per element")
    ef_construction: int = Field(100, ge=8, le=2000)
    ef_search: int = Field(200, ge=8, le=10_000)
    epsilon: float = Field(
        0.05, ge=0, le=2, description="a vector that moved more (L2) since the build is searched exactly"
    )
    max_delta: float = Field(0.15, gt=0, le=1, description="share of items in the exact delta that starts a rebuild")
    rebuild_threads: int = Field(1, ge=1, le=64)
    scan_below: int = Field(
        0, ge=0, le=2**30,
        description="a catalog of fewer items is scanned, which costs less up to about 10,000; 0: HNSW for all",
    )  # fmt: skip
    probe_queries: int = Field(
        100, ge=0, le=2**30, description="one search in so many is compared with an exact one, as a metric; 0: none"
    )
    probe_interval_s: float = Field(
        1.0, ge=0, le=DAY_S, description="at least this long between two of them; large catalogs wait longer"
    )
