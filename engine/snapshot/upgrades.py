"""How a slice from a snapshot of an older format becomes what this version would have saved: one step per format.

A version that changes what a slice holds raises `FORMAT` by one, unless that has happened since the last release, and
gives the step from the format before. A step sees the slice as the steps before it have left it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from engine.state.slice import SavedSlice

FORMAT = 3
OLDEST_FORMAT = 2


def upgraded(saved: SavedSlice, version: int) -> SavedSlice:
    """A slice of format `version`, as this version has it.

    Raises:
        KeyError, ValueError: the slice is not what that format says.
    """
    for older in range(version, FORMAT):
        saved = _STEPS[older](saved)
    return saved


def _from_2(saved: SavedSlice) -> SavedSlice:
    """Format 3 also says where a slice `began`, which is 0 in older ones: they may hold all of the log's past.

    The event ids of format 2 do not say whose they are, and `RecentIds` takes such ids as they are.
    """
    return replace(saved, numbers={"newest_ms": 0, "leapt_ms": 0, **saved.numbers})


_STEPS: Mapping[int, Callable[[SavedSlice], SavedSlice]] = {2: _from_2}
