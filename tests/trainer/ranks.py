"""What each process does in the tests of parallel training."""

from __future__ import annotations

import itertools
import os
import threading
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.signals import Stopped
from tests.trainer.planted import planted_log, replayed, small_config
from trainer.checkpoint import Checkpoint
from trainer.config import TrainSection
from trainer.dataset import Histories
from trainer.encoder import EncoderTrainer
from trainer.forward import ItemForward
from trainer.parallel import Ranks, joined
from trainer.progress import Progress
from trainer.schedule import Schedule
from trainer.start import start_weights, words

DATA = replayed(planted_log(300)).data()
# One batch of the first pass holds a single window, and the second process has none of it.
SHAPE = {"batch": 10, "max_steps": 24, "chunks": 2}
EXACT = small_config(**SHAPE, id_dropout=0, edge_dropout=0, patience=2, validate_steps=2)
CHANCE = small_config(
    **SHAPE,
    graph_share=0.5,
    dropout=0.2,
    edge_dropout=0.2,
    augment_crop=0.3,
    augment_mask=0.2,
    augment_reorder=0.3,
    by_kind=True,
)
SCORES = (0.1, 0.4, 0.3, 0.3, 0.2, 0.5, 0.4, 0.4)


class Killed(Exception):
    pass


class Ends(Progress):
    """Kills, or stops by the event, after a step."""

    def __init__(self, step: int, stop: threading.Event | None = None) -> None:
        super().__init__()
        self._step, self._stop = step, stop

    def update(self, stage: str, done: float, note: str = "") -> None:
        if note.endswith(f"step {self._step}"):
            if self._stop is None:
                raise Killed
            self._stop.set()


def trained(
    config: TrainSection,
    ranks: Ranks,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
    checkpoint: Checkpoint | None = None,
) -> dict[str, Tensor]:
    """The weights, and under "steps" after how many."""
    torch.manual_seed(config.seed)
    weights = start_weights(DATA, len(DATA.log), config, None)
    forward = ItemForward(weights.model, words(DATA.item_ids, weights.vocabulary), DATA.content)
    schedule, scores = Schedule(config.max_steps), itertools.chain(SCORES, itertools.repeat(0.0))
    weights.model.graph.linked = config.graph_share > 0
    trainer = EncoderTrainer(
        forward, DATA, Histories(DATA.log), len(DATA.log), config, schedule, linked=weights.model.graph.linked,
        checkpoint=checkpoint, validate=(lambda forward, linked: next(scores)) if config.patience else None,
        ranks=ranks,
    )  # fmt: skip
    trainer.run(stop or threading.Event(), progress or Progress())
    with trainer.best():
        tensors = {name: tensor.clone() for name, tensor in weights.model.state_dict().items()}
    return tensors | {"steps": torch.tensor(schedule.step)}


def run_rank(rank: int, size: int, folder: Path) -> None:
    """Trains in every way that the tests ask about, and saves what came of it."""
    os.environ |= {
        "RANK": str(rank), "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": (folder / "port").read_text(),
    }  # fmt: skip
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    with joined() as ranks:
        found["exact"] = trained(EXACT, ranks)
        found["chance"] = trained(CHANCE, ranks)
        # Killed after step 17, with every step before it saved.
        try:
            trained(CHANCE, ranks, Ends(17), checkpoint=Checkpoint(folder / "killed.pt", "run"))
        except Killed:
            torch.manual_seed(99)
            found["resumed"] = trained(CHANCE, ranks, checkpoint=Checkpoint(folder / "killed.pt", "run"))
        # Only the second one is told to stop.
        stop = threading.Event()
        checkpoint = Checkpoint(folder / "stopped.pt", "run", every_s=3600)
        try:
            trained(CHANCE, ranks, Ends(7, stop) if rank else None, stop, checkpoint)
        except Stopped:
            ranks.is_same("by now the first has written it")
            state = checkpoint.load()
            found["stopped"] = state and state["step"]
        found["same"] = [ranks.is_same("text"), ranks.is_same(f"text of {rank}")]
    torch.save(found, folder / f"{rank}.pt")
