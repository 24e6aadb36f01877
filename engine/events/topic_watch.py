"""Looks after topics while they are read: is each still there, still the same, and set up as it should be?"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace

from kafka.admin import KafkaAdminClient

from engine.config import KafkaConfig
from engine.events.broker_client import open_client
from engine.events.connection import connection_settings
from engine.events.topic_state import TopicState, describe_topics, topic_change, topic_problems

log = logging.getLogger(__name__)

# A change must be noticed within 10 s, also one that needs a second look.
_LOOK_S = 3.0
_SECOND_LOOK_S = 1.0


class TopicWatch:
    """Asks the broker for the topics every 3 s, in a thread of its own with a client of its own.

    The consumer can't be asked: its thread polls without a break, it knows neither the settings of a topic nor whether
    it has the topic of before, and it goes on reading in a topic that was made again where the offsets fit.

    A topic that is missing is looked at twice, since a broker that has just started may not know its topics yet.

    Args:
        topics: those that are read; the topic of dead letters is looked after as well.

    Attributes:
        failure: why reading can't go on; None while it can.
        problems: what is wrong with the settings of the topics, one line each. Each is logged when it begins.
    """

    def __init__(self, config: KafkaConfig, topics: Sequence[str]) -> None:
        self._config = config
        self._topics = topics
        self._names = [*dict.fromkeys([*topics, config.dead_letters_topic])]
        self._looking = threading.Lock()
        self._first: dict[str, TopicState] = {}
        self._newest: dict[str, TopicState | None] = {}  # with the settings that were told last
        self._missing: set[str] = set()  # at the last look
        self._closing = threading.Event()
        self._admin: KafkaAdminClient | None = None
        self.failure: str | None = None
        self.problems: frozenset[str] = frozenset()
        self._thread = threading.Thread(target=self._run, name="topic-watch", daemon=True)
        self._thread.start()

    def explain(self) -> str | None:
        """The change of a topic, for a reader that an error has stopped; None where all topics are as they were."""
        self._look(sure=True)
        return self.failure

    def state(self, topic: str) -> TopicState | None:
        """How a topic stood when it was looked at first; None where the broker does not tell."""
        if topic not in self._first:
            self._look()
        return self._first.get(topic)

    def close(self) -> None:
        """Ends the thread. Safe to call twice."""
        self._closing.set()
        if self._admin is not None:
            self._admin.close()  # A request that is under way fails.
        self._thread.join()

    def _run(self) -> None:
        while not self._closing.is_set() and self.failure is None:
            self._look()
            self._closing.wait(_SECOND_LOOK_S if self._missing else _LOOK_S)

    def _look(self, *, sure: bool = False) -> None:
        """Compares the topics with how they were; `sure` where one that is missing needs no second look."""
        with self._looking:
            if self._closing.is_set():
                return
            try:
                found = describe_topics(self._opened(), self._names)
            except Exception as error:  # of any kind: a watch that fails must not end what it watches
                if not self._closing.is_set():
                    log.debug("the topics can't be looked at and will be again: %r", error)
                return
            self._compare(found, sure)
            self._complain(found)

    def _opened(self) -> KafkaAdminClient:
        if self._admin is None:
            self._admin = open_client(KafkaAdminClient, connection_settings(self._config))
        return self._admin

    def _compare(self, found: Mapping[str, TopicState | None], sure: bool) -> None:
        for name in self._topics:
            if name not in found:
                continue
            now = found[name]
            had = self._first.get(name)
            if had is None:
                if now is not None:
                    self._first[name] = now
                continue
            if now is None and name not in self._missing and not sure:
                continue
            change = topic_change(name, had, now)
            # With a share the group deals new partitions out, and the engine's thread says what they mean for users.
            if change is None and now is not None and now.partitions > had.partitions and not self._config.share:
                change = (
                    f"topic {name!r} has {now.partitions} partitions now, and had {had.partitions}:"
                    " restart every engine and the trainer"
                )
            if change is not None:
                self.failure = self.failure or change
        self._missing = {name for name in self._topics if name in found and found[name] is None}

    def _complain(self, found: Mapping[str, TopicState | None]) -> None:
        for name, state in found.items():
            before = self._newest.get(name)
            # A broker may fail to tell the settings for once, and that mends nothing.
            if state is not None and not state.settings and before is not None:
                state = replace(state, settings=before.settings)
            self._newest[name] = state
        problems = frozenset(topic_problems(self._config, self._newest))
        for problem in sorted(problems - self.problems):
            log.warning("%s", problem)
        if self.problems and not problems:
            log.warning("the topics are as they should be again")
        self.problems = problems
