"""How a call is refused before it reaches a servicer. Each error knows the reason by which refusals are counted."""

from __future__ import annotations

from engine.security.roles import Allowed
from engine.waiting import Overloaded


class Unauthenticated(RuntimeError):
    """A call needs a token and has none that counts.

    The text is the same for a missing, a wrong, an expired and a revoked token, so that nobody can try out which of
    these it was. The reason is for the metric and the log, which callers do not see.
    """

    def __init__(self, reason: str) -> None:
        super().__init__("this call needs a valid token in the metadata `authorization: Bearer TOKEN`")
        self.reason = reason


class RoleMissing(RuntimeError):
    """A token does not have the role that a call needs."""

    reason = "role"

    def __init__(self, what: str, allowed: Allowed) -> None:
        roles = " or ".join(allowed)
        needs = f"needs a token with the role {roles}" if roles else "is not to be called by anybody"
        super().__init__(f"{what} {needs}")


class OverLimit(Overloaded):
    """A client takes more than one client may."""

    def __init__(self, reason: str, message: str, retry_after_ms: int = 200) -> None:
        super().__init__(message, retry_after_ms)
        self.reason = reason


class TooLarge(RuntimeError):
    """A message or the metadata of a call is longer than a client may send; another try would be as long."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


REFUSALS = (Unauthenticated, RoleMissing, OverLimit, TooLarge)
