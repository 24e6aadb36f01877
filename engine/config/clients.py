"""What one client may take, so that none can keep the others from what they came for."""

from __future__ import annotations

from pydantic import Field

from engine.config.section import Section


class ClientsConfig(Section):
    """What one client may take: a client is a token's name or, where no token is asked for, an address.

    The defaults lie above what one machine serves, so that the only backend of an engine never meets them. A client on
    the loopback that brings no token has no limits.
    """

    max_calls_per_s: float = Field(
        20_000.0, ge=0.1, le=10_000_000,
        description="A client may make so many calls a second, after a burst of as many as in one second; messages on"
        " open streams count as well, and wait in place of being refused. An engine answers some 2,000 calls a second"
        " and core.",
    )  # fmt: skip
    max_concurrent_calls: int = Field(
        30_000, ge=1, le=10_000_000,
        description="A client may have so many calls open that are no streams. So many calls of all clients together"
        " may wait by serving.max_backlog.",
    )  # fmt: skip
    max_streams: int = Field(
        20_000, ge=1, le=10_000_000,
        description="A client may have so many streams open, those of health, of reflection and of pushes included."
        " Twice as many as serving.max_streams lets all clients have.",
    )  # fmt: skip
    max_message_bytes: int = Field(
        2**20, ge=1024, le=4 * 2**20,
        description="A message of a client may have so many bytes, but for the chunks of a pushed model, for which the"
        " 4 MiB of gRPC hold. The largest request that means anything, with 1,000 items to leave out, has 0.3 MB.",
    )  # fmt: skip
    max_metadata_bytes: int = Field(
        8192, ge=256, le=16_384,
        description="The metadata of a call may have so many bytes, with 32 for each entry. gRPC itself takes none"
        " above 16,384.",
    )  # fmt: skip
    max_remembered: int = Field(
        10_000, ge=1, le=10_000_000,
        description="Of so many clients without an open call it is known what they have taken lately; the longest idle"
        " is forgotten for one more, which costs it nothing after a second. Each takes about 0.4 KB.",
    )  # fmt: skip
