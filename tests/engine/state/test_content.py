"""Encoders of an item's text: which one is taken, what it is asked, and what snapshots keep of it."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from engine.config import ConfigError, EventsConfig, StateConfig
from engine.events.batch import CatalogItem
from engine.partitions import _open_catalog
from engine.snapshot.format import read_catalog, write_snapshot
from engine.snapshot.manifest import read_manifest
from engine.state.content import HashedText, _sentence_text, content_encoder
from engine.state.copying import StateCopy
from engine.state.state import State
from tests.engine.logs import decoded

DIM = 8
MILK, OATS = CatalogItem("m", "Milk", ("dairy", "drinks")), CatalogItem("o", "Oats")


class FakeTransformer:
    """Vectors that depend on the text and on how many were asked for before: no two calls give the same."""

    asked: list[str] = []  # noqa: RUF012

    def __init__(self, name: str) -> None:
        if name != "here/fake":
            raise OSError(f"{name} is nowhere")

    def encode(self, texts: list[str], *, normalize_embeddings: bool, show_progress_bar: bool) -> np.ndarray:
        assert normalize_embeddings and not show_progress_bar
        self.asked += texts
        drawn = [np.random.default_rng((zlib.crc32(text.encode()), len(self.asked))).normal(size=DIM) for text in texts]
        return np.array([one / np.linalg.norm(one) for one in drawn])


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "sentence_transformers", SimpleNamespace(SentenceTransformer=FakeTransformer))
    _sentence_text.cache_clear()
    yield
    _sentence_text.cache_clear()


def config(model: str = "here/fake", **changes: object) -> StateConfig:
    settings = {"content_encoder": "sentence-transformer", "content_model": model, "content_dim": DIM}
    return StateConfig.model_validate({"max_users": 8, "max_items": 8} | settings | changes)


def state_of(*items: CatalogItem, **changes: object) -> State:
    state = State(config(**changes), EventsConfig())
    fold(state, *items)
    FakeTransformer.asked.clear()
    return state


def fold(state: State, *items: CatalogItem) -> None:
    state.fold(decoded([], items=list(items)))


def content(state: State, *ids: str) -> torch.Tensor:
    return state.catalog.contents()[state.items.find(ids)].clone()


def test_words_are_hashed_unless_told_otherwise() -> None:
    assert isinstance(content_encoder(StateConfig()), HashedText)
    assert not HashedText(DIM).saved


def test_title_and_categories_are_asked_for_one_item_at_a_time() -> None:
    state = state_of()
    fold(state, MILK, OATS, CatalogItem("bare"), CatalogItem("plain", "", ("dairy",), features=()))
    assert FakeTransformer.asked == ["Milk. dairy, drinks", "Oats", "dairy"]
    vectors = content(state, "m", "o", "plain", "bare")
    assert vectors[:3].norm(dim=1).tolist() == pytest.approx([1, 1, 1]) and not vectors[3].any()


def test_an_update_that_leaves_the_text_as_it_is_costs_no_encoding() -> None:
    state = state_of(MILK, CatalogItem("o", "Oats", features=(1.0,)), features_dim=1)
    before = content(state, "m", "o")
    fold(state, CatalogItem("m", "Milk", ("dairy", "drinks"), (3.0,), available_until_ms=5))
    fold(state, CatalogItem("o", "Oats"))
    assert FakeTransformer.asked == []
    after = content(state, "m", "o")
    assert torch.equal(after[:, :DIM], before[:, :DIM]) and after[:, DIM].tolist() == [3.0, 0.0]
    fold(state, CatalogItem("m", "Milk"))
    assert FakeTransformer.asked == ["Milk"] and not torch.equal(content(state, "m")[0, :DIM], before[0, :DIM])


class Kept:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def lost(self, partition, log):
        return None

    def lost_catalog(self, log):
        return None

    def newest_catalog(self, log: object):
        return read_catalog(self.folder, read_manifest(self.folder))


def test_a_restart_finds_the_vectors_of_the_snapshots_moment_and_encodes_nothing(tmp_path: Path) -> None:
    gone = CatalogItem("gone", "Gone")
    state = state_of(gone, MILK, OATS, CatalogItem("gone", deleted=True))
    want, copy = content(state, "m", "o"), StateCopy(state, piece_bytes=1)
    copy.step()
    fold(state, CatalogItem("m", "Whole milk"), CatalogItem("o", "Oats", ("grain",)), CatalogItem("late", "Late"))
    while not copy.step():
        pass
    write_snapshot(tmp_path, copy.saved(), "a", {})
    restored = state_of()
    _open_catalog(restored, Kept(tmp_path), {}, [])  # type: ignore[arg-type]
    assert FakeTransformer.asked == []
    assert torch.equal(content(restored, "m", "o"), want)
    assert restored.catalog.records() == [MILK, OATS, CatalogItem("gone", deleted=True)]
    assert not torch.equal(content(state, "m", "o"), want)


def test_vectors_that_hashing_makes_anew_are_not_saved(tmp_path: Path) -> None:
    state = state_of(MILK, content_encoder="hashed", content_model=None)
    copy = StateCopy(state, piece_bytes=1000)
    while not copy.step():
        pass
    assert copy.saved().catalog.content is None
    write_snapshot(tmp_path, copy.saved(), "a", {})
    assert not (tmp_path / "catalog.content").exists()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"content_dim": 9}, "state.content_dim must be 8, the width of here/fake, got 9"),
        (
            {"content_model": "nowhere"},
            "state.content_model must be a model that can be loaded, got 'nowhere': nowhere",
        ),
    ],
)
def test_a_model_that_does_not_fit_is_refused_with_the_reason(changes: dict[str, object], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        State(config(**changes), EventsConfig())


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)  # import fails
    with pytest.raises(ConfigError, match=r"needs the extra `text` \(pip install 'ousel-engine\[text\]'\)"):
        State(config(), EventsConfig())


@pytest.mark.parametrize(
    "changes", [{"content_model": None}, {"content_encoder": "hashed"}, {"content_encoder": "guess"}]
)
def test_encoder_and_model_must_go_together(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="content_"):
        config(**changes)
