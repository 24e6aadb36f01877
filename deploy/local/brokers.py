"""The broker to test with: Apache Kafka where `KAFKA_HOME` names one, else the embedded one."""

from __future__ import annotations

import os
from pathlib import Path

from deploy.local.broker import BrokerError, EmbeddedBroker
from deploy.local.kafka import ApacheKafka

Broker = ApacheKafka | EmbeddedBroker


def start_broker(data_dir: Path, port: int = 0, *, tls: bool = False, sasl: tuple[str, str] | None = None) -> Broker:
    """Starts a broker on a data folder, new or old. See `ApacheKafka` for the arguments.

    Raises:
        BrokerError: it can't be started, `KAFKA_HOME` is set and no Kafka can run from there, or TLS or SASL are asked
            for without it.
    """
    home = os.environ.get("KAFKA_HOME")
    if home:
        return ApacheKafka(data_dir, port, home=Path(home), tls=tls, sasl=sasl)
    if tls or sasl:
        raise BrokerError("the embedded broker has no TLS and no SASL: set KAFKA_HOME to use Apache Kafka")
    return EmbeddedBroker(data_dir, port)
