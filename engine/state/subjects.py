"""Whose events these are: one key for users, anonymous sessions and items, and numbers for the names of sessions.

Shapes: E events.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xxhash
from numpy.typing import NDArray

from engine.events.batch import EventBatch
from engine.state.sessions import UNNAMED

# No id has control characters, so that neither a session nor an item can be taken for a user.
_SESSION_MARK = "\x00"
_ITEM_MARK = "\x02"


def subject_key(user_id: str, session_id: str) -> str:
    """The one key of a user or, without one, of an anonymous session; the two never collide."""
    return user_id or _SESSION_MARK + session_id


def subjects_of(events: EventBatch) -> Sequence[str]:
    """[E] the subject of each event: its user or session or, where a relation has neither, its item."""
    if all(events.user_id):
        return events.user_id
    columns = zip(events.user_id, events.session_id, events.item_id, strict=True)
    return [user or (_SESSION_MARK + session if session else _ITEM_MARK + item) for user, session, item in columns]


def item_of(subject: str) -> str:
    """The item of an item's key; "" for that of a user or session."""
    return subject[1:] if subject.startswith(_ITEM_MARK) else ""


def session_of(subject: str) -> str:
    """The session id of an anonymous session's key; "" for a user's."""
    return subject[1:] if subject.startswith(_SESSION_MARK) else ""


def session_name(session_id: str) -> int:
    """64 bits that stand for a session id, signed; the same in every process."""
    return int(np.uint64(xxhash.xxh3_64_intdigest(session_id.encode())).astype(np.int64))


def session_names(session_ids: Sequence[str]) -> NDArray[np.int64]:
    """[E] `session_name` of each, UNNAMED where there is none."""
    hashed = np.frombuffer(b"".join(map(xxhash.xxh3_64_digest, map(str.encode, session_ids))), ">i8").astype(np.int64)
    if "" in session_ids:
        hashed[[not session_id for session_id in session_ids]] = UNNAMED
    return hashed
