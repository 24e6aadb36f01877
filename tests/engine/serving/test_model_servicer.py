import asyncio
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import grpc
import pytest
from ousel.v1 import event_pb2
from ousel.v1.model_service_pb2 import (
    PushWeightsRequest,
)

from engine import metrics
from engine.config import Config, ModelConfig, ServingConfig
from engine.generations import StaleVersion
from engine.model.weights import WeightsError
from engine.registry.errors import PushOvertaken, RegistryError
from engine.registry.ledger import Ledger
from engine.serving.model_servicer import _to_its_end
from tests.engine.serving.fakes import Served, failure, until
from tests.engine.serving.pushes import DIGEST, WEIGHTS, chunks, finish, header, push, under_way

INVALID = grpc.StatusCode.INVALID_ARGUMENT
BESIDE = (grpc.StatusCode.ABORTED, "another push is being received or stored, try again later")


@contextmanager
def pushes(accepted: int = 0, refused: int = 0) -> Iterator[None]:
    def counted() -> list[float]:
        return [metrics.MODEL_PUSHES.labels(outcome)._value.get() for outcome in ("accepted", "refused")]

    before = counted()
    yield
    assert [now - was for now, was in zip(counted(), before, strict=True)] == [accepted, refused]


async def test_hands_what_was_pushed_to_the_registry_and_answers_once_it_is_announced(served: Served):
    served.models.may_answer.clear()
    at = event_pb2.LogPosition(topic="ousel.events", partition=1, offset=41)
    with pushes(accepted=1):
        call = asyncio.create_task(push(served, [header(trained_on=[at], pushed_by="me"), *chunks()]))
        await until(lambda: bool(served.models.taken), "the registry has the weights")
        (taken,) = served.models.taken
        assert (taken.data, taken.version, taken.metrics) == (WEIGHTS, 4, {"hit_rate@20": 0.5})
        assert (taken.sha256, taken.trained_on, taken.pushed_by) == (
            DIGEST.hex(), (("ousel.events", 1, 41),), "me",
        )  # fmt: skip
        assert isinstance(taken.data, bytearray)  # which is read where it is
        assert not call.done()
        served.models.may_answer.set()
        answer = await call
    assert (answer.version, answer.announced, answer.pinned_version) == (4, True, 0)
    assert answer.swap_ms > 0


async def test_a_push_without_a_name_bears_its_callers_address_and_hears_of_a_pin(served: Served):
    served.models.ledger = Ledger(pinned=2)
    assert (await push(served, [header(), *chunks()])).pinned_version == 2
    assert served.models.taken[0].pushed_by.startswith("ipv4:127.0.0.1:")


async def test_a_version_that_is_not_above_all_others_is_refused_before_its_weights_come(served: Served):
    call = served.model.PushWeights()
    await call.write(header(version=3))
    assert await failure(call) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "version must be > 3, the newest of the registry, got 3",
    )


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "the first message must be header, got nothing"),
        (chunks(), "the first message must be header, got chunk"),
        ([PushWeightsRequest()], "the first message must be header, got neither header nor chunk"),
        ([header(version=0), *chunks()], "version must be >= 1, got 0"),
        ([header(metrics={"loss": float("nan")}), *chunks()], "metrics['loss'] must be finite, got nan"),
        ([header(size_bytes=0)], "size_bytes must be within 1..100000, got 0"),
        ([header(size_bytes=100_001)], "size_bytes must be within 1..100000, got 100001"),
        ([header(sha256=b"short"), *chunks()], "sha256 must have 32 bytes, got 5"),
        ([header(), *chunks()[:-1]], "weights are truncated: size_bytes says 51200, got 40000"),
        ([header()], "weights are truncated: size_bytes says 51200, got 0"),
        ([header(), *chunks(), *chunks()], "weights are too long: size_bytes says 51200, got 71200 or more"),
        ([header(), header()], "messages after the header must be chunk, got header"),
        ([header(), PushWeightsRequest()], "messages after the header must be chunk, got neither"),
    ],
)
async def test_refuses_a_push_that_is_not_as_announced(served: Served, messages, message):
    with pushes(refused=1):
        assert await failure(push(served, messages)) == (INVALID, message)
    assert served.models.taken == []


async def test_refuses_weights_of_another_digest(served: Served):
    damaged = bytearray(WEIGHTS)
    damaged[12345] ^= 1
    with pushes(refused=1):
        code, message = await failure(push(served, [header(), *chunks(bytes(damaged))]))
    assert code is INVALID
    got = hashlib.sha256(damaged).hexdigest()
    assert message == f"sha256 must be the digest of the weights, got {DIGEST.hex()} for {got}"
    assert served.models.taken == []


async def test_refuses_too_many_bytes_at_once_without_waiting_for_the_end(served: Served):
    call = served.model.PushWeights()
    await call.write(header(size_bytes=10_000))
    await call.write(chunks()[0])
    code, message = await failure(call)
    assert (code, message) == (INVALID, "weights are too long: size_bytes says 10000, got 20000 or more")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (WeightsError("tensor item.table must be (7, 4), got (7, 5)"), INVALID),
        (StaleVersion("version must be > 9, the newest of the registry, got 4"), grpc.StatusCode.FAILED_PRECONDITION),
        (PushOvertaken("another push was announced first"), grpc.StatusCode.ABORTED),
        (RegistryError("registry.dir memory can't be used"), grpc.StatusCode.UNAVAILABLE),
    ],
)
async def test_passes_on_why_the_registry_refused(served: Served, error, code):
    served.models.refuse = error
    with pushes(refused=1):
        assert await failure(push(served, [header(), *chunks()])) == (code, str(error))


async def test_refuses_a_second_push_beside_a_first(served: Served):
    first = await under_way(served)
    with pushes():
        assert await failure(push(served, [header(), *chunks()])) == BESIDE
    assert (await finish(first)).version == 4
    assert len(served.models.taken) == 1


async def test_a_push_that_sends_no_header_keeps_nobody_from_pushing_and_only_few_may_be_open(served: Served):
    models = served.server.models
    silent = [served.model.PushWeights() for _ in range(16)]
    await until(lambda: models._headerless == 16, "all of them are open")
    assert await failure(push(served, [header(), *chunks()])) == BESIDE
    silent.pop().cancel()
    await until(lambda: models._headerless == 15, "one is gone")
    assert (await push(served, [header(), *chunks()])).version == 4
    for call in silent:
        call.cancel()


async def test_takes_a_push_after_one_that_was_refused(served: Served):
    await failure(push(served, [header(version=0)]))
    assert (await push(served, [header(), *chunks()])).version == 4


async def test_takes_a_push_after_one_that_broke_off(served: Served):
    refused = metrics.MODEL_PUSHES.labels("refused")._value
    before = refused.get()
    (await under_way(served)).cancel()
    await until(lambda: refused.get() == before + 1, "the server knows")
    assert (await push(served, [header(), *chunks()])).version == 4


async def test_a_push_is_announced_and_stays_alone_when_its_caller_leaves(served: Served):
    served.models.may_answer.clear()
    cancelled = metrics.CALLS.labels("ModelService/PushWeights", "CANCELLED")._value
    before = cancelled.get()
    call = served.model.PushWeights(iter([header(), *chunks()]))
    await until(lambda: bool(served.models.taken), "the registry has the weights")
    call.cancel()
    await until(lambda: cancelled.get() == before + 1, "the server knows")
    assert await failure(push(served, [header(), *chunks()])) == BESIDE
    accepted = metrics.MODEL_PUSHES.labels("accepted")._value
    count = accepted.get()
    served.models.may_answer.set()
    await until(lambda: accepted.get() == count + 1, "it is announced")
    assert (await push(served, [header(version=5), *chunks()])).version == 5


async def test_the_log_says_what_a_caller_that_has_left_does_not_hear(caplog):
    started, may_fail = asyncio.Event(), asyncio.Event()

    async def fails() -> None:
        started.set()
        await may_fail.wait()
        raise RegistryError("the store is away")

    caller = asyncio.create_task(_to_its_end(asyncio.create_task(fails())))
    await started.wait()
    caller.cancel()
    with suppress(asyncio.CancelledError):
        await caller
    assert not caplog.messages
    may_fail.set()
    await until(lambda: bool(caplog.messages), "the log has it")
    assert caplog.messages == ["what a caller that has left has asked for failed: RegistryError: the store is away"]


def with_model(**fields: object) -> Config:
    return Config(serving=ServingConfig(port=0, metrics_port=0), model=ModelConfig(max_weights_bytes=100_000, **fields))


async def take_over(served: Served) -> None:
    """A push is taken at last: the place is free."""
    async with asyncio.timeout(30):
        while served.server.models._pushing.locked():
            await asyncio.sleep(0.01)
    assert (await push(served, [header(), *chunks()])).version == 4


@pytest.mark.parametrize("whole", [with_model(push_silence_s=0.2)], indirect=True)
@pytest.mark.parametrize("messages", [0, 1, 2])
async def test_a_silent_push_gives_its_place_free(served: Served, messages):
    call = served.model.PushWeights()
    for message in [header(), *chunks()][:messages]:
        await call.write(message)
    assert await failure(call) == (
        grpc.StatusCode.DEADLINE_EXCEEDED,
        "the push was silent for 0.2 s (model.push_silence_s)",
    )
    await take_over(served)


async def trickled(served: Served) -> Any:
    """A push of a byte at a time, once the engine has ended it."""
    call = await under_way(served)
    async with asyncio.timeout(30):
        while not call.done():
            with suppress(asyncio.InvalidStateError, grpc.RpcError):  # it ends between the two
                await call.write(PushWeightsRequest(chunk=b"x"))
            await asyncio.sleep(0.01)
    return call


@pytest.mark.parametrize("whole", [with_model(push_silence_s=30, push_receive_s=0.5)], indirect=True)
async def test_a_push_that_never_falls_silent_has_a_deadline_as_a_whole(served: Served):
    call = await trickled(served)
    while await call.code() is grpc.StatusCode.INTERNAL:
        # gRPC's client puts this in place of the engine's own answer where a write meets the end of a call.
        assert not (await call.details()).startswith("the engine failed")
        call = await trickled(served)
    assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "the push took longer than 0.5 s (model.push_receive_s), and " in await call.details()
    await take_over(served)


async def test_a_slow_push_gives_its_place_to_the_next_one_and_a_brisk_one_keeps_it(served: Served, monkeypatch):
    monkeypatch.setattr("engine.serving.upload._PACE_BYTES", 10_000)
    slow = await under_way(served)
    assert await failure(push(served, [header(), *chunks()])) == BESIDE  # so far it has had little time
    monkeypatch.setattr("engine.serving.upload._PACE_S", 0.0)
    with pushes(accepted=1, refused=1):
        assert (await push(served, [header(), *chunks()])).version == 4
        code, details = await failure(slow)
    assert code is grpc.StatusCode.ABORTED
    assert details.startswith("another push took the place of this one, which took longer than 0 s for 10000 bytes")

    monkeypatch.setattr("engine.serving.upload._PACE_S", 30.0)
    brisk = await under_way(served, version=5)
    receiving = served.server.models._receiving
    began_s = receiving._paced_s
    await brisk.write(chunks()[0])
    await until(lambda: receiving._paced_s > began_s, "its first bytes have come")
    assert await failure(push(served, [header(version=5), *chunks()])) == BESIDE
    for chunk in chunks()[1:]:
        await brisk.write(chunk)
    await brisk.done_writing()
    assert (await brisk).version == 5


async def test_a_push_that_is_being_stored_gives_way_to_nobody(served: Served, monkeypatch):
    monkeypatch.setattr("engine.serving.upload._PACE_S", 0.0)
    served.models.may_answer.clear()
    call = served.model.PushWeights(iter([header(), *chunks()]))
    await until(lambda: bool(served.models.taken), "the registry has the weights")
    assert await failure(push(served, [header(), *chunks()])) == BESIDE
    served.models.may_answer.set()
    assert (await call).version == 4
