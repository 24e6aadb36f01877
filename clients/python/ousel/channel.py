"""How both clients connect: calls that are safe to repeat are retried while the engine is unavailable or overloaded.

An engine that refuses a call because it has too much to do says by `grpc-retry-pushback-ms` when to come back. gRPC
waits for that long before its next try, or for the backoff below where the answer does not say.
"""

from __future__ import annotations

import json

from ousel.arguments import text, wrong
from ousel.errors import MAX_ANSWER_BYTES, InvalidArgument

DEFAULT_ADDRESS = "127.0.0.1:50051"
SLOW_TIMEOUT_S = 60.0  # of calls that go through all that the engine holds

_SERVICE_CONFIG = {
    "methodConfig": [
        {
            # Track is safe to repeat because its event_id makes the engine fold it once, and who is forgotten twice is
            # forgotten. Streams are not: what the reader has seen can't be taken back, so the caller decides.
            "name": [
                {"service": "ousel.v1.RecommenderService", "method": "Recommend"},
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
    ],
    # Each failure takes a token and each success gives half of one. Below half of the tokens nothing is retried, so
    # that an engine that refuses most calls does not get four times as many.
    "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.5},
}

CHANNEL_OPTIONS: tuple[tuple[str, str | int], ...] = (
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
    # Without these a restarted engine is found again only after 1 to 120 seconds.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5000),
)


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
