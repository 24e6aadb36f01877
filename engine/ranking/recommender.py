"""Answers queries: the model's order for users it knows, that of a scorer without a model for all others.

Shapes: B queries, C candidates of each.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from engine.config import RankingConfig
from engine.features.candidates import INDEX_BIT
from engine.generation import Generation
from engine.ranking.asked import Asked
from engine.ranking.candidates import breadth_of
from engine.ranking.lists import Made, make_lists
from engine.ranking.margins import margins, margins_of_hidden
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
    weighed = made.weighed
    hit = (weighed.source & INDEX_BIT) > 0
    margin = margins(
        weighed.row, made.score, weighed.cosine, hit, weighed.floor, made.pages, asked.queries, generation.ranker.slope
    )
    scale, history = moment.state.popularity_scale, moment.graph.user_items.size
    bases = []
    for b, (query, page, hidden) in enumerate(zip(asked.queries, made.pages, weighed.hidden, strict=True)):
        n, floor = int((weighed.row[b] >= 0).sum()), float(weighed.floor[b])
        beside = margins_of_hidden(hidden, floor)
        bases.append(
            Basis(
                query, generation.version,
                np.concatenate([hidden.row, weighed.row[b, :n]]).astype(np.int32),
                np.concatenate([beside.low, margin.low[b, :n]]), np.concatenate([beside.high, margin.high[b, :n]]),
                weighed.vector[b].copy(), floor, scale, page.last, breadth_of(query, history, config).popular,
            )
        )  # fmt: skip
    return bases
