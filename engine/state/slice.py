"""What one partition of the events topic says: a pure, bounded fold of its records, in their order.

A slice knows nothing of other partitions, of the catalog or of the clock. So it can be saved, restored, dropped and
compared by itself, however the partitions happened to be read.

Shapes: E events folded, R rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.config import EventsConfig, StateConfig
from engine.events.batch import EventBatch
from engine.state.clock import Clock
from engine.state.contributions import Contributions
from engine.state.duplicates import RecentIds, repeat_keys
from engine.state.fold_kernels import find_rising, fold_events
from engine.state.folded import NO_EVENTS, Gone, Inserted, Ordinals, Part, Rows, SliceFolded, joined_columns, runs_of
from engine.state.graph import Graph
from engine.state.id_table import digests
from engine.state.kernels import Doubles
from engine.state.nodes import Nodes
from engine.state.popularity import DecayedCounts
from engine.state.relations import Mentions, Relations, target_keys
from engine.state.ring import Ring
from engine.state.session_users import SessionUsers
from engine.state.sessions import UNNAMED, Sessions
from engine.state.subjects import item_of, session_name, session_names, session_of, subject_key, subjects_of
from engine.state.table import Table

_NUMBERS = ("position", "events_folded", "duplicates", "forgotten", "evicted_users", "evicted_items", "evicted_targets")


@dataclass(frozen=True)
class SavedSlice:
    """A slice at rest, as `Slice.restore` takes it.

    Attributes:
        tables: the used rows of every table by name.
        users, items, targets: ids by row, None where a row is free.
        recent_ids: keys of the events in the window, oldest first, as `RecentIds` has them.
        numbers: position and counters by name.
        lists: free rows and blocks, and scales, by name.
        began: the first offset that was folded into it; 0 where a snapshot of an older version does not say.
    """

    tables: Mapping[str, Tensor]
    users: Sequence[str | None]
    items: Sequence[str | None]
    recent_ids: Sequence[str]
    numbers: Mapping[str, int]
    lists: Mapping[str, list[int]]
    targets: Sequence[str | None] = ()
    began: int = 0


class Slice:
    """The state of one partition.

    Args:
        max_users: users and anonymous sessions it may hold; the longest idle make room.

    Attributes:
        anonymous: rows of the anonymous sessions by session_name, as the links of `sessions` have it.
        position: the next offset to fold; a record below it is a redelivery.
        began: the first offset that was folded: the log before it is not in here.
    """

    def __init__(self, config: StateConfig, events: EventsConfig, max_users: int) -> None:
        self.users = Nodes(max_users)  # by subject_key
        self.items = Nodes(config.max_items)
        self.graph = Graph.empty(
            config.history,
            config.neighbors,
            max_users,
            config.max_items,
            users_generation=self.users.generation,
            items_generation=self.items.generation,
        )
        self.relations = Relations(config, self.users, self.items)
        self.sessions = Sessions(max_users, config.session_gap_s, items=self.items.generation)
        self.session_users = SessionUsers(max_users)
        self.popularity = DecayedCounts(config.max_items, config.half_lives_s)
        self.contributions = Contributions.of(config, events)
        self.recent_ids = RecentIds(config.duplicates_window)
        self.anonymous: dict[int, int] = {}  # session_name -> row of the anonymous session
        self.position = 0
        self.began = 0
        self._clock = Clock(events.max_future_s)
        self.events_folded = 0
        self.redelivered = 0  # says nothing of the log, so it is not saved
        self.duplicates = 0
        self.forgotten = 0
        self.evicted_users = 0
        self.evicted_items = 0
        self.evicted_targets = 0
        rings = (self.graph.user_items, self.graph.item_users, self.graph.item_next)
        written = [table for ring in rings for table, _ in ring.used(0).values()]
        self._written = [*written, self.users.seen, self.items.seen, self.sessions.table, self.popularity.table]

    @property
    def newest_ms(self) -> int:
        """The clock: the latest time that events have shown, see `Clock`; 0 before the first."""
        return self._clock.now_ms

    def tables(self) -> dict[str, tuple[Table, int]]:
        """Every table by name, with how many of its rows matter."""
        users, items = self.users.rows, self.items.rows
        graph = self.graph
        rings = {"user_items": (graph.user_items, users), "item_users": (graph.item_users, items)}
        rings |= {"item_next": (graph.item_next, items)} | self.relations.rings()
        found = {f"{name}.{key}": table for name, (ring, n) in rings.items() for key, table in ring.used(n).items()}
        return found | {
            "users.generation": (self.users.generation, users),
            "users.seen": (self.users.seen, users),
            "items.generation": (self.items.generation, items),
            "items.seen": (self.items.seen, items),
            "sessions": (self.sessions.table, users),
            "session_users": (self.session_users.table, self.session_users.rows),
            "popularity": (self.popularity.table, items),
            "contributions": (self.contributions.table, self.contributions.rows),
            "contributions.sums": (self.contributions.sums, self.contributions.rows),
            **self.relations.tables(),
        }

    def save(
        self,
        tables: Mapping[str, Tensor],
        users: Sequence[str | None],
        items: Sequence[str | None],
        targets: Sequence[str | None],
    ) -> SavedSlice:
        """All that the slice is made of, given copies of its tables and ids as they are now."""
        return SavedSlice(
            tables=tables,
            users=users,
            items=items,
            recent_ids=self.recent_ids.ordered(),
            numbers={name: getattr(self, name) for name in _NUMBERS} | self._clock.saved(),
            lists={
                "users.free": list(self.users.free),
                "items.free": list(self.items.free),
                "targets.free": list(self.relations.targets.free),
                "landmark": self.popularity.landmarks.tolist(),
            }
            | {f"{name}.free": ring.free.tolist() for name, ring in self._rings().items()}
            | {f"{name}.blocks": [ring.blocks] for name, ring in self._rings().items()},
            targets=targets,
            began=self.began,
        )

    def restore(self, saved: SavedSlice) -> None:
        """Makes an empty slice what `saved` says."""
        self.began = saved.began
        lists = saved.lists
        self.users.restore(saved.users, lists["users.free"])
        self.items.restore(saved.items, lists["items.free"])
        self.relations.targets.restore(saved.targets, lists["targets.free"])
        for name, ring in self._rings().items():
            ring.restore(lists[f"{name}.blocks"][0], np.array(lists[f"{name}.free"], np.int64))
        for name, (table, _) in self.tables().items():
            values = saved.tables[name]
            table.data[: len(values)] = values
        self.session_users.restore(len(saved.tables["session_users"]))
        self.contributions.restore(len(saved.tables["contributions"]))
        self.popularity.restore(lists["landmark"], self.items.rows)
        self.recent_ids.restore(saved.recent_ids)
        for name in _NUMBERS:
            setattr(self, name, saved.numbers[name])
        self._clock.restore(saved.numbers)
        self._note_anonymous(range(self.users.rows))

    def _rings(self) -> dict[str, Ring]:
        rings = {name: getattr(self.graph, name) for name in ("user_items", "item_users", "item_next")}
        return rings | {name: ring for name, (ring, _) in self.relations.rings().items()}

    def fold(self, events: EventBatch, position: int) -> SliceFolded:
        """Folds this partition's part of a batch, in offset order.

        Args:
            position: the next offset after the records that the events came from.
        """
        whose = digests(subjects_of(events))
        at = self._fresh(events, whose)
        parts: list[Part] = []
        gone = Gone()
        for first, last in runs_of(events.forget[at]):
            if last is None:
                self._forget(subject_key(events.user_id[at[first]], events.session_id[at[first]]), gone)
                gone.forgot.append(at[first : first + 1])
                continue
            while first < last:
                part = at[first:last]
                run = events if len(part) == len(events) else events.select(part)
                if run.has_relations:
                    count, at_events, folded = self._fold_mixed(run, gone)
                    gone.relation.append(part[np.delete(np.arange(count), at_events)])
                    parts.append((part[at_events], *folded))
                    first += count
                    continue
                folded = self._fold_part(run, whose[part], gone)
                parts.append((part[: len(folded[0])], *folded))
                first += len(folded[0])
        self.position = max(self.position, position, int(events.offset.max(initial=-1)) + 1)
        return SliceFolded(*joined_columns(parts), *gone.columns())

    def _fresh(self, events: EventBatch, whose: NDArray[np.int64]) -> NDArray[np.int64]:
        """Positions of the events that are neither redelivered records nor a producer's repeats.

        Args:
            whose: [E, 2] digests of the events' subjects.
        """
        # Redelivered is also what a batch itself has had before.
        at = np.empty(len(events), np.int64)
        at = at[: find_rising(events.offset, self.position - 1, at)]
        ids = events.event_id
        if len(at) < len(events):
            ids, whose = [*map(ids.__getitem__, at.tolist())], whose[at]
        fresh = self.recent_ids.fresh(repeat_keys(ids, whose))
        kept = at if fresh is None else at[np.array(fresh, dtype=np.int64)]
        self.redelivered += len(events) - len(at)
        self.duplicates += len(at) - len(kept)
        return kept

    def _fold_part(self, events: EventBatch, whose: NDArray[np.int64], gone: Gone) -> Inserted:
        """Folds as many events from the first on as there is room for; makes room where there is none for the first.

        Args:
            whose: [E, 2] digests of the events' subjects.
        """
        user, new_users = self.users.find_digests(whose)
        item, new_items = self.items.find_digests(digests(events.item_id))
        if new_users or new_items:
            subjects = subjects_of(events)
            room = self._room(subjects, user, events.item_id, item)
            if room == 0:
                self._make_room(subjects[0], events.item_id[0], gone)
                return self._fold_part(events, whose, gone)
            if room < len(events):
                events, subjects, user, item = events.select(slice(0, room)), subjects[:room], user[:room], item[:room]
            self._note_anonymous(self.users.add(subjects, user))
            self.items.add(events.item_id, item)
        return self._insert(events, user, item)

    def _fold_mixed(self, events: EventBatch, gone: Gone) -> tuple[int, Rows, Inserted]:
        """`_fold_part` where some events are relations; also returns how many it folded, and which are none of these.

        Relations and other events touch nothing in common but rows and when these were seen. So where there is room for
        all, their order among each other doesn't matter.
        """
        subjects = ["" if item_of(subject) else subject for subject in subjects_of(events)]
        targets = target_keys(events)
        users = Mentions.of(self.users, subjects, events.ends)
        items = Mentions.of(self.items, events.item_id, events.ends)
        others = Mentions.of(self.relations.targets, targets, events.ends)
        count = min(one.room() for one in (users, items, others))
        if count == 0:
            self._make_room(subjects[0], events.item_id[0], gone, targets[0])
            return self._fold_mixed(events, gone)
        self._note_anonymous(users.add(count))
        items.add(count)
        others.add(count)
        related = np.array([target != "" for target in targets[:count]], dtype=np.bool_)
        plain, relations = np.flatnonzero(~related), np.flatnonzero(related)
        user, item = users.rows, items.rows
        folded = NO_EVENTS[1:]
        if len(plain):
            folded = self._insert(events.select(plain), user[plain], item[plain])
        self.relations.fold(events.select(relations), user[relations], item[relations], others.rows[relations])
        self.events_folded += len(relations)
        offset = torch.from_numpy(events.offset[:count]) + 1
        for one in (users, items, others):
            one.see(offset)
        for rows, changed in ((user[relations], gone.related_users), (item[relations], gone.related_items)):
            changed.append(rows[rows >= 0])
        return count, plain, folded

    def _note_anonymous(self, rows: Iterable[int]) -> None:
        for row in rows:
            session_id = session_of(self.users.id_of(row) or "")
            if session_id:
                self.anonymous[session_name(session_id)] = row

    def _insert(self, events: EventBatch, user: Rows, item: Rows) -> Inserted:
        """Folds events whose rows are known; returns user, item, previous and ordinal of each."""
        now_ms, counted_ms = self._clock.now_ms, self._clock.read(events.time_ms)
        graph, said = self.graph, (events.time_ms, counted_ms, events.kind, events.offset)
        weight = self.contributions.count(graph, user, item, *said, now_ms)
        names = session_names(events.session_id)
        copied = [table for table in self._written if table.copying is not None]
        if not copied and not self.popularity.moves(int(counted_ms.max())):
            previous: Rows = np.empty(len(user), np.int64)
            ordinal: Ordinals = np.empty(len(user), np.int32)
            taken = fold_events(
                graph.user_items.arrays(), graph.item_users.arrays(), graph.item_next.arrays(),
                self.sessions.table.array, self.items.generation.array, self.sessions.gap_ms, UNNAMED,
                *self.popularity.arrays(), weight, self.users.seen.array, self.items.seen.array,
                user, item, names, events.time_ms, counted_ms, events.kind, events.value, events.offset, ordinal,
                previous,
            )  # fmt: skip
            for ring, blocks in zip((graph.user_items, graph.item_users, graph.item_next), taken, strict=True):
                ring.took(blocks)
            self.popularity.grow(self.items.rows)
        else:
            previous, ordinal = self._insert_noted(events, user, item, names, counted_ms, weight)
        self.session_users.note(events.user_id, self.users, user, names, previous, events.offset)
        self.events_folded += len(events)
        return user, item, previous, ordinal

    def _insert_noted(
        self, events: EventBatch, user: Rows, item: Rows, names: Rows, counted_ms: Rows, counted: Doubles
    ) -> tuple[Rows, Ordinals]:
        """What `fold_events` does, structure by structure: each tells its copy what is about to be written."""
        users, items = torch.from_numpy(user), torch.from_numpy(item)
        time_ms, kind = torch.from_numpy(events.time_ms), torch.from_numpy(events.kind)
        weight = torch.from_numpy(events.value)
        sessioned = self.sessions.fold(users, torch.from_numpy(names), items, time_ms)
        self.graph.insert(users, items, sessioned.previous, time_ms, kind, weight, sessioned.ordinal)
        offset = torch.from_numpy(events.offset) + 1
        self.users.see(users, offset)
        self.items.see(items, offset)
        self.popularity.fold(item, counted_ms, counted)
        return sessioned.previous.numpy(), sessioned.ordinal.numpy()

    def _room(
        self, subjects: Sequence[str], user: NDArray[np.int64], item_ids: Sequence[str], item: NDArray[np.int64]
    ) -> int:
        """How many events from the first on have rows, or can get them."""
        free_users, free_items = self.users.limit - len(self.users), self.items.limit - len(self.items)
        lacking = np.flatnonzero((user < 0) | (item < 0)).tolist()
        if len(lacking) <= min(free_users, free_items):
            return len(subjects)
        new_users: set[str] = set()
        new_items: set[str] = set()
        for at in lacking:
            if user[at] < 0:
                new_users.add(subjects[at])
            if item[at] < 0:
                new_items.add(item_ids[at])
            if len(new_users) > free_users or len(new_items) > free_items:
                return at
        return len(subjects)

    def _make_room(self, subject: str, item_id: str, gone: Gone, target: str = "") -> None:
        """Takes back the rows of the longest idle, where the next event needs one and there is none."""
        if self.relations.targets.lacks_room_for(target):
            self.evicted_targets += len(self.relations.evict())
        if self.users.lacks_room_for(subject):
            rows = self.users.longest_idle()
            self._remove_users(rows)
            self.evicted_users += len(rows)
            gone.users.append(rows.numpy())
        if self.items.lacks_room_for(item_id):
            rows = self.items.longest_idle()
            gone.stale_users.append(self.graph.user_items.naming(rows).numpy())
            gone.stale_items.append(self.graph.item_next.naming(rows).numpy())
            self.graph.item_users.clear(rows)
            self.graph.item_next.clear(rows)
            self.relations.item_entities.clear(rows)
            self.popularity.clear(rows)
            self.contributions.forget_items(rows.numpy())
            self.items.remove(rows)
            self.evicted_items += len(rows)
            gone.items.append(rows.numpy())

    def _forget(self, subject: str, gone: Gone) -> None:
        """Removes every trace of one subject; counts without a name, such as popularity, stay."""
        was_target = not session_of(subject) and self.relations.forget(subject)
        self.session_users.forget(int(digests([subject])[0, 0]))
        row = self.users.get(subject)
        self.forgotten += was_target or row is not None
        if row is None:
            return
        rows = torch.tensor([row])
        gone.users.append(rows.numpy())
        gone.stale_items.append(self.graph.item_users.naming(rows).numpy())
        self.graph.item_users.scrub(row)
        self._remove_users(rows)

    def _remove_users(self, rows: Tensor) -> None:
        self.graph.user_items.clear(rows)
        self.relations.user_users.clear(rows)
        self.sessions.table.clear(rows)
        self.contributions.forget_users(rows.numpy())
        for subject in self.users.remove(rows):
            if session_id := session_of(subject):
                self.anonymous.pop(session_name(session_id), None)
