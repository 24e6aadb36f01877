from __future__ import annotations

import math
import threading
from collections import Counter

import pytest
import torch

from engine.config import StateConfig
from engine.signals import Stopped
from engine.state.popularity import Popularity
from tests.trainer.planted import planted_log, replayed, small_config
from trainer.dataset import Histories
from trainer.evaluate import evaluate, rank_of
from trainer.forward import ItemForward
from trainer.progress import Progress
from trainer.replay import TrainingData
from trainer.train import start_weights, words

CONFIG = small_config(evaluation_samples=10**9)
HISTORY = 16


def forward_of(data: TrainingData, first: int) -> ItemForward:
    torch.manual_seed(0)
    weights = start_weights(data, first, CONFIG, None)
    return ItemForward(weights.model.eval(), words(data.item_ids, weights.vocabulary), data.content)


def judged(data: TrainingData, first: int, last: int, stop: threading.Event | None = None) -> dict[str, float]:
    arguments = (
        forward_of(data, first),
        data,
        Histories(data.log),
        first,
        last,
        CONFIG,
        stop or threading.Event(),
        Progress(),
    )
    return evaluate(*arguments)


def figures(ranks: list[int | None]) -> tuple[float, float]:
    hits = [rank for rank in ranks if rank is not None]
    return len(hits) / len(ranks), sum(1 / math.log2(rank + 2) for rank in hits) / len(ranks)


def rank_in(shown: list[int], target: int) -> int | None:
    return shown[:20].index(target) if target in shown[:20] else None


def test_baselines_are_what_plain_code_counts() -> None:
    data = replayed(planted_log(600), history=HISTORY).data()
    log = data.log
    first, last = 400, 600
    popular_ranks, frequent_ranks = [], []
    # As the trainer does, popularity is as of the start of the 256 events at hand.
    popularity = Popularity(StateConfig().half_lives_s[:1], 1000, data.items)
    weight = data.kind_weight[log.kind[:first].numpy()]
    popularity.fold(log.item[:first].numpy(), log.time_ms[:first].numpy(), weight[:, None])
    for event in range(first, last):
        past = [at for at in range(event) if log.user[at] == log.user[event]][-HISTORY:]
        if not past:
            continue
        current = {log.item[at].item() for at in past if log.session[at] == log.session[past[-1]]}
        count = Counter(log.item[at].item() for at in past)
        newest = {log.item[at].item(): at for at in past}
        frequent = sorted((item for item in count if item not in current), key=lambda i: (-count[i], -newest[i]))
        popular = [row for row in popularity.top(1000).tolist() if row not in current]
        popular_ranks.append(rank_in(popular, log.item[event].item()))
        frequent_ranks.append(rank_in(frequent, log.item[event].item()))
    metrics = judged(data, first, last)
    assert metrics["events"] == len(popular_ranks)
    for name, ranks in (("popularity", popular_ranks), ("frequency", frequent_ranks)):
        hit_rate, ndcg = figures(ranks)
        assert math.isclose(metrics[f"{name}_hit_rate@20"], hit_rate, abs_tol=1e-6)
        assert math.isclose(metrics[f"{name}_ndcg@20"], ndcg, abs_tol=1e-6)
        assert 0 < hit_rate < 1


def test_the_future_does_not_change_what_is_predicted() -> None:
    whole, cut = (replayed(planted_log(600), history=HISTORY).data() for _ in range(2))
    # Whatever comes after the slice, and the targets' own later events, must be invisible: only the known part counts.
    cut.log.item[500:] = 0
    assert judged(whole, 300, 500) == judged(cut, 300, 500)


def test_a_stop_ends_it() -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        judged(replayed(planted_log(100)).data(), 50, 100, stop)


def test_rank_counts_the_first_twenty_only() -> None:
    shown = torch.arange(30).expand(3, -1)
    assert rank_of(shown, torch.tensor([0, 19, 20])).tolist() == [0, 19, -1]
