"""A training that was ended anywhere and gone on with is the one that never ended, bit for bit."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from engine.signals import Stopped
from tests.trainer.planted import last_of, planted_log, replayed, small_config
from trainer import encoder
from trainer.checkpoint import Checkpoint, CheckpointError
from trainer.config import TrainSection
from trainer.curves import Curves
from trainer.progress import Progress
from trainer.train import Trained, run_of, train

DATA = replayed(planted_log(1000)).data()
# With every kind of chance in it. 20 steps without the graph, 20 with it; a pass over the log has fewer, so that places
# within later passes are among those that are gone on from.
CONFIG = small_config(
    dropout=0.2, id_dropout=0.2, edge_dropout=0.2, max_steps=40, graph_share=0.5, batch=8,
    augment_crop=0.3, augment_mask=0.2, augment_reorder=0.3,
    ranker_epochs=1, ranker_samples=100, evaluation_samples=50,
)  # fmt: skip


class Killed(Exception):
    pass


class Ends(Progress):
    """Ends the training in a step: at once, as a kill does, or by the stop event."""

    def __init__(self, stage: str, step: int, stop: threading.Event | None = None) -> None:
        super().__init__()
        self._stage, self._left, self._stop = stage, step, stop

    def update(self, stage: str, done: float, note: str = "") -> None:
        self._left -= stage == self._stage
        if self._left == 0 and stage == self._stage:
            if self._stop is None:
                raise Killed
            self._stop.set()


def trained(
    progress: Progress,
    checkpoint: Checkpoint | None,
    stop: threading.Event | None = None,
    config: TrainSection = CONFIG,
) -> Trained:
    return last_of(train(DATA, config, None, stop or threading.Event(), progress, checkpoint))


@pytest.fixture(scope="module")
def whole() -> Trained:
    return trained(Progress(), None)


def is_same(one: Trained, other: Trained) -> bool:
    tensors = other.weights.model.state_dict()
    same = [torch.equal(tensor, tensors[name]) for name, tensor in one.weights.model.state_dict().items()]
    return all(same) and one.metrics == other.metrics


@pytest.mark.parametrize(("stage", "step"), [("encoder", 1), ("encoder", 17), ("encoder", 33), ("ranker", 1)])
def test_killed_it_goes_on_from_the_last_save(whole: Trained, tmp_path: Path, stage: str, step: int) -> None:
    # Every third step is saved, so that up to two are done again.
    class EveryThird(Checkpoint):
        asked = 0

        def due(self) -> bool:
            self.asked += 1
            return self.asked % 3 == 0

    path = tmp_path / "run.pt"
    with pytest.raises(Killed):
        trained(Ends(stage, step), EveryThird(path, "run"))
    assert path.exists() == ((stage, step) != ("encoder", 1))
    torch.manual_seed(99)
    assert is_same(trained(Progress(), Checkpoint(path, "run")), whole)


@pytest.mark.parametrize("step", [9, 33])
def test_one_whose_steps_move_some_rows_goes_on_as_well(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, step: int
) -> None:
    monkeypatch.setattr(encoder, "LARGE_TABLE", 0)
    config = CONFIG.model_copy(update={"full_softmax": 0, "negatives": 4})
    path = tmp_path / "run.pt"
    with pytest.raises(Killed):
        trained(Ends("encoder", step), Checkpoint(path, "run"), config=config)
    state = Checkpoint(path, "run").load()
    assert state is not None and len(state["optimizer"]) == 2
    whole = trained(Progress(), None, config=config)
    assert is_same(trained(Progress(), Checkpoint(path, "run"), config=config), whole)


@pytest.mark.parametrize("step", [5, 29])
def test_stopped_it_goes_on_from_that_very_step(whole: Trained, tmp_path: Path, step: int) -> None:
    checkpoint, stop = Checkpoint(tmp_path / "run.pt", "run", every_s=3600), threading.Event()
    with pytest.raises(Stopped):
        trained(Ends("encoder", step, stop), checkpoint, stop)
    state = checkpoint.load()
    assert state is not None and state["step"] == step
    assert is_same(trained(Progress(), checkpoint), whole)


def test_its_curves_begin_where_the_training_did(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    for progress in (Ends("encoder", 17), Progress()):
        curves = Curves(tmp_path / "curves")
        with nullcontext() if type(progress) is Progress else pytest.raises(Killed), curves:
            last_of(train(DATA, CONFIG, None, threading.Event(), progress, Checkpoint(path, "run"), curves))
    assert curves.state()["loss"]["steps"] == list(range(1, 41))


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_one_that_ends_early_ends_as_early(tmp_path: Path, share: float) -> None:
    # So high a rate that a part soon gains no more: its rest is left out before or after the kill.
    config = CONFIG.model_copy(update={"patience": 2, "validate_steps": 2, "learning_rate": 0.3})
    whole = trained(Progress(), None, config=config)
    assert 0 < whole.steps < 40
    path = tmp_path / "run.pt"
    with pytest.raises(Killed):
        trained(Ends("encoder", round(share * whole.steps)), Checkpoint(path, "run"), config=config)
    again = trained(Progress(), Checkpoint(path, "run"), config=config)
    assert again.steps == whole.steps
    assert is_same(again, whole)


def test_a_schedule_by_the_clock_goes_on_with_the_time_that_was_left(tmp_path: Path) -> None:
    checkpoint, stop = Checkpoint(tmp_path / "run.pt", "run"), threading.Event()
    config = small_config(max_steps=None, max_minutes=1000)
    with pytest.raises(Stopped):
        last_of(train(DATA, config, None, stop, Ends("encoder", 2, stop), checkpoint))
    state = checkpoint.load()
    assert state is not None and state["elapsed_s"] > 0
    checkpoint.save({name: value for name, value in state.items() if name != "run"} | {"elapsed_s": 1e9})
    assert last_of(train(DATA, config, None, threading.Event(), Ends("encoder", 1), checkpoint)).steps == 2


def test_the_run_tells_data_settings_and_start_apart_and_nothing_else() -> None:
    same = run_of(replayed(planted_log(1000)).data(), small_config(nice=3, checkpoint_s=5, archive_dir="archive"), None)
    assert same == run_of(DATA, small_config(), None)
    shorter = replayed(planted_log(998)).data()
    others = [
        run_of(shorter, small_config(), None),
        run_of(DATA, small_config(dim=32), None),
        run_of(DATA, small_config(), b"weights"),
    ]
    assert len({same, *others}) == 4


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    with pytest.raises(Killed):
        trained(Ends("encoder", 2), Checkpoint(path, "data=1"))
    with pytest.raises(CheckpointError):
        trained(Progress(), Checkpoint(path, "data=2"))


def test_a_checkpoint_of_another_version_is_refused_in_one_line(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "run.pt", "run")
    with pytest.raises(Killed):
        trained(Ends("encoder", 2), checkpoint)
    state = checkpoint.load()
    assert state is not None
    for make in (1, None):
        checkpoint.save(state | {"make": make})
        with pytest.raises(CheckpointError, match="must be written by this version"):
            trained(Progress(), checkpoint)
