"""What following each event costs, beside computing anew what it touched; and how that grows with the graph.

    python -m benchmarks.incremental [--quick]

One thread, whose processor time counts; a random model of the default shape (width 64, 1 block, window 32);
micro-batches of 64 events by 512 users who are active now, items by Zipf's law, all known already. Both sides fold the
same events and then bring up to date the embeddings of each event's item and of the item before it, and the session
vector of its user, each once per micro-batch:

    incremental  `Embedder.refresh` and one `spread` from cached activations, and `SessionCache`, with their default
                 settings but `inference.sessions`, 4096
    full         what an engine without caches does: for each touched item layer 0 of everything that its neighborhood
                 names, the vector of each neighbor from that user's own items, the item's embedding from these; for
                 each touched user all positions of the session. What `spread` reaches beyond that it leaves out

    ratio          events per second, incremental over full: wanted >= 8
    small_ratio    the same with micro-batches of 8 events
    max_abs_error  largest difference of item embeddings, user vectors and session vectors from a full recompute, with
                   epsilon 0 and nothing left to spread: wanted <= 1e-4. For the sessions, encoded after each batch,
                   items stand still
    size_ratio     time per event of the incremental side at 1,000,000 nodes over that at 20,000: wanted <= 1.5
"""

from __future__ import annotations

import argparse
import os

# Before numpy loads, as in the engine.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import time
from dataclasses import replace
from statistics import median

import torch
from torch import Tensor

from benchmarks.report import report
from benchmarks.scale import World
from engine import collector
from engine.config import InferenceConfig, StateConfig
from engine.inference.embedder import Embedder
from engine.inference.session_cache import SessionCache
from engine.model.gnn import USER_NEIGHBORS
from engine.model.recommender import ModelShape, Recommender
from engine.state.ring import Neighbors
from engine.state.state import Folded

SMALL, LARGE = (18_000, 2_000), (900_000, 100_000)  # users, items
MICRO_BATCH, FEW = 64, 8  # events
SESSIONS = 4096
ACTIVE = 512  # users
_TURN = 10  # micro-batches


class Live:
    """A state and what both ways compute from it."""

    def __init__(self, model: Recommender, users: int, items: int, inference: InferenceConfig) -> None:
        config = StateConfig(max_users=users, max_items=items, duplicates_window=8192)
        self.world, self.model = World(users, items, config), model
        self.world.fill()
        state = self.world.state
        self.embedder = Embedder(model, [], inference, state.user_rows, state.item_rows)
        # Those of users who are not active are read, and cost what they cost whatever they are.
        everyone = state.users()
        self.embedder.users[everyone] = 0.1 * torch.randn(len(everyone), model.shape.dim)
        active = torch.tensor(state.find_users([f"user-{number}" for number in range(ACTIVE)]))
        self.embedder.build(state.graph, state.items.ids(), state.catalog.contents(), active[active >= 0])
        self.sessions = SessionCache(model.sequence, inference.sessions, config.history)

    def incremental(self, folded: Folded, table: Tensor | None = None) -> Tensor:
        """Follows one batch; returns the session vectors of its users, rising."""
        state, items = self.world.state, self.embedder.items if table is None else table
        self.sessions.forget(torch.cat([folded.gone_users, folded.stale_users]))
        self.embedder.refresh(state.graph, state.items.ids(), state.catalog.contents(), folded)
        self.embedder.spread(state.graph)
        users = folded.user.unique().tolist()
        return self.sessions.encoded(users, state.histories(users), items)

    def full(self, folded: Folded) -> Tensor:
        """The same for what the batch touched, from nothing but the state."""
        table = self.embedder.items  # those that no event has touched are where they were
        touched = torch.cat([folded.item, folded.previous[folded.previous >= 0]]).unique()
        table[touched] = self._recomputed(touched)
        users = folded.user.unique().tolist()
        return self.model.sequence.latest(table, self.world.state.histories(users))

    def _recomputed(self, rows: Tensor) -> Tensor:
        graph, encoder = self.world.state.graph, self.model.graph
        user_edges, next_edges = graph.item_users.latest(rows), graph.item_next.latest(rows)
        users = user_edges.row[user_edges.mask].unique()
        history = graph.user_items.latest(users, USER_NEIGHBORS)
        needed = torch.cat([rows, next_edges.row.flatten(), history.row.flatten()]).clamp_min(0).unique()
        word = torch.zeros(len(needed), dtype=torch.int64)
        base = encoder.base(word, self.world.state.catalog.contents()[needed])
        vectors = encoder.users(base, _renumbered(history, needed))
        near = _renumbered(next_edges, needed)
        return encoder.items(
            base[torch.searchsorted(needed, rows)], vectors, _renumbered(user_edges, users), base, near
        )


def _renumbered(edges: Neighbors, rows: Tensor) -> Neighbors:
    """The same edges, leading to places in `rows`, which rise."""
    return replace(edges, row=torch.where(edges.mask, torch.searchsorted(rows, edges.row.clamp_min(0)), -1))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.incremental", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="within 50 s")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    collector.set_aside()  # as in the engine
    with torch.inference_mode():
        _measure(_random_model(), 4 if quick else 30)


def _measure(model: Recommender, turns: int) -> None:
    inference = InferenceConfig(sessions=SESSIONS)
    print("comparing with a full recompute at epsilon 0", flush=True)
    error = _max_abs_error(model)
    print(f"filling: {sum(SMALL):,} and {sum(LARGE):,} nodes", flush=True)
    small, large = Live(model, *SMALL, inference), Live(model, *LARGE, inference)
    other = Live(model, *SMALL, inference)  # where `full` leaves its own embeddings
    ways = {"incremental": small.incremental, "large": large.incremental, "full": other.full}
    worlds = {"incremental": small.world, "large": large.world, "full": other.world}

    def times_s(size: int, turns: int) -> dict[str, list[float]]:
        """Of each micro-batch, by turns; the first turn warms caches and queues."""
        found: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(turns + 1):
            for name, follow in ways.items():
                for _ in range(_TURN):
                    decoded = worlds[name].batch(size, ACTIVE)
                    start_s = time.thread_time()
                    follow(worlds[name].state.fold(decoded))
                    if turn:
                        found[name].append(time.thread_time() - start_s)
        return found

    many, few = times_s(MICRO_BATCH, turns), times_s(FEW, turns)
    us = {name: 1e6 * sum(some) / len(some) / MICRO_BATCH for name, some in many.items()}
    middle = {name: 1e6 * median(some) / MICRO_BATCH for name, some in many.items()}
    few_us = {name: 1e6 * sum(some) / len(some) / FEW for name, some in few.items()}
    figures: dict[str, float | int | str] = {
        "ratio": round(us["full"] / us["incremental"], 2),
        "small_ratio": round(few_us["full"] / few_us["incremental"], 2),
        "max_abs_error": error,
        "size_ratio": round(us["large"] / us["incremental"], 2),
        "size_ratio_of_medians": round(middle["large"] / middle["incremental"], 2),
        "incremental_events_per_s": round(1e6 / us["incremental"]),
        "full_events_per_s": round(1e6 / us["full"]),
        "small_us_per_event": round(us["incremental"], 1),
        "large_us_per_event": round(us["large"], 1),
        "backlog_small": small.embedder.backlog,
        "backlog_large": large.embedder.backlog,
        "few_us_per_event": round(few_us["incremental"], 1),
        "micro_batch": MICRO_BATCH,
        "micro_batches": turns * _TURN,
    }
    rows = [
        (f"incremental, {sum(SMALL):,} nodes", f"{figures['incremental_events_per_s']:,} events/s"),
        ("recomputed: touched sessions and neighborhoods", f"{figures['full_events_per_s']:,} events/s"),
        ("ratio", f"{figures['ratio']}"),
        (f"ratio with micro-batches of {FEW}", f"{figures['small_ratio']}"),
        ("largest difference from a full recompute at epsilon 0", f"{error:.1e}"),
        (f"cost per event at {sum(LARGE):,} nodes over that at {sum(SMALL):,}", f"{figures['size_ratio']}"),
    ]
    report("incremental", f"Following events: {turns * _TURN} micro-batches of {MICRO_BATCH}", rows, figures)


def _random_model() -> Recommender:
    torch.manual_seed(0)
    model = Recommender(ModelShape(vocabulary=0, content_dim=StateConfig().content_dim, kinds=8, blocks=1, window=32))
    for parameter in model.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return model.eval().requires_grad_(False)


def _max_abs_error(model: Recommender) -> float:
    """Over a small world, events in micro-batches, each session encoded whenever it has an event."""
    live = Live(model, 400, 100, InferenceConfig(epsilon=0.0, sessions=SESSIONS))
    state, worst = live.world.state, 0.0
    still = torch.nn.functional.normalize(torch.randn(state.item_rows, model.shape.dim), dim=1)
    for _ in range(60):
        folded = state.fold(live.world.batch(MICRO_BATCH))
        got = live.incremental(folded, still)
        histories = state.histories(folded.user.unique().tolist())
        worst = max(worst, float((got - model.sequence(still, histories)[:, -1]).abs().max()))
    while live.embedder.backlog:
        live.embedder.spread(state.graph)
    full = Embedder(model, [], InferenceConfig(), state.user_rows, state.item_rows)
    full.build(state.graph, state.items.ids(), state.catalog.contents(), state.users())
    count, users = len(state.items), state.users()
    worst = max(worst, float((live.embedder.items[:count] - full.items[:count]).abs().max()))
    return max(worst, float((live.embedder.users[users] - full.users[users]).abs().max()))


if __name__ == "__main__":
    main()
