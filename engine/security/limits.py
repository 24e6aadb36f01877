"""What each client takes, and no more than it may. A client is a token's name or, without tokens, an address.

A client is known while it has a call open, and those bounds hold that there are on connections. Of the clients without
one, the last are remembered, so that nobody gets a new allowance by coming again at once.
"""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable

from engine import metrics
from engine.config import ClientsConfig
from engine.security.errors import OverLimit, TooLarge
from engine.security.tokens import Token

# A pushed model comes in chunks, which are as long as gRPC lets them be.
CHUNKED = frozenset({"/ousel.v1.ModelService/PushWeights"})
_ENTRY_BYTES = 32  # that HTTP/2 counts for each entry of metadata, beside its name and value
_CROWDED_MS = 200  # when calls or streams may have ended, so that another try is worth it
# A machine has a whole network of this size to itself, and could come from another address with each call.
_IPV6_PREFIX = 64


class Client:
    """What one client has taken."""

    __slots__ = ("allowance", "as_of_s", "calls", "key", "limits", "streams")

    def __init__(self, key: str, limits: ClientLimits, now_s: float) -> None:
        self.key = key
        self.limits = limits
        self.calls = self.streams = 0
        self.allowance = limits.burst
        self.as_of_s = now_s

    def owes_s(self, count: int = 1) -> float:
        """Takes so many messages or queries of an open call; returns how many seconds they must wait for their turn."""
        return self.limits.take(self, count, owing=True)


class ClientLimits:
    """For one event loop.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, config: ClientsConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._clock = clock
        self.burst = max(1.0, config.max_calls_per_s)
        self.max_message_bytes = config.max_message_bytes
        self._busy: dict[str, Client] = {}
        self._idle: OrderedDict[str, Client] = OrderedDict()  # the longest idle first
        metrics.CLIENTS.set_function(lambda: len(self._busy) + len(self._idle))

    def enter(self, key: str, metadata: Iterable[tuple[str, str | bytes]], *, stream: bool) -> Client:
        """Has a client begin a call, which `leave` ends.

        Raises:
            OverLimit: it makes too many calls, or has too many open.
            TooLarge: the call's metadata are too long.
        """
        config = self._config
        client = self._busy.get(key) or self._idle.pop(key, None) or Client(key, self, self._clock())
        try:
            if stream and client.streams >= config.max_streams:
                raise OverLimit("streams", _too_many(config.max_streams, "open streams", "max_streams"), _CROWDED_MS)
            if not stream and client.calls >= config.max_concurrent_calls:
                limit = _too_many(config.max_concurrent_calls, "open calls", "max_concurrent_calls")
                raise OverLimit("concurrent", limit, _CROWDED_MS)
            self.take(client)
            size = sum(len(name) + len(value) + _ENTRY_BYTES for name, value in metadata)
            if size > config.max_metadata_bytes:
                raise TooLarge(
                    "metadata",
                    f"the metadata of a call must have at most {config.max_metadata_bytes} bytes"
                    f" (clients.max_metadata_bytes), got {size}",
                )
        except (OverLimit, TooLarge):
            self._rest(client)
            raise
        client.streams += stream
        client.calls += not stream
        self._busy[key] = client
        return client

    def leave(self, client: Client, *, stream: bool) -> None:
        """Ends a call that `enter` began."""
        client.streams -= stream
        client.calls -= not stream
        if not client.calls and not client.streams:
            del self._busy[client.key]
        self._rest(client)

    def take(self, client: Client, count: int = 1, *, owing: bool = False) -> float:
        """Takes so many calls from a client's allowance.

        Args:
            owing: takes it even where there is none left.

        Returns:
            The seconds until what it owes has come in again; 0 where it owes nothing.

        Raises:
            OverLimit: it has none left.
        """
        rate, now_s = self._config.max_calls_per_s, self._clock()
        left = min(self.burst, client.allowance + (now_s - client.as_of_s) * rate)
        client.allowance, client.as_of_s = left, now_s
        if left < 1 and not owing:
            raise OverLimit(
                "rate",
                f"a client may make at most {rate:g} calls a second (clients.max_calls_per_s), try again later",
                max(1, round((1 - left) / rate * 1000)),
            )
        client.allowance = left - count
        return max(0.0, (count - left) / rate)

    def check_message(self, size_bytes: int) -> None:
        """Raises TooLarge for a message that is longer than a client may send."""
        most = self.max_message_bytes
        if size_bytes > most:
            raise TooLarge(
                "message", f"a message must have at most {most} bytes (clients.max_message_bytes), got {size_bytes}"
            )

    def _rest(self, client: Client) -> None:
        """Remembers a client that has no call open, and forgets the longest idle."""
        if client.calls or client.streams:
            return
        self._idle[client.key] = client
        if len(self._idle) > self._config.max_remembered:
            self._idle.popitem(last=False)


def client_key(token: Token | None, peer: str) -> str | None:
    """Whose limits a call counts for; None where it has none, because it comes from the loopback without a token.

    Args:
        peer: the other end of the connection as gRPC names it, such as `ipv4:192.0.2.7:50123`.
    """
    if token is not None:
        return f"token {token.name}"  # No address has a space, so no name can be taken for one.
    family, _, address = peer.partition(":")
    host = address.rpartition(":")[0]
    if family == "ipv4":
        return None if host.startswith("127.") else host
    if family != "ipv6":
        return None  # a socket of this machine's file system
    return _key_of_ipv6(host)


def _key_of_ipv6(host: str) -> str | None:
    try:
        address = ipaddress.IPv6Address(host.replace("%5B", "").replace("%5D", "").strip("[]").partition("%")[0])
    except ValueError:
        return host
    if address.ipv4_mapped is not None:
        return None if address.ipv4_mapped.is_loopback else str(address.ipv4_mapped)
    return None if address.is_loopback else str(int(address) >> (128 - _IPV6_PREFIX))


def _too_many(limit: int, of: str, setting: str) -> str:
    return f"a client may have at most {limit} {of} (clients.{setting}), try again later"
