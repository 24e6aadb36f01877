"""`ousel-trainer train` from files to a weights file."""

from __future__ import annotations

import json
import re
import signal
import threading
from pathlib import Path
from unittest import mock

import pytest
import torch
from typer.testing import CliRunner, Result

from tests.trainer.files import written
from tests.trainer.planted import RANKING, last_of, planted_log, replayed, small_config
from tests.trainer.test_curves import scalars
from trainer.__main__ import app
from trainer.curves import PICTURE
from trainer.model_file import load_model
from trainer.progress import Progress
from trainer.train import train as train_model


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of a run that takes a second, by variables."""
    settings = small_config(nice=0, max_steps=20, ranker_epochs=1).model_dump(exclude_unset=True)
    for name, value in settings.items():
        monkeypatch.setenv(f"OUSEL_TRAINER__{name.upper()}", str(value))
    for name, value in RANKING.model_dump(exclude_unset=True).items():
        monkeypatch.setenv(f"OUSEL_RANKING__{name.upper()}", str(value))
    monkeypatch.setenv("OUSEL_TRAINER__ARCHIVE_DIR", "unread")
    for name, value in {"history": 16, "neighbors": 4, "content_dim": 16}.items():
        monkeypatch.setenv(f"OUSEL_STATE__{name.upper()}", str(value))


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    events, items = written(tmp_path, planted_log(1000))
    return ["--events", str(events), "--items", str(items)]


def train(out: Path, *args: object) -> Result:
    return CliRunner().invoke(app, ["train", "--out", str(out), *map(str, args)])


def test_the_file_holds_the_model_that_the_log_gives(files: list[str], tmp_path: Path) -> None:
    out = tmp_path / "new" / "model.safetensors"
    done = train(out, *files)
    assert done.exit_code == 0, done.output
    config = small_config(max_steps=20, ranker_epochs=1)
    want = last_of(train_model(replayed(planted_log(1000)).data(), config, None, threading.Event(), Progress()))
    got = load_model(out)
    tensors = got.weights.model.state_dict()
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in want.weights.model.state_dict().items())
    assert got.metrics == want.metrics
    assert got.figures is not None
    assert (got.figures["events"], got.figures["items"], got.figures["steps"]) == (1000, 80, 20)
    assert got.figures["settings"]["dim"] == 16
    assert str(out) in done.output


def test_what_is_there_is_written_over_only_with_force(files: list[str], tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    out.write_text("precious")
    refused = train(out, *files)
    assert "--out must name a new file, or give --force, got" in str(refused.exception)
    assert out.read_text() == "precious"
    assert train(out, *files, "--force").exit_code == 0
    assert load_model(out).figures is not None


def test_a_training_goes_on_from_weights_and_is_compared_with_them(files: list[str], tmp_path: Path) -> None:
    first, second = tmp_path / "1.safetensors", tmp_path / "2.safetensors"
    assert train(first, *files).exit_code == 0
    assert train(second, *files, "--previous", first).exit_code == 0
    assert json.loads((tmp_path / "2.json").read_text())["before"] == load_model(first).metrics


def test_weights_of_another_shape_are_refused(
    files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "1.safetensors", tmp_path / "2.safetensors"
    assert train(first, *files).exit_code == 0
    monkeypatch.setenv("OUSEL_TRAINER__DIM", "32")
    refused = train(second, *files, "--previous", first)
    assert "the weights to start from must have dim 32, got 16" in str(refused.exception)
    assert not second.exists()


def test_an_interrupt_leaves_nothing_and_gives_the_signals_back(
    files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGINT)
    update = Progress.update

    def interrupted(self: Progress, stage: str, done: float, note: str = "") -> None:
        update(self, stage, done, note)
        if stage == "ranker":
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Progress, "update", interrupted)
    there = sorted(tmp_path.iterdir())
    assert train(tmp_path / "model.safetensors", *files).exit_code == 130
    assert sorted(tmp_path.iterdir()) == there
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["--events", "none.csv"], "none.csv: must be a file, found none"),
        (["--items", "none.csv"], "--items needs --events"),
        (["--config", "none.toml"], "--config must name a file, got 'none.toml'"),
        (["--events", "none.csv", "--previous", "none"], "none: can't be read: No such file"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(tmp_path: Path, args: list[str], line: str) -> None:
    done = train(tmp_path / "model.safetensors", *args)
    assert done.exit_code != 0 and line in str(done.exception)


def test_too_few_events_are_said(files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUSEL_TRAINER__MIN_EVENTS", "1001")
    done = train(tmp_path / "model.safetensors", *files)
    assert "trainer.min_events must be at most the events at hand, got 1001 and 1000" in str(done.exception)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        (
            "trainer.objective.full_softmax",
            "training of the encoders has diverged at step 1, where its loss is nan: trainer.learning_rate",
        ),
        (
            "trainer.ranking.listed_softmax",
            "training of the ranker has diverged at step 1, where its loss is nan: trainer.ranker",
        ),
    ],
)
def test_a_loss_that_is_no_number_ends_it_and_what_was_there_stays(
    files: list[str], tmp_path: Path, name: str, line: str
) -> None:
    out = tmp_path / "model.safetensors"
    out.write_text("older")
    there = sorted(tmp_path.iterdir())
    with mock.patch(name, lambda *_: torch.tensor(float("nan"), requires_grad=True)):
        done = train(out, *files, "--force")
    assert done.exit_code == 1 and isinstance(done.exception, SystemExit)
    assert line in str(done.exception) and f"nothing was written to {out}" in str(done.exception)
    assert sorted(tmp_path.iterdir()) == there and out.read_text() == "older"


def test_weights_that_are_no_numbers_end_it_though_every_loss_was_one(files: list[str], tmp_path: Path) -> None:
    step = torch.optim.AdamW.step

    def last_step_overflows(self: torch.optim.AdamW, *args: object) -> object:
        done = step(self)
        steps.append(1)
        if len(steps) == 20:
            self.param_groups[0]["params"][0].data.fill_(float("inf"))
        return done

    steps: list[int] = []
    with mock.patch.object(torch.optim.AdamW, "step", last_step_overflows):
        done = train(tmp_path / "model.safetensors", *files)
    assert "diverged at step 20, which leaves weights that are not finite" in str(done.exception)
    assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("out", "line"),
    [
        ("folder.safetensors", "--out must name a file, got '.*folder.safetensors', which is a folder"),
        ("file/model.safetensors", "--out must name a file that can be written, got .*: (File exists|Not a directory)"),
        (f"{'x' * 250}.safetensors", "--out must name a file that can be written, got .*: File name too long"),
    ],
)
def test_an_output_that_cannot_be_written_is_said_before_the_files_are_read(
    tmp_path: Path, out: str, line: str
) -> None:
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "file").touch()
    done = train(tmp_path / out, "--events", "none.csv", "--force")
    assert isinstance(done.exception, SystemExit) and re.search(line, str(done.exception))


def test_a_split_of_other_words_is_not_read(files: list[str], tmp_path: Path) -> None:
    events = Path(files[1])
    lines = events.read_text().splitlines()
    events.write_text("\n".join([f"{lines[0]},split", *(f"{line},valid" for line in lines[1:])]) + "\n")
    assert train(tmp_path / "model.safetensors", *files).exit_code == 0


def test_ids_that_never_meet_are_said(files: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Path(files[3]).write_text("item_id,title\na0,One\nb7,Two\n")
    assert train(tmp_path / "model.safetensors", *files).exit_code == 0
    assert "80 item ids of the events, such as" in caplog.text and "have none in common" in caplog.text
    assert "2 of them differ from an id of the catalog in their form alone" in caplog.text


def test_the_name_must_be_one_of_weights(tmp_path: Path) -> None:
    done = train(tmp_path / "model.json")
    assert "--out must end in .safetensors, got" in str(done.exception)


def test_interrupted_it_goes_on_from_its_checkpoint_and_takes_that_away_at_the_end(
    files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, out, checkpoint = (tmp_path / name for name in ("whole.safetensors", "model.safetensors", "run.pt"))
    assert train(whole, *files).exit_code == 0
    update = Progress.update

    def interrupted(self: Progress, stage: str, done: float, note: str = "") -> None:
        update(self, stage, done, note)
        if note.endswith("step 12"):
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(Progress, "update", interrupted)
        assert train(out, *files, "--checkpoint", checkpoint).exit_code == 130
    assert checkpoint.exists() and not out.exists()
    with monkeypatch.context() as patched:
        patched.setenv("OUSEL_TRAINER__SEED", "7")
        refused = train(out, *files, "--checkpoint", checkpoint)
        assert "run.pt: must be of this run with seed=7, got one with seed=1" in str(refused.exception)
    assert train(out, *files, "--checkpoint", checkpoint).exit_code == 0
    tensors = load_model(out).weights.model.state_dict()
    assert all(torch.equal(t, tensors[name]) for name, t in load_model(whole).weights.model.state_dict().items())
    assert not checkpoint.exists()


def test_a_log_that_grows_has_no_checkpoint(tmp_path: Path) -> None:
    done = train(tmp_path / "model.safetensors", "--checkpoint", tmp_path / "run.pt")
    assert "--checkpoint needs --events" in str(done.exception)


def test_its_curves_have_every_step_and_every_validation(
    files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUSEL_TRAINER__PATIENCE", "9")
    monkeypatch.setenv("OUSEL_TRAINER__VALIDATE_STEPS", "5")
    done = train(tmp_path / "model.safetensors", *files, "--curves", tmp_path / "curves")
    assert done.exit_code == 0, done.output
    found = scalars(tmp_path / "curves")
    assert [step for step, _ in found["loss"]] == [step for step, _ in found["learning_rate"]] == list(range(1, 21))
    assert [step for step, _ in found["validation"]] == [5, 10, 15, 20]
    assert max(rate for _, rate in found["learning_rate"]) <= 0.02 + 1e-6
    assert (tmp_path / "curves" / PICTURE).exists()
