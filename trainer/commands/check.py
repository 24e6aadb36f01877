"""`ousel-trainer check`: what would go wrong at a start of `run`, and what to do, before it is started."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import grpc

from engine.checks.brokers import look_at_brokers
from engine.checks.certificates import CertificateFile, look_at_certificates, look_at_kafka_certificates
from engine.checks.clock import look_at_clock
from engine.checks.finding import Finding, ok, warning
from engine.checks.folders import look_at_folder, look_at_room
from engine.checks.permissions import look_at_permissions, trainer_needs
from engine.checks.report import report
from engine.checks.running import Check
from engine.checks.settings import look_at_settings
from engine.checks.topics import look_at_topics
from engine.command_line import config_option, json_findings_option, strict_option
from engine.config import load_settings
from engine.failures import WrongValue
from trainer.config import TrainerConfig

_CONNECT_S = 5.0
_LEAST_BYTES = 2**28  # for a few days of a small log, or a few models


def check(
    config: Annotated[Path | None, config_option()] = None,
    as_json: Annotated[bool, json_findings_option()] = False,
    strict: Annotated[bool, strict_option()] = False,
) -> None:
    """Look for what would go wrong at a start of `run`, and say what to do. Nothing is changed."""
    try:
        settings = load_settings(TrainerConfig, config)
    except ValueError as error:
        raise WrongValue(f"ousel-trainer check: {error}") from None
    report(CHECKS, settings, as_json=as_json, strict=strict)


def look_at_folders(config: TrainerConfig) -> Iterator[Finding]:
    """The folders of the archive and of the models, where they are set, and their disks."""
    for name in ("archive_dir", "models_dir"):
        folder: Path | None = getattr(config.trainer, name)
        if folder is not None:
            yield from look_at_folder(f"trainer.{name}", folder)
            yield from look_at_room(f"trainer.{name}", folder, _LEAST_BYTES, "what comes first")


def look_at_certificate_files(config: TrainerConfig) -> Iterator[Finding]:
    """The files for the brokers, and those that the engine is checked with and shown."""
    yield from look_at_kafka_certificates(config.kafka)
    section = config.trainer
    if section.tls_authorities is not None:
        yield from look_at_certificates(CertificateFile("trainer.tls_authorities", section.tls_authorities))
    if section.tls_certificate is not None:
        shown = CertificateFile("trainer.tls_certificate", section.tls_certificate, section.tls_key)
        yield from look_at_certificates(shown)


def look_at_engine(config: TrainerConfig) -> Iterator[Finding]:
    """Whether an engine listens at the address that models are pushed to."""
    address = config.trainer.engine
    with config.trainer.engines().open() as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=_CONNECT_S)
        except grpc.FutureTimeoutError:
            yield warning(
                f"no engine answers at trainer.engine={address}: check the address and that the engine runs; a"
                " model is pushed once it does"
            )
        else:
            yield ok(f"an engine answers at trainer.engine={address}")


CHECKS: tuple[Check[TrainerConfig], ...] = (
    Check("settings", look_at_settings),
    Check("certificates", look_at_certificate_files),
    Check("brokers", lambda config: look_at_brokers(config.kafka)),
    Check("topics", lambda config: look_at_topics(config.kafka), after="brokers"),
    Check(
        "permissions",
        lambda config: look_at_permissions(config.kafka, trainer_needs(config.kafka), in_group=False),
        after="brokers",
    ),
    Check("clock", lambda config: look_at_clock(config.kafka), after="brokers"),
    Check("folders", look_at_folders),
    Check("engine", look_at_engine),
)
