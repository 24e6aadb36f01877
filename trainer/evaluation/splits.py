"""The protocols: what may be learned from, and what is asked afterwards.

Every protocol takes `most`: of more questions than that, a sample evenly spaced over the log, the same in every run.

Shapes: E events, Q questions, T events to train on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trainer.data.log import Events, Ints, Questions, Split
from trainer.evaluation.cold import held_out

LEAVE_ONE_OUT = "leave-one-out"
SESSIONS = "sessions"
SUCCESSIVE = "successive"
PREQUENTIAL = "prequential"

_FEWEST = 3  # events of a user who is asked about: one to learn from, one to validate on and one to test on
_VALIDATION_SHARE = 0.1
_CHUNK = 1 << 16


def leave_one_out(events: Events, *, validation: bool = False, most: int | None = None) -> Split:
    """The last event of each user with at least three, from all those before it.

    Training sees all but the last two. With `validation` the last but one is asked. Users with fewer events are only
    trained on. An item that the user had before can't be answered, since items of the history are filtered.
    """
    order, start, stop = _by(events.user)
    asked = stop - start >= _FEWEST
    cut = stop[asked] - (2 if validation else 1)
    hidden = np.concatenate([order[stop[asked] - 1], order[stop[asked] - 2]])
    train = np.ones(len(events), np.bool_)
    train[hidden] = False
    questions = Questions(order, start[asked], cut, cut + 1)
    return _split(events, LEAVE_ONE_OUT, train, questions, {"validation": validation, "most": most}, filter_seen=True)


def sessions(events: Events, *, validation: bool = False, most: int | None = None) -> Split:
    """Each event but the first of each test session, from those of the session before it.

    With `validation` the test sessions are left aside, and the tenth of the training sessions that ended last is
    asked about and no longer trained on.
    """
    if events.test is None:
        raise ValueError("the protocol sessions needs a column split that says train or test, got none")
    order, start, stop = _by(events.session)
    in_test = np.add.reduceat(events.test[order], start, dtype=np.int64)
    mixed = np.flatnonzero((in_test > 0) & (in_test < stop - start))
    if len(mixed):
        name = events.sessions[events.session[order[start[mixed[0]]]]]
        raise ValueError(f"split must be the same for all events of a session, got train and test in {name!r}")
    asked = in_test > 0
    train = ~events.test
    if validation:
        old = np.flatnonzero(~asked)
        if len(old) < 2:
            raise ValueError(f"validation needs at least 2 training sessions, got {len(old)}")
        newest = old[np.argsort(order[stop[old] - 1])][-max(1, round(_VALIDATION_SHARE * len(old))) :]
        asked = np.zeros(len(start), np.bool_)
        asked[newest] = True
        train[order[np.repeat(asked, stop - start)]] = False
    first = np.repeat(start, stop - start)  # [E] by place in `order`, as is `cut`
    cut = np.arange(len(events))
    chosen = np.repeat(asked, stop - start) & (cut > first)
    questions = Questions(order, first[chosen], cut[chosen], cut[chosen] + 1)
    return _split(events, SESSIONS, train, questions, {"validation": validation, "most": most}, filter_seen=False)


def successive(events: Events, *, quantile: float = 0.9, validation: bool = False, most: int | None = None) -> Split:
    """Every event after the quantile of the log, from all that its user did before, after the quantile included.

    Events of equal time fall on the same side, the later. Users without a history are not asked about. Where the log
    has real times, the events of one user, session and time are one question: their order says nothing. With
    `validation` the same is done with what would be trained on.
    """
    questions, train = _after(events, quantile, baskets=events.timed, validation=validation)
    parameters = {"quantile": quantile, "most": most} | ({"validation": True} if validation else {})
    return _split(events, SUCCESSIVE, train, questions, parameters, filter_seen=False)


def prequential(events: Events, *, share: float = 0.1, validation: bool = False, most: int | None = None) -> Split:
    """Each basket of the last share of the log, as a set, from all that its user did before.

    A basket is a run of events of one user, session and time. Otherwise as `successive`.
    """
    questions, train = _after(events, 1 - share, baskets=True, validation=validation)
    parameters = {"share": share, "most": most} | ({"validation": True} if validation else {})
    return _split(events, PREQUENTIAL, train, questions, parameters, filter_seen=False)


def hold_out_items(events: Events, split: Split, *, share: float, most: int | None = None) -> Split:
    """The same without the training events of a share of the items, asking only where a target is cold then.

    Cold is an item without a training event: one that is held out, or that had none anyway. Histories stay as they are.
    """
    train = np.zeros(len(events), np.bool_)
    train[split.train] = True
    train &= ~held_out(events.items, share)[events.item]
    if not train.any():
        raise ValueError(f"cold share must leave something to train on, got {share}")
    cold = np.bincount(events.item[train], minlength=len(events.items)) == 0  # [N]
    asked = split.questions
    before = np.concatenate([[0], np.cumsum(cold[events.item[asked.order]])])  # [E + 1] cold events by place
    chosen = before[asked.end] > before[asked.cut]
    parameters = {"cold_share": share, "most": most}
    return _split(
        events, split.protocol, train, asked.select(np.flatnonzero(chosen)), parameters, filter_seen=split.filter_seen
    )


def goes_on(split: Split) -> bool:
    """Whether the log goes on between the questions, so that a scorer may observe it."""
    return split.protocol in (SUCCESSIVE, PREQUENTIAL)


def ties(events: Events, split: Split) -> str:
    """The rules for events of equal time and for items of equal score, in words, for whoever compares figures."""
    asked = "asked in one where user and session are equal, too" if _asks_baskets(events, split) else "asked one by one"
    return f"events of equal time stand as in the file, {asked}; of equal scores the log's earlier item goes first"


def check_no_leak(events: Events, split: Split) -> None:
    """Raises ValueError where a question could see its answer, or training an event that is asked about."""
    asked, order = split.questions, split.questions.order
    _refuse(asked.first < 0, "history must begin in the log")
    _refuse((asked.cut < asked.first) | (asked.end <= asked.cut), "history must end before at least one target")
    _refuse(asked.end > len(order), "targets must end in the log")
    # Rising positions put the whole history before the whole answer. Breaks are counted, so that all questions are
    # checked at the cost of one pass, however long their histories are.
    _refuse(_breaks(order[1:] <= order[:-1], asked), "history must lie before the targets in the log")
    who = (events.session if split.protocol == SESSIONS else events.user)[order]
    _refuse(_breaks(who[1:] != who[:-1], asked), "history and targets must be of one user or session")
    if not len(asked):
        return
    target = order[asked.cut]  # [Q] the first of each
    if _asks_baskets(events, split):
        same = np.zeros(len(order), np.bool_)
        same[1:] = _same_basket(events, order)
        _refuse(same[asked.cut] & (asked.cut > asked.first), "history must hold nothing of the basket asked about")
    key = events.session if split.protocol == SESSIONS else events.user
    earliest = np.full(int(key.max()) + 1, len(events))  # by who asks: the first position that is asked about
    np.minimum.at(earliest, key[target], order[asked.first] if split.protocol == SESSIONS else target)
    leaked = split.train[split.train >= earliest[key[split.train]]]
    if len(leaked):
        raise ValueError(f"training must not see what is asked about, got position {leaked[0]} of the log")
    if goes_on(split):
        late = split.train[events.time[split.train] >= events.time[target].min()]
        if len(late):
            raise ValueError(f"training must end before the first question, got position {late[0]} of the log")


def _asks_baskets(events: Events, split: Split) -> bool:
    return split.protocol == PREQUENTIAL or (split.protocol == SUCCESSIVE and events.timed)


def _after(events: Events, quantile: float, *, baskets: bool, validation: bool) -> tuple[Questions, NDArray[np.bool_]]:
    """Questions about all that comes after the quantile of the log, and what lies before it [E]."""
    if not 0 < quantile < 1:
        raise ValueError(f"the part of the log to train on must be above 0 and below 1, got {quantile}")
    boundary = last = len(events)
    for _ in range(2 if validation else 1):
        last, place = boundary, min(round(quantile * boundary), boundary - 1)
        boundary = int(np.searchsorted(events.time, events.time[place]))
        if not boundary:
            raise ValueError(
                f"training must have an event, got none: the first {quantile:.0%} of the log are of one time"
            )
    order, start, stop = _by(events.user)
    begins = np.ones(len(events), np.bool_)  # by place in `order`: whether a question may begin here
    if baskets:
        begins[1:] = ~_same_basket(events, order)
    cut = np.flatnonzero(begins)
    end = np.append(cut[1:], len(events))
    first = np.repeat(start, stop - start)[cut]
    chosen = (order[cut] >= boundary) & (order[cut] < last) & (cut > first)
    return Questions(order, first[chosen], cut[chosen], end[chosen]), np.arange(len(events)) < boundary


def _same_basket(events: Events, order: Ints) -> NDArray[np.bool_]:
    """[E - 1] whether each event but the first, by `order`, is of the basket of the one before it."""
    before, after = order[:-1], order[1:]
    same = (events.user[before] == events.user[after]) & (events.session[before] == events.session[after])
    return same & (events.time[before] == events.time[after])


def _by(who: Ints) -> tuple[Ints, Ints, Ints]:
    """Positions by `who` and then log order [E], and the places where each one's begin and end."""
    order = np.argsort(who, kind="stable")
    ordered = who[order]
    start = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])[: len(who)])
    return order, start, np.append(start[1:], len(who))


def _breaks(broken: NDArray[np.bool_], asked: Questions) -> NDArray[np.bool_]:
    """[Q] whether any neighbors [E - 1] between the first of the history and the last target are broken."""
    count = np.concatenate([[0], np.cumsum(broken)])
    return np.asarray(count[asked.end - 1] > count[asked.first])


def _refuse(wrong: NDArray[np.bool_], rule: str) -> None:
    at = np.flatnonzero(wrong)
    if len(at):
        raise ValueError(f"{rule}, got question {at[0]}")


def _split(
    events: Events,
    protocol: str,
    train: NDArray[np.bool_],
    questions: Questions,
    parameters: dict[str, float | None],
    *,
    filter_seen: bool,
) -> Split:
    questions = questions.select(np.argsort(questions.order[questions.cut], kind="stable"))
    most = parameters["most"]
    if most is not None:
        if most < 1:
            raise ValueError(f"most must be >= 1, got {most}")
        kept = min(int(most), len(questions))
        questions = questions.select(np.arange(kept) * len(questions) // max(1, kept))
    positions = np.flatnonzero(train)
    named = f"{protocol} {sorted(parameters.items())} filter_seen={filter_seen}"
    return Split(protocol, positions, questions, filter_seen, _digest(events, named, positions, questions))


def _digest(events: Events, named: str, train: Ints, questions: Questions) -> str:
    """SHA-256 of ids and times, not of numbers: another numbering of the same data is the same split."""
    total = hashlib.sha256(named.encode())
    names = [(events.user, _digests(events.users)), (events.session, _digests(events.sessions))]
    names.append((events.item, _digests(events.items)))
    length = questions.end - questions.cut
    offset = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
    targets = questions.order[np.repeat(questions.cut, length) + offset]
    for positions in (train, targets):
        total.update(len(positions).to_bytes(8, "little"))
        for begin in range(0, len(positions), _CHUNK):  # in parts: all at once would be 100 MB and more
            part = positions[begin : begin + _CHUNK]
            for number, digests in names:
                total.update(digests[number[part]].tobytes())
            total.update(events.time[part].astype("<f8").tobytes())
    for size in (questions.cut - questions.first, length):
        total.update(size.astype("<i8").tobytes())
    return total.hexdigest()


def _digests(ids: Sequence[str]) -> NDArray[np.uint8]:
    """[ids, 16] of each id, so that events of ids of any length are hashed as arrays."""
    each = b"".join(hashlib.blake2b(name.encode(), digest_size=16).digest() for name in ids)
    return np.frombuffer(each, np.uint8).reshape(-1, 16)
