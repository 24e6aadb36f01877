"""The blocking client."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from time import monotonic
from types import TracebackType
from typing import Any, Self, TypeVar
from weakref import WeakSet

import grpc

from ousel import convert, convert_models
from ousel.arguments import seconds, text
from ousel.channel import DEFAULT_ADDRESS, RESUME_S, SLOW_TIMEOUT_S, engines
from ousel.credentials import Credentials
from ousel.errors import OuselError, client_closed, from_call, no_answer, plain_reading
from ousel.model_types import ModelList, RolledBack
from ousel.status import Status
from ousel.subscription import Subscription
from ousel.types import Exported, Forgotten, Position, Query, RecommendationList, StateDigest, Tracked
from ousel.v1 import (
    event_service_pb2,
    event_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
    privacy_service_pb2,
    privacy_service_pb2_grpc,
    recommender_service_pb2,
    recommender_service_pb2_grpc,
    state_service_pb2,
    state_service_pb2_grpc,
)

Answer = TypeVar("Answer")


class Client:
    """Recommendations from Ousel engines. Safe to share between threads; close it or use it in a `with`.

    Args:
        address: host:port of the engine, or several of them; or dns:///host:port, whose addresses are several engines.
            Of several, those take turns whose health says SERVING.
        timeout_s: how long a call may take, retries included, unless it says otherwise.
        credentials: certificates and a token; None calls in plain text and as nobody in particular.
        resume_s: how long a stream that has lost its engine tries to go on, there or at another; 0: it fails at once.

    Raises:
        InvalidArgument: an address or a file of the credentials can't be used.
    """

    def __init__(
        self,
        address: str | Sequence[str] = DEFAULT_ADDRESS,
        timeout_s: float = 5.0,
        *,
        credentials: Credentials | None = None,
        resume_s: float = RESUME_S,
    ) -> None:
        self._engines = engines(address, credentials)
        self._resume_s = seconds("resume_s", resume_s)
        self.address = self._engines.name
        self._timeout_s = seconds("timeout_s", timeout_s)
        self._closed = False
        self._subscriptions: WeakSet[Subscription] = WeakSet()
        self._channel = self._engines.open()
        self._recommender = recommender_service_pb2_grpc.RecommenderServiceStub(self._channel)
        self._events = event_service_pb2_grpc.EventServiceStub(self._channel)
        self._model = model_service_pb2_grpc.ModelServiceStub(self._channel)
        self._privacy = privacy_service_pb2_grpc.PrivacyServiceStub(self._channel)
        self._state = state_service_pb2_grpc.StateServiceStub(self._channel)

    def recommend(
        self,
        user_id: str | None = None,
        session_id: str | None = None,
        k: int | None = None,
        *,
        categories: Iterable[str] = (),
        exclude_item_ids: Iterable[str] = (),
        exclude_history: bool = False,
        after: Position | None = None,
        timeout_s: float | None = None,
    ) -> RecommendationList:
        """One ranked list, now, for a user or an anonymous session.

        Args:
            user_id: wins over `session_id`; one of them is needed.
            k: length of the list, 1 to 1000; None leaves it to the engine, which takes 10. The list may be shorter
                where nothing more fits.
            categories: keep only items of at least one of these; empty keeps all.
            exclude_item_ids: leave these out.
            exclude_history: leave out every item in the user's remembered history.
            after: wait until the list reflects this record, such as the `position` that `track` returned.

        Raises:
            OuselError: by kind, see `ousel.errors`.
        """
        query = convert.query_message(user_id, session_id, k, categories, exclude_item_ids, exclude_history)
        request = recommender_service_pb2.RecommendRequest(query=query, after=convert.after_message(after))
        return self._call(self._recommender.Recommend, request, timeout_s, convert.recommended)

    def recommend_batch(
        self, queries: Iterable[Query], *, timeout_s: float | None = None
    ) -> tuple[RecommendationList | OuselError, ...]:
        """Lists for many at once, such as those of a mail run: made together, from one moment and by one model.

        Args:
            queries: 1 to 100. An item may be in several of their lists.

        Returns:
            One for each query, in their order: its list, or the error that the query alone would have failed with.

        Raises:
            OuselError: by kind, see `ousel.errors`, where the engine answers none of them.
        """
        request = convert.batch_request(queries)
        return self._call(
            self._recommender.RecommendBatch, request, timeout_s, lambda answer: convert.batch(answer, self.address)
        )

    def stream(
        self,
        user_id: str | None = None,
        session_id: str | None = None,
        k: int | None = None,
        *,
        categories: Iterable[str] = (),
        exclude_item_ids: Iterable[str] = (),
        exclude_history: bool = False,
    ) -> Subscription:
        """Subscribes: a list comes at once, then a new one whenever events, the model or the catalog change it.

        Args: see `recommend`. A stream has no time limit; close it to end it. Where its engine goes away it is resumed,
        for up to the client's `resume_s`.
        """
        query = convert.query_message(user_id, session_id, k, categories, exclude_item_ids, exclude_history)
        with self._plain_errors(None):
            made = Subscription(self._open_stream, query, self.address, self._timeout_s, self._resume_s)
        self._subscriptions.add(made)
        if self._closed:  # meanwhile, by another thread, which may not have seen this stream
            made._client_closed()
        return made

    def _open_stream(self, messages: Iterator[recommender_service_pb2.StreamRecommendationsRequest]) -> Any:
        return self._recommender.StreamRecommendations(messages, metadata=self._engines.metadata())

    def track(
        self,
        item_id: str,
        user_id: str | None = None,
        session_id: str | None = None,
        kind: str = "view",
        value: float = 1.0,
        time: datetime | None = None,
        event_id: str | None = None,
        attributes: Mapping[str, str] | None = None,
        *,
        timeout_s: float | None = None,
    ) -> Tracked:
        """Writes one event to the log and returns once the log has it.

        Args:
            user_id: who did it; an event without a user belongs to the anonymous session `session_id`.
            kind: one of the engine's configured kinds, such as "view" or "purchase".
            value: what the kind counts: a quantity, a rating, seconds played.
            time: when it happened, with its time zone; None is now.
            event_id: made up when None. Tracking again with the same one counts once.
            attributes: written to the log for other readers; the engine does not read them.

        Raises:
            OuselError: by kind, see `ousel.errors`.
        """
        event = convert.event_message(item_id, user_id, session_id, kind, value, time, event_id, attributes)
        request = event_service_pb2.TrackRequest(event=event)
        return self._call(self._events.Track, request, timeout_s, convert.tracked)

    def relate_users(
        self,
        user_id: str,
        target_user_id: str,
        kind: str = "",
        value: float = 1.0,
        time: datetime | None = None,
        event_id: str | None = None,
        attributes: Mapping[str, str] | None = None,
        *,
        ends: bool = False,
        timeout_s: float | None = None,
    ) -> Tracked:
        """Writes to the log that a user is related to another, or no longer is, and returns once the log has it.

        Saying it again renews the relation. What the other user does is recommended to this one, not the reverse.

        Args:
            kind: one of the engine's configured relations, such as "friend"; "" is its default, "follows".
            value: how strong it is.
            ends: the relation is over, whatever its kind.
            time, event_id: see `track`.

        Raises:
            OuselError: by kind, see `ousel.errors`.
        """
        event = convert.event_message(
            "",
            text("user_id", user_id),
            None,
            kind,
            value,
            time,
            event_id,
            attributes,
            target_user_id=target_user_id,
            ends=ends,
        )
        request = event_service_pb2.TrackRequest(event=event)
        return self._call(self._events.Track, request, timeout_s, convert.tracked)

    def relate_item(
        self,
        item_id: str,
        entity_id: str,
        kind: str = "",
        value: float = 1.0,
        time: datetime | None = None,
        event_id: str | None = None,
        attributes: Mapping[str, str] | None = None,
        *,
        ends: bool = False,
        timeout_s: float | None = None,
    ) -> Tracked:
        """Writes to the log that an item has an actor, a brand, a tag, or no longer has it, as `relate_users` does.

        Args:
            kind: one of the engine's configured relations; "" is its default, "has".
        """
        event = convert.event_message(
            item_id, None, None, kind, value, time, event_id, attributes, entity_id=entity_id, ends=ends
        )
        request = event_service_pb2.TrackRequest(event=event)
        return self._call(self._events.Track, request, timeout_s, convert.tracked)

    def status(self, *, timeout_s: float | None = None) -> Status:
        """How the engine is doing.

        Raises:
            OuselError: by kind, see `ousel.errors`.
        """
        return self._call(self._model.GetStatus, model_service_pb2.GetStatusRequest(), timeout_s, convert.status)

    def roll_back(self, expected_version: int | None = None, *, timeout_s: float | None = SLOW_TIMEOUT_S) -> RolledBack:
        """Takes the serving model back and has the one before it serve again, in all engines.

        Returns once that is announced, and where this engine has the model before at hand once it serves it.

        Args:
            expected_version: the one to roll back from; refused where another serves by now. None: whichever serves.
            timeout_s: the engine goes on where it passes.

        Raises:
            OuselError: by kind, see `ousel.errors`; with code FAILED_PRECONDITION where there is no model before, or
                another version serves, or a version is pinned.
        """
        request = convert_models.roll_back_request(expected_version)
        return self._call(self._model.RollBack, request, timeout_s, convert_models.rolled_back)

    def list_models(self, *, timeout_s: float | None = None) -> ModelList:
        """The models of the registry, and what this engine makes of them.

        Raises:
            OuselError: by kind, see `ousel.errors`.
        """
        request = model_service_pb2.ListModelsRequest()
        return self._call(self._model.ListModels, request, timeout_s, convert_models.model_list)

    def pin_model(self, version: int, *, timeout_s: float | None = SLOW_TIMEOUT_S) -> int:
        """Has all engines serve this version until `unpin_model`, whatever is pushed meanwhile; the version.

        Raises:
            OuselError: by kind, see `ousel.errors`; with code NOT_FOUND where the registry has no such version.
        """
        return self._call(self._model.PinModel, convert_models.pin_request(version), timeout_s, convert_models.pinned)

    def unpin_model(self, *, timeout_s: float | None = SLOW_TIMEOUT_S) -> int:
        """Has all engines serve the newest version that was not taken back; that version, 0: there is none.

        Raises:
            OuselError: by kind, see `ousel.errors`.
        """
        request = model_service_pb2.UnpinModelRequest()
        return self._call(self._model.UnpinModel, request, timeout_s, convert_models.unpinned)

    def prune_models(self, keep: int | None = None, *, timeout_s: float | None = SLOW_TIMEOUT_S) -> tuple[int, ...]:
        """Deletes all models of the registry but the newest, those that serve and a pinned one; the versions deleted.

        Args:
            keep: as many as this; None: as many as registry.keep of the engine says.

        Raises:
            OuselError: by kind, see `ousel.errors`.
        """
        return self._call(self._model.PruneModels, convert_models.prune_request(keep), timeout_s, convert_models.pruned)

    def forget_user(
        self, user_id: str | None = None, session_id: str | None = None, *, timeout_s: float | None = None
    ) -> Forgotten:
        """Has a user forgotten for good, with its linked anonymous sessions; returns once the log has it.

        Histories, sessions, vectors and all links go; counts without a name stay. So do snapshots taken before, until
        newer ones replace them, and the log's own records until its retention removes them. Repeating it is harmless.
        Where engines share partitions, call each to reach all linked sessions.

        Args:
            session_id: of an anonymous session, in place of `user_id`.

        Raises:
            OuselError: by kind, see `ousel.errors`.
        """
        request = convert.subject_request(privacy_service_pb2.ForgetUserRequest, user_id, session_id)
        return self._call(self._privacy.ForgetUser, request, timeout_s, convert.forgotten)

    def export_user(
        self, user_id: str | None = None, session_id: str | None = None, *, timeout_s: float | None = None
    ) -> Exported:
        """All that this engine holds about a user and its linked anonymous sessions.

        Where engines share partitions, ask the one that reads the user's.

        Args:
            session_id: of an anonymous session, in place of `user_id`.

        Raises:
            OuselError: by kind, see `ousel.errors`.
        """
        request = convert.subject_request(privacy_service_pb2.ExportUserRequest, user_id, session_id)
        return self._call(self._privacy.ExportUser, request, timeout_s, convert.exported)

    def get_digest(self, *, timeout_s: float | None = SLOW_TIMEOUT_S) -> StateDigest:
        """Digests of all that the engine holds, to be compared with those of another.

        Args:
            timeout_s: more than for other calls, because all of the state is gone through.

        Raises:
            OuselError: by kind, see `ousel.errors`.
        """
        request = state_service_pb2.GetDigestRequest()
        return self._call(self._state.GetDigest, request, timeout_s, convert.state_digest)

    def take_snapshot(self, *, timeout_s: float | None = SLOW_TIMEOUT_S) -> tuple[Position, ...]:
        """Has the engine take a snapshot; the last record of each partition in it, once it is safe.

        Args:
            timeout_s: more than for other calls, because all of the state is written.

        Raises:
            OuselError: by kind, see `ousel.errors`; with code FAILED_PRECONDITION where the engine takes none.
        """
        request = state_service_pb2.TakeSnapshotRequest()
        return self._call(self._state.TakeSnapshot, request, timeout_s, convert.snapshot_taken)

    def close(self) -> None:
        """Ends every call and stream. Safe to call twice."""
        self._closed = True
        for subscription in list(self._subscriptions):
            subscription._client_closed()
        self._channel.close()

    def _call(
        self, method: Callable[..., Any], request: Any, timeout_s: float | None, read: Callable[[Any], Answer]
    ) -> Answer:
        """What `read` makes of the engine's answer."""
        timeout_s = self._timeout_s if timeout_s is None else seconds("timeout_s", timeout_s)
        if timeout_s <= 0:  # which gRPC takes for no limit, or for one, depending on the version
            raise no_answer(self.address, timeout_s)
        with self._plain_errors(timeout_s):
            message = method(request, timeout=timeout_s, metadata=self._engines.metadata())
        with plain_reading(self.address):
            return read(message)

    @contextmanager
    def _plain_errors(self, timeout_s: float | None) -> Iterator[None]:
        """The client's own errors in place of gRPC's; nothing but calls of gRPC happens inside."""
        if self._closed:
            raise client_closed()
        began_s = monotonic()
        try:
            yield
        except grpc.RpcError as error:
            took_s = monotonic() - began_s
            raise client_closed() if self._closed else from_call(error, self.address, timeout_s, took_s) from None
        except ValueError:  # Another thread has closed the channel.
            if self._closed:
                raise client_closed() from None
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
