"""The way of a trace: from a call's metadata into a record's headers, through the fold, to the list that is pushed."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from kafka import TopicPartition
from kafka.record.memory_records import MemoryRecordsBuilder
from ousel.v1 import event_pb2
from ousel.v1.event_service_pb2 import TrackRequest

from engine.config import KafkaConfig
from engine.events.batch import Record
from engine.events.partition_reader import MAX_TRACED, ReadLimits
from engine.events.producer import EventProducer
from engine.events.record_batch import read_header, read_records
from engine.events.records import Records
from engine.publisher import Publisher
from engine.serving.event_servicer import EventServicer
from engine.tracing import spans
from tests.engine.logs import TOPIC, Line, batch
from tests.engine.serving.fakes import ranking
from tests.engine.serving.stage import Stage, taken
from tests.engine.test_pipeline import Streams
from tests.engine.tracing.plain import TRACEPARENT, PlainTracer, tracer
from tests.engine.worlds import small_config, small_state

__all__ = ["tracer"]  # the fixture

Headers = Sequence[tuple[str, bytes | None]]


async def test_track_takes_the_callers_span_and_the_record_has_it_in_its_headers(
    tracer: PlainTracer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []

    class Kafka:
        def __init__(self) -> None:
            self.config: dict[str, object] = {}

        def send(self, topic: str, **record: Any) -> Any:
            sent.append(record["headers"])
            raise RuntimeError("enough")

    monkeypatch.setattr("engine.events.producer.open_producer", lambda *_: Kafka())
    producer = EventProducer(KafkaConfig())

    class Writer:
        async def write(self, event: event_pb2.Event, remaining_s: float | None) -> None:
            producer.send_event(event)
            raise LookupError

    given = SimpleNamespace(
        invocation_metadata=lambda: ((spans.TRACEPARENT, TRACEPARENT),), time_remaining=lambda: None
    )
    with pytest.raises(LookupError):
        await EventServicer(Writer()).Track(TrackRequest(), given)  # type: ignore[arg-type]
    assert tracer.tracked == [TRACEPARENT]
    assert sent == [[("traceparent", TRACEPARENT.encode())]]
    spans.use(None)
    producer.send_event(event_pb2.Event())
    assert sent[1] is None


def read(headers: Headers, *, traced: bool = True) -> str | None:
    builder = MemoryRecordsBuilder(2, 0, 1 << 20)
    builder.append(1, b"k", b"v", headers=list(headers))
    builder.close()
    data = memoryview(bytes(builder.buffer()))
    (record,) = read_records(data, read_header(data), max_record_bytes=1 << 20, traced=traced)
    assert record is not None and (record.key, record.value) == (b"k", b"v")
    return record.traceparent


def test_a_records_traceparent_is_read_where_somebody_asks_for_it() -> None:
    ours = ("traceparent", TRACEPARENT.encode())
    assert read([("a", b"x" * 300), ("b", None), ours, ("c", b"")]) == TRACEPARENT
    assert read([ours], traced=False) is None
    assert read([]) is None


@pytest.mark.parametrize(
    "value", [b"", None, TRACEPARENT[:-1].encode() + b"0", TRACEPARENT.encode() + b"\n", b"\xff" * 55]
)
def test_what_names_no_recorded_span_is_passed_over(value: bytes | None) -> None:
    assert read([("traceparent", value)]) is None


def test_a_poll_keeps_a_bounded_number_of_them() -> None:
    limits = ReadLimits(1, traced={})
    for offset in range(2 * MAX_TRACED):
        limits.note(TopicPartition("t", 0), offset, TRACEPARENT)
    assert limits.traced is not None and len(limits.traced) == MAX_TRACED
    off = ReadLimits(1)
    off.note(TopicPartition("t", 0), 1, TRACEPARENT)
    assert off.traced is None


def test_they_stay_with_the_records_that_are_joined_cut_and_sent_to_another_process() -> None:
    records = Records.packed([Record(TOPIC, 0, offset, 1, None, b"v") for offset in range(4)])
    one, other = (replace(records, traced={(TOPIC, 0, offset): TRACEPARENT}) for offset in (1, 2))
    joined = Records.joined([one, other])
    assert set(joined.traced) == {(TOPIC, 0, 1), (TOPIC, 0, 2)}
    assert joined[1:3].traced == joined.traced
    assert pickle.loads(pickle.dumps(joined)).traced == joined.traced


def test_a_batch_with_traced_events_is_a_span_and_their_streams_are_told(tracer: PlainTracer) -> None:
    config = small_config()
    state = small_state(config)
    told: list[tuple[set[str], object]] = []
    streams = Streams()
    streams.trace = lambda subjects, fold: told.append((subjects, fold))  # type: ignore[attr-defined]
    publisher = Publisher(config, streams)
    lines = [Line(user, "", "i1", 0, 5_000 + at, 0, 1000 + at, f"t{at}") for at, user in enumerate(["u1", "u2", "u3"])]
    events = batch(lines)
    traced = {(TOPIC, 0, 1001): "a", (TOPIC, 0, 1002): "b", (TOPIC, 0, 9): "of another batch", ("other", 0, 1000): "x"}
    publisher.mark(events, state.fold(events), live=True, traced=traced)
    assert tracer.folded == [(["a", "b"], 5_001, 3)]
    assert told == [({"u2", "u3"}, "fold 1")]
    publisher.mark(events, state.fold(events), live=True)
    assert len(tracer.folded) == 1


async def test_a_list_follows_from_the_traced_batches_since_the_one_before() -> None:
    stage = Stage()
    subscription = await stage.opened(ranking("a"))
    for fold in range(10):
        stage.all.trace({"u1", "u2"}, fold)
    stage.mark("u1")
    stage.make(ranking("b"))
    await taken(subscription)
    assert subscription.folds == tuple(range(2, 10))
    stage.mark("u1")
    stage.make(ranking("c"))
    await taken(subscription)
    assert subscription.folds == ()


async def test_a_batch_that_changes_no_list_is_no_reason_for_a_later_one() -> None:
    stage = Stage()
    subscription = await stage.opened(ranking("a"))
    stage.all.trace({"u1"}, "fold")
    stage.mark("u1")
    stage.make(ranking("a"))
    stage.mark("u1")
    stage.make(ranking("b"))
    await taken(subscription)
    assert subscription.folds == ()
