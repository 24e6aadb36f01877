"""The fold of the models' topic, against what must hold for any records, in any batches, compacted or not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from hypothesis import example, given
from hypothesis import strategies as st

from engine.registry.ledger import (
    Ledger,
    LedgerFold,
    LedgerRecord,
    ModelState,
    model_record,
    pin_record,
    pruning_records,
    roll_back_record,
    withdrawal_record,
)
from engine.registry.stored import StoredModel


def model(version: int, engine: str = "a") -> StoredModel:
    sha256 = hashlib.sha256(f"{version}{engine}".encode()).hexdigest()
    return StoredModel(version, sha256, 100, {"hit_rate@20": 0.5}, (), 1_700_000_000_000, "trainer", engine)


class Log:
    """Records as they are written, by writers that may have read less than there is."""

    def __init__(self) -> None:
        self.records: list[LedgerRecord] = []

    def write(self, *records: tuple[str, bytes | None]) -> None:
        for key, value in records:
            self.records.append(LedgerRecord(len(self.records), key, value))

    def ledger(self, upto: int | None = None) -> Ledger:
        return folded(self.records[:upto])

    def push(self, version: int, after: int | None = None, engine: str = "a") -> None:
        known = self.ledger().newest if after is None else after
        self.write(model_record(model(version, engine), known))


def folded(records: Sequence[LedgerRecord]) -> Ledger:
    fold = LedgerFold()
    fold.apply(records)
    return fold.ledger()


def compacted(records: Sequence[LedgerRecord]) -> list[LedgerRecord]:
    """As a broker leaves them: the newest record of each key, deletions gone."""
    newest = {record.key: record for record in records}
    return sorted(record for record in newest.values() if record.value is not None)


def versions(ledger: Ledger) -> list[int]:
    return [one.model.version for one in ledger.models]


def states(ledger: Ledger) -> dict[int, ModelState]:
    return {one.model.version: one.state for one in ledger.models}


def serving(ledger: Ledger) -> int:
    return ledger.serving.model.version if ledger.serving else 0


operations = st.lists(
    st.one_of(
        # A push by a writer that may know an older newest version, with a version somewhat above that.
        st.tuples(st.just("push"), st.integers(0, 3), st.integers(1, 3)),
        st.tuples(st.just("roll back"), st.integers(0, 12), st.just(0)),
        st.tuples(st.just("withdraw"), st.integers(0, 12), st.just(0)),
        st.tuples(st.just("pin"), st.integers(0, 12), st.just(0)),
        st.tuples(st.just("prune"), st.integers(1, 4), st.just(0)),
    ),
    max_size=40,
)


def written(steps: Sequence[tuple[str, int, int]]) -> Log:
    log = Log()
    for what, number, above in steps:
        ledger = log.ledger()
        if what == "push":
            seen = log.ledger(max(0, len(log.records) - number)).newest
            log.push(seen + above, after=seen, engine=f"{len(log.records)}")
        elif what == "roll back":
            log.write(roll_back_record(number, "me", 1))
        elif what == "withdraw":
            log.write(withdrawal_record(number, "bad", "a", 1))
        elif what == "pin":
            log.write(pin_record(number or None, "me", 1))
        else:
            log.write(*pruning_records(ledger, number, 1)[0])
    return log


@given(operations, st.lists(st.integers(1, 5), max_size=40))
def test_any_batches_and_any_compaction_fold_to_the_same(steps: list[tuple[str, int, int]], sizes: list[int]) -> None:
    records = written(steps).records
    fold, begin = LedgerFold(), 0
    for size in [*sizes, len(records)]:
        fold.apply(records[begin : begin + size])
        begin += size
        assert fold.ledger() == folded(records[:begin])
    assert folded(compacted(records)) == folded(records)
    half = len(records) // 2
    assert folded([*compacted(records[:half]), *records[half:]]) == folded(records)
    assert folded([*records, *records]) == folded(records)  # a log that is read again


@given(operations)
def test_what_a_writer_was_told_stays_so(steps: list[tuple[str, int, int]]) -> None:
    """A push that counted counts until it is pruned, and one that was overtaken never does."""
    records = written(steps).records
    counted: set[str] = set()
    overtaken: set[str] = set()
    newest = 0
    for end in range(1, len(records) + 1):
        ledger, record = folded(records[:end]), records[end - 1]
        keys = {one.key for one in ledger.models}
        assert not keys & overtaken
        if record.key.startswith("model/") and record.value is not None:
            (counted if record.key in keys else overtaken).add(record.key)
        assert keys <= counted
        assert ledger.newest >= newest
        newest = ledger.newest
        assert versions(ledger) == sorted(set(versions(ledger)), reverse=True)


PUSHES = [("push", 0, 1)] * 5


@given(operations, st.integers(1, 5))
@example([*PUSHES, ("pin", 1, 0)], 1)  # The oldest model serves.
@example([*PUSHES, ("withdraw", 4, 0), ("roll back", 3, 0)], 2)  # A roll back leads to a model older than the kept.
def test_pruning_keeps_the_newest_what_serves_and_what_a_roll_back_leads_to(
    steps: list[tuple[str, int, int]], keep: int
) -> None:
    log = written(steps)
    before = log.ledger()
    records, gone = pruning_records(before, keep, 1)
    log.write(*records)
    after = log.ledger()
    assert set(versions(before)) - set(versions(after)) == {one.version for one in gone}
    assert versions(after)[:keep] == versions(before)[:keep]
    assert after.previous == before.previous
    assert (serving(after), after.newest, after.pinned) == (serving(before), before.newest, before.pinned)
    assert len(after.models) <= keep + 2
    assert after.refused_keys == () or not gone


def test_of_two_pushes_that_overlap_the_second_record_does_not_count():
    log = Log()
    log.push(1)
    log.push(2, after=1, engine="a")
    log.push(3, after=1, engine="b")  # the writer did not know of version 2
    log.push(2, after=1, engine="b")
    assert versions(log.ledger()) == [2, 1]
    assert log.ledger().find(2).model.engine == "a"
    log.push(3, engine="b")
    assert versions(log.ledger()) == [3, 2, 1]


def test_the_newest_serves_unless_it_was_taken_back_or_another_is_pinned():
    log = Log()
    assert log.ledger() == Ledger()
    for version in (1, 2, 3, 4):
        log.push(version)
    assert serving(log.ledger()) == 4
    log.write(withdrawal_record(4, "the canary refused it", "a", 1))
    assert serving(log.ledger()) == 3
    assert log.ledger().find(4).reason == "the canary refused it"
    log.write(roll_back_record(3, "me", 1))
    assert (serving(log.ledger()), log.ledger().previous.model.version) == (2, 1)
    log.write(pin_record(3, "me", 1))
    assert (serving(log.ledger()), log.ledger().pinned) == (3, 3)
    log.push(5)
    assert serving(log.ledger()) == 3
    log.write(pin_record(None, "me", 1))
    assert serving(log.ledger()) == 5
    assert states(log.ledger()) == {
        5: ModelState.SERVING, 4: ModelState.WITHDRAWN, 3: ModelState.ROLLED_BACK, 2: ModelState.STORED,
        1: ModelState.STORED,
    }  # fmt: skip


def test_a_pin_of_a_model_that_is_gone_holds_nothing():
    log = Log()
    log.push(1)
    log.write(pin_record(7, "me", 1))
    assert (serving(log.ledger()), log.ledger().pinned) == (1, None)


def test_records_that_make_no_sense_are_passed_over():
    log = Log()
    log.push(1)
    good = json.loads(log.records[0].value)
    for value in (
        b"", b"[]", b"\xff", b"{}", json.dumps(good | {"sha256": "short"}).encode(),
        json.dumps(good | {"metrics": {"a": float("nan")}}).encode(), json.dumps(good | {"version": "2"}).encode(),
    ):  # fmt: skip
        log.write(("model/2-x", value), ("unknown/1", value), ("pin", value), ("withdrawn/one", value))
    assert (versions(log.ledger()), serving(log.ledger())) == ([1], 1)
