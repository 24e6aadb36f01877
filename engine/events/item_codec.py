"""Records of the items topic to records of the catalog."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import orjson
from ousel.v1 import catalog_pb2

from engine.config import EventsConfig
from engine.config.events import DEBEZIUM, SCHEMA_REGISTRY
from engine.events.batch import CatalogItem, QuotedTombstone, Record
from engine.events.envelope import EnvelopeError, is_framed, unframed
from engine.events.payload import Context, PayloadError, PayloadReader
from engine.events.rules import id_problem, item_problem, shown
from engine.events.times import TimeRule, ms_of_timestamp


class ItemDecoder:
    """Decodes records of the items topic.

    Args:
        features_dim: length of `Item.features` where it is not empty.
    """

    def __init__(self, config: EventsConfig, features_dim: int) -> None:
        self._config = config
        self._features_dim = features_dim
        self._reader = PayloadReader(catalog_pb2.Item, TimeRule.of(config), config.envelopes)

    def decode(self, record: Record) -> tuple[CatalogItem, Sequence[str]]:
        """The item of one record, and the names of its fields that nothing reads.

        Raises:
            PayloadError: the record holds no item, or the item breaks a rule.
        """
        if not record.value:
            return self._tombstone(record), ()
        item, context = self._reader.read(record.value, lambda: self._id_in(record.key))
        decoded = CatalogItem(
            item_id=item.item_id,
            title=item.title,
            categories=tuple(item.categories),
            features=tuple(item.features),
            available_from_ms=ms_of_timestamp(item.available_from) if item.HasField("available_from") else None,
            available_until_ms=ms_of_timestamp(item.available_until) if item.HasField("available_until") else None,
            deleted=item.deleted,
            attributes=tuple(sorted(item.attributes.items())) if item.attributes else (),
            offset=record.offset,
            partition=record.partition,
        )
        problem = item_problem(decoded, self._features_dim, self._config)
        if problem:
            raise PayloadError(problem, context)
        return decoded, context.unknown

    def _tombstone(self, record: Record) -> CatalogItem:
        text, named = item_ids_of_key(record.key, self._config.envelopes)
        limit, offset, partition = self._config.max_id_bytes, record.offset, record.partition
        problem = id_problem("key", named or text, limit)
        if problem:
            raise PayloadError(problem)
        if named and id_problem("key", text, limit) is None:
            return QuotedTombstone(text, deleted=True, named_id=named, offset=offset, partition=partition)
        return CatalogItem(named or text, deleted=True, offset=offset, partition=partition)

    def _id_in(self, key: bytes | None) -> str:
        text, named = item_ids_of_key(key, self._config.envelopes)
        return named or text


def item_ids_of_key(key: bytes | None, envelopes: Collection[str]) -> tuple[str, str]:
    """The item that a key names as plain text, and as a JSON string; the latter is empty where it is none.

    Raises:
        PayloadError: it names no item.
    """
    if not key:
        raise PayloadError("key must be the item_id where a record has no value, got none")
    if SCHEMA_REGISTRY in envelopes and is_framed(key):
        try:
            key = unframed(key)
        except EnvelopeError as error:
            raise PayloadError(f"key must be an item_id: {error}") from None
    try:
        text = key.decode()
    except UnicodeDecodeError:
        raise PayloadError(f"key must be an item_id in UTF-8, got {shown(key)}") from None
    if text[:1] not in ('"', "{"):
        return text, ""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text, ""
    return (text, value) if isinstance(value, str) else (_id_of_row(value, envelopes), "")


def _id_of_row(fields: dict[str, object], envelopes: Collection[str]) -> str:
    """The item of a key that is a JSON object, as Debezium and Kafka Connect write keys."""
    if DEBEZIUM not in envelopes:
        raise PayloadError("key must be the item_id, got a JSON object", Context(envelope=DEBEZIUM))
    row = fields["payload"] if "schema" in fields and "payload" in fields else fields
    found = next((row[name] for name in ("item_id", "itemId") if name in row), None) if isinstance(row, dict) else row
    if isinstance(found, bool) or not isinstance(found, str | int):
        raise PayloadError(f"key must have item_id in the {DEBEZIUM} envelope, got {shown(fields)}")
    return str(found)
