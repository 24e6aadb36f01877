"""PrivacyService: what is held about one user, and its end."""

from __future__ import annotations

import asyncio
from typing import Any

from ousel.v1 import privacy_service_pb2, privacy_service_pb2_grpc

from engine.config import Config
from engine.serving.engine import Engine
from engine.serving.errors import CatchingUp
from engine.serving.event_writer import EventWriter
from engine.serving.requests import parse_subject
from engine.state.export import Subject
from engine.state.subjects import subject_key


class PrivacyServicer(privacy_service_pb2_grpc.PrivacyServiceServicer):
    """Looks up who belongs to a user, and writes to the log that they are forgotten."""

    def __init__(self, config: Config, engine: Engine, writer: EventWriter) -> None:
        self._config = config
        self._engine = engine
        self._writer = writer
        self._kinds = tuple(config.events.kinds)
        self._relations = tuple(config.events.relations)

    async def ForgetUser(
        self, request: privacy_service_pb2.ForgetUserRequest, context: Any
    ) -> privacy_service_pb2.ForgetUserResponse:
        """Returns once the log has a record for every subject in every partition."""
        subject = parse_subject(request, self._config)
        held, partitions = await self._held(subject)
        # The one asked for is forgotten whether or not anything is held here: another engine may hold it.
        sessions = {one.session_id for one in held} - {"", subject.session_id}
        subjects = [subject, *(privacy_service_pb2.Subject(session_id=session_id) for session_id in sorted(sessions))]
        positions = await self._writer.forget(subjects, context.time_remaining())
        return privacy_service_pb2.ForgetUserResponse(subjects=subjects, positions=positions, partitions=partitions)

    async def ExportUser(
        self, request: privacy_service_pb2.ExportUserRequest, context: Any
    ) -> privacy_service_pb2.ExportUserResponse:
        """All that this engine holds, or an empty answer."""
        held, partitions = await self._held(parse_subject(request, self._config))
        return privacy_service_pb2.ExportUserResponse(
            known=bool(held), subjects=[self._message(one) for one in held], partitions=partitions
        )

    async def _held(self, subject: privacy_service_pb2.Subject) -> tuple[tuple[Subject, ...], tuple[int, ...]]:
        """All that is held about a subject, and the partitions that were searched."""
        status = self._engine.status()
        if not status.caught_up:
            raise CatchingUp("the engine is still catching up with the log and does not know all of a user yet")
        key = subject_key(subject.user_id, subject.session_id)
        return await asyncio.wrap_future(self._engine.export(key)), status.partitions

    def _message(self, held: Subject) -> privacy_service_pb2.HeldSubject:
        message = privacy_service_pb2.HeldSubject(
            partition=held.partition,
            session_id=held.session_id,
            sessions=held.sessions,
            named_by_item_ids=held.named_by_items,
            named_by_users=held.named_by_users,
        )
        for event in held.history:
            remembered = message.history.add(
                item_id=event.item_id, kind=self._kinds[event.kind], value=event.value, session=event.session
            )
            remembered.time.FromMilliseconds(event.time_ms)
        for relation in held.relations:
            related = message.relations.add(
                user_id=relation.user_id, kind=self._relations[relation.kind], value=relation.value
            )
            related.time.FromMilliseconds(relation.time_ms)
        return message
