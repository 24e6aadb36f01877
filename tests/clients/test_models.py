"""The models of the registry by the clients and the command line."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import grpc
import pytest
from ousel import AsyncClient, InvalidArgument, ModelBuild, ModelOrigin, ModelState, OuselError, Position, RefusedModel
from ousel.cli import main


@pytest.fixture(autouse=True)
def address(engine, monkeypatch):
    monkeypatch.setenv("OUSEL_ADDRESS", engine.address)


def run(capsys, *argv: str) -> tuple[int, str, str]:
    code = main(argv)
    said = capsys.readouterr()
    return code, said.out, said.err


def test_models_come_with_all_that_is_known_of_them(client):
    listed = client.list_models()
    assert [(model.version, model.state) for model in listed.models] == [
        (3, ModelState.WITHDRAWN), (2, ModelState.SERVING), (1, ModelState.STORED),
    ]  # fmt: skip
    newest = listed.models[0]
    assert (newest.sha256, newest.size_bytes, newest.reason) == ("03" * 32, 2_500_000, "the canary")
    assert newest.trained_on == (Position("ousel.events", 1, 41),)
    assert newest.accepted == datetime.fromtimestamp(1_700_000_003, UTC)
    assert (newest.pushed_by, newest.engine) == ("ousel-trainer on host", "engine-1")
    assert newest.metrics == pytest.approx({"hit_rate@20": 0.3})
    assert (listed.announced_version, listed.pinned_version, listed.newest_version, listed.serving_version) == (
        2,
        2,
        3,
        1,
    )
    assert listed.building == ModelBuild(2, 0.25, 1.5)
    assert listed.refused == RefusedModel(3, "the canary", datetime.fromtimestamp(1_700_000_005, UTC))
    assert (listed.origin, listed.registry_problem) == (ModelOrigin.LOCAL_COPY, "it is away")
    assert (listed.dir, listed.topic) == ("s3://shop/models", "ousel.models")


def test_models_are_pinned_unpinned_and_pruned(client, engine):
    assert (client.pin_model(2), client.unpin_model(), client.prune_models(), client.prune_models(5)) == (
        2, 3, (2, 1), (2, 1),
    )  # fmt: skip
    assert engine.requests[0].version == 2
    assert [request.keep for request in engine.requests[2:]] == [0, 5]
    engine.failures.append((grpc.StatusCode.NOT_FOUND, "version must be one of the registry's (3), got 9"))
    with pytest.raises(OuselError, match="version must be one of the registry's"):
        client.pin_model(9)


async def test_the_asynchronous_client_does_the_same(engine):
    async with AsyncClient(engine.address) as client:
        assert (await client.list_models()).serving_version == 1
        assert (await client.pin_model(2), await client.unpin_model(), await client.prune_models(5)) == (2, 3, (2, 1))


@pytest.mark.parametrize("wrong", [0, -1, 2**64, "3", 1.0, None])
def test_versions_that_are_none_are_refused_before_they_are_sent(client, engine, wrong):
    with pytest.raises(InvalidArgument, match="version must be"):
        client.pin_model(wrong)
    assert engine.requests == []


def test_the_command_lists_models_and_what_the_engine_makes_of_them(capsys):
    code, out, err = run(capsys, "models")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("3  2023-11-14 22:13:23 UTC") and "withdrawn: the canary" in lines[0]
    assert "pinned  serving" in lines[1] and "hit_rate@20 0.2" in lines[1]
    assert "this engine serves  version 1, its own copy, because the registry could not give another" in out
    for line in (
        "version 2, 25% after 2 s",
        "version 3: the canary",
        "it is away",
        "s3://shop/models, topic ousel.models",
    ):
        assert line in out
    assert json.loads(run(capsys, "models", "--json")[1])["announced_version"] == 2
    assert json.loads(run(capsys, "models", "list", "--json")[1])["announced_version"] == 2


def test_the_command_compares_two_models(capsys):
    out = run(capsys, "models", "compare", "1", "2")[1]
    assert [line.split() for line in out.splitlines()] == [
        ["version", "1", "2"], ["accepted", "11-14", "22:13:21", "11-14", "22:13:22"], ["megabytes", "2.5", "2.5"],
        ["trained", "on", "records", "42", "42"], ["state", "stored", "serving"],
        ["hit_rate@20", "0.1", "0.2", "+100.0%"],
    ]  # fmt: skip
    with pytest.raises(SystemExit) as ended:
        main(["models", "compare", "1", "9"])
    assert ended.value.code == 2
    assert "the registry has the versions 3, 2, 1, got 9" in capsys.readouterr().err


def test_the_command_pins_unpins_rolls_back_and_prunes(capsys, engine):
    assert run(capsys, "models", "pin", "2")[1] == "all engines serve model version 2 until it is unpinned\n"
    assert run(capsys, "models", "unpin", "--address", engine.address)[1] == "all engines go on to model version 3\n"
    assert run(capsys, "models", "rollback", "--expect", "3")[1] == "model version 2 serves again, 12 ms to swap\n"
    assert run(capsys, "models", "prune", "--keep", "5")[1] == "deleted: model versions 2, 1\n"
    engine.rolled_back.serving = False
    assert "this one builds it first" in run(capsys, "models", "rollback")[1]
    assert json.loads(run(capsys, "models", "prune", "--json")[1]) == {"versions": [2, 1]}


def test_the_status_shows_what_is_wrong_with_the_model(capsys, engine):
    engine.status.building.CopyFrom(engine.models.building)
    engine.status.refused.CopyFrom(engine.models.refused)
    engine.status.model_origin, engine.status.registry_problem = engine.models.origin, "it is away"
    out = run(capsys, "status")[1]
    for line in ("the engine's own copy", "version 2, 25%", "version 3: the canary", "it is away"):
        assert line in out
