"""Two engines that share the events topic: each has its partitions, and who stays takes over those of who goes."""

from __future__ import annotations

import os
from pathlib import Path

import ousel
import pytest
from ousel.v1 import catalog_pb2

from tests.integration.engines import DEADLINE_S, ITEMS, EngineProcess, purchase, running, until, write

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        not os.environ.get("KAFKA_HOME"),
        reason="the embedded broker at times leaves a group unanswered for 30 s, and never gives a silent member up",
    ),
]

EVENTS = [purchase(f"u{at % 20}", ITEMS[at * at % 40], f"e{at}") for at in range(300)]
CATALOG = [catalog_pb2.Item(item_id=item, title=f"Title {item}") for item in ITEMS]


def named(name: str, folder: Path) -> dict[str, str]:
    """Settings of an engine that takes snapshots where it is asked to, and when it ends in order."""
    return {
        "OUSEL_SNAPSHOT__DIR": str(folder),
        "OUSEL_SNAPSHOT__ENGINE": name,
        "OUSEL_SNAPSHOT__INTERVAL_S": "3600",
    }


@pytest.mark.parametrize(
    "end",
    [pytest.param(EngineProcess.stop, id="stopped"), pytest.param(EngineProcess.kill, id="killed")],
)
def test_who_stays_takes_over_and_knows_all_users(end, kafka_config, tmp_path):
    shared, folder = kafka_config.model_copy(update={"share": True}), tmp_path / "snapshots"
    positions = write(kafka_config, EVENTS[:200], CATALOG)
    with (
        running(shared, tmp_path / "one.log", **named("one", folder)) as first,
        running(shared, tmp_path / "two.log", **named("two", folder)) as second,
        ousel.Client(first.address, DEADLINE_S) as one,
        ousel.Client(second.address, DEADLINE_S) as two,
    ):
        # Together they have all, and nothing both.
        until(lambda: one.status().partitions and two.status().partitions)
        until(lambda: sorted(one.status().partitions + two.status().partitions) == [0, 1, 2])
        until(lambda: one.status().events_folded + two.status().events_folded == 200)
        left = two.status().partitions
        users = {event.user_id for event, at in zip(EVENTS, positions, strict=False) if at.partition in left}
        assert users
        assert all(two.recommend(user).known and not one.recommend(user).known for user in users)

        # Some of what the second has is in its snapshot, some only in the log.
        two.take_snapshot()
        write(kafka_config, EVENTS[200:])
        until(lambda: one.status().events_folded + two.status().events_folded == 300)
        end(second)
        until(lambda: one.status().partitions == (0, 1, 2), first.log)
        until(lambda: one.status().events_folded == 300 and one.status().lag == 0, one.status)
        for partition in left:
            assert f"{folder}/two-" in first.line(rf"snapshot (\S+): partition {partition} of the events")[0]
        for user in users:
            assert one.recommend(user).known
            (held,) = one.export_user(user).subjects
            expected = [event.item_id for event in EVENTS if event.user_id == user]
            assert [event.item_id for event in held.history] == expected
        taken_over = one.get_digest()
    with running(kafka_config, tmp_path / "alone.log") as engine, ousel.Client(engine.address, DEADLINE_S) as alone:
        assert alone.get_digest() == taken_over
