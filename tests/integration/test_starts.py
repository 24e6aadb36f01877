"""A start whose broker freezes or dies at some moment waits for it, says so, and ends at once when it is told to."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import pytest

from engine.config import KafkaConfig
from engine.events.opening import open_log, opening
from engine.events.source import EventSource, start_at_beginning
from tests.integration.engines import EngineProcess, load, purchase, until, write
from tests.integration.proxy import Moment, Proxy, Request
from trainer.config import TrainerConfig
from trainer.follow import kafka_source

pytestmark = pytest.mark.integration

CONNECTION, FETCH, LIST_OFFSETS, METADATA, CREATE_TOPICS = -1, 1, 2, 3, 19
TOPICS = b"ousel."  # with which the names of all topics begin
Start = Callable[[KafkaConfig, threading.Event, Callable[[str], None]], AbstractContextManager[EventSource]]


def first(kind: int, *, after: int | None = None) -> Moment:
    """The first request of a kind, or the first after one of another kind."""

    def due(before: list[Request], request: Request) -> bool:
        return request.kind == kind and (after is None or after in [each.kind for each in before])

    return due


def client(number: int) -> Moment:
    """The client that comes so many places after the one that makes the topics; each begins by asking for brokers."""

    def greets(request: Request) -> bool:
        return request.kind == METADATA and TOPICS not in request.data

    def due(before: list[Request], request: Request) -> bool:
        kinds = [each.kind for each in before]
        made = kinds.index(CREATE_TOPICS) if CREATE_TOPICS in kinds else len(before)
        return greets(request) and len([each for each in before[made:] if greets(each)]) == number - 1

    return lambda before, request: CREATE_TOPICS in [each.kind for each in before] and due(before, request)


MOMENTS: dict[str, Moment] = {
    "connect": first(CONNECTION),
    "metadata": first(METADATA),
    "create topics": first(CREATE_TOPICS),
    "producer": client(1),
    "dead letters": client(2),
    # The consumer, and the one that reads the letters that are written already; either may come first.
    "consumer": client(3),
    "another consumer": client(4),
    "offsets": first(LIST_OFFSETS),
    "fetch": first(FETCH),
}
# The trainer has neither a producer nor dead letters.
TRAINERS: dict[str, Moment] = {
    "connect": first(CONNECTION),
    "metadata": first(METADATA),
    "second connection": first(CONNECTION, after=METADATA),
    "create topics": first(CREATE_TOPICS),
    "topics made": first(METADATA, after=CREATE_TOPICS),
    "consumer": client(1),
    "offsets": first(LIST_OFFSETS),
    "fetch": first(FETCH),
}


@contextmanager
def engines_start(config: KafkaConfig, stop: threading.Event, report: Callable[[str], None]) -> Iterator[EventSource]:
    with opening(config, partial(open_log, config), stop, report) as log:
        assert log is not None
        yield log.source


@contextmanager
def trainers_start(config: KafkaConfig, stop: threading.Event, report: Callable[[str], None]) -> Iterator[EventSource]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainer.follow._log.warning", report)
        with kafka_source(TrainerConfig(kafka=config), stop) as source:
            yield source


CASES = [
    *((f"engine: {name}", engines_start, moment) for name, moment in MOMENTS.items()),
    *((f"trainer: {name}", trainers_start, moment) for name, moment in TRAINERS.items()),
]


@pytest.fixture
def config(kafka_config: KafkaConfig) -> KafkaConfig:
    """Topics that do not exist yet, and little patience."""
    fresh = {name: f"{getattr(kafka_config, name)}.new" for name in ("events_topic", "items_topic")}
    letters = f"{kafka_config.dead_letters_topic}.new"
    return kafka_config.model_copy(update=fresh | {"dead_letters_topic": letters, "request_timeout_ms": 1000})


@pytest.mark.parametrize("fault", ["freeze", "cut"])
@pytest.mark.parametrize(("opens", "moment"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_start_waits_for_a_broker_that_goes_at_any_moment(
    config: KafkaConfig, opens: Start, moment: Moment, fault: str
) -> None:
    port = int(config.bootstrap.rpartition(":")[2])
    said: list[str] = []
    silent, mended = threading.Event(), threading.Event()
    with Proxy(port, moment, fault) as proxy:
        through = config.model_copy(update={"bootstrap": proxy.address})

        def mend() -> None:
            assert proxy.broken.wait(60)
            # Reading that has begun waits by itself; until then a line says that the start waits.
            until(lambda: said or silent.is_set())
            proxy.mend()
            mended.set()

        mending = threading.Thread(target=mend)
        mending.start()
        with opens(through, threading.Event(), said.append) as source:
            until(lambda: start_at_beginning(source))
            until(lambda: source.poll(0.1) is not None and (mended.is_set() or source.health().age_s > 1.5))
            silent.set()
            mending.join()
            # The time of one second is the start's; a broker whose topics are new may take longer for its first record.
            write(config.model_copy(update={"request_timeout_ms": 30_000}), [purchase("u", "i", "e")])
            until(lambda: len(source.poll(0.1)) == 1)
    assert all("next try in" in line and "\n" not in line for line in said)


@pytest.mark.parametrize("moment", ["metadata", "offsets"])
def test_an_engine_that_waits_ends_at_once_when_it_is_interrupted(
    config: KafkaConfig, tmp_path: Path, moment: str
) -> None:
    """Also while a client of Kafka waits for an answer for longer than any test."""
    port = int(config.bootstrap.rpartition(":")[2])
    with Proxy(port, MOMENTS[moment]) as proxy:
        patient = config.model_copy(update={"bootstrap": proxy.address, "request_timeout_ms": 300_000})
        engine = EngineProcess(patient, tmp_path / "engine.log")
        try:
            assert proxy.broken.wait(60)
            engine.process.send_signal(signal.SIGINT)
            assert engine.process.wait(60) == 0
        finally:
            engine.kill()


def test_an_engine_comes_up_once_its_broker_does(config: KafkaConfig, tmp_path: Path) -> None:
    port = int(config.bootstrap.rpartition(":")[2])
    with Proxy(port, MOMENTS["offsets"]) as proxy:
        through = config.model_copy(update={"bootstrap": proxy.address})
        engine = EngineProcess(through, tmp_path / "engine.log")
        try:
            engine.line(r"WARNING engine: .*next try in 0.25 s")
            proxy.mend()
            engine.wait_until_serving()
            load(config)
            assert engine.stop() == 0
        finally:
            engine.kill()


@pytest.mark.parametrize("advertised", ["a port that refuses", "a name that nobody knows"])
@pytest.mark.parametrize("opens", [engines_start, trainers_start])
def test_an_advertised_address_that_leads_nowhere_is_named_and_waited_for(
    config: KafkaConfig, opens: Start, advertised: str
) -> None:
    port = int(config.bootstrap.rpartition(":")[2])
    with Proxy(1) as closed:
        pass  # Its port refuses connections from now on.
    host, told = ("127.0.0.1", closed.port) if advertised == "a port that refuses" else ("a.invalid", 9092)
    stop, said = threading.Event(), []

    def report(line: str) -> None:
        said.append(line)
        if len(said) == 2:
            stop.set()

    with Proxy(port, advertised=(host, told)) as proxy:
        through = config.model_copy(update={"bootstrap": proxy.address})
        with pytest.raises((AssertionError, Exception)), opens(through, stop, report):
            pass
    for line in said:
        assert line.startswith(
            f"{proxy.address} answers, but sends its clients to {host}:{told}, which can't be reached"
        )
        assert "check advertised.listeners of that broker" in line
    assert len(said) == 2
