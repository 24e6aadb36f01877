"""The checks of the engine. The trainer's are with its command, since it knows nothing of snapshots and of serving."""

from __future__ import annotations

from collections.abc import Iterator

from engine.checks.brokers import look_at_brokers
from engine.checks.certificates import look_at_kafka_certificates, look_at_tls_certificates
from engine.checks.clock import look_at_clock
from engine.checks.credentials import look_at_credentials
from engine.checks.finding import Finding
from engine.checks.permissions import engine_needs, look_at_permissions
from engine.checks.ports import look_at_ports
from engine.checks.registry import look_at_registry
from engine.checks.running import Check
from engine.checks.settings import look_at_settings
from engine.checks.snapshots import look_at_snapshot_folder, look_at_snapshots
from engine.checks.topics import look_at_topics
from engine.config import Config, models_topic


def look_at_all_certificates(config: Config) -> Iterator[Finding]:
    """Those that the engine shows, and those that it is shown."""
    yield from look_at_tls_certificates(config.tls)
    yield from look_at_kafka_certificates(config.kafka)


def look_at_engine_permissions(config: Config) -> Iterator[Finding]:
    """The rights that the engine needs on its topics and its group."""
    needs = engine_needs(config.kafka, models_topic(config.registry, config.kafka))
    yield from look_at_permissions(config.kafka, needs, in_group=True)


# In this order. Those that ask the brokers are skipped where none can be reached.
CHECKS: tuple[Check[Config], ...] = (
    Check("settings", look_at_settings),
    Check("certificates", look_at_all_certificates),
    Check("credentials", look_at_credentials),
    Check("brokers", lambda config: look_at_brokers(config.kafka)),
    Check("topics", lambda config: look_at_topics(config.kafka, config.snapshot), after="brokers"),
    Check(
        "permissions",
        look_at_engine_permissions,
        after="brokers",
    ),
    Check("clock", lambda config: look_at_clock(config.kafka), after="brokers"),
    Check("folders", look_at_snapshot_folder),
    Check("snapshots", look_at_snapshots, after="brokers"),
    Check("registry", look_at_registry, after="brokers"),
    Check("ports", lambda config: look_at_ports(config.serving)),
)
