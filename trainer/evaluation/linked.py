"""The graph layers on a file's log, trained as the trainer trains them: with the graph as of where the targets lie.

Shapes: N items.
"""

from __future__ import annotations

import threading

from engine.config import RankingConfig, StateConfig
from trainer.config import TrainSection
from trainer.dataset import Histories
from trainer.divergence import Diverged
from trainer.encoder import EncoderTrainer, Schedule
from trainer.evaluation.settings import OuselSettings
from trainer.forward import ItemForward
from trainer.progress import Progress
from trainer.replay import EventLog, TrainingData

_EDGE_DROPOUT = 0.1


def train_linked(forward: ItemForward, log: EventLog, owners: int, settings: OuselSettings) -> None:
    """Goes on with encoders that were trained without a graph, for `graph_steps` steps, in place.

    Raises:
        Diverged: the loss or a weight is not finite any more.
    """
    items = len(forward)
    state = StateConfig(history=max(settings.history, 2), neighbors=settings.neighbors)
    # The forward has the content.
    data = TrainingData.without_catalog(
        log, owners, [str(row) for row in range(items)], forward.model.shape.kinds, state, RankingConfig()
    )
    config = TrainSection(
        **{name: getattr(settings, name) for name in ("dim", "heads", "local_heads", "window", "batch", "seed")},
        graph_share=1.0,
        max_steps=settings.graph_steps,
        learning_rate=settings.graph_learning_rate,
        weight_decay=settings.weight_decay,
        negatives=settings.negatives,
        popularity_share=1.0,
        id_dropout=settings.id_dropout,
        edge_dropout=_EDGE_DROPOUT,
        half=settings.half,
    )
    schedule = Schedule(1.0, settings.graph_steps)
    trainer = EncoderTrainer(forward, data, Histories(log), len(log), config, schedule)
    try:
        trainer.run(threading.Event(), Progress())
    except Diverged as error:
        raise error.under("--set graph_learning_rate") from None
