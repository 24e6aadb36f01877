"""Answers queries: the model's order for users it knows, that of a scorer without a model for all others.

Shapes: B queries, C candidates of each.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from engine.config import RankingConfig
from engine.generation import Generation
from engine.ranking.asked import Asked
from engine.ranking.candidates import breadth_of
from engine.ranking.lists import Made, make_parts
from engine.ranking.margins import margins_of
from engine.ranking.moment import Now
from engine.ranking.query import Basis, Origin, Position, Query, Ranking
from engine.ranking.scorers import SCORERS, WITHOUT_MODEL
from engine.ranking.side_by_side import ALONE, SideBySide
from engine.state.state import State


def recommend(
    queries: Sequence[Query],
    state: State,
    generation: Generation | None,
    config: RankingConfig,
    scorer: str = WITHOUT_MODEL,
    followed: int | None = None,
    threads: SideBySide = ALONE,
) -> list[Ranking]:
    """One list per query, in order, all from the state and the generation as they are at the call.

    Args:
        scorer: by name, what makes lists where no model can.
        followed: how many of the queries, the last ones, are of streams, whose lists come with their basis; None: all.
        threads: that make the lists of a model.
    """
    unfollowed = 0 if followed is None else len(queries) - followed
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
        for span, made in make_parts(some, moment, generation, config, threads):
            places = known[span]
            of_streams = [b for b, at in enumerate(places) if at >= unfollowed]
            bases = _bases(some.part(span), made, generation, moment, config, of_streams) if of_streams else {}
            for b, (at, page) in enumerate(zip(places, made.pages, strict=True)):
                answers[at] = Ranking(page.items(state), Origin.MODEL, True, generation.version, reflects, bases.get(b))
    version = generation.version if generation else 0
    rest = [at for at in range(len(queries)) if at not in answers]
    if rest:
        some = asked.select(rest) if answers else asked
        for at, scored in zip(rest, SCORERS[scorer](some, moment, config), strict=True):
            basis = scored.basis(queries[at], state.popularity_scale) if at >= unfollowed else None
            answers[at] = Ranking(
                scored.page.items(state), scored.origin, bool(asked.users[at] >= 0), version, reflects, basis
            )
    return [answers[at] for at in range(len(queries))]


def _bases(
    asked: Asked, made: Made, generation: Generation, moment: Now, config: RankingConfig, some: Sequence[int]
) -> dict[int, Basis]:
    """What `some` of the lists of a model were made from, by place."""
    weighed, k = made.weighed, np.array([query.k for query in asked.queries])
    of_all = margins_of(weighed.listable, weighed.cosine, made.ranked, k, weighed.floor, generation.ranker.slope)
    scale, bases = moment.state.popularity_scale, {}
    for b in some:
        query, part, size = asked.queries[b], slice(of_all.first[b], of_all.first[b + 1]), made.ranked.size[b]
        # Copies, since a list that waits for its stream must not keep what was made with it.
        bases[b] = Basis(
            query, generation.version, of_all.row[part].copy(), of_all.low[part].copy(), of_all.high[part].copy(),
            weighed.vector[b].copy(), float(weighed.floor[b]), scale,
            int(made.ranked.row[b, size - 1]) if size else -1, breadth_of(query, moment.history, config).popular,
        )  # fmt: skip
    return bases
