"""Do the registry's topic and its folder belong together, so that this engine will have the model that serves?"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

from engine.checks.brokers import admin_client, hurried
from engine.checks.finding import Finding, error, ok
from engine.checks.folders import look_at_folder
from engine.config import Config, models_topic
from engine.events.topic_state import TopicState, describe_topics
from engine.registry.errors import RegistryError
from engine.registry.folders import registry_place
from engine.registry.ledger import Ledger, LedgerFold
from engine.registry.topic import KafkaModelsTopic

_DESCRIPTION_BYTES = 2**20


def look_at_registry(config: Config) -> Iterator[Finding]:
    """The topic of the models, the folder of the models, and whether the one has what the other names."""
    if config.registry.dir is not None and "://" not in config.registry.dir:
        yield from look_at_folder("registry.dir", Path(config.registry.dir))
    topic = models_topic(config.registry, config.kafka)
    with admin_client(config.kafka) as admin:
        found = describe_topics(admin, [topic])
    if topic not in found:
        yield error(f"the broker does not describe registry.topic {topic!r}: give this client the right DESCRIBE on it")
        return
    state = found[topic]
    if state is None:
        yield ok(f"registry.topic {topic!r} does not exist yet and is made at the first start")
        return
    problem = _problem(topic, state)
    yield error(problem) if problem else _serving(config, topic)


def _problem(topic: str, state: TopicState) -> str | None:
    if state.partitions != 1:
        return (
            f"registry.topic {topic!r} must have 1 partition, because the order of its records counts, it has"
            f" {state.partitions}: name another topic"
        )
    if state.cleanup and (state.expires or not state.compacted):
        return (
            f"registry.topic {topic!r} must be compacted and nothing else, its cleanup.policy is {state.cleanup}: the"
            " records of models would go; set cleanup.policy=compact for it"
        )
    return None


def _serving(config: Config, topic: str) -> Finding:
    """Whether the folder has the model that serves."""
    place = registry_place(config)
    serving = _ledger(config, topic).serving
    if serving is None:
        return ok(f"no model is announced in registry.topic {topic!r}; models will lie in {place.shown}")
    try:
        place.read(f"{serving.model.name}.json", _DESCRIPTION_BYTES)
    except RegistryError as problem:
        return error(
            f"registry.topic {topic!r} says that model version {serving.model.version} serves, and {place.shown} does"
            f" not have it ({problem}): registry.dir and registry.topic must be those of one registry, and every engine"
            " must reach both"
        )
    return ok(f"model version {serving.model.version}, which serves, lies in {place.shown}")


def _ledger(config: Config, topic: str) -> Ledger:
    """All that the topic says now; it exists, so that reading does not make it."""
    fold, stop = LedgerFold(), threading.Event()
    for batch in KafkaModelsTopic(hurried(config.kafka), topic).read(stop):
        fold.apply(batch.records)
        if batch.at_end:
            stop.set()
    return fold.ledger()
