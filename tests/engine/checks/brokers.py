"""A broker that answers the questions of the checks from what a test says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from kafka.errors import GroupAuthorizationFailedError, GroupIdNotFoundError, NoError, UnknownTopicOrPartitionError
from kafka.structs import OffsetAndTimestamp

ALL = ["READ", "WRITE", "CREATE", "DESCRIBE", "DESCRIBE_CONFIGS"]
_UNKNOWN = UnknownTopicOrPartitionError.errno


class FakeAdmin:
    """Topics by name: how many partitions, which settings, and what a client may do with them."""

    def __init__(
        self,
        topics: Mapping[str, int],
        settings: Mapping[str, Mapping[str, str]] | None = None,
        operations: Mapping[str, list[str] | None] | None = None,
        *,
        errors: Mapping[str, int] | None = None,
        group: list[str] | None = None,
        newest_ms: int = -1,
    ) -> None:
        self._topics, self._settings, self._operations = topics, settings or {}, operations or {}
        self._errors, self._group, self._newest_ms = errors or {}, group, newest_ms
        self.asked_for_groups = 0
        self.is_group_missing = False

    def describe_topics(self, names: Sequence[str]) -> list[dict[str, Any]]:
        return [
            {
                "name": name,
                "topic_id": f"id of {name}",
                "error_code": self._errors.get(name, NoError.errno if name in self._topics else _UNKNOWN),
                "partitions": [{"partition_index": number} for number in range(self._topics.get(name, 0))],
                "authorized_operations": self._operations.get(name, ALL),
            }
            for name in names
        ]

    def describe_configs(self, resources: Any, **_: Any) -> dict[str, Any]:
        found = {name: {key: {"value": one} for key, one in of.items()} for name, of in self._settings.items()}
        return {"topic": found}

    def describe_cluster(self) -> dict[str, Any]:
        raise KeyError("endpoint_type")  # as kafka-python does for older brokers

    def describe_groups(self, names: Sequence[str]) -> dict[str, Any]:
        self.asked_for_groups += 1
        if self._group is None:
            raise GroupAuthorizationFailedError
        error = str(GroupIdNotFoundError("Group not found.")) if self.is_group_missing else None
        return {name: {"error": error, "authorized_operations": self._group} for name in names}

    def list_partition_offsets(self, asked: Mapping[Any, Any]) -> dict[Any, OffsetAndTimestamp]:
        return {partition: OffsetAndTimestamp(0, self._newest_ms, None) for partition in asked}


def answering(monkeypatch: pytest.MonkeyPatch, module: str, admin: FakeAdmin) -> None:
    """Has a module of the checks ask this broker."""

    @contextmanager
    def client(_: object) -> Iterator[FakeAdmin]:
        yield admin

    monkeypatch.setattr(f"engine.checks.{module}.admin_client", client)
