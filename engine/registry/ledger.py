"""The records of the models' topic, folded into which models there are and which of them serves.

Each fact has a key of its own: a model (written once), its withdrawal, its roll back, the pin, what was pruned. What
the records say follows from the newest record of each key and their order alone, so a topic that was compacted tells
the same. A model counts where its push knew of the newest one before it: of two pushes that overlap, the record that
comes second does not count, for any reader.
"""

from __future__ import annotations

import enum
import json
import logging
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from engine.limited_log import LimitedLog
from engine.registry.stored import StoredModel

_limited = LimitedLog(logging.getLogger(__name__))

_MODEL, _WITHDRAWN, _ROLLED_BACK, _PIN, _PRUNED = "model", "withdrawn", "rolled-back", "pin", "pruned"
_MOST_REASON_CHARS = 1000


class LedgerRecord(NamedTuple):
    """A record of the topic; without a value, its key is gone."""

    offset: int
    key: str
    value: bytes | None


class ModelState(enum.Enum):
    """What has become of a model."""

    SERVING = "serving"  # the one that all engines are to serve
    STORED = "stored"
    WITHDRAWN = "withdrawn"
    ROLLED_BACK = "rolled back"


@dataclass(frozen=True)
class ListedModel:
    """A model, and what has become of it.

    Attributes:
        reason: why it was withdrawn, or who rolled it back; "" else.
        key: of its record.
    """

    model: StoredModel
    state: ModelState
    reason: str
    key: str


@dataclass(frozen=True)
class Ledger:
    """What the topic says.

    Attributes:
        models: the newest first.
        newest: the greatest version that ever counted; 0 before the first.
        pinned: the version that serves whatever is pushed; None where none is pinned.
        refused_keys: of records whose push was overtaken.
        pruned_keys: of records that say what was pruned, the older ones.
    """

    models: tuple[ListedModel, ...] = ()
    newest: int = 0
    pinned: int | None = None
    refused_keys: tuple[str, ...] = ()
    pruned_keys: tuple[str, ...] = ()

    @property
    def serving(self) -> ListedModel | None:
        """The one that all engines are to serve."""
        return next((one for one in self.models if one.state is ModelState.SERVING), None)

    def find(self, version: int) -> ListedModel | None:
        return next((one for one in self.models if one.model.version == version), None)

    @property
    def previous(self) -> ListedModel | None:
        """The one that a roll back leads to."""
        serving = self.serving
        if serving is None:
            return None
        older = (one for one in self.models if one.model.version < serving.model.version)
        return next((one for one in older if one.state is ModelState.STORED), None)


class LedgerFold:
    """Folds records, in whatever batches they come."""

    def __init__(self) -> None:
        self._newest: dict[str, tuple[int, Any]] = {}  # by key: offset and value of its newest record

    def apply(self, records: Iterable[LedgerRecord]) -> None:
        for offset, key, value in records:
            if key in self._newest and self._newest[key][0] > offset:
                continue
            if value is None:
                self._newest.pop(key, None)
                continue
            try:
                fields = json.loads(value)
                if not isinstance(fields, dict):
                    raise ValueError("is no JSON object")
            except (ValueError, RecursionError) as error:
                _limited.warning(
                    "record", "a record of the models' topic can't be read, at offset %d: %s", offset, error
                )
                continue
            self._newest[key] = offset, fields

    def ledger(self) -> Ledger:
        """What the records say that were applied so far."""
        facts = {kind: self._facts(kind) for kind in (_MODEL, _WITHDRAWN, _ROLLED_BACK, _PRUNED)}
        base, kept = _base(facts[_PRUNED])
        newest, counted, refused = base, [], []
        for key, fields in facts[_MODEL]:  # in the order of the log
            try:
                model, after = StoredModel.of_json(fields), int(fields["after"])
            except (ValueError, LookupError, TypeError) as error:
                _limited.warning("model", "the record %s of the models' topic makes no sense: %s", key, error)
                continue
            if model.version > base and after == newest and model.version > newest:
                newest = model.version
                counted.append((model, key))
            elif key in kept:
                counted.append((model, key))
            else:
                refused.append(key)
        return _decided(
            sorted(counted, key=lambda one: -one[0].version),
            newest,
            self._pin(),
            {_version(key): str(fields.get("reason", "")) for key, fields in facts[_WITHDRAWN]},
            {_version(key): str(fields.get("by", "")) for key, fields in facts[_ROLLED_BACK]},
            tuple(refused),
            tuple(key for key, _ in facts[_PRUNED] if _version(key) < base),
        )

    def _facts(self, kind: str) -> list[tuple[str, dict[str, Any]]]:
        found = [(offset, key, fields) for key, (offset, fields) in self._newest.items() if key.startswith(f"{kind}/")]
        return [(key, fields) for _, key, fields in sorted(found, key=lambda one: one[0])]

    def _pin(self) -> int | None:
        version = self._newest[_PIN][1].get("version") if _PIN in self._newest else None
        return version if isinstance(version, int) else None


def _base(pruned: list[tuple[str, dict[str, Any]]]) -> tuple[int, set[str]]:
    """The version up to which models were pruned, and the keys of those that were kept all the same."""
    if not pruned:
        return 0, set()
    key, fields = max(pruned, key=lambda one: _version(one[0]))
    kept = fields.get("kept", [])
    return _version(key), {one for one in kept if isinstance(one, str)} if isinstance(kept, list) else set()


def _version(key: str) -> int:
    number = key.partition("/")[2]
    return int(number) if number.isascii() and number.isdigit() else 0


def _decided(
    counted: list[tuple[StoredModel, str]],
    newest: int,
    pinned: int | None,
    withdrawn: dict[int, str],
    rolled_back: dict[int, str],
    refused_keys: tuple[str, ...],
    pruned_keys: tuple[str, ...],
) -> Ledger:
    """The state of each model, given the newest first."""
    versions = [model.version for model, _ in counted]
    if pinned not in versions:
        pinned = None
    standing = (version for version in versions if version not in withdrawn and version not in rolled_back)
    serving = pinned if pinned is not None else next(standing, None)
    models = []
    for model, key in counted:
        state, reason = ModelState.STORED, ""
        if model.version in withdrawn:
            state, reason = ModelState.WITHDRAWN, withdrawn[model.version]
        elif model.version in rolled_back:
            state, reason = ModelState.ROLLED_BACK, rolled_back[model.version]
        if model.version == serving:
            state = ModelState.SERVING
        models.append(ListedModel(model, state, reason, key))
    return Ledger(tuple(models), newest, pinned, refused_keys, pruned_keys)


# -- records to write, each (key, value) ------------------------------------------------------------------------------


def model_record(model: StoredModel, after: int) -> tuple[str, bytes]:
    """Announces a model, by a push that knew `after` as the newest version."""
    return f"{_MODEL}/{model.version}-{uuid.uuid4().hex[:12]}", _encoded(model.as_json() | {"after": after})


def withdrawal_record(version: int, reason: str, engine: str, now_ms: int) -> tuple[str, bytes]:
    fields = {"reason": reason[:_MOST_REASON_CHARS], "engine": engine, "time_ms": now_ms}
    return f"{_WITHDRAWN}/{version}", _encoded(fields)


def roll_back_record(version: int, by: str, now_ms: int) -> tuple[str, bytes]:
    return f"{_ROLLED_BACK}/{version}", _encoded({"by": by, "time_ms": now_ms})


def pin_record(version: int | None, by: str, now_ms: int) -> tuple[str, bytes]:
    return _PIN, _encoded({"version": version, "by": by, "time_ms": now_ms})


def pruning_records(ledger: Ledger, keep: int, now_ms: int) -> tuple[list[tuple[str, bytes | None]], list[StoredModel]]:
    """What deletes all models but the `keep` newest and those that are needed, and the models that it deletes.

    The first record says up to which version models are gone; only then may the others remove theirs.
    """
    needed = {one.model.version for one in (ledger.serving, ledger.previous) if one is not None}
    older = ledger.models[keep:]
    gone = [one for one in older if one.model.version not in needed]
    if not gone:
        return [], []
    base = older[0].model.version
    kept = [one.key for one in older if one.model.version in needed]
    records: list[tuple[str, bytes | None]] = [(f"{_PRUNED}/{base}", _encoded({"kept": kept, "time_ms": now_ms}))]
    records += [(key, None) for key in (*(one.key for one in gone), *ledger.refused_keys)]
    records += [(key, None) for key in ledger.pruned_keys]
    for one in gone:
        records += [(f"{_WITHDRAWN}/{one.model.version}", None), (f"{_ROLLED_BACK}/{one.model.version}", None)]
    return records, [one.model for one in gone]


def _encoded(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode()
