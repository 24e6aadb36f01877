"""How both clients connect: to one engine or several, and calls that are safe to repeat are retried.

Several engines take turns, as far as their health says SERVING.

An engine that refuses a call because it has too much to do says by `grpc-retry-pushback-ms` when to come back. gRPC
waits for that long before its next try, or for the backoff below where the answer does not say.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from ousel.arguments import text, wrong
from ousel.credentials import Bearer, Credentials
from ousel.errors import MAX_ANSWER_BYTES, InvalidArgument

DEFAULT_ADDRESS = "127.0.0.1:50051"
RESUME_S = 60.0  # that a stream without an engine looks for one: longer than an engine takes to start again, as a rule
SLOW_TIMEOUT_S = 60.0  # of calls that go through all that the engine holds

_RETRIED = {
    # Track is safe to repeat because its event_id makes the engine fold it once, and who is forgotten twice is
    # forgotten. A stream is opened again here until its first list has come; later it is resumed, see `resume`.
    "name": [
        {"service": "ousel.v1.RecommenderService"},
        {"service": "ousel.v1.EventService", "method": "Track"},
        {"service": "ousel.v1.ModelService", "method": "GetStatus"},
        {"service": "ousel.v1.PrivacyService"},
        {"service": "ousel.v1.StateService"},
    ],
    "retryPolicy": {
        "maxAttempts": 4,
        "initialBackoff": "0.1s",
        "maxBackoff": "1s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
    },
}
# Each failure takes a token and each success gives half of one. Below half of the tokens nothing is retried, so that an
# engine that refuses most calls does not get four times as many.
_THROTTLING = {"maxTokens": 100, "tokenRatio": 0.5}

# Of one engine, every call goes to it, also while it is not ready: `status` tells how far it is.
_ONE: dict[str, Any] = {"methodConfig": [_RETRIED], "retryThrottling": _THROTTLING}
# Of several, calls go around those whose health says SERVING. The name "" asks for the health of the whole engine.
_SEVERAL: dict[str, Any] = {
    **_ONE,
    "loadBalancingConfig": [{"round_robin": {}}],
    "healthCheckConfig": {"serviceName": ""},
}

_OPTIONS: tuple[tuple[str, str | int], ...] = (
    ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
    # Without these a restarted engine is found again only after 1 to 120 seconds. Until it is found, the next one of a
    # rolling restart must not go.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A connection that has died without a word, with its machine or its network, is noticed after a minute.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)
_DNS = "dns:"
_OTHER_SCHEMES = ("unix:", "unix-abstract:", "ipv4:", "ipv6:", "vsock:", "xds:")


@dataclass(frozen=True)
class Engines:
    """Where the engines are, and how a channel to them is opened. Both clients and the trainer connect by it.

    Attributes:
        name: the addresses as errors show them.
        target: the same as gRPC takes them.
    """

    name: str
    target: str
    options: tuple[tuple[str, str | int], ...]
    channel_credentials: grpc.ChannelCredentials | None
    bearer: Bearer

    def open(self) -> grpc.Channel:
        """A blocking channel."""
        if self.channel_credentials is None:
            return grpc.insecure_channel(self.target, options=self.options)
        return grpc.secure_channel(self.target, self.channel_credentials, options=self.options)

    def open_aio(self) -> grpc.aio.Channel:
        """A channel of the event loop that runs."""
        if self.channel_credentials is None:
            return grpc.aio.insecure_channel(self.target, options=self.options)
        return grpc.aio.secure_channel(self.target, self.channel_credentials, options=self.options)

    def metadata(self) -> tuple[tuple[str, str], ...] | None:
        """The metadata of each call."""
        return self.bearer.metadata()


def engines(address: str | Sequence[str], credentials: Credentials | None = None) -> Engines:
    """The engines at one address or several.

    Args:
        address: host:port, or several of them; or dns:///host:port, whose addresses are several engines.

    Raises:
        InvalidArgument: an address is none, a host of several is not known, or a file of the credentials can't be read.
    """
    if credentials is not None and not isinstance(credentials, Credentials):
        # The value may hold a token, so it is not shown.
        raise InvalidArgument(f"credentials must be Credentials, or None, got a {type(credentials).__name__}")
    credentials = credentials or Credentials()
    given = [address] if isinstance(address, str) else _several(address)
    checked = [checked_address(one) for one in given]
    credentials.check([_host(one) for one in checked])
    several = len(checked) > 1 or checked[0].startswith(_DNS)
    options = [("grpc.service_config", json.dumps(_SEVERAL if several else _ONE)), *_OPTIONS]
    server_name = credentials.server_name
    if server_name is None and len(checked) > 1 and credentials.encrypted:
        server_name = _host(checked[0])  # gRPC would look for a list of addresses in the certificate
    if server_name is not None:
        options.append(("grpc.ssl_target_name_override", server_name))
        options.append(("grpc.default_authority", server_name))
    target = checked[0] if len(checked) == 1 else _resolved(checked)
    return Engines(", ".join(checked), target, tuple(options), credentials.channel_credentials(), Bearer(credentials))


def _several(address: Sequence[str]) -> list[str]:
    if isinstance(address, (bytes, Mapping)) or not isinstance(address, Iterable):
        raise wrong("address", "host:port, or several of them", address)
    given = list(address)
    if not given:
        raise wrong("address", "host:port, or several of them", address)
    for one in given:
        if len(given) > 1 and text("address", one).startswith((_DNS, *_OTHER_SCHEMES)):
            raise wrong("address", "host:port where several are given", one)
    return given


def _resolved(addresses: Sequence[str]) -> str:
    """The target of several: gRPC takes a list only of numbers, all of one family. Names are looked up once, here.

    Whoever has names whose addresses change has them under one name, and gives that as dns:///name:port.
    """
    found = [_numbers(one) for one in addresses]
    for family, scheme in ((socket.AF_INET, "ipv4"), (socket.AF_INET6, "ipv6")):
        if all(family in one for one in found):
            return f"{scheme}:" + ",".join(one[family] for one in found)
    raise InvalidArgument("the addresses must all be of IPv4, or all of IPv6, where several are given")


def _numbers(address: str) -> dict[int, str]:
    host, _, port = address.rpartition(":")
    try:
        infos = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except (OSError, ValueError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or "no port"
        raise InvalidArgument(f"address must be host:port of a host that is known, got {address!r} ({why})") from None
    numbers: dict[int, str] = {}
    for family, _, _, _, found in infos:
        number = f"[{found[0]}]:{port}" if family == socket.AF_INET6 else f"{found[0]}:{port}"
        numbers.setdefault(int(family), number)
    return numbers


def _host(address: str) -> str:
    if address.startswith(("unix:", "unix-abstract:")):
        return address
    scheme = next((one for one in (_DNS, *_OTHER_SCHEMES) if address.startswith(one)), "")
    rest = address.removeprefix(scheme).rpartition("/")[2]  # dns://server/host:port
    return rest.rpartition(":")[0] if re.search(r":\d+$", rest) else rest


def checked_address(address: str) -> str:
    """The address as it came; every error names it, so one that may hold a password is refused.

    Raises:
        InvalidArgument: it is empty or no text, a user or a password stands before the host, or a scheme of the web.
    """
    if not text("address", address).strip():
        raise wrong("address", "host:port", address)
    if "@" in address:
        raise InvalidArgument("the address must be host:port without a user, a password and an @")
    if "\0" in address or address.strip() != address:
        raise wrong("address", "host:port without spaces around it", address)
    if address.lower().startswith(("http://", "https://", "grpc://", "grpcs://")):
        raise wrong("address", f"host:port without {address.partition('//')[0]}//", address)
    return address
