"""The ways in which a client may reach an engine. What holds of who may call must hold over each of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc


@dataclass(frozen=True)
class Transport:
    """How an engine is reached.

    Attributes:
        sections: of the engine's configuration, given a folder for files.
        credentials: of a client, given the same folder; None where the transport knows none.
    """

    name: str
    sections: Callable[[Path], dict[str, Any]]
    credentials: Callable[[Path], grpc.ChannelCredentials | None]


PLAINTEXT = Transport("plaintext", lambda folder: {}, lambda folder: None)

TRANSPORTS = (PLAINTEXT,)
