"""What the publisher remembers; the lists that it makes are in test_pipeline.py."""

from __future__ import annotations

from engine.config import Config, ServingConfig
from engine.publisher import Publisher
from engine.ranking.query import Query
from tests.engine.logs import decoded
from tests.engine.test_pipeline import Streams
from tests.engine.worlds import ITEMS, NOW_MS, small_config, small_state

LIMIT = 5
CONFIG = Config(**dict(small_config()) | {"serving": ServingConfig(max_streams=LIMIT, max_batch=2)})


def test_record_times_of_those_without_a_stream_do_not_pile_up_under_steady_calls():
    state = small_state(CONFIG)
    publisher = Publisher(CONFIG, Streams())
    for at in range(4 * LIMIT):
        batch = decoded([(f"new{at}-{more}", "", ITEMS[0], 0, NOW_MS) for more in range(2 * LIMIT)])
        for _ in range(3):  # more than one batch of lists
            publisher.ask(Query("u1", "", 3))
        publisher.mark(batch, state.fold(batch), live=True)
        publisher.publish(state, None)
        assert len(publisher._record_ms) <= LIMIT
