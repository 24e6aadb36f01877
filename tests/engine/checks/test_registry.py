from __future__ import annotations

from pathlib import Path

import pytest

from engine.checks import registry
from engine.checks.registry import look_at_registry
from engine.config import Config, RegistryConfig
from engine.registry.ledger import Ledger, LedgerFold, LedgerRecord, model_record
from engine.registry.places import LocalFolder
from engine.registry.stored import ModelFiles, StoredModel
from tests.engine.checks.brokers import FakeAdmin, answering

TOPIC = "ousel.models"
COMPACTED = {TOPIC: {"cleanup.policy": "compact"}}
MODEL = StoredModel(7, "a" * 64, 3, {}, (), 1, "trainer", "engine-1")


def ledger() -> Ledger:
    fold = LedgerFold()
    fold.apply([LedgerRecord(0, *model_record(MODEL, 0))])
    return fold.ledger()


def found(folder: Path, admin: FakeAdmin, says: Ledger, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    answering(monkeypatch, "registry", admin)
    monkeypatch.setattr(registry, "_ledger", lambda *_: says)
    folder.chmod(0o700)
    config = Config(registry=RegistryConfig(dir=str(folder)))
    return [(one.level.value, one.message) for one in look_at_registry(config)]


def test_a_folder_that_has_the_model_which_serves_is_ok(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ModelFiles(LocalFolder(tmp_path)).store(MODEL, b"abc")
    _, (level, line) = found(tmp_path, FakeAdmin({TOPIC: 1}, COMPACTED), ledger(), monkeypatch)
    assert level == "ok" and line == f"model version 7, which serves, lies in {tmp_path}"


def test_a_folder_of_another_registry_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, (level, line) = found(tmp_path, FakeAdmin({TOPIC: 1}, COMPACTED), ledger(), monkeypatch)
    assert level == "error" and f"says that model version 7 serves, and {tmp_path} does not have it" in line
    assert "registry.dir and registry.topic must be those of one registry" in line


@pytest.mark.parametrize(
    ("admin", "level", "said"),
    [
        (FakeAdmin({}), "ok", "does not exist yet and is made at the first start"),
        (FakeAdmin({TOPIC: 2}, COMPACTED), "error", "must have 1 partition"),
        (FakeAdmin({TOPIC: 1}, {TOPIC: {"cleanup.policy": "delete"}}), "error", "must be compacted and nothing else"),
        (FakeAdmin({TOPIC: 1}, COMPACTED), "ok", "no model is announced in registry.topic 'ousel.models'"),
    ],
)
def test_the_topic_is_looked_at(
    admin: FakeAdmin, level: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, (got, line) = found(tmp_path, admin, Ledger(), monkeypatch)
    assert got == level and said in line
