import asyncio
from itertools import pairwise

import grpc
import pytest
from ousel.v1 import event_pb2
from ousel.v1.model_service_pb2 import GetStatusRequest
from ousel.v1.state_service_pb2 import GetDigestRequest, PartitionDigest, TakeSnapshotRequest, TakeSnapshotResponse

from engine import metrics
from engine.pipeline import SnapshotsOff
from engine.serving import state_servicer
from engine.state.digest import StateDigest
from tests.engine.serving.fakes import Served, failure, until

LATE = grpc.StatusCode.DEADLINE_EXCEEDED


def position(topic: str, partition: int, offset: int) -> event_pb2.LogPosition:
    return event_pb2.LogPosition(topic=topic, partition=partition, offset=offset)


def state(name: str = "a1") -> StateDigest:
    return StateDigest({0: name}, "c3", {("ousel.events", 0): 10}, {0: 9})


async def test_shows_the_digest_of_every_partition_and_of_the_catalog(served: Served):
    positions = {("ousel.items", 0): 4, ("ousel.events", 2): 0, ("ousel.events", 0): 10}
    served.engine.state = StateDigest({2: "b2", 0: "a1"}, "c3", positions, {0: 9, 2: 0})
    answer = await served.state.GetDigest(GetDigestRequest())
    assert list(answer.partitions) == [
        PartitionDigest(digest="a1", reflects=position("ousel.events", 0, 9), events_folded=9),
        PartitionDigest(digest="b2", reflects=position("ousel.events", 2, -1), events_folded=0),
    ]
    assert answer.catalog_digest == "c3"
    assert list(answer.catalog_reflects) == [position("ousel.items", 0, 3)]


async def test_takes_a_snapshot_and_answers_once_it_is_safe(served: Served):
    served.engine.hold = True
    call = served.state.TakeSnapshot(TakeSnapshotRequest())
    await until(lambda: bool(served.engine.snapshots), "the snapshot is wanted")
    await served.state.GetDigest(GetDigestRequest(), timeout=0.05).code()  # the server's loop has been round since
    assert not call.done()
    served.engine.snapshots[0].set_result({("ousel.items", 0): 4, ("ousel.events", 0): 10})
    reflects = [position("ousel.events", 0, 9), position("ousel.items", 0, 3)]
    assert await call == TakeSnapshotResponse(reflects=reflects)


async def test_says_what_to_set_where_no_snapshots_are_taken(served: Served):
    served.engine.refuse_snapshots = SnapshotsOff("snapshot.enabled must be true")
    for _ in range(2):
        assert await failure(served.state.TakeSnapshot(TakeSnapshotRequest())) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            "snapshot.enabled must be true",
        )


@pytest.mark.parametrize(
    "error", [OSError("No space left on device"), TimeoutError("the disk is away"), RuntimeError("the folder is gone")]
)
async def test_says_why_a_snapshot_failed_and_takes_the_next(served: Served, error):
    served.engine.hold = True
    call = served.state.TakeSnapshot(TakeSnapshotRequest())
    await until(lambda: bool(served.engine.snapshots), "the snapshot is wanted")
    served.engine.snapshots[0].set_exception(error)
    assert await failure(call) == (
        grpc.StatusCode.INTERNAL,
        f"the snapshot failed, the one before it still counts: {error}",
    )
    served.engine.hold = False
    await served.state.TakeSnapshot(TakeSnapshotRequest())


async def test_callers_that_leave_cost_one_digest_and_the_next_gets_one_of_its_own(served: Served):
    served.engine.hold = True
    for _ in range(3):
        assert (await failure(served.state.GetDigest(GetDigestRequest(), timeout=0.1)))[0] is LATE
    assert len(served.engine.digests) == 1
    late = metrics.CALLS.labels("StateService/GetDigest", "DEADLINE_EXCEEDED")._value
    count = late.get()
    waiting = served.state.GetDigest(GetDigestRequest(), timeout=5)
    assert (await failure(served.state.GetDigest(GetDigestRequest(), timeout=0.1)))[0] is LATE
    await until(lambda: late.get() > count, "the server knows")
    assert len(served.engine.digests) == 1
    served.engine.digests[0].set_result(state("old"))
    await until(lambda: len(served.engine.digests) == 2, "the waiting call has its turn")
    served.engine.digests[1].set_result(state("new"))
    assert [one.digest for one in (await waiting).partitions] == ["new"]


async def test_a_failure_that_nobody_waits_for_is_no_ones(served: Served):
    unheard: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
    served.engine.hold = True
    assert (await failure(served.state.TakeSnapshot(TakeSnapshotRequest(), timeout=0.1)))[0] is LATE
    served.engine.snapshots[0].set_exception(OSError("No space left on device"))
    served.engine.hold = False
    await served.state.TakeSnapshot(TakeSnapshotRequest(), timeout=5)
    assert len(served.engine.snapshots) == 2
    assert unheard == []


async def test_a_snapshot_need_not_wait_for_a_digest(served: Served):
    served.engine.hold = True
    waiting = served.state.GetDigest(GetDigestRequest(), timeout=5)
    await until(lambda: bool(served.engine.digests), "the digest is wanted")
    served.engine.hold = False
    await served.state.TakeSnapshot(TakeSnapshotRequest(), timeout=5)
    served.engine.digests[0].set_result(state())
    await waiting


async def test_callers_who_come_while_a_digest_is_made_share_the_next(served: Served):
    served.engine.hold = True
    first = served.state.GetDigest(GetDigestRequest(), timeout=30)
    await until(lambda: len(served.engine.digests) == 1, "the first digest is wanted")
    others = [served.state.GetDigest(GetDigestRequest(), timeout=30) for _ in range(50)]
    await served.model.GetStatus(GetStatusRequest())  # they have come by now
    served.engine.digests[0].set_result(state("old"))
    assert [one.digest for one in (await first).partitions] == ["old"]
    await until(lambda: len(served.engine.digests) == 2, "the next is wanted")
    served.engine.digests[1].set_result(state("new"))
    for other in others:
        assert [one.digest for one in (await other).partitions] == ["new"]
    assert len(served.engine.digests) == 2


async def test_more_callers_than_may_share_an_answer_are_refused_with_a_hint(served: Served, monkeypatch):
    monkeypatch.setattr(state_servicer, "_MAX_WAITING", 3)
    served.engine.hold = True
    calls = [served.state.TakeSnapshot(TakeSnapshotRequest(), timeout=30) for _ in range(3)]
    await until(lambda: len(served.engine.snapshots) == 1, "a snapshot is wanted")
    refused = served.state.TakeSnapshot(TakeSnapshotRequest(), timeout=30)
    assert (await failure(refused))[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "grpc-retry-pushback-ms" in dict(await refused.trailing_metadata())
    served.engine.hold = False
    served.engine.snapshots[0].set_result({})
    for call in calls:
        await call


async def test_between_two_digests_the_engine_rests_for_longer_than_one_took(served: Served):
    loop, began = asyncio.get_running_loop(), []
    digest = served.engine.digest

    def slow():
        began.append(loop.time())
        answer = digest()
        loop.call_later(0.1, answer.set_result, state())
        return answer

    served.engine.hold = True
    shared = state_servicer._Shared(slow)
    for _ in range(3):
        await shared.ask()
    assert all(later - earlier >= 0.1 + 4 * 0.1 for earlier, later in pairwise(began))
