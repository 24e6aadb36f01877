"""Parts of one batch of lists, made by several threads, while the thread that asked for them waits for all.

The engine's thread is the only one that writes the state. It makes lists between two folds, so whatever threads help it
read one moment, and are done before anything is folded: no lock is needed, and none is held.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import pairwise
from typing import TypeVar

# Lists of a part at least: with fewer, handing them over costs more than making them.
_LEAST = 4

T = TypeVar("T")


class SideBySide:
    """So many threads, one of which is the caller's own."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads - 1, thread_name_prefix="lists") if threads > 1 else None

    def map(self, work: Callable[[slice], T], size: int) -> list[tuple[slice, T]]:
        """What `work` makes of each of some parts of 0..size-1, in their order.

        It returns, or raises what the first part that failed has raised, once no part is being worked on.
        """
        count = min(self.threads, max(1, size // _LEAST))
        spans = [slice(first, end) for first, end in pairwise(size * part // count for part in range(count + 1))]
        if self._pool is None or count == 1:
            return [(span, work(span)) for span in spans]
        others = [self._pool.submit(work, span) for span in spans[1:]]
        try:
            first = work(spans[0])
        finally:
            wait(others)
        return list(zip(spans, [first, *(other.result() for other in others)], strict=True))

    def close(self) -> None:
        """Ends the threads. Safe to call twice."""
        if self._pool is not None:
            self._pool.shutdown()


ALONE = SideBySide(1)
