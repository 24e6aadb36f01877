"""`ousel-engine health`: asks an engine whether it serves, for a container's health check and for scripts.

It is run every few seconds beside an engine that needs its cores, so it imports nothing that takes long.
"""

from __future__ import annotations

from pathlib import Path

from engine.config import Config, address_problem, load_config
from engine.config.address import host_and_port
from engine.failures import WrongValue

# An address that stands for every interface can be listened on; it can't be connected to everywhere.
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}


def health(address: str | None, config: Path | None, timeout_s: float) -> None:
    """Ends with exit code 0 where the engine serves, and with 1 and one line where it does not.

    Args:
        address: host:port to ask; None asks the engine that the settings describe.
        config: the file of settings.
        timeout_s: how long the answer may take, in seconds.

    Raises:
        WrongValue: the address or a setting is wrong.
        SystemExit: the engine does not serve, or can't be reached.
    """
    if address is None:
        try:
            address = address_of(load_config(config))
        except ValueError as error:
            raise WrongValue(f"ousel-engine health: {error}") from None
    elif (problem := address_problem(address)) is not None:
        raise WrongValue(f"ousel-engine health: ADDRESS {problem}, got {address!r}")
    answer = _asked(address, timeout_s)
    if answer != "SERVING":
        raise SystemExit(f"ousel-engine health: {address}: {answer}")


def address_of(config: Config) -> str:
    """Where the engine of these settings answers health in plain text.

    Raises:
        ValueError: there is no such port, or it is only known once the engine has started.
    """
    serving = config.serving
    setting, host, port = "serving.port", serving.host, serving.port
    if serving.health_port is not None:  # It is without TLS and without tokens.
        setting, host, port = "serving.health_port", serving.health_host, serving.health_port
    elif config.tls.certificate is not None:
        raise ValueError("the engine speaks TLS (tls.certificate): set serving.health_port, and health is asked there")
    if port == 0:
        raise ValueError(f"{setting} is 0, so the engine has taken a free port: name the address, as host:port")
    return host_and_port(_LOOPBACK.get(host, host), port)


def _asked(address: str, timeout_s: float) -> str:
    """The status by its name in the protocol, or why there is none."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(address, options=(("grpc.enable_http_proxy", 0),)) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        try:
            answer = check(health_pb2.HealthCheckRequest(), timeout=timeout_s)
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
