"""The objectives that lists and calls are held to; metrics, alert rules and dashboards take them from here.

They are the operator's promise to an app, for a machine of the kind that docs/performance.md describes, with room above
what was measured there. docs/monitoring.md explains them.
"""

from __future__ import annotations

from typing import NamedTuple


class Objective(NamedTuple):
    """A share of all that happens is to take no longer than a time.

    Attributes:
        within_s: seconds; a bucket of the histogram ends here, so that the share is counted and not estimated.
        share: of all, from 0 to 1.
    """

    within_s: float
    share: float


FRESHNESS = Objective(within_s=0.5, share=0.99)  # from an event's log record to the list of its user's stream
LATENCY = Objective(within_s=0.2, share=0.99)  # of `Recommend`, as the server sees it
AVAILABILITY = 0.999  # of all calls end otherwise than by a failure of the engine
