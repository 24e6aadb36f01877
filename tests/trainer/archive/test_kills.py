"""Killed anywhere and started again, the archive holds every event once, and with the log gives back the whole log."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow.parquet as parquet
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import StateConfig
from tests.engine import logs
from tests.engine.logs import Line
from tests.trainer.archive.cases import (
    DAY_MS,
    TODAY,
    Trainer,
    archived,
    counted,
    learned,
    limits,
    opened,
    present,
    stop,
)
from tests.trainer.planted import KINDS
from trainer.replay import Replay

PARTITIONS = 2


class Killed(BaseException):
    pass


@contextmanager
def killed_after(steps: int) -> Iterator[None]:
    """Dies instead of the step with this number that changes something on the disk; a file written by then is torn."""
    left = steps

    def dying(do: Callable[..., Any] | None, tear: bool = False) -> Callable[..., Any]:
        def step(*args: Any, **named: Any) -> Any:
            nonlocal left
            if left == 0:
                if tear:
                    Path(args[1]).write_bytes(b"PAR1 torn")
                raise Killed
            left -= 1
            return do(*args, **named) if do else None

        return step

    with ExitStack() as patched:
        for owner, name in ((Path, "replace"), (Path, "unlink"), (Path, "mkdir"), (Path, "rmdir")):
            do = getattr(owner, name)
            patched.enter_context(mock.patch.object(owner, name, dying(do)))
        patched.enter_context(mock.patch.object(os, "fsync", dying(None)))
        patched.enter_context(mock.patch.object(parquet, "write_table", dying(parquet.write_table, tear=True)))
        yield


# Only who is never forgotten sends ids: a repeat of what is forgotten is told from the log alone, not from the archive.
subjects = st.sampled_from([("u", ""), ("u", "s"), ("", "s"), ("v", "t"), ("w", "")])
line = st.builds(
    lambda who, item, day, number: Line(
        *who, item, kind=number % 3, time_ms=(TODAY - day) * DAY_MS + number, event_id=f"{number}" * (who[0] == "w"),
        value=0.5 + number,
    ),
    subjects, st.sampled_from("abc"), st.integers(0, 2), st.integers(0, 9),
)  # fmt: skip
relation = st.builds(
    lambda user, target, ends: Line(user, target=target, time_ms=TODAY * DAY_MS, ends=ends),
    st.sampled_from("wx"), st.sampled_from("uv"), st.booleans(),
)  # fmt: skip
forget = st.builds(
    lambda who, number: Line(*who, time_ms=TODAY * DAY_MS, forget=True, event_id=f"f{number}" if number else ""),
    st.sampled_from([("u", ""), ("", "s"), ("v", "")]), st.integers(0, 3),
)  # fmt: skip
placed = st.builds(
    lambda said, partition: said._replace(partition=partition),
    st.one_of(line, line, line, line, relation, forget), st.integers(0, PARTITIONS - 1),
)  # fmt: skip
# The size is drawn by itself, as lists are mostly short.
lines = st.integers(0, 50).flatmap(lambda size: st.lists(placed, min_size=size, max_size=size)).map(logs.numbered)
reads = st.tuples(st.just("read"), st.tuples(*[st.integers(0, 4)] * PARTITIONS))
act = st.one_of(
    reads,
    reads,
    st.tuples(st.just("flush"), st.none()),
    st.tuples(st.just("kill"), st.integers(0, 25)),
    st.tuples(st.just("stop"), st.none()),
    st.tuples(st.just("retain"), st.tuples(*[st.integers(0, 20)] * PARTITIONS)),
)
acts = st.integers(0, 20).flatmap(lambda size: st.lists(act, min_size=size, max_size=size))


def expected(log: list[Line]) -> list[Line]:
    """What must be archived of a log, by the plainest rules: repeats never, the forgotten no more."""
    found: list[Line] = []
    for partition in range(PARTITIONS):
        seen: set[tuple[str, ...]] = set()
        part: list[Line] = []
        for said in log:
            key = said.event_id, said.user, *(() if said.user else (said.session, "" if said.session else said.item))
            if said.partition != partition or key in seen:
                continue
            seen |= {key} if said.event_id else set()
            if said.forget:
                part = [old for old in part if not names(old, said)]
                part.append(said._replace(user="", session=""))
            else:
                part.append(said)
        found += part
    return found


def names(said: Line, whom: Line) -> bool:
    if whom.user:
        return said.user == whom.user or said.target == whom.user
    return not said.user and said.session == whom.session


@settings(max_examples=40, deadline=None)
@given(log=lines, acts=acts)
def test_every_event_is_archived_once_and_archive_and_log_fold_to_the_whole_log(
    log: list[Line], acts: list[tuple[str, Any]]
) -> None:
    ends = Counter(said.partition for said in log)
    begins = dict.fromkeys(range(PARTITIONS), 0)
    whole = Replay(StateConfig(), KINDS, 1000, partitions=PARTITIONS)
    if log:
        whole.fold(logs.batch(log))
    with (
        tempfile.TemporaryDirectory() as folder,
        limits(flush_rows=6, most_rows=12, window=5),
        mock.patch.object(os, "fsync"),  # no power fails here
    ):
        path = Path(folder) / "archive"
        trainer = Trainer(opened(path), log, begins, PARTITIONS)
        for act, how in acts:
            if act == "read":
                trainer.read(how)
            elif act == "flush":
                trainer.archive.flush()
            elif act == "retain":
                # The log deletes nothing that is not in the archive yet.
                durable = trainer.archive._folder.manifest.positions
                for partition, most in enumerate(how):
                    end = durable[partition].end if partition in durable else 0
                    begins[partition] = max(begins[partition], min(most, end))
            else:
                if act == "stop":
                    stop(trainer.archive)
                else:
                    kill(trainer, how)
                trainer = Trainer(opened(path), log, begins, PARTITIONS)
        trainer.read()
        assert learned(trainer.replay) == learned(whole)
        stop(trainer.archive)

        assert archived(path) == expected(log)
        assert present(path) == counted(path)
        # Nor is the log needed any more.
        gone = Trainer(opened(path), log, ends, PARTITIONS)
        assert learned(gone.replay) == learned(whole)
        gone.archive.close()


def kill(trainer: Trainer, steps: int) -> None:
    """Dies while it reads on, or else while it flushes, or else between the two."""
    try:
        with killed_after(steps):
            trainer.read([3] * PARTITIONS)
            trainer.archive.flush()
    except Killed:
        pass
    trainer.archive.close()
