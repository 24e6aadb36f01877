"""One question to the brokers, by kafka-python's connections alone, and how it failed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from kafka.errors import KafkaConnectionError, KafkaError
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector

_BROKERS = 5  # So many addresses are tried at most: each may cost its time.


class Failure(NamedTuple):
    """Why a broker does not answer as a client needs it.

    Attributes:
        hung_up: whether it did so after it had answered as a Kafka broker.
        advertised: the address that it gives its clients, where that one failed and its own did not.
    """

    error: Exception
    hung_up: bool = False
    advertised: str = ""


def probe(settings: Mapping[str, Any], timeout_s: float, connect_s: float, *, everywhere: bool) -> Failure | None:
    """Asks a broker for the others, and connects to the addresses that it gives, as every client does after that.

    Not with a consumer, producer or admin client: these hide the cause.

    Args:
        settings: those of kafka-python's clients, with one bootstrap server.
        timeout_s: for the broker to answer.
        connect_s: for one of the addresses to accept a client.
        everywhere: whether all of them must; else one is enough.

    Returns:
        None where that went well.
    """
    with _manager(settings) as (net, manager):
        node_id = manager.cluster.bootstrap_brokers()[0].node_id
        connection = manager.get_connection(
            node_id, timeout_ms=1000 * timeout_s, pop_on_close=False, refresh_metadata_on_err=False
        )

        async def ask() -> None:
            await connection
            await manager.cluster.refresh_metadata(node_id)

        try:
            net.run(manager.wait_for, manager.call_soon(ask), 1000 * timeout_s)
        except (KafkaError, OSError, ValueError) as error:
            # It told its version before it hung up: the connection is fine, and the client is not welcome.
            spoke = connection.broker_version is not None
            return Failure(error, spoke and isinstance(error, KafkaConnectionError))
        failures: list[Failure] = []
        for broker in manager.cluster.brokers()[:_BROKERS]:
            refusal = _refusal(net, manager, broker.node_id, 1000 * connect_s)
            if refusal is not None:
                failures.append(Failure(refusal, advertised=f"{broker.host}:{broker.port}"))
            elif not everywhere:
                return None
        return failures[0] if failures else None


def _refusal(
    net: NetworkSelector, manager: KafkaConnectionManager, node_id: object, timeout_ms: float
) -> Exception | None:
    """Connects to a broker as clients do; why that failed, if it did."""

    async def connect() -> None:
        await manager.get_connection(node_id, timeout_ms=timeout_ms, pop_on_close=False, refresh_metadata_on_err=False)

    try:
        net.run(manager.wait_for, manager.call_soon(connect), timeout_ms)
    except (KafkaError, OSError, ValueError) as error:
        return error
    return None


@contextmanager
def _manager(settings: Mapping[str, Any]) -> Iterator[tuple[NetworkSelector, KafkaConnectionManager]]:
    net = NetworkSelector(**settings)
    manager = KafkaConnectionManager(net, **settings)
    try:
        yield net, manager
    finally:
        manager.close()
        net.close()
