"""Whether an engine that others can reach asks who they are. One that does not must be wanted, and says so."""

from __future__ import annotations

import ipaddress
import logging
import socket

from engine.config import Config, ConfigError

_log = logging.getLogger(__name__)


def check_exposure(config: Config) -> None:
    """Refuses a configuration by which anybody who reaches the port may do everything.

    Raises:
        ConfigError: the engine would listen beyond the loopback and ask for no credentials.
    """
    if _asks(config) or config.serving.insecure or on_loopback(config.serving.host):
        return
    raise ConfigError(
        "serving.host: must be on the loopback while neither security.tokens_file nor tls.client_authorities is set,"
        f" got {config.serving.host!r}: whoever reaches the port could push models, and export and forget users. Set"
        " one of the two (docs/security.md), or serving.insecure = true where something else keeps others from the port"
    )


def warn_of_exposure(config: Config) -> None:
    """Says at a start what others can do or see because of the configuration."""
    host = config.serving.host
    if on_loopback(host):
        return
    if not _asks(config):
        _log.warning(
            "SERVING WITHOUT CREDENTIALS on %s: whoever reaches the port can push models, and export and forget users"
            " (serving.insecure = true)",
            host,
        )
    elif config.tls.certificate is None:
        _log.warning(
            "tokens reach %s unencrypted, and whoever sees them can use them: set tls.certificate and tls.key, unless"
            " something else encrypts what comes to this port",
            host,
        )


def on_loopback(host: str) -> bool:
    """Whether only this machine can reach a host: whether every address that the name has is of the loopback."""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False  # Where it can't be listened on, the start says so by itself.
    return all(ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in found)


def _asks(config: Config) -> bool:
    return config.security.tokens_file is not None or config.tls.client_authorities is not None
