"""File descriptors: each connection takes one, and so do those to the log, the metrics and the files of snapshots."""

from __future__ import annotations

import logging
import resource
from contextlib import suppress

_log = logging.getLogger(__name__)

RESERVED = 256  # for everything but the connections of callers
_ENOUGH = 2**20  # where the hard limit is none; more helps nobody, and some systems refuse it
_LEAST_CONNECTIONS = 16


def raise_limit(wanted: int) -> int:
    """Raises this process's soft limit to the hard one and says so; returns the limit that holds from now on.

    Most systems give a process 1,024 and let it have many more, because old programs can't count further.

    Args:
        wanted: how many the settings may need; where there are fewer, one line says what to do.
    """
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before == resource.RLIM_INFINITY:
        _log.info("the limit of file descriptors is none, as it was")
        return limit()
    if hard == resource.RLIM_INFINITY:
        hard = max(before, _ENOUGH)
    if before < hard:
        with suppress(OSError, ValueError):  # a system may forbid it; what it is then is said below
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    now = limit()
    if now > before:
        _log.info("the limit of file descriptors was %d and is now %d, the hard limit", before, now)
    else:
        _log.info("the limit of file descriptors is %d, as it was", now)
    if now < wanted:
        _log.warning(
            "%d file descriptors are too few for the connections that serving.max_streams and serving.max_connections"
            " allow: raise the hard limit to %d (LimitNOFILE of systemd, --ulimit nofile of a container), or lower"
            " these two. Until then at most %d connections are taken", now, wanted, connections(now),
        )  # fmt: skip
    return now


def limit() -> int:
    """The soft limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _ENOUGH if soft == resource.RLIM_INFINITY else soft


def connections(descriptors: int) -> int:
    """How many connections of callers leave enough of so many descriptors for everything else."""
    return max(_LEAST_CONNECTIONS, descriptors - RESERVED)
