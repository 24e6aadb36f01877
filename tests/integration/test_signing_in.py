"""An anonymous session signs in on its stream."""

from __future__ import annotations

import ousel
import pytest

from tests.integration.engines import DEADLINE_S, ITEMS, load, running, until

pytestmark = pytest.mark.integration


def test_a_session_is_linked_by_the_first_event_after_its_new_subscription_and_not_before(kafka_config, tmp_path):
    load(kafka_config)
    with running(kafka_config, tmp_path / "engine.log") as engine, ousel.Client(engine.address, DEADLINE_S) as client:

        def held(**who: str) -> list[str]:
            return [event.item_id for subject in client.export_user(**who).subjects for event in subject.history]

        with client.stream(session_id="tab-1", k=5) as updates:
            next(updates)
            with pytest.raises(ousel.InvalidArgument, match="to sign in, call resubscribe"):
                updates.track(ITEMS[0], "new", "tab-1")
            updates.track(ITEMS[1])
            until(lambda: held(session_id="tab-1") == [ITEMS[1]])
            updates.resubscribe("new", session_id="tab-1", k=5)
            while next(updates).cause != ousel.Cause.SUBSCRIBED:
                pass
            assert held(user_id="new") == []  # to subscribe alone changes no state
            updates.track(ITEMS[2])
            until(lambda: sorted(held(user_id="new")) == [ITEMS[1], ITEMS[2]], lambda: held(user_id="new"))
