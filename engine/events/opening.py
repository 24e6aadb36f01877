"""The start against brokers that are away, freeze, or give addresses that lead nowhere: it waits, and says for what."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from typing import Generic, NamedTuple, TypeVar

from kafka.errors import KafkaError

from engine.config import KafkaConfig
from engine.events.connection import connection_settings, wait_for_broker
from engine.events.diagnosis import connection_problem
from engine.events.kafka import KafkaSource
from engine.events.letter_writer import KafkaDeadLetters
from engine.events.process import ProcessSource
from engine.events.producer import EventProducer
from engine.events.source import BrokerAway
from engine.events.topics import ensure_topics

T = TypeVar("T")

_FIRST_BACKOFF_S = 0.25
_MAX_BACKOFF_S = 10.0
_LOOK_S = 0.05  # How soon a wish to stop is noticed.


class OpenLog(NamedTuple):
    """The engine's ways to the log."""

    producer: EventProducer
    dead_letters: KafkaDeadLetters
    source: ProcessSource


def open_log(config: KafkaConfig, opened: ExitStack, *, traced: bool = False) -> OpenLog:
    """Makes the topics that are missing, and opens the engine's ways to the log; `opened` closes them again.

    Args:
        traced: whether records say which of them are traced.

    Raises:
        SourceError, kafka.errors.KafkaError: one of them can't be opened.
    """
    ensure_topics(config)
    producer = opened.enter_context(closing(EventProducer(config)))
    dead_letters = opened.enter_context(closing(KafkaDeadLetters(config)))
    # In a process of its own: the time that polling costs is taken from no list.
    reader = partial(KafkaSource, config, traced=traced)
    limits = config.queue_batches, config.max_poll_records, config.max_poll_bytes
    source = ProcessSource(reader, *limits, items_topic=config.items_topic)
    opened.enter_context(closing(source))
    return OpenLog(producer, dead_letters, source)


@contextmanager
def opening(
    config: KafkaConfig,
    attempt: Callable[[ExitStack], T],
    stop: threading.Event,
    report: Callable[[str], None],
) -> Iterator[T | None]:
    """Opens something at the brokers, as often as it takes, and closes it in the end.

    A broker may freeze or go at any moment of an attempt, which then fails after the time that a request may take. It
    is made again, after a pause, once a broker answers. kafka-python can't be interrupted, so attempts run in a thread
    of their own, which is left to itself where `stop` comes first.

    Args:
        attempt: opens it, and leaves to the stack how it is closed.
        report: gets one line before each pause: what is wrong, what to check, when the next try comes.

    Yields:
        Whatever `attempt` returned; None where `stop` came first.

    Raises:
        SourceError, kafka.errors.KafkaError: it can't be opened, and no wait will change that.
    """
    tries = _Tries(config, attempt, stop, report)
    found = tries.wait()
    try:
        yield found
    finally:
        tries.close()


class _Tries(Generic[T]):
    """The thread that makes the attempts, and what came of them."""

    def __init__(
        self,
        config: KafkaConfig,
        attempt: Callable[[ExitStack], T],
        stop: threading.Event,
        report: Callable[[str], None],
    ) -> None:
        self._config = config
        self._attempt = attempt
        self._stop = stop
        self._report = report
        self._done = threading.Event()
        self._handing_over = threading.Lock()
        self._abandoned = False
        self._opened = ExitStack()
        self._found: T | None = None
        self._error: BaseException | None = None
        threading.Thread(target=self._run, name="opening", daemon=True).start()

    def wait(self) -> T | None:
        while not self._done.wait(_LOOK_S) and not self._stop.is_set():
            pass
        with self._handing_over:
            self._abandoned = not self._done.is_set()
        if self._error is not None:
            raise self._error
        return None if self._abandoned else self._found

    def close(self) -> None:
        if not self._abandoned:
            self._opened.close()

    def _run(self) -> None:
        try:
            self._found = self._try()
        except BaseException as error:
            self._opened.close()
            self._error = error
        with self._handing_over:
            self._done.set()
            abandoned = self._abandoned
        if abandoned:
            self._opened.close()

    def _try(self) -> T | None:
        backoff_s = _FIRST_BACKOFF_S
        while wait_for_broker(self._config, self._stop, self._say):
            try:
                return self._attempt(self._opened)
            except (KafkaError, BrokerAway) as error:
                if not isinstance(error, BrokerAway) and not error.retriable:
                    raise
                self._opened.close()
                problem = connection_problem(self._config, connection_settings(self._config), everywhere=True)
                where = f"a broker at {self._config.bootstrap} answers, but the start did not get through to its end"
                self._say(f"{problem or f'{where} ({error})'}; next try in {backoff_s:g} s")
            self._stop.wait(backoff_s)
            backoff_s = min(2 * backoff_s, _MAX_BACKOFF_S)
        return None

    def _say(self, line: str) -> None:
        if not self._stop.is_set():
            self._report(line)
