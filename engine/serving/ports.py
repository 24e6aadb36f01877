"""Addresses to listen on: whether one is free, and the one line that says why not."""

from __future__ import annotations

import errno
import socket

from engine.config.address import host_and_port


class PortTaken(RuntimeError):
    """An address can't be listened on; the message is one line that names it and says why."""


def check_free(what: str, host: str, port: int) -> None:
    """Takes an address, and gives it back at once.

    Args:
        what: listens there, for the message.

    Raises:
        PortTaken: it can't be listened on.
    """
    problem: OSError | None = None
    bound = False
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            try:
                with socket.socket(family, kind, protocol) as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(address)
                    bound = True
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise
                problem = error
    except OSError as error:
        raise port_taken(what, host, port, error) from None
    # One of a name's addresses is enough: "localhost" often has one of a family that the machine doesn't use.
    if problem and not bound:
        raise port_taken(what, host, port, problem) from None


def port_taken(what: str, host: str, port: int, error: Exception) -> PortTaken:
    """The error for an address that something can't listen on."""
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return PortTaken(f"can't listen on {host_and_port(host, port)} for {what}: {why}")
