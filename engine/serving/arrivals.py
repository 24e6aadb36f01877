"""Calls that have arrived at the port and that the engine has never looked at, by gRPC's own statistics.

gRPC keeps the calls that the event loop has not taken up yet, up to `serving.max_backlog`. It cancels further ones
itself, without a status that tells the caller to come back, and no code of ours runs for them.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from grpc._cython import cygrpc  # type: ignore[attr-defined]


class Arrivals:
    """Compares the calls that gRPC has seen on one server with those that the engine was given.

    Made right after the server, because the newest one in the process is taken for it.

    Args:
        taken: how many calls the engine was given so far.
    """

    def __init__(self, taken: Callable[[], int]) -> None:
        servers = json.loads(cygrpc.channelz_get_servers(0))["server"]
        self._server_id = max(int(server["ref"]["serverId"]) for server in servers)
        self._taken = taken
        self._unseen = 0

    def unseen(self) -> int:
        """Calls that wait to be taken up, and those that gRPC has cancelled before they were; from any thread."""
        taken = self._taken()  # first, or a call that comes now would count as taken and not as arrived
        try:
            data = json.loads(cygrpc.channelz_get_server(self._server_id))["server"]["data"]
        except ValueError:  # the server is closed, and gRPC has forgotten it
            return self._unseen
        self._unseen = max(0, int(data.get("callsStarted", 0)) - taken)
        return self._unseen
