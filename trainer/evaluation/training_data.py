"""A file's log as a training takes it, from the part of it that may be learned from.

Shapes: E events, N items.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from engine.state.catalog import Catalog
from trainer.config import TrainerConfig
from trainer.data.event_times import ends_together
from trainer.data.log import Events, Ints
from trainer.replay import EventLog, TrainingData


def training_data(
    columns: EventLog, events: Events, train: Ints, config: TrainerConfig, catalog: Catalog | None, *, by_session: bool
) -> TrainingData:
    """The events at positions `train` of `columns`, and all items.

    Args:
        columns: see `columns_of`.
        catalog: what is known of the items, by their numbers.
        by_session: whether sessions stand for users.
    """
    at = torch.from_numpy(train)
    at = at[columns.time_ms[at].sort(stable=True).indices]
    log = EventLog(*(column[at] for column in vars(columns).values()))
    owners = len(events.sessions if by_session else events.users)
    weight = np.array([config.events.kinds.get(name, 1.0) for name in kinds_of(events, config)])
    data = TrainingData.without_catalog(log, owners, events.items, weight, config.state, config.ranking)
    if catalog is None:
        return replace(data, content=torch.zeros(len(events.items), config.state.content_dim))
    return replace(data, content=catalog.contents(), group=catalog.group)


def kinds_of(events: Events, config: TrainerConfig) -> list[str]:
    """The kinds by the numbers that a model knows them by: those of `events.kinds`, and then any others of the file."""
    return list(dict.fromkeys((*config.events.kinds, *events.kinds)))


def columns_of(events: Events, config: TrainerConfig, *, by_session: bool) -> EventLog:
    """All events as the model reads them; an order is taken for minutes, with the last of everybody's together."""
    who = events.session if by_session else events.user
    time = events.time * 1000.0 if events.timed else ends_together(who, events.time) * 60_000.0
    time_ms = time.astype(np.int64)
    gap_ms = np.inf if events.names_sessions else 1000 * config.state.session_gap_s
    ordinal, goes_on = ordinals(who, events.session, time_ms, gap_ms)
    number = {name: at for at, name in enumerate(kinds_of(events, config))}
    kind = np.array([number[name] for name in events.kinds], np.int64)[events.kind]
    order = np.argsort(who, kind="stable")
    previous = np.full(len(who), -1)
    previous[order[1:]] = np.where(goes_on[order[1:]], events.item[order[:-1]], -1)
    return EventLog(
        user=torch.from_numpy(who),
        item=torch.from_numpy(events.item),
        time_ms=torch.from_numpy(time_ms),
        kind=torch.from_numpy(kind),
        value=torch.from_numpy(events.value),
        session=torch.from_numpy(ordinal),
        previous=torch.from_numpy(previous),
    )


def ordinals(who: Ints, session: Ints, time_ms: Ints, gap_ms: float) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """[E] which of its owner's sessions each event is in, from 1, and whether it goes on with the one before.

    A session that is come back to counts anew.
    """
    order = np.argsort(who, kind="stable")
    owner, named, time = who[order], session[order], time_ms[order]
    first = np.r_[True, owner[1:] != owner[:-1]][: len(who)]
    new = first | np.r_[True, (named[1:] != named[:-1]) | (np.diff(time) > gap_ms)][: len(who)]
    starts = new.cumsum()
    ordinal, goes_on = np.empty(len(who), np.int32), np.empty(len(who), np.bool_)
    ordinal[order] = starts - np.maximum.accumulate(np.where(first, starts, 0)) + 1
    goes_on[order] = ~new
    return ordinal, goes_on
