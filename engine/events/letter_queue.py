"""The dead letters that are not written yet, bounded in number and bytes, and what may be called safe meanwhile."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from engine import metrics
from engine.events.dead_letter import Letter, LettersUnwritten
from engine.events.source import Partition
from engine.limited_log import LimitedLog
from engine.log_fields import at

limited = LimitedLog(logging.getLogger(__name__))

_BATCH = 500  # letters on their way at a time


@dataclass
class Waiting:
    """A letter that is not written yet."""

    number: int  # of all that were put in
    letter: Letter
    alone: bool = False  # The topic refused a batch with it as too large, so it is sent by itself.


@dataclass
class _Hold:
    """A partition whose letters find no room: since which record, and how many they are."""

    offset: int
    letters: int = 0


class LetterQueue:
    """Letters in the order that they came in; those on their way stay in it until they are written.

    Any thread may put letters in and settle; one thread writes them.

    Args:
        topic: for messages.
        max_letters: most letters that wait.
        max_bytes: most memory that they take, about; one letter finds room in any case.
    """

    def __init__(self, topic: str, max_letters: int, max_bytes: int) -> None:
        self._topic = topic
        self._max_letters = max_letters
        self._max_bytes = max_bytes
        self._changed = threading.Condition()
        self._letters: deque[Waiting] = deque()
        self._bytes = 0
        self._number = 0
        self._held: dict[Partition, _Hold] = {}
        self._refusal: str | None = None  # why the topic takes nothing now
        self._closing = False

    def __len__(self) -> int:
        """Letters that are not written, those that found no room included."""
        with self._changed:
            return self._unwritten()

    def put(self, letter: Letter) -> bool:
        """Takes a letter in. Waits for room while letters are being written.

        Where the topic refuses letters it does not wait but holds the letter's partition: this letter and those after
        it are not kept, and `settle` fails until the log is read again from before it.

        Returns:
            Whether the letter is kept.
        """
        partition = (letter.id.topic, letter.id.partition)
        with self._changed:
            hold = self._held.get(partition)
            if hold is not None and letter.id.offset <= hold.offset:
                del self._held[partition]
                hold = None
            if hold is None:
                self._changed.wait_for(lambda: self._refusal or self._closing or self._has_room(letter))
                if self._has_room(letter):
                    self._number += 1
                    self._letters.append(Waiting(self._number, letter))
                    self._bytes += letter.size_bytes
                    self._tell()
                    return True
                hold = self._held[partition] = _Hold(letter.id.offset)
                limited.error(
                    "no room", "%d dead letters wait for topic %r, and there is no room for %s[%d]@%d: no snapshot is"
                    " taken until the engine was restarted and has read this record again",
                    len(self._letters), self._topic, letter.id.topic, letter.id.partition, letter.id.offset,
                    extra=at(letter.id.topic, letter.id.partition, letter.id.offset),
                )  # fmt: skip
            hold.letters += 1
            self._tell()
            return False

    def settle(self) -> None:
        """Waits until every letter that was put in before is written.

        Raises:
            LettersUnwritten: the topic refuses letters, or some found no room.
        """
        with self._changed:
            last = self._number
            self._changed.wait_for(lambda: self._refusal or self._held or self._closing or self._through() >= last)
            if self._held:
                where = ", ".join(f"{topic}[{at}]@{hold.offset}" for (topic, at), hold in sorted(self._held.items()))
                raise LettersUnwritten(
                    f"dead letters from {where} on found no room while topic {self._topic!r} took none: restart the"
                    " engine once it does, so that their records are read again"
                )
            if self._through() < last:
                reason = self._refusal or "the engine is stopping"
                raise LettersUnwritten(
                    f"{len(self._letters)} dead letters can't be written to topic {self._topic!r} ({reason})"
                )

    def close(self) -> None:
        """Ends all waiting. What is in the queue may still be written once."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    # -- the thread that writes ---------------------------------------------------------------------------------------

    def oldest(self) -> list[Waiting] | None:
        """Waits for letters and returns the oldest; None once the queue is closed and no more can be written."""
        with self._changed:
            self._changed.wait_for(lambda: self._letters or self._closing)
            if not self._letters or (self._closing and self._refusal):
                return None
            batch = [self._letters[0]]
            for waiting in list(self._letters)[1:_BATCH] if not batch[0].alone else ():
                if waiting.alone:
                    break
                batch.append(waiting)
            return batch

    def replace(self, waiting: Waiting, letter: Letter) -> None:
        """Has another form of a letter written."""
        with self._changed:
            self._bytes += letter.size_bytes - waiting.letter.size_bytes
            waiting.letter = letter

    def written(self, batch: Sequence[Waiting], refused: Sequence[Waiting]) -> None:
        """Takes the oldest letters, as `oldest` returned them, out of the queue, except those that were refused."""
        with self._changed:
            for _ in batch:
                self._bytes -= self._letters.popleft().letter.size_bytes
            self._letters.extendleft(reversed(refused))
            self._bytes += sum(waiting.letter.size_bytes for waiting in refused)
            self._tell()

    def refuse(self, why: str) -> None:
        """Notes that the topic takes nothing now."""
        with self._changed:
            self._refusal = why
            self._changed.notify_all()

    def accept(self) -> bool:
        """Notes that the topic takes letters. Returns whether it did not before."""
        with self._changed:
            refusal, self._refusal = self._refusal, None
            return refusal is not None

    # -- under the lock -----------------------------------------------------------------------------------------------

    def _tell(self) -> None:
        """Lets others know of a change; the metric under the lock, so that no older number comes after a newer one."""
        metrics.DEAD_LETTERS_PENDING.set(self._unwritten())
        self._changed.notify_all()

    def _unwritten(self) -> int:
        return len(self._letters) + sum(hold.letters for hold in self._held.values())

    def _has_room(self, letter: Letter) -> bool:
        fits = len(self._letters) < self._max_letters and self._bytes + letter.size_bytes <= self._max_bytes
        return fits or not self._letters

    def _through(self) -> int:
        """The number of the last letter before the first that is not written."""
        return self._letters[0].number - 1 if self._letters else self._number
