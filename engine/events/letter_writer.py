"""Writes dead letters to their topic in a thread of its own, again and again until the topic has taken them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

from kafka.errors import AuthorizationError, InvalidRecordError, MessageSizeTooLargeError, RecordListTooLargeError

from engine import metrics
from engine.config import KafkaConfig
from engine.events.batch import Rejection
from engine.events.dead_letter import Letter, LetterId
from engine.events.letter_queue import LetterQueue, Waiting
from engine.events.letters_written import WrittenLetters, read_written
from engine.events.producer import close_producer, open_producer
from engine.limited_log import LimitedLog

log = logging.getLogger(__name__)
limited = LimitedLog(log)

MAX_LETTERS = 100_000
MAX_BYTES = 64 * 2**20
_FIRST_BACKOFF_S = 0.5
_MAX_BACKOFF_S = 10.0
_TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError, InvalidRecordError)

ReadWritten = Callable[[WrittenLetters, KafkaConfig, threading.Event], None]


class KafkaDeadLetters:
    """Writes each rejected record to the dead-letters topic once; `dead_letter` has the form.

    Letters wait in a queue until the topic has taken them, and the stream goes on meanwhile. A letter that the topic
    refuses as too large is written without its value. Where the topic takes none, they are tried again with pauses of
    up to 10 s. `LetterQueue` says what happens at its bound, and which positions are safe.

    Letters that the topic has already are not written again: it is read when the first letter comes, and behind that
    after each refusal, since a letter may be written though its answer was lost.

    Args:
        max_letters: most letters that wait.
        max_bytes: most memory that they take, about.
        read: learns which letters the topic has; for tests.

    Attributes:
        published: letters that the topic has taken.
        repeated: letters that it had already.
        failed: times that the topic did not take a letter.

    Raises:
        kafka.errors.KafkaError: no broker answers, or the topic does not exist.
    """

    def __init__(
        self,
        config: KafkaConfig,
        max_letters: int = MAX_LETTERS,
        max_bytes: int = MAX_BYTES,
        read: ReadWritten = read_written,
    ) -> None:
        self._config = config
        self._topic = config.dead_letters_topic
        self._read = read
        self._producer = open_producer(config, self._topic)
        self._queue = LetterQueue(self._topic, max_letters, max_bytes)
        self._closing = threading.Event()
        self.published = self.repeated = self.failed = 0
        # The thread's own.
        self._written = WrittenLetters()
        self._knows_topic = False  # Nothing may have been written since the topic was read, but what was answered.
        self._backoff_s = _FIRST_BACKOFF_S
        self._thread = threading.Thread(target=self._run, name="dead-letters", daemon=True)
        self._thread.start()

    def publish(self, rejections: Sequence[Rejection]) -> None:
        """See `DeadLetters`. Waits for room only while letters are being written."""
        for rejection in rejections:
            self._queue.put(Letter.of(rejection))

    def settle(self) -> None:
        """See `DeadLetters`. Letters are written or refused in bounded time, so this wait is bounded too."""
        self._queue.settle()

    def close(self) -> None:
        """Tries once more to write what waits, and disconnects. Safe to call twice."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._queue.close()
        self._thread.join()
        close_producer(self._producer, self._config)
        if len(self._queue):
            log.error(
                "%d dead letters are not written to topic %r: the next start reads their records again and writes them",
                len(self._queue), self._topic,
            )  # fmt: skip

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while (batch := self._queue.oldest()) is not None:
            try:
                self._write(batch)
            except Exception as error:  # of any kind: the letters stay in the queue
                self._refused(error)

    def _write(self, batch: Sequence[Waiting]) -> None:
        # Step 1. Leave out the letters that the topic has.
        self._read_topic()
        fresh: dict[LetterId, Waiting] = {}
        for waiting in batch:
            if waiting.letter.id not in self._written:
                fresh.setdefault(waiting.letter.id, waiting)
        # Step 2. Send the others together, and wait for the answers.
        sent = [(waiting, self._send(waiting.letter)) for waiting in fresh.values()]
        errors: list[Exception] = []
        refused: list[Waiting] = []
        for waiting, future in sent:
            error = self._error(future)
            if error is None:
                self._written.add(waiting.letter.id)
                continue
            refused.append(waiting)
            if not isinstance(error, _TOO_LARGE) or not self._shrink(waiting, single=len(sent) == 1):
                errors.append(error)
        # Step 3. Keep those that were refused, and pause if that was not for their size.
        self._count(len(sent) - len(refused), len(batch) - len(sent), len(refused))
        self._queue.written(batch, refused)
        if errors:
            self._refused(errors[-1])
        elif len(refused) < len(batch):
            self._accepted()

    def _read_topic(self) -> None:
        """Learns which letters the topic has, unless that is known."""
        if self._knows_topic:
            return
        try:
            self._read(self._written, self._config, self._closing)
        except AuthorizationError as error:
            limited.warning(
                "unread", "topic %r can't be read (%s): dead letters that it has may be written again",
                self._topic, error,
            )  # fmt: skip
        self._knows_topic = True

    def _send(self, letter: Letter) -> Any:
        """Sends a letter; returns kafka-python's future, or the error that it raised at once."""
        try:
            return self._producer.send(self._topic, key=letter.key, value=letter.value, headers=list(letter.headers))
        except Exception as error:
            return error

    def _error(self, future: Any) -> Exception | None:
        """Waits for the topic's answer; None where it has taken the letter."""
        if isinstance(future, Exception):
            return future
        try:
            future.get(timeout=2 * self._config.request_timeout_ms / 1000)
        except Exception as error:
            return error
        return None

    def _shrink(self, waiting: Waiting, *, single: bool) -> bool:
        """Has a letter that is too large sent alone, and then without its value; False where nothing can be left out.

        Several letters travel together, and the topic refuses all of them for the size of the whole.
        """
        waiting.alone = True
        if not single:
            return True
        smaller = waiting.letter.smaller()
        if smaller is None:
            return False
        self._queue.replace(waiting, smaller)
        return True

    def _count(self, written: int, repeated: int, refused: int) -> None:
        self.published += written
        self.repeated += repeated
        self.failed += refused
        metrics.DEAD_LETTERS_WRITTEN.inc(written)
        metrics.DEAD_LETTERS_REPEATED.inc(repeated)
        metrics.DEAD_LETTER_FAILURES.inc(refused)

    def _refused(self, error: Exception) -> None:
        why = str(error) or type(error).__name__
        self._knows_topic = False
        self._queue.refuse(why)
        limited.error(
            "refused", "%d dead letters wait for topic %r, which does not take them (%s): no snapshot is taken until"
            " they are written", len(self._queue), self._topic, why,
        )  # fmt: skip
        self._closing.wait(self._backoff_s)
        self._backoff_s = min(2 * self._backoff_s, _MAX_BACKOFF_S)

    def _accepted(self) -> None:
        self._backoff_s = _FIRST_BACKOFF_S
        if self._queue.accept():
            log.warning("dead letters are written to topic %r again", self._topic)
