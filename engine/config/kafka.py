"""Where the log is, and how it is reached."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from engine.config.address import Addresses
from engine.config.section import ReadableFile, Section

Topic = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")]


class KafkaConfig(Section):
    """Where the log is. The same section serves the engine, the trainer and EventService."""

    bootstrap: Addresses = Field("127.0.0.1:9092", min_length=3, description="host:port[,host:port] of the brokers")
    events_topic: Topic = "ousel.events"
    items_topic: Topic = Field("ousel.items", validate_default=True)
    dead_letters_topic: Topic = Field("ousel.dead-letters", validate_default=True)
    events_partitions: int = Field(4, ge=1, le=1024, description="partitions of the events topic where we create it")
    replication_factor: int = Field(1, ge=1, le=15, description="of topics that we create")
    max_poll_records: int = Field(4096, ge=1, le=65536, description="records in one batch; bounds a step's memory")
    max_poll_bytes: int = Field(
        4 << 20,
        ge=64 << 10,
        le=1 << 30,
        description="A batch is also full once its keys and values have so many bytes.",
    )
    max_record_bytes: int = Field(
        16 << 20,
        ge=1 << 10,
        le=1 << 30,
        description="A record that is longer, once it is unpacked, is not read: its place goes to the dead letters.",
    )
    max_answer_bytes: int = Field(
        32 << 20,
        ge=64 << 10,
        le=1 << 30,
        description="Of an answer to a fetch that is longer, beside its first batch, the beginning is used and the rest"
        " is asked for again. The embedded broker answers with all that its log holds, whatever it is asked for.",
    )
    queue_batches: int = Field(
        8,
        ge=1,
        le=1024,
        description="full batches polled ahead of the fold, in however many small ones; then polling waits",
    )
    request_timeout_ms: int = Field(
        10_000,
        ge=100,
        le=500_000,
        description="how long one produce or fetch may take; kafka-python closes connections that are idle for 540 s",
    )
    max_pending_bytes: int = Field(
        32 * 2**20,
        ge=2**20,
        le=2**34,
        description="Events that Track has sent and the log has not acknowledged may have so many bytes together; one"
        " more is refused. Each takes three to four times its bytes until then.",
    )
    group_id: str = Field(
        "ousel-engine", min_length=1, description="consumer group: where positions are noted, and who shares partitions"
    )
    share: bool = Field(
        False, description="engines of one group share the events topic's partitions; false: each reads all of them"
    )
    session_timeout_ms: int = Field(
        10_000, ge=1000, le=1_800_000, description="an engine silent for longer loses its partitions to the group"
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = Field(
        None, description="with SASL_*: also sasl_username and sasl_password"
    )
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    ssl_cafile: ReadableFile | None = Field(
        None, description="PEM file of the authorities to trust; none: the system's"
    )
    ssl_certfile: ReadableFile | None = Field(
        None, description="PEM file of the client's certificate, where brokers want one"
    )
    ssl_keyfile: ReadableFile | None = Field(None, description="PEM file of its key, where that is not in ssl_certfile")
    ssl_check_hostname: bool = Field(True, description="the broker's certificate must be for its name")

    # Below what it is checked with, and checked itself, so that no message shows the password.
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", validate_default=True
    )

    @field_validator("items_topic", "dead_letters_topic")
    @classmethod
    def _is_a_topic_of_its_own(cls, topic: str, info: ValidationInfo) -> str:
        # A dead letter in a topic that is read would be decoded, refused and written again, without end.
        for other in ("events_topic", "items_topic"):
            if info.data.get(other) == topic:
                raise ValueError(f"must differ from kafka.{other}")
        return topic

    @field_validator("security_protocol")
    @classmethod
    def _has_what_it_needs(cls, protocol: str, info: ValidationInfo) -> str:
        sasl = {name: info.data.get(name, "wrong") for name in ("sasl_mechanism", "sasl_username", "sasl_password")}
        tls = {name: info.data.get(name, "wrong") for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile")}
        if protocol.startswith("SASL"):
            missing = [name for name, value in sasl.items() if not value]
            if missing:
                mechanisms = "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"
                raise ValueError(f"{protocol} needs {' and '.join(sasl)} ({mechanisms}), {missing[0]} is not set")
        elif any(sasl.values()):
            given = next(name for name, value in sasl.items() if value)
            raise ValueError(f"must be SASL_PLAINTEXT or SASL_SSL where {given} is set")
        if any(tls.values()) and not protocol.endswith("SSL"):
            given = next(name for name, value in tls.items() if value)
            raise ValueError(f"must be SSL or SASL_SSL where {given} is set")
        if tls["ssl_keyfile"] and not tls["ssl_certfile"]:
            raise ValueError("needs ssl_certfile where ssl_keyfile is set")
        return protocol
