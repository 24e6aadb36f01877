"""Does this machine's clock go with that of the brokers?"""

from __future__ import annotations

import time
from collections.abc import Iterator

from kafka import TopicPartition
from kafka.admin import OffsetSpec
from kafka.errors import KafkaError, NoError, for_code

from engine.checks.brokers import admin_client
from engine.checks.finding import Finding, ok, warning
from engine.config import KafkaConfig

_LATE_S = 5.0


def look_at_clock(config: KafkaConfig) -> Iterator[Finding]:
    """Compares the clock with the newest record times, which the brokers give; a clock ahead of them shows nowhere."""
    with admin_client(config) as admin:
        (topic,) = admin.describe_topics([config.events_topic])
        if for_code(topic["error_code"]) is not NoError:
            return
        asked = {
            TopicPartition(config.events_topic, partition["partition_index"]): OffsetSpec.MAX_TIMESTAMP
            for partition in topic["partitions"]
        }
        try:
            found = admin.list_partition_offsets(asked)
        except KafkaError:
            return  # Brokers before Kafka 3.0 don't tell it.
        now_s = time.time()
    ahead_s = max((one.timestamp / 1000 - now_s for one in found.values()), default=-1.0)
    if ahead_s > _LATE_S:
        yield warning(
            f"the newest record of topic {config.events_topic!r} has a time {ahead_s:.0f} s ahead of this machine's"
            " clock: set the clocks by NTP, here and on the brokers; where message.timestamp.type is CreateTime, look"
            " for a producer whose clock is wrong"
        )
    else:
        yield ok("no record of the log is ahead of this machine's clock")
