"""Are the topics there, and set up as the engine needs them?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from engine.checks.brokers import admin_client
from engine.checks.finding import Finding, error, ok, warning
from engine.config import KafkaConfig, SnapshotConfig
from engine.events.topic_state import TopicState, describe_topics, topic_problems

_DAY_MS = 86_400_000


def look_at_topics(config: KafkaConfig, snapshot: SnapshotConfig | None = None) -> Iterator[Finding]:
    """Asks the broker for the three topics. None of them is made.

    Args:
        snapshot: where and how often the state is saved, for a program that saves it.
    """
    settings = {"events": config.events_topic, "items": config.items_topic, "dead_letters": config.dead_letters_topic}
    with admin_client(config) as admin:
        found = describe_topics(admin, list(settings.values()))
    for what, name in settings.items():
        if name not in found:
            yield error(
                f"the broker does not describe topic {name!r} (kafka.{what}_topic): give"
                f" {config.sasl_username or 'this client'} the right DESCRIBE on it"
            )
        elif found[name] is None:
            count = config.events_partitions if what == "events" else 1
            yield warning(
                f"topic {name!r} does not exist: the engine makes it at its start, with partitions: {count}; where it"
                f" should be there already, check kafka.{what}_topic and kafka.bootstrap"
            )
    there = {name: state for name, state in found.items() if state is not None}
    problems = list(topic_problems(config, there))
    yield from map(error, problems)
    yield from _retention(config, there, snapshot)
    wrong = {name for name in there if any(repr(name) in problem for problem in problems)}
    for name, state in there.items():
        if name not in wrong:
            yield ok(_described(name, state))


def _retention(
    config: KafkaConfig, topics: Mapping[str, TopicState], snapshot: SnapshotConfig | None
) -> Iterator[Finding]:
    """Whether the events topic keeps its records for as long as a restart may need them."""
    state = topics.get(config.events_topic)
    if state is None or snapshot is None or not state.expires:
        return
    if not snapshot.enabled:
        yield warning(
            f"topic {config.events_topic!r} deletes its oldest records, and snapshot.enabled is false: a start forgets"
            " what the topic has deleted; set snapshot.enabled to true, or retention.ms and retention.bytes to -1"
        )
        return
    needed_ms = 1000 * snapshot.interval_s * snapshot.keep
    kept_ms = _number(state.settings.get("retention.ms", ""))
    if kept_ms is not None and 0 <= kept_ms < needed_ms:
        yield warning(
            f"topic {config.events_topic!r} keeps records for {kept_ms / 1000:g} s, which is less than snapshot.keep"
            f" times snapshot.interval_s ({needed_ms / 1000:g} s): the log may not reach back to an older snapshot;"
            " raise retention.ms"
        )


def _described(name: str, state: TopicState) -> str:
    said = [f"topic {name!r} has partitions: {state.partitions}"]
    if state.cleanup:
        said.append(f"cleanup.policy={state.cleanup}")
    kept_ms = _number(state.settings.get("retention.ms", ""))
    if kept_ms is not None and "delete" in state.cleanup:
        kept = "ever" if kept_ms < 0 else f"{kept_ms / _DAY_MS:.3g} days"
        said.append(f"records are kept for {kept}")
    if not state.settings:
        said.append("its settings are not told to this client")
    return ", ".join(said)


def _number(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None
