"""Can the ports be listened on?"""

from __future__ import annotations

from collections.abc import Iterator

from engine.checks.finding import Finding, error, ok
from engine.config import ServingConfig
from engine.serving.ports import PortTaken, check_free


def look_at_ports(config: ServingConfig) -> Iterator[Finding]:
    """Tries each address and gives it back at once."""
    for what, host, port in (
        ("gRPC", config.host, config.port),
        ("metrics", config.metrics_host, config.metrics_port),
        *([] if config.health_port is None else [("health", config.health_host, config.health_port)]),
    ):
        try:
            check_free(what, host, port)
        except PortTaken as problem:
            yield error(f"{problem}: end what listens there (this engine may be running already), or set another port")
        else:
            yield ok(f"{what} can listen on {host}, " + (f"port {port}" if port else "on a port that is free then"))
