from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest
from ousel.channel import engines
from ousel.v1 import model_service_pb2, model_service_pb2_grpc

TRIES = 10
DEADLINE_S = 60.0


class ClosedDoor:
    """Listens at `address` and hangs up on whoever comes; `times_s` says when each came."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = "{}:{}".format(*self._listener.getsockname())
        self.times_s: list[float] = []
        self.enough = threading.Event()
        self._thread = threading.Thread(target=self._refuse, daemon=True)
        self._thread.start()

    def _refuse(self) -> None:
        while len(self.times_s) < TRIES:
            connection, _ = self._listener.accept()
            self.times_s.append(time.monotonic())
            connection.close()
        self.enough.set()

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def door() -> Iterator[ClosedDoor]:
    made = ClosedDoor()
    yield made
    made.close()


def test_an_engine_that_stays_away_is_looked_for_about_each_second(door: ClosedDoor) -> None:
    with engines(door.address).open() as channel:
        ask = model_service_pb2_grpc.ModelServiceStub(channel).GetStatus
        call = ask.future(model_service_pb2.GetStatusRequest(), wait_for_ready=True, timeout=DEADLINE_S)
        assert door.enough.wait(DEADLINE_S)
        call.cancel()
    # gRPC's own waits grow from try to try, the last of these to more than two and to more than four seconds. The
    # shorter one counts, since a busy machine may delay a try.
    apart_s = [later - earlier for earlier, later in zip(door.times_s, door.times_s[1:], strict=False)]
    assert min(apart_s[-2:]) < 1.8
