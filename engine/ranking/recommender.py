"""Answers queries: the model's order for users it knows, that of a scorer without a model for all others.

Shapes: B queries, C candidates of each.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from engine.config import RankingConfig
from engine.generation import Generation
from engine.ranking.asked import Asked
from engine.ranking.candidates import breadth_of
from engine.ranking.lists import Made, make_lists
from engine.ranking.margins import margins_of
from engine.ranking.moment import Now
from engine.ranking.query import Basis, Origin, Position, Query, Ranking
from engine.ranking.scorers import SCORERS, WITHOUT_MODEL
from engine.state.state import State


def recommend(
    queries: Sequence[Query],
    state: State,
    generation: Generation | None,
    config: RankingConfig,
    scorer: str = WITHOUT_MODEL,
) -> list[Ranking]:
    """One list per query, in order, all from the state and the generation as they are at the call.

    Args:
        scorer: by name, what makes lists where no model can.
    """
    reflects = tuple(
        Position(topic, partition, offset - 1)
        for (topic, partition), offset in sorted(state.positions.items())
        if topic == state.events_topic
    )
    asked, moment = Asked.of(queries, state, config), Now(state, int(time.time() * 1000))
    known = np.flatnonzero(asked.users >= 0).tolist() if generation is not None else []
    answers: dict[int, Ranking] = {}
    if generation is not None and known:
        some = asked.select(known) if len(known) < len(queries) else asked
        made = make_lists(some, moment, generation, config)
        for at, page, basis in zip(known, made.pages, _bases(some, made, generation, moment, config), strict=True):
            answers[at] = Ranking(page.items(state), Origin.MODEL, True, generation.version, reflects, basis)
    version = generation.version if generation else 0
    rest = [at for at in range(len(queries)) if at not in answers]
    if rest:
        some = asked.select(rest) if answers else asked
        for at, scored in zip(rest, SCORERS[scorer](some, moment, config), strict=True):
            basis = scored.basis(queries[at], state.popularity_scale)
            answers[at] = Ranking(
                scored.page.items(state), scored.origin, bool(asked.users[at] >= 0), version, reflects, basis
            )
    return [answers[at] for at in range(len(queries))]


def _bases(asked: Asked, made: Made, generation: Generation, moment: Now, config: RankingConfig) -> list[Basis]:
    """What the lists of a model were made from."""
    weighed, k = made.weighed, np.array([query.k for query in asked.queries])
    of_all = margins_of(weighed.listable, weighed.cosine, made.ranked, k, weighed.floor, generation.ranker.slope)
    scale, floors, bases = moment.state.popularity_scale, weighed.floor.tolist(), []
    for b, (query, span) in enumerate(zip(asked.queries, pairwise(of_all.first.tolist()), strict=True)):
        part, last = slice(*span), int(made.ranked.size[b]) - 1
        bases.append(
            Basis(
                query, generation.version, of_all.row[part], of_all.low[part], of_all.high[part], weighed.vector[b],
                floors[b], scale, int(made.ranked.row[b, last]) if last >= 0 else -1,
                breadth_of(query, moment.history, config).popular,
            )
        )  # fmt: skip
    return bases
