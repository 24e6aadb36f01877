"""The table of features: what a user's own history says of each candidate, and what everybody's says.

One pass over the history and one over the candidates, compiled: a call costs O(K + C) for each user, without a sort.

Shapes: B users, C candidates of each, K remembered events, S latest items, n next items of each, N items.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.features.live import Askers
from engine.features.votes import VOTES
from engine.kernel_cache import record
from engine.numeric.elementary import log
from engine.state.kernels import compiled

TRENDS = 2  # half-lives of popularity beside the first
LATEST = 3  # last events that are told apart
HABITS = 3  # what a model knows of how an item is had again
CROWD = 100.0  # events of one's own that all of popularity weighs as much as, where habits are mixed with it
_DAY_MS = 86_400_000.0
_HOUR_MS = 3_600_000.0
_MOST_TREND = 1000.0
_TINY = float(np.finfo(np.float64).tiny)
_NEAR_H = 2.0  # hours of the day
_NO_GROUP = -1

Longs = NDArray[np.int64]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


class Feature(IntEnum):
    """The columns of the table. A model learns weights for them by number: another order is another model.

    Own events are those of the user's history that are of the candidate, and kin those of items of the same categories.
    Times are told from the newest event that the state knows of, of whomever.
    """

    POPULARITY = 0  # share of decayed popularity
    COUNT = 1  # own events
    HAD = 2  # whether there are any
    HAD_NOW = 3  # whether there are any in the current session
    SESSIONS_SINCE = 4  # from the last own event
    TIME_SINCE = 5  # from the last own event
    INTERVAL = 6  # mean time between own events
    DUE = 7  # how much later than usual the next own event is
    PER_SESSION = 8  # own events
    FADING_4_SESSIONS = 9  # own events, each halved in so many sessions
    FADING_16_SESSIONS = 10
    FADING_14_DAYS = 11  # own events, each halved in so much time
    FOLLOWS = 12  # how often the item lately followed one of the latest
    SESSION_LENGTH = 13  # events of the current session
    SESSIONS = 14  # of the history
    REPEATS = 15  # share of the events of all candidates in the history that were not the first of their item
    TIME_SINCE_FIRST = 16  # from the first own event
    HABIT_ANDCROWD = 17  # own events, halved in 60 days, and popularity
    COUNT_ANDCROWD = 18  # own events and popularity
    PACE_ANDCROWD = 19  # own events by session, halved in 16 of them, and popularity
    HOUR_ANDCROWD = 20  # own events at this hour of the day, and popularity
    WEEKDAY_ANDCROWD = 21  # own events on this day of the week, and popularity
    AWAY = 22  # time from the user's last event
    EVENTS_PER_SESSION = 23  # of the history
    KIN_FADING = 24  # kin, halved in 60 days
    KIN_PER_SESSION = 25  # share of the sessions with kin
    KIN_TIME_SINCE = 26  # from the last of kin
    SHARE_OF_KIN = 27  # own events among kin, both halved in 60 days
    KIN_INTERVAL = 28  # mean time between sessions with kin
    KIN_DUE = 29  # how much later than usual the next of kin is
    TREND_MIDDLE = 30  # popularity under the second half-life, relative to the popular items
    TREND_SHORT = 31  # the same under the third
    LAST = 32  # whether the item is that of the last event
    LAST_BUT_ONE = 33
    LAST_BUT_TWO = 34
    VOTE = 35  # the first of the ways of `count_votes`, each a share of the votes
    VOTE_FRESH = 36
    VOTE_NEAR = 37
    VOTE_AFTER = 38
    VOTE_NEAR_FRESH = 39
    VOTE_NEXT = 40
    VOTE_FOLLOWING = 41
    HABIT_LATER = 42  # the first of `Recommender.habit`: how often the item is had again in a later session
    HABIT_AT_ONCE = 43  # how often in the same session
    HABIT_TIME = 44  # after how long


FEATURES = len(Feature)


@record("i8[:,::1]", "f8[:,::1]", "f4[:,:,::1]", "f4[:,:,::1]", "f4[:,:,::1]")
class Crowd(NamedTuple):
    """What everybody's events say of candidates.

    Attributes:
        following: [B, S * n] items that lately followed the user's last S items, -1 where none.
        share: [B, C] float64 each candidate's share of decayed popularity.
        trend: [B, C, TRENDS] float32 the same under shorter half-lives, relative to the popular items.
        votes: [B, C, VOTES] float32, see `count_votes`.
        habit: [B, C, HABITS] float32 what the model's training saw of each item, see `Recommender.habit`.
    """

    following: Longs
    share: Doubles
    trend: Floats
    votes: Floats
    habit: Floats


@compiled("f4(f8, f8)")
def trend_of(count: float, popular: float) -> Any:
    """A decayed count relative to that of all popular items together.

    Where the popular items have no events lately, and others have some, it stays finite.
    """
    return np.float32(min(count / max(popular, _TINY), _MOST_TREND))


def _scales() -> NDArray[np.float32]:
    """[3, FEATURES] what is added to each feature before its logarithm is taken, by what that is multiplied, and what
    is added then; where it is multiplied by 0, no logarithm is taken."""
    scales = np.zeros((3, FEATURES), np.float32)
    scales[0] = 1.0
    of_one = (
        (1.0, Feature.COUNT, Feature.FADING_4_SESSIONS, Feature.FADING_16_SESSIONS, Feature.FADING_14_DAYS,
         Feature.FOLLOWS, Feature.KIN_FADING),
        (1 / 3, Feature.SESSIONS_SINCE),
        (1 / 4, Feature.TIME_SINCE, Feature.TIME_SINCE_FIRST, Feature.INTERVAL, Feature.SESSION_LENGTH,
         Feature.SESSIONS, Feature.AWAY, Feature.EVENTS_PER_SESSION, Feature.KIN_TIME_SINCE, Feature.KIN_INTERVAL),
    )  # fmt: skip
    for factor, *columns in of_one:
        scales[1, columns] = factor
    scales[:, Feature.POPULARITY] = 1e-7, 1 / 8, 1.0
    scales[:, [Feature.HABIT_ANDCROWD, Feature.COUNT_ANDCROWD]] = [[1e-4], [1 / 4], [0.0]]
    scales[:, [Feature.HOUR_ANDCROWD, Feature.WEEKDAY_ANDCROWD]] = [[1e-3], [1 / 4], [0.0]]
    scales[:, Feature.PACE_ANDCROWD] = 1e-5, 1 / 4, 1.0
    scales[:, [Feature.TREND_MIDDLE, Feature.TREND_SHORT]] = [[1e-5], [1 / 6], [1.0]]
    scales[:, Feature.VOTE : Feature.VOTE + VOTES] = [[1e-4], [1 / 4], [1.0]]
    return scales


_SCALES = _scales()


@compiled("void(f4[::1])", fused=True)
def _take_logarithms(out: Floats) -> None:
    """Of one candidate's counts, shares and times [FEATURES], all at once."""
    for f in range(len(out)):
        logarithm = log(out[f] + _SCALES[0, f]) * _SCALES[1, f] + _SCALES[2, f]
        out[f] = logarithm if _SCALES[1, f] != 0.0 else out[f]


@compiled("f8(f8, f8)")
def _due(since: float, interval: float) -> float:
    """Above 0: later than usual."""
    return float(min(4.0, max(-4.0, np.log((since + 1.0) / (interval + 1.0)))))


@compiled("f4[:,:,::1](i8[:,::1], Askers, Crowd, i8[:])")
def features_of(candidates: Longs, askers: Askers, crowd: Crowd, group: Longs) -> Floats:
    """[B, C, FEATURES] live features of candidates, each roughly within -2..2, from the state as it is at the call.

    Args:
        candidates: [B, C] item rows in any order, each once, -1 where there is none.
        group: [N] what stands for an item's categories; items of one number are alike, -1: none are.
    """
    row, time_ms, session, now_ms = askers.row, askers.time_ms, askers.session, askers.clock_ms
    following, share, trend, votes, habit = crowd
    users, width = candidates.shape
    made = np.zeros((users, width, FEATURES), np.float32)
    size = 4
    while size < 2 * width + 2:
        size *= 2
    mask = size - 1
    slot = np.empty(size, np.int32)  # 1 + place of the candidate, by a hash of its row
    kin_slot = np.empty(size, np.int32)  # 1 + place of a group, by a hash of its number
    kin_group = np.empty(width, np.int64)
    kin = np.empty(width, np.int64)  # [C] place of a candidate's group, -1 where it has none
    # By candidate; the last place takes what is no candidate.
    count = np.empty(width + 1)
    follows = np.empty(width + 1)
    nearest, newest, oldest = np.empty(width + 1), np.empty(width + 1), np.empty(width + 1)
    fade_4, fade_16 = np.empty(width + 1), np.empty(width + 1)  # half-lives in sessions
    fade_14d, fade_60d = np.empty(width + 1), np.empty(width + 1)
    at_hour, on_day = np.empty(width + 1), np.empty(width + 1)
    # By group.
    kin_count, kin_fade = np.empty(width + 1), np.empty(width + 1)
    kin_newest, kin_oldest, kin_session = np.empty(width + 1), np.empty(width + 1), np.empty(width + 1)
    for b in range(users):
        slot[:] = 0
        kin_slot[:] = 0
        groups = 0
        for c in range(width):
            kin[c] = -1
            item = candidates[b, c]
            if item < 0:
                continue
            at = item & mask
            while slot[at] != 0:
                at = (at + 1) & mask
            slot[at] = c + 1
            if group[item] == _NO_GROUP:
                continue
            at = group[item] & mask
            while kin_slot[at] != 0 and kin_group[kin_slot[at] - 1] != group[item]:
                at = (at + 1) & mask
            if kin_slot[at] == 0:
                kin_group[groups] = group[item]
                groups += 1
                kin_slot[at] = groups
            kin[c] = kin_slot[at] - 1
        for column in (count, follows, oldest, fade_4, fade_16, fade_14d, fade_60d, at_hour, on_day, kin_count):
            column[:] = 0.0
        for column in (kin_fade, kin_oldest):
            column[:] = 0.0
        for column in (nearest, newest, kin_newest):
            column[:] = np.inf
        kin_session[:] = -1.0

        last = row.shape[1] - 1
        events = 0
        current, end_ms = 0, 0
        if last >= 0 and row[b, last] >= 0:
            end = last
            while end > 0 and session[b, end] == 0 and row[b, end - 1] >= 0:  # A late event is of no session.
                end -= 1
            current, end_ms = session[b, end], time_ms[b, end]
        clock_ms = max(now_ms[b], end_ms)
        hour, day = (clock_ms / _HOUR_MS) % 24.0, (clock_ms // 86_400_000) % 7
        sessions, length = 1.0, 0.0
        was_session, was_ms = -1, -1
        ago, idle, since = 0.0, 0.0, 0.0
        by_4, by_16, by_14d, by_60d, by_hour, by_day = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        for k in range(last + 1):
            if row[b, k] < 0:
                continue
            if session[b, k] != was_session:
                was_session = session[b, k]
                ago = max(0.0, float(current - was_session)) if was_session > 0 else max(1.0, ago)
                by_4, by_16 = 2.0 ** (-ago / 4.0), 2.0 ** (-ago / 16.0)
            if time_ms[b, k] != was_ms:
                was_ms = time_ms[b, k]
                idle = max(0.0, float(end_ms - was_ms)) / _DAY_MS
                since = max(0.0, float(clock_ms - was_ms)) / _DAY_MS
                by_14d, by_60d = 2.0 ** (-idle / 14.0), 2.0 ** (-idle / 60.0)
                apart = abs((was_ms / _HOUR_MS) % 24.0 - hour)
                apart = min(apart, 24.0 - apart) / _NEAR_H
                by_hour = by_60d * np.exp(-apart * apart)
                by_day = by_60d if (was_ms // 86_400_000) % 7 == day else 0.0
            events += 1
            sessions = max(sessions, ago + 1.0)
            length += ago == 0.0
            at = row[b, k] & mask
            while slot[at] != 0 and candidates[b, slot[at] - 1] != row[b, k]:
                at = (at + 1) & mask
            if slot[at] != 0:
                c = slot[at] - 1
                count[c] += 1.0
                nearest[c] = min(nearest[c], ago)
                newest[c] = min(newest[c], since)
                oldest[c] = max(oldest[c], since)
                fade_4[c] += by_4
                fade_16[c] += by_16
                fade_14d[c] += by_14d
                fade_60d[c] += by_60d
                at_hour[c] += by_hour
                on_day[c] += by_day
            alike = group[row[b, k]]
            if alike == _NO_GROUP:
                continue
            at = alike & mask
            while kin_slot[at] != 0 and kin_group[kin_slot[at] - 1] != alike:
                at = (at + 1) & mask
            if kin_slot[at] != 0:
                g = kin_slot[at] - 1
                kin_fade[g] += by_60d
                kin_newest[g] = min(kin_newest[g], since)
                kin_oldest[g] = max(kin_oldest[g], since)
                if kin_session[g] != was_session:  # many of a kind in one session are one visit
                    kin_session[g] = was_session
                    kin_count[g] += 1.0
        for j in range(following.shape[1]):
            if following[b, j] >= 0:
                at = following[b, j] & mask
                while slot[at] != 0 and candidates[b, slot[at] - 1] != following[b, j]:
                    at = (at + 1) & mask
                follows[slot[at] - 1] += 1.0

        distinct, own = 0, 0.0
        for c in range(width):
            distinct += count[c] > 0
            own += count[c]
        repeats = 1.0 - distinct / own if own > 0.0 else 0.0
        away = max(0.0, float(clock_ms - end_ms)) / _DAY_MS if events else 0.0
        for c in range(width):
            if candidates[b, c] < 0:
                continue
            out = made[b, c]
            out[Feature.POPULARITY] = share[b, c]
            out[Feature.COUNT] = count[c]
            if count[c] > 0:
                out[Feature.HAD] = 1.0
                out[Feature.HAD_NOW] = nearest[c] == 0
                out[Feature.SESSIONS_SINCE] = nearest[c]
                out[Feature.TIME_SINCE] = newest[c]
                out[Feature.TIME_SINCE_FIRST] = oldest[c]
            if count[c] > 1:
                interval = (oldest[c] - newest[c]) / (count[c] - 1.0)  # days
                out[Feature.INTERVAL] = interval
                out[Feature.DUE] = _due(newest[c], interval)
            out[Feature.PER_SESSION] = count[c] / sessions
            out[Feature.FADING_4_SESSIONS] = fade_4[c]
            out[Feature.FADING_16_SESSIONS] = fade_16[c]
            out[Feature.FADING_14_DAYS] = fade_14d[c]
            out[Feature.FOLLOWS] = follows[c]
            out[Feature.SESSION_LENGTH] = length
            out[Feature.SESSIONS] = sessions
            out[Feature.REPEATS] = repeats
            out[Feature.HABIT_ANDCROWD] = fade_60d[c] + CROWD * share[b, c]
            out[Feature.COUNT_ANDCROWD] = count[c] + CROWD * share[b, c]
            out[Feature.PACE_ANDCROWD] = fade_16[c] / min(sessions, 23.0) + share[b, c]
            out[Feature.HOUR_ANDCROWD] = at_hour[c] + CROWD / 6.0 * share[b, c]
            out[Feature.WEEKDAY_ANDCROWD] = on_day[c] + CROWD / 7.0 * share[b, c]
            out[Feature.AWAY] = away
            out[Feature.EVENTS_PER_SESSION] = events / sessions
            if kin[c] >= 0:
                g = kin[c]
                out[Feature.KIN_FADING] = kin_fade[g]
                out[Feature.KIN_PER_SESSION] = kin_count[g] / sessions
                if kin_count[g] > 0:
                    out[Feature.KIN_TIME_SINCE] = kin_newest[g]
                    out[Feature.SHARE_OF_KIN] = fade_60d[c] / kin_fade[g]
                if kin_count[g] > 1:
                    interval = (kin_oldest[g] - kin_newest[g]) / (kin_count[g] - 1.0)
                    out[Feature.KIN_INTERVAL] = interval
                    out[Feature.KIN_DUE] = _due(kin_newest[g], interval)
            for t in range(TRENDS):
                out[Feature.TREND_MIDDLE + t] = trend[b, c, t]
            for back in range(min(LATEST, last + 1)):
                out[Feature.LAST + back] = row[b, last - back] == candidates[b, c]
            for way in range(VOTES):
                out[Feature.VOTE + way] = votes[b, c, way]
            for known in range(HABITS):
                out[Feature.HABIT_LATER + known] = habit[b, c, known]
            _take_logarithms(out)
    return made
