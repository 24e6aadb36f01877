"""Keeps Python's collector of cyclic garbage from looking at what it can't free.

Libraries leave half a million objects behind when they are imported, and the state holds ids by the million. A full
collection walks over all of them to find nothing, and every thread waits meanwhile: 25 ms and more, at any moment.
"""

from __future__ import annotations

import gc


def set_aside() -> None:
    """Collects once; what is alive then is looked at no more, and freed only once nothing refers to it."""
    gc.collect()
    gc.freeze()


def collect_old_rarely() -> None:
    """Looks at old objects a tenth as often as Python would, for a process that keeps many and leaves few in cycles.

    Streams and lists are hundreds of thousands of objects. While the catalog is uploaded, every pass over all of them
    held calls up for 100 to 200 ms, and found 100 objects to free at most.
    """
    young, middle, old = gc.get_threshold()
    gc.set_threshold(young, middle, 10 * old)


def collect_every(allocations: int) -> None:
    """Collects young objects after so many (Python's own: 700), for a process whose objects form few cycles."""
    gc.set_threshold(allocations, 50, 100)
