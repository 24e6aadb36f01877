"""Whether settings that follow from the log are as good as settings that are searched for.

    python -m benchmarks.defaults --events FILE [--items FILE] [--draws 10] [--minutes 5] [--seed 1]

Each user's last event is asked for, as `evaluate --protocol leave-one-out` asks it. Beside the defaults, so many
settings are drawn at random, and each is trained for as long as the defaults are. The one of them that is best on
validation, which is the newest slice of what may be learned from, is compared with the defaults on the test part.

    ndcg, ndcg_drawn         at 10, of the defaults and of the best of those that were drawn
    hr, hr_drawn             likewise
    ndcg_share, hr_share     of the defaults over the drawn: wanted 0.97 or more
    coverage                 of the items, in the first 10 places of the defaults' lists
    drawn                    the settings that were best
"""

from __future__ import annotations

import argparse
import os

# Before numpy loads, as in the engine.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import math
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.report import Figure, report
from engine.config.load import load_settings
from engine.state.catalog import Catalog
from trainer.config import TrainerConfig
from trainer.data.files import read_events, read_items
from trainer.data.log import Events, Split
from trainer.evaluate import JUDGED
from trainer.evaluation import splits
from trainer.evaluation.content import described
from trainer.evaluation.ousel import OuselScorer
from trainer.evaluation.run import judge
from trainer.evaluation.training_data import columns_of, training_data
from trainer.progress import Progress
from trainer.train import Trained, train

K = 10


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.defaults", description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=Path, required=True, help="a file of events, as `evaluate` reads it")
    parser.add_argument("--items", type=Path, help="the same of the catalog")
    parser.add_argument("--draws", type=int, default=10, help="settings that are drawn")
    parser.add_argument("--minutes", type=float, default=5.0, help="trainer.max_minutes of each")
    parser.add_argument("--seed", type=int, default=1, help="of the draws")
    args = parser.parse_args()
    named = read_items(args.items) if args.items else None
    events = read_events(args.events, named)
    split = splits.leave_one_out(events)
    catalog = described(events, named, TrainerConfig().state) if named else None
    generator = np.random.default_rng(args.seed)
    tried: list[dict[str, Any]] = [{}, *(_drawn(generator) for _ in range(args.draws))]
    found = []
    for at, settings in enumerate(tried):
        config = _config(settings, args.minutes)
        began_s = time.monotonic()
        trained = _trained(events, split, config, catalog)
        found.append((config, trained))
        print(
            f"{at} of {args.draws}: validation {trained.metrics[JUDGED]:.4f}, {trained.steps} steps,"
            f" {time.monotonic() - began_s:.0f} s, {settings or 'the defaults'}", flush=True,
        )  # fmt: skip
    best = max(range(1, len(found)), key=lambda at: found[at][1].metrics[JUDGED])
    ours = _figures(events, split, *found[0], catalog)
    theirs = _figures(events, split, *found[best], catalog)
    figures: dict[str, Figure] = {
        **ours,
        **{f"{name}_drawn": value for name, value in theirs.items()},
        "hr_share": round(ours["hr"] / theirs["hr"], 4),
        "ndcg_share": round(ours["ndcg"] / theirs["ndcg"], 4),
        "drawn": str(tried[best]),
    }
    rows = [(name, str(value)) for name, value in figures.items()]
    report("defaults", "The defaults, beside settings drawn at random", rows, figures)
    return 0


def _drawn(generator: np.random.Generator) -> dict[str, Any]:
    """Settings of the encoders, over the ranges in which papers look for theirs."""

    def between(low: float, high: float) -> float:
        return float(f"{math.exp(generator.uniform(math.log(low), math.log(high))):.3g}")

    return {
        "dim": int(generator.choice([32, 64, 128, 256])),
        "blocks": int(generator.choice([1, 2])),
        "window": int(generator.choice([16, 32, 64])),
        "dropout": round(float(generator.uniform(0.1, 0.7)), 2),
        "learning_rate": between(3e-4, 4e-3),
        "weight_decay": between(0.01, 0.3),
        "min_count": int(generator.choice([1, 2, 5])),
        "batch": int(generator.choice([32, 64, 128])),
        "full_softmax": int(generator.choice([0, 20_000])),
        "uniform_share": round(float(generator.uniform(0.1, 0.9)), 2),
    }


def _config(settings: dict[str, Any], minutes: float) -> TrainerConfig:
    given = settings | {"max_minutes": minutes}
    return load_settings(TrainerConfig, None, [f"trainer.{name}={value}" for name, value in given.items()])


def _trained(events: Events, split: Split, config: TrainerConfig, catalog: Catalog | None) -> Trained:
    """The last model of a training, whose figures are those before it learned from the newest slice."""
    torch.set_num_threads(config.trainer.threads)
    columns = columns_of(events, config, by_session=False)
    data = training_data(columns, events, split.train, config, catalog, by_session=False)
    with Progress() as progress:
        *_, trained = train(data, config.trainer, None, threading.Event(), progress)
    return trained


def _figures(
    events: Events, split: Split, config: TrainerConfig, trained: Trained, catalog: Catalog | None
) -> dict[str, float]:
    scorer = OuselScorer(config, by_session=False, weights=trained.weights, catalog=catalog)
    found = judge(scorer, events, split, [K]).figures()
    return {name: round(found[f"{name}@{K}"], 4) for name in ("hr", "ndcg", "coverage")}


if __name__ == "__main__":
    sys.exit(main())
