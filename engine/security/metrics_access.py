"""Who may read the metrics port, where security.metrics_token asks for a token."""

from __future__ import annotations

from http import HTTPStatus

from engine import metrics
from engine.security.errors import Unauthenticated
from engine.security.roles import Role
from engine.security.token_file import TokenFile


class MetricsAccess:
    """Any thread may ask.

    Args:
        tokens: those that calls bring, too; the role `metrics` lets one in here.
    """

    def __init__(self, tokens: TokenFile) -> None:
        self._tokens = tokens

    def refusal(self, authorization: str | None) -> HTTPStatus | None:
        """With what a request is refused, by its header `Authorization`; None where it may go on."""
        try:
            token = self._tokens.presented([] if authorization is None else [authorization])
        except Unauthenticated as error:
            metrics.CALLS_REFUSED.labels(error.reason, Role.METRICS.value).inc()
            return HTTPStatus.UNAUTHORIZED
        if Role.METRICS not in token.roles:
            metrics.CALLS_REFUSED.labels("role", Role.METRICS.value).inc()
            return HTTPStatus.FORBIDDEN
        return None
