"""The trainer's configuration: the engine's sections that it shares, and its own."""

from __future__ import annotations

from ousel.channel import Engines, engines
from ousel.credentials import Credentials, is_loopback
from pydantic import Field, model_validator

from engine.config import (
    Address,
    Device,
    EventsConfig,
    IndexConfig,
    InferenceConfig,
    KafkaConfig,
    RankingConfig,
    Section,
    Settings,
    StateConfig,
)
from engine.config.address import Host
from engine.config.section import DAY_S, FilePath, ReadableFile
from engine.model.layers import Aggregation
from engine.model.recommender import check_heads

_WEEK_MINUTES = 7 * 24 * 60
_MOST = 10**9  # events or steps: no setting that counts them needs more


class TrainSection(Section):
    """How a model is shaped, trained, judged and pushed. What is None follows from the log."""

    # The shape of the model.
    dim: int | None = Field(
        None, ge=8, le=1024, description="width of every embedding; the index and each request pay for it"
    )
    heads: int = Field(2, ge=1, le=64, description="attention heads; must divide dim")
    local_heads: int = Field(0, ge=0, le=64, description="of the session's heads, those that see only what is near")
    local_window: int = Field(8, ge=1, le=4096, description="latest events that a local head sees")
    blocks: int | None = Field(None, ge=1, le=64, description="attention blocks over the session")
    window: int | None = Field(None, ge=2, le=4096, description="latest events that the session encoder sees")
    expansion: int = Field(
        2, ge=1, le=16, description="width of the hidden layer behind each attention, as a multiple of dim"
    )
    gated: bool = Field(False, description="each block's share in the result is learned")
    relative_time: bool = Field(True, description="attention knows the time between events; false: only their order")
    aggregation: Aggregation = Field(
        "attention", description="of neighbors in the graph; mean and sum cost less, and weigh all of them alike"
    )
    by_kind: bool = Field(
        False, description="also learn what the next event of each kind names, for ranking.goal; steps cost more"
    )
    min_count: int | None = Field(
        None, ge=1, le=1_000_000, description="events an item needs for a learned id; fewer teach it nothing"
    )
    max_vocabulary: int = Field(
        500_000, ge=1, le=2**30, description="learned ids at most, the most frequent items first"
    )

    # How it is trained.
    first_minutes: float = Field(
        2.0, gt=0, le=_WEEK_MINUTES, description="wall-clock until a first model, about; the training goes on from it"
    )
    max_minutes: float = Field(
        120.0, gt=0, le=_WEEK_MINUTES, description="wall-clock of a training without a model to start from, about"
    )
    retrain_max_minutes: float = Field(
        0.75, gt=0, le=_WEEK_MINUTES, description="the same from the weights before; it starts near the end"
    )
    epochs: float | None = Field(
        None, gt=0, le=_MOST, description="passes of the encoders over the log; none: until nothing is gained any more"
    )
    max_steps: int | None = Field(None, ge=1, le=_MOST, description="steps of the encoders, in place of epochs")
    refit: bool = Field(
        True, description="once judged, the encoders learn anew from the whole log, its newest part included"
    )
    graph_share: float = Field(
        0.2,
        ge=0,
        lt=1,
        description="of the steps, to try whether the graph layers earn their time; 0: they are not used",
    )
    chunks: int = Field(8, ge=1, le=1000, description="pieces of the log; in each the graph is as of the piece's start")
    batch: int | None = Field(None, ge=1, le=65_536, description="windows in one step")
    full_softmax: int = Field(
        5000, ge=0, le=_MOST, description="items up to which each target is compared with all; beyond, with negatives"
    )
    negatives: int = Field(768, ge=1, le=1_000_000, description="items drawn per step that no target must lose to")
    uniform_share: float = Field(0.3, ge=0, le=1, description="of the negatives drawn evenly, so that rare items learn")
    popularity_share: float = Field(
        1.0, ge=0, le=1, description="of an item's popularity that its cosine must carry; the ranker knows it anyway"
    )
    dropout: float | None = Field(None, ge=0, lt=1, description="of activations; sparse logs need much")
    id_dropout: float = Field(0.0, ge=0, lt=1, description="learned ids hidden in training, so that new items work")
    edge_dropout: float = Field(0.1, ge=0, lt=1, description="items trained without neighbors, for the same reason")
    augment_crop: float = Field(0.0, ge=0, le=1, description="windows shown from a random event on; for sparse data")
    augment_mask: float = Field(0.0, ge=0, lt=1, description="events shown without their item; for sparse data")
    augment_reorder: float = Field(0.0, ge=0, le=1, description="windows with four events shuffled; for sparse data")
    learning_rate: float | None = Field(None, gt=0, le=10, description="of the encoders")
    weight_decay: float | None = Field(None, ge=0, le=10, description="of the encoders' matrices")
    ranker_samples: int = Field(
        20_000, ge=1, le=_MOST, description="questions of the held-out slice that the ranker learns from"
    )
    ranker_epochs: int = Field(12, ge=1, le=1000)
    ranker_candidates: int = Field(
        192, ge=2, le=100_000, description="candidates drawn from each list in a step, what was wanted included"
    )
    ranker_dropout: float = Field(0.0, ge=0, lt=1)
    ranker_learning_rate: float = Field(3e-3, gt=0, le=10)
    patience: int = Field(
        3,
        ge=0,
        le=_MOST,
        description="validations without a gain after which the encoders stop, their best weights kept; 0: never",
    )
    validate_steps: int | None = Field(
        None, ge=1, le=_MOST, description="steps from one validation to the next; none: those of an epoch, at least 100"
    )
    validation_samples: int = Field(
        4000, ge=1, le=_MOST, description="questions of the ranker's slice that a validation asks"
    )
    checkpoint_s: float = Field(
        60.0, gt=0, le=7 * DAY_S, description="from one save of the checkpoint of `train` to the next"
    )
    device: Device = Field("cpu", description="cpu, cuda or cuda:N: where the encoders are trained")
    half: bool = Field(False, description="encoders in bfloat16 while they train; their weights stay whole")
    seed: int = Field(1, ge=0, le=2**31 - 1, description="of everything that is drawn by chance")
    threads: int = Field(1, ge=1, le=256, description="intra-op threads; leave cores to the engine beside it")

    nice: int = Field(10, ge=0, le=19, description="lowers its priority, so that an engine on the machine goes first")

    # How it is judged.
    ranker_share: float = Field(0.1, gt=0, lt=0.5, description="of the log, kept from the encoder for the ranker")
    holdout_share: float = Field(0.05, gt=0, lt=0.5, description="of the log, the newest, kept from both to judge them")
    ranker_events: int = Field(
        150_000, ge=1, le=_MOST, description="at most so many: on a long log a share would take too long"
    )
    holdout_events: int = Field(40_000, ge=1, le=_MOST, description="likewise")
    evaluation_samples: int = Field(3000, ge=1, le=_MOST, description="events of the newest slice that are predicted")
    max_drop: float = Field(0.05, ge=0, le=1, description="share of hit rate that may be lost to the model before")

    # What it trains from, and when.
    min_events: int = Field(1000, ge=10, le=_MOST, description="no training before the log holds this many")
    max_log_events: int = Field(
        5_000_000, ge=100, le=_MOST, description="newest events kept to train from, up to 66 bytes each"
    )
    archive_dir: FilePath | None = Field(
        None, description="folder that keeps what was read beyond the log's retention; none: nothing is kept"
    )
    archive_days: int = Field(90, ge=1, le=36_500, description="days (UTC, event time) before today that it keeps")
    retrain_events: int = Field(10_000, ge=1, le=_MOST, description="new events after which to train again")
    retrain_minutes: float = Field(
        60.0, gt=0, le=365 * 24 * 60, description="or this time, where at least one event came"
    )

    # Where it pushes, and what it keeps of that.
    models_dir: FilePath | None = Field(
        None, description="folder that keeps every model that was pushed, as VERSION.safetensors; none: none is kept"
    )
    engine: Address = Field("127.0.0.1:50051", min_length=3, description="host:port of the engine's gRPC server")
    tls_authorities: ReadableFile | None = Field(
        None, description="PEM file of the authorities that the engine's certificate is checked with; it turns TLS on"
    )
    tls_certificate: ReadableFile | None = Field(
        None, description="PEM file of the trainer's certificate, where the engine asks for one"
    )
    tls_key: ReadableFile | None = Field(None, description="PEM file of that certificate's key")
    token_file: ReadableFile | None = Field(
        None, description="file with the token that the trainer shows to the engine, read again when it changes"
    )
    insecure: bool = Field(
        False, description="the token is sent in plain text, also to another machine; everybody on the way can read it"
    )
    push_timeout_s: float = Field(
        300.0, gt=0, le=DAY_S, description="one push, until the registry has the model; no build is waited for"
    )
    check_s: float = Field(5.0, gt=0, le=DAY_S, description="how often to ask the engine what has become of the model")

    # Where it can be watched.
    metrics_enabled: bool = Field(
        True,
        description="`ousel-trainer run` serves its metrics at metrics_host:metrics_port. Where that address can't be"
        " listened on, it says so and trains without.",
    )
    metrics_host: Host = Field("127.0.0.1", description="The metrics are served on this host.")
    metrics_port: int = Field(
        9465,
        ge=0,
        le=65535,
        description="The metrics are served on this port; 0 takes a free one, and the log says which.",
    )

    def engines(self, address: str | None = None) -> Engines:
        """The engine to push to, and how the trainer shows who it is; `address` in place of the configured one.

        Raises:
            ValueError: a file can't be read, or the token would go out in plain text beyond the loopback.
        """
        return engines(
            address or self.engine,
            Credentials(
                authorities=self.tls_authorities,
                certificate=self.tls_certificate,
                key=self.tls_key,
                token_file=self.token_file,
                insecure=self.insecure,
            ),
        )

    @model_validator(mode="after")
    def _may_show_its_token(self) -> TrainSection:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key must be given together")
        encrypted = self.tls_authorities is not None or self.tls_certificate is not None
        if self.token_file is not None and not (encrypted or self.insecure):
            host = self.engine.rpartition(":")[0]
            if not is_loopback(host):
                raise ValueError(
                    f"token_file would be sent to {host} in plain text: set tls_authorities, or insecure to send it so"
                )
        self.engines()  # so that a file that holds no token is said at once
        return self

    @model_validator(mode="after")
    def _fits(self) -> TrainSection:
        check_heads(self.dim or self.heads, self.heads, self.local_heads)
        if self.min_events > self.max_log_events:
            raise ValueError(
                f"min_events must be <= max_log_events ({self.max_log_events}), or no training ever begins,"
                f" got {self.min_events}"
            )
        return self


class Recipe(TrainSection):
    """The same once all that follows from the log is filled in, see `rules`."""

    dim: int
    blocks: int
    window: int
    min_count: int
    batch: int
    dropout: float
    learning_rate: float
    weight_decay: float


class TrainerConfig(Settings):
    """All of it. `engine.config.load_settings(TrainerConfig, path)` is the way to get one."""

    kafka: KafkaConfig = KafkaConfig()
    events: EventsConfig = EventsConfig()
    state: StateConfig = StateConfig()
    ranking: RankingConfig = RankingConfig()  # so that the ranker learns from the lists that it will order
    inference: InferenceConfig = InferenceConfig()  # so that a model is judged in the precision that it will serve in
    index: IndexConfig = IndexConfig()
    trainer: TrainSection = TrainSection()
