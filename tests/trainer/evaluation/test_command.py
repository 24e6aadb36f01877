"""`ousel-trainer evaluate` from files to JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path
from unittest import mock

import pytest
import torch
from typer.testing import CliRunner, Result

from engine.model.recommender import ModelShape, Recommender
from engine.model.weights import Weights
from tests.trainer.test_curves import scalars
from trainer.__main__ import app
from trainer.curves import PICTURE
from trainer.evaluation import command
from trainer.model_file import save_model

SMALL = [
    f"--set=trainer.{one}"
    for one in ("dim=16", "heads=2", "blocks=1", "window=8", "epochs=2", "batch=16", "graph_share=0", "min_count=1")
]
MEASURED = ("fit_s", "score_s", "peak_gb")


@pytest.fixture
def events(tmp_path: Path) -> Path:
    """Forty sessions that step on through ten items; the last ten are for the test."""
    rows = [
        f"s{at},i{(3 * at + step) % 10},{1_700_000_000 + 60 * (10 * at + step)},{'test' if at >= 30 else 'train'}"
        for at in range(40)
        for step in range(5)
    ]
    path = tmp_path / "events.csv"
    path.write_text("session_id,item_id,timestamp,split\n" + "\n".join(rows) + "\n")
    return path


def evaluate(*args: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, args)])


def test_the_model_and_its_peers_are_judged_on_one_split(events: Path, tmp_path: Path) -> None:
    items, out = tmp_path / "items.csv", tmp_path / "new" / "figures.json"
    items.write_text("item_id,title,categories\ni1,One,a|b\ni2,Two,b\n")
    done = evaluate("--events", events, "--items", items, "--protocol", "sessions", "--compare", "--k", "3,1",
                    "--out", out, *SMALL)  # fmt: skip
    assert done.exit_code == 0, done.output
    found = json.loads(out.read_text())
    assert found["settings"]["trainer"]["epochs"] == 2 and found["settings"]["ranking"]["index_candidates"] == 200
    assert found["questions"] == 40 and found["split_hash"] in done.output
    assert found["ties"] in done.output and "asked one by one" in found["ties"]
    peers = {"popularity", "frequency", "item_knn", "stan", "session_knn"}
    assert set(found["peers"]) == peers  # with the settings that were chosen for each
    assert set(found["models"]) == {"ousel", "ousel_live"} | peers
    for figures in found["models"].values():
        assert figures["questions"] == 40 and 0 <= figures["hr@1"] <= figures["hr@3"] <= 1
        assert "diversity@3" in figures and len(figures["intervals"]["mrr@3"]) == 2
    # Each item has one successor: whoever learns from sessions has it near the top.
    assert found["models"]["session_knn"]["hr@3"] > 0.7 > found["models"]["popularity"]["hr@3"]
    # Ten items: a graph finds them all.
    assert (
        found["index"]["recall@3"] == 1 and found["index"]["ndcg_cost@3"] == 0 and "HNSW over 10 items" in done.output
    )
    assert found["ratios"]["mrr@3"]["ratio"] == pytest.approx(
        found["models"]["ousel"]["mrr@3"] / max(found["models"][name]["mrr@3"] for name in peers)
    )


def test_the_same_seed_gives_the_same_figures(events: Path, tmp_path: Path) -> None:
    found = []
    for out in (tmp_path / "1.json", tmp_path / "2.json"):
        done = evaluate("--events", events, "--protocol", "sessions", "--no-index", "--out", out, *SMALL)
        assert done.exit_code == 0 and "HNSW" not in done.output
        models = json.loads(out.read_text())["models"]
        found.append({name: value for name, value in models["ousel"].items() if name not in MEASURED})
    assert found[0] == found[1]


def test_a_model_that_train_wrote_of_what_may_be_learned_from_is_asked_the_same_questions(
    events: Path, tmp_path: Path
) -> None:
    past, weights, out = tmp_path / "past.csv", tmp_path / "model.safetensors", tmp_path / "figures.json"
    asked = ("--events", events, "--protocol", "sessions")
    written = evaluate(*asked, "--write-training", past)
    assert written.exit_code == 0 and "150 events written" in written.output
    rows = past.read_text().splitlines()
    assert rows[0] == '"item_id","kind","session_id","timestamp","value"' and len(rows) == 151
    config = tmp_path / "train.toml"
    settings = [one.removeprefix("--set=trainer.").replace("=", " = ") for one in SMALL]
    config.write_text("\n".join(["[trainer]", *settings, "min_events = 10\n"]))
    trained = CliRunner().invoke(app, ["train", "--events", str(past), "--config", str(config), "--out", str(weights)])
    assert trained.exit_code == 0, trained.output
    judged = evaluate(*asked, "--model", weights, "--out", out)
    assert judged.exit_code == 0, judged.output
    found = json.loads(out.read_text())
    assert found["model"] == str(weights) and found["split_hash"] in written.output
    assert found["questions"] == 40 and found["models"]["ousel"]["hr@10"] == 1


def test_a_model_that_does_not_fit_the_log_is_refused(events: Path, tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    shape = ModelShape(vocabulary=0, content_dim=8, kinds=8, dim=8, heads=1, blocks=1, window=4)
    save_model(weights, Weights(Recommender(shape), []), {"metrics": {}})
    done = evaluate("--events", events, "--protocol", "sessions", "--model", weights)
    assert done.exit_code == 2 and "must have content_dim 128 (state.content_dim), got 8" in str(done.exception)


def test_cold_items_are_put_beside_popularity_as_it_was_and_as_it_is(tmp_path: Path) -> None:
    """Users step through 40 items in the order of their one category; items of a category are bought together."""
    events, items, out = tmp_path / "events.csv", tmp_path / "items.csv", tmp_path / "figures.json"
    rows = [f"u{at % 60},i{(at % 60) % 4 * 10 + at // 60 * 7 % 10},{1_700_000_000 + at}" for at in range(60 * 12)]
    events.write_text("user_id,item_id,timestamp\n" + "\n".join(rows) + "\n")
    items.write_text("item_id,categories\n" + "".join(f"i{at},c{at // 10}\n" for at in range(40)))
    done = evaluate("--events", events, "--items", items, "--protocol", "successive", "--cold-share", "0.3", "--k", "5",
                    "--set", "trainer.id_dropout=0.3", "--out", out, *SMALL)  # fmt: skip
    assert done.exit_code == 0, done.output
    found = json.loads(out.read_text())
    assert found["cold_share"] == 0.3
    assert set(found["models"]) == {"ousel", "ousel_frozen", "popularity", "popularity_frozen"}
    for figures in found["models"].values():
        assert figures["questions"] == figures["questions_cold"] == found["questions"]
        assert figures["recall@5_cold"] <= figures["recall@5_among_cold"] <= 1
    assert "recall@5_cold" in done.output and "recall@5_new" not in done.output
    assert found["models"]["popularity_frozen"]["recall@5_cold"] == 0
    # A category tells ten items from forty.
    assert found["models"]["ousel"]["recall@5_among_cold"] > found["models"]["popularity_frozen"]["recall@5_among_cold"]


def test_the_curves_have_an_entry_per_step(events: Path, tmp_path: Path) -> None:
    folder = tmp_path / "curves"
    done = evaluate("--events", events, "--protocol", "sessions", "--curves", folder, *SMALL)
    assert done.exit_code == 0, done.output
    drawn = scalars(folder)
    assert set(drawn) == {"loss", "learning_rate", "validation"}
    assert [step for step, _ in drawn["loss"]] == [*range(1, len(drawn["loss"]) + 1)]
    assert (folder / PICTURE).exists()


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["--k", "0,5"], "--k must be numbers in 1..1000 with commas between, got '0,5'"),
        (["--set", "trainer.width=3"], "--set must be SECTION.NAME=VALUE, got 'trainer.width=3', did you mean"),
        (["--set", "dim=64"], "--set must be SECTION.NAME=VALUE, got 'dim=64', did you mean trainer.dim?"),
        (["--set", "trainer.dim"], "--set must be SECTION.NAME=VALUE, got 'trainer.dim'"),
        (["--set", "trainer.local_heads=3"], "--set: trainer: local_heads must be in 0..2 (heads), got 3"),
        (["--set", "trainer.dim=7"], "--set: trainer.dim: must be a whole number >= 8 and <= 1024, got '7'"),
        (["--set", "inference.precision=half"], "--set: inference.precision: Input should be 'float32', 'bfloat16' or"),
        (["--set", "state.half_lives_s=[7, 0]"], "--set: state.half_lives_s.1: must be a number > 0"),
        (["--set", "trainer.device=gpu"], "--set: trainer.device: String should match pattern"),
        (["--cold-share", "1"], "cold share must be above 0 and below 1, got 1.0"),
        (["--most", "0"], "most must be >= 1, got 0"),
        (["--model", "none.safetensors"], "none.safetensors: can't be read: No such file or directory"),
        (["--write-training", "."], "--write-training must end in .csv, got '.'"),
        (["--write-training", "past.parquet"], "--write-training must end in .csv, got 'past.parquet'"),
        (["--write-training", "/dev/null/x.csv"], "--write-training must name a file that can be written, got "),
        (["--out", "."], "--out must name a file, got '.', which is a folder"),
        (["--out", "/dev/null/x.json"], "--out must name a file that can be written, got '/dev/null/x.json': "),
        (["--out", "/dev/null"], "--out must name a file, got '/dev/null', which is no plain file"),
        (["--checkpoint", "."], "--checkpoint must name a file, got '.', which is a folder"),
        (["--curves", "/dev/null"], "--curves must name a folder, got '/dev/null': File exists"),
        (["--items", "none.csv"], "none.csv: must be a file, found none"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(events: Path, args: list[str], line: str) -> None:
    done = evaluate("--events", events, "--protocol", "sessions", *args)
    assert done.exit_code != 0
    assert isinstance(done.exception, SystemExit) and line in str(done.exception)


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        (
            "trainer.objective.full_softmax",
            "encoders has diverged at step 1, where its loss is nan: trainer.learning_rate",
        ),
        ("trainer.objective.sampled_softmax", "encoders has diverged at step [0-9]+, .*: trainer.learning_rate"),
        ("trainer.ranking.listed_softmax", "ranker has diverged at step 1, .*: trainer.ranker_learning_rate"),
    ],
)
def test_a_loss_that_is_no_number_ends_it_and_an_older_file_stays(
    events: Path, tmp_path: Path, name: str, setting: str
) -> None:
    out = tmp_path / "figures.json"
    out.write_text("older")
    with mock.patch(name, lambda *_: torch.tensor(float("nan"), requires_grad=True)):
        done = evaluate(
            "--events", events, "--protocol", "sessions", "--out", out, *SMALL, "--set=trainer.graph_share=0.5"
        )
    assert done.exit_code == 1 and re.search(f"training of the {setting} is probably too high", str(done.exception))
    assert out.read_text() == "older"


def test_ids_that_never_meet_are_said_before_the_training(
    events: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    items = tmp_path / "items.csv"
    items.write_text("item_id,title\nI1,One\nI2,Two\n")
    evaluate("--events", events, "--items", items, "--protocol", "sessions", *SMALL)
    assert (
        "the 10 item ids of the events, such as 'i1', 'i2', and the 2 of the catalog, such as 'I1', 'I2'" in caplog.text
    )


@pytest.mark.parametrize(
    ("rows", "protocol", "line"),
    [
        ("s1,a,1,test\ns1,b,2,test\n", "sessions", "sessions must leave 2 events to train on, got 0"),
        ("s1,a,1,train\ns2,b,2,test\n", "sessions", "sessions must have something to ask, got a log without"),
        ("s1,a,1,train\ns1,b,2,test\n", "successive", "successive must leave 2 events to train on, got 1"),
        ("s1,a,1,train\ns1,b,1,test\n", "successive", "training must have an event, got none"),
    ],
)
def test_a_log_that_leaves_nothing_to_learn_or_to_ask_is_refused(
    tmp_path: Path, rows: str, protocol: str, line: str
) -> None:
    path = tmp_path / "few.csv"
    path.write_text("session_id,item_id,timestamp,split\n" + rows)
    done = evaluate("--events", path, "--protocol", protocol, *SMALL)
    assert isinstance(done.exception, SystemExit) and line in str(done.exception)


def test_lists_of_which_none_holds_what_was_wanted_teach_nothing(tmp_path: Path) -> None:
    """No item is had twice, so that no candidate is ever right: there is no loss, and that is no divergence."""
    path = tmp_path / "new.csv"
    rows = "".join(f"u{at % 3},i{at},{1_700_000_000 + at}\n" for at in range(30))
    path.write_text("user_id,item_id,timestamp\n" + rows)
    done = evaluate("--events", path, "--protocol", "successive", *SMALL)
    assert done.exit_code == 0, done.output


def test_figures_that_the_disk_does_not_take_are_printed(events: Path, tmp_path: Path) -> None:
    with mock.patch.object(command, "write_atomically", side_effect=OSError(28, "No space left on device")):
        done = evaluate("--events", events, "--protocol", "sessions", "--out", tmp_path / "f.json", *SMALL)
    assert done.exit_code == 1 and "can't be written: No space left on device" in str(done.exception)
    assert '"split_hash"' in done.output


def test_a_broken_file_is_named_with_the_line(events: Path) -> None:
    events.write_text(events.read_text() + "s1,,5,train\n")
    done = evaluate("--events", events, "--protocol", "sessions")
    assert done.exit_code != 0 and "line 202: item_id must be a non-empty id, got ''" in str(done.exception)
