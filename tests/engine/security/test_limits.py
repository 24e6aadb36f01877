from __future__ import annotations

import pytest

from engine import metrics
from engine.config import ClientsConfig
from engine.security.errors import OverLimit, TooLarge
from engine.security.limits import Client, ClientLimits, client_key
from engine.security.roles import Role
from engine.security.tokens import Token

METADATA = (("user-agent", "grpc"),)


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def made(**settings: float) -> tuple[ClientLimits, Clock]:
    clock = Clock()
    return ClientLimits(ClientsConfig(**settings), clock), clock


def call(limits: ClientLimits, key: str = "192.0.2.1") -> None:
    """A call that begins and ends."""
    limits.leave(limits.enter(key, METADATA, stream=False), stream=False)


def refused(limits: ClientLimits, key: str = "192.0.2.1", *, stream: bool = False) -> OverLimit:
    with pytest.raises(OverLimit) as error:
        limits.enter(key, METADATA, stream=stream)
    return error.value


def test_calls_of_one_second_may_come_at_once_and_then_at_the_rate():
    limits, clock = made(max_calls_per_s=4)
    for _ in range(4):
        call(limits)
    error = refused(limits)
    assert (error.reason, error.retry_after_ms) == ("rate", 250)
    assert str(error) == "a client may make at most 4 calls a second (clients.max_calls_per_s), try again later"
    clock.now_s += 0.25
    call(limits)
    refused(limits)
    clock.now_s += 3600
    for _ in range(4):
        call(limits)
    refused(limits)


def test_many_queries_of_one_call_count_as_so_many_calls_and_wait_for_what_they_owe():
    limits, clock = made(max_calls_per_s=4)
    client = limits.enter("192.0.2.1", METADATA, stream=False)
    assert client.owes_s(3) == 0
    assert client.owes_s(8) == 2.0
    limits.leave(client, stream=False)
    refused(limits)
    clock.now_s += 2.5
    call(limits)


def test_a_refused_call_takes_nothing():
    limits, clock = made(max_calls_per_s=1)
    call(limits)
    for _ in range(100):
        refused(limits)
    clock.now_s += 1
    call(limits)


def test_a_rate_below_one_lets_a_first_call_in():
    limits, clock = made(max_calls_per_s=0.5)
    call(limits)
    assert refused(limits).retry_after_ms == 2000
    clock.now_s += 2
    call(limits)


def test_messages_of_a_stream_count_and_wait_in_place_of_being_refused():
    limits, clock = made(max_calls_per_s=4)
    client = limits.enter("192.0.2.1", METADATA, stream=True)
    assert [client.owes_s() for _ in range(3)] == [0, 0, 0]
    assert client.owes_s() == pytest.approx(0.25)
    refused(limits)
    clock.now_s += 0.5
    call(limits)


def test_each_client_has_a_limit_of_its_own():
    limits, _ = made(max_calls_per_s=1)
    call(limits, "192.0.2.1")
    call(limits, "192.0.2.2")
    refused(limits, "192.0.2.1")


def test_open_calls_and_streams_are_counted_apart():
    limits, _ = made(max_concurrent_calls=2, max_streams=1)
    calls = [limits.enter("a", METADATA, stream=False) for _ in range(2)]
    stream = limits.enter("a", METADATA, stream=True)
    assert refused(limits, "a").reason == "concurrent"
    error = refused(limits, "a", stream=True)
    assert error.reason == "streams"
    assert str(error) == "a client may have at most 1 open streams (clients.max_streams), try again later"
    limits.leave(calls[0], stream=False)
    limits.leave(stream, stream=True)
    call(limits, "a")
    limits.leave(limits.enter("a", METADATA, stream=True), stream=True)


def test_metadata_and_messages_have_a_limit():
    limits, _ = made(max_metadata_bytes=256, max_message_bytes=1024)
    call(limits)
    with pytest.raises(TooLarge, match=r"at most 256 bytes \(clients.max_metadata_bytes\), got 277") as error:
        limits.enter("192.0.2.1", (("name", "x" * 241),), stream=False)
    assert error.value.reason == "metadata"
    limits.check_message(1024)
    with pytest.raises(TooLarge, match=r"at most 1024 bytes \(clients.max_message_bytes\), got 1025") as error:
        limits.check_message(1025)
    assert error.value.reason == "message"


def test_of_the_idle_clients_the_longest_idle_is_forgotten():
    limits, _ = made(max_calls_per_s=1, max_remembered=2)
    for key in ("a", "b", "c"):
        call(limits, key)
    assert known() == 2
    refused(limits, "b")
    refused(limits, "c")
    call(limits, "a")


def test_a_client_with_an_open_call_is_never_forgotten():
    limits, _ = made(max_streams=1, max_remembered=1)
    held = limits.enter("a", METADATA, stream=True)
    for number in range(100):
        call(limits, f"other {number}")
    assert refused(limits, "a", stream=True).reason == "streams"
    assert known() == 2
    limits.leave(held, stream=True)
    assert known() == 1


def known() -> float:
    return metrics.CLIENTS.collect()[0].samples[0].value


def test_refused_clients_are_bounded_too():
    limits, _ = made(max_metadata_bytes=256, max_remembered=5)
    for number in range(100):
        with pytest.raises(TooLarge):
            limits.enter(str(number), (("name", "x" * 300),), stream=False)
    assert known() == 5


TOKEN = Token("192.0.2.1", frozenset({Role.TRACK}), b"")


@pytest.mark.parametrize(
    ("token", "peer", "key"),
    [
        (None, "ipv4:127.0.0.1:40000", None),
        (None, "ipv4:127.5.5.5:40000", None),
        (None, "ipv6:[::1]:40000", None),
        (None, "ipv6:%5B::1%5D:40000", None),
        (None, "ipv6:[::ffff:127.0.0.1]:40000", None),
        (None, "unix:/run/ousel", None),
        (None, "ipv4:192.0.2.1:40000", "192.0.2.1"),
        (None, "ipv6:[::ffff:192.0.2.1]:40000", "192.0.2.1"),
        (TOKEN, "ipv4:127.0.0.1:40000", "token 192.0.2.1"),
    ],
)
def test_a_client_is_a_token_or_else_an_address_beyond_the_loopback(token, peer, key):
    assert client_key(token, peer) == key


def test_the_addresses_of_one_ipv6_network_are_one_client():
    one, same, other = (
        client_key(None, f"ipv6:%5B2001:db8:0:{net}::{host}%5D:40000") for net, host in ((1, 1), (1, "ffff:2"), (2, 1))
    )
    assert one == same != other


def test_what_a_client_takes_of_memory_is_small():
    assert not hasattr(Client("a", made()[0], 0.0), "__dict__")
