"""Two processes train as one would."""

from __future__ import annotations

import multiprocessing
import socket
from typing import Any

import pytest
import torch

from tests.trainer.ranks import DATA, EXACT, run_rank, trained
from trainer.dataset import Histories, Windows
from trainer.order import plain_order
from trainer.parallel import Ranks, joined

SIZE = 2


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        (folder / "port").write_text(str(free.getsockname()[1]))
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=run_rank, args=(rank, SIZE, folder)) for rank in range(SIZE)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(240)
        process.kill()
    assert [process.exitcode for process in processes] == [0] * SIZE
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(SIZE)]


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_without_dropout_they_end_where_one_does(found: list[dict[str, Any]]) -> None:
    alone = trained(EXACT, Ranks())
    assert int(alone["steps"]) == 8  # the validations' scores end it early
    assert equal(found[0]["exact"], found[1]["exact"])
    for name, tensor in alone.items():
        other = found[0]["exact"][name]
        if name.endswith("qkv.bias"):
            # A bias of keys changes no attention: its gradient is rounding alone, which AdamW makes steps of.
            (query, _, value), (other_query, _, other_value) = tensor.chunk(3), other.chunk(3)
            tensor, other = torch.cat([query, value]), torch.cat([other_query, other_value])
        torch.testing.assert_close(other, tensor, atol=1e-4, rtol=0, msg=name)


def test_a_batch_with_fewer_windows_than_processes_is_among_them() -> None:
    generator = torch.Generator().manual_seed(EXACT.seed)
    order = plain_order(DATA, Histories(DATA.log), len(DATA.log), EXACT, generator)
    assert min(len(next(order)[1]) for _ in range(2 * len(order))) < SIZE


def test_all_have_the_same_weights_though_each_hides_other_things(found: list[dict[str, Any]]) -> None:
    assert equal(found[0]["chance"], found[1]["chance"])


def test_killed_they_go_on_bit_for_bit(found: list[dict[str, Any]]) -> None:
    for one in found:
        assert equal(one["resumed"], one["chance"])


def test_one_that_is_stopped_stops_all_after_the_same_step(found: list[dict[str, Any]]) -> None:
    assert [one["stopped"] for one in found] == [7, 7]


def test_they_see_where_they_are_not_alike(found: list[dict[str, Any]]) -> None:
    assert [one["same"] for one in found] == [[True, False]] * SIZE


def test_shares_are_apart_and_make_up_the_whole() -> None:
    windows = Windows(torch.arange(7), torch.arange(7) + 10)
    shares = [Ranks(rank, 3).share(windows) for rank in range(3)]
    assert sorted(torch.cat([share.last for share in shares]).tolist()) == list(range(7))
    assert [share.targets.tolist() for share in shares] == [[10, 13, 16], [11, 14], [12, 15]]
    assert len(Ranks(2, 3).share(windows.select(torch.arange(2)))) == 0


def test_a_process_that_torchrun_has_not_started_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with joined() as ranks:
        assert (ranks.rank, ranks.size) == (0, 1)
