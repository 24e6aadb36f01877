from __future__ import annotations

import socket

from engine.checks.ports import look_at_ports
from engine.config import ServingConfig


def test_a_port_that_is_taken_is_an_error_and_the_others_are_looked_at() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        first, second = look_at_ports(ServingConfig(port=port, metrics_port=0))
        assert (first.level, second.level) == ("error", "ok")
        assert f"can't listen on 127.0.0.1:{port} for gRPC: Address already in use: end what" in first.message
    free, _ = look_at_ports(ServingConfig(port=port, metrics_port=0))
    assert free.level == "ok" and f"gRPC can listen on 127.0.0.1, port {port}" in free.message


def test_the_port_of_health_is_looked_at_where_there_is_one() -> None:
    found = list(look_at_ports(ServingConfig(port=0, metrics_port=0, health_port=0)))
    assert [one.message.split()[0] for one in found] == ["gRPC", "metrics", "health"]


def test_an_address_of_another_machine_is_an_error() -> None:
    first, _ = look_at_ports(ServingConfig(host="192.0.2.1", metrics_port=0))
    assert first.level == "error" and "192.0.2.1:50051 for gRPC: Cannot assign requested address" in first.message
