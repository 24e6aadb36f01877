"""EventService: one event into the log."""

from __future__ import annotations

from typing import Any

from ousel.v1 import event_service_pb2, event_service_pb2_grpc

from engine.serving.event_writer import EventWriter
from engine.tracing import spans


class EventServicer(event_service_pb2_grpc.EventServiceServicer):
    """Writes what callers track."""

    def __init__(self, writer: EventWriter) -> None:
        self._writer = writer

    async def Track(self, request: event_service_pb2.TrackRequest, context: Any) -> event_service_pb2.TrackResponse:
        """Returns once the log has the event."""
        event = request.event
        with spans.track(context):
            position = await self._writer.write(event, context.time_remaining())
        return event_service_pb2.TrackResponse(position=position, event_id=event.event_id)
