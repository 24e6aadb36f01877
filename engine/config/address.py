"""Addresses in the configuration: host:port, without a user, a password or a scheme; brokers have a usual port."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

_NAME = r"[\w.-]+"
_IPV6 = r"[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(?:%[\w.-]+)?"
_HOST = re.compile(rf"{_NAME}|{_IPV6}")
_ADDRESS = re.compile(rf"(?:{_NAME}|\[{_IPV6}\])(?P<port>:\d{{1,5}})?")


def address_problem(text: str, *, port_needed: bool = True) -> str | None:
    """The fault of a `host:port`; None where it has none. It never quotes the text, which may hold a password."""
    if "@" in text:
        return "must be host:port without a user, a password and an @"
    found = _ADDRESS.fullmatch(text.strip())
    if not found or (port_needed and not found["port"]):
        return "must be host:port, or [IPv6]:port, without a scheme and a path"
    return None


def host_and_port(host: str, port: int) -> str:
    """One address of a host and a port, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_address(text: str, *, port_needed: bool = True) -> str:
    problem = address_problem(text, port_needed=port_needed)
    if problem is not None:
        raise ValueError(problem)
    return text


def _is_host(text: str) -> str:
    if not _HOST.fullmatch(text):
        raise ValueError("must be the name or the IP address of a host, without a user, a password and a port")
    return text


def _are_addresses(text: str) -> str:
    for address in text.split(","):
        _is_address(address, port_needed=False)  # Kafka's clients know the usual one.
    return text


Host = Annotated[str, AfterValidator(_is_host)]
Address = Annotated[str, AfterValidator(_is_address)]
Addresses = Annotated[str, AfterValidator(_are_addresses)]  # with commas between them
