"""Activations computed on another device are those that are computed where the state lies."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engine.config import EventsConfig, InferenceConfig, StateConfig
from engine.inference.bulk import embed_all
from engine.inference.embedder import Embedder
from engine.state.state import State
from tests.engine.logs import Row, decoded
from tests.engine.models import CONTENT_DIM, small_weights
from tests.far import FAR, far_device

ITEMS = [f"i{at}" for at in range(12)]
DEVICES = [FAR.type, *(["cuda"] if torch.cuda.is_available() else [])]


def world() -> State:
    chance = np.random.default_rng(0)
    log: list[Row] = [
        (f"u{chance.integers(9)}", "s", ITEMS[chance.integers(len(ITEMS))], int(chance.integers(4)), at)
        for at in range(200)
    ]
    state = State(StateConfig(history=8, neighbors=3, content_dim=CONTENT_DIM), EventsConfig())
    state.fold(decoded(log))
    return state


def embedder_on(device: str, state: State, **shape: str) -> Embedder:
    weights = small_weights(ITEMS[:8], **shape)
    config = InferenceConfig().model_copy(update={"device": device, "chunk_rows": 5})
    return Embedder(weights.model, weights.vocabulary, config, state.user_rows, state.item_rows)


@pytest.mark.parametrize("aggregation", ["attention", "mean"])
@pytest.mark.parametrize("device", DEVICES)
def test_a_build_gives_the_same_on_every_device(device: str, aggregation: str) -> None:
    state = world()
    arguments = (state.graph, state.items.ids(), state.catalog.contents(), state.users())
    here, there = (embedder_on(name, state, aggregation=aggregation) for name in ("cpu", device))
    here.build(*arguments)
    with far_device():
        there.build(*arguments)
    for name in ("base", "users", "items", "habit"):
        assert torch.allclose(getattr(there, name), getattr(here, name), atol=1e-5), name
    assert there.items.abs().sum() > 0 and there.users.abs().sum() > 0


def test_an_edge_to_a_user_that_is_not_there_counts_as_one_without_a_vector() -> None:
    state = world()
    weights, users = small_weights(ITEMS), state.users()[1:]
    word, content = torch.arange(1, 1 + len(ITEMS)), state.catalog.contents()
    made = embed_all(
        weights.model.graph, torch.device("cpu"), state.graph, word, content, users, 100, lambda: False
    )  # fmt: skip
    assert made is not None
    embedder = Embedder(weights.model, ITEMS, InferenceConfig(), state.user_rows, state.item_rows)
    embedder.build(state.graph, ITEMS, content, users)
    assert torch.allclose(made.items, embedder.items[: len(ITEMS)], atol=1e-5)


def test_a_build_that_is_stopped_leaves_nothing() -> None:
    state = world()
    embedder, asked = embedder_on(FAR.type, state), iter([False, False, True])
    with far_device():
        embedder.build(
            state.graph, state.items.ids(), state.catalog.contents(), state.users(), lambda: next(asked)
        )  # fmt: skip
    assert not embedder.base.any() and not embedder.items.any()


def test_a_device_whose_memory_is_too_small_leaves_the_build_to_the_cpu(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> None:
        raise torch.OutOfMemoryError("2 GiB wanted")

    monkeypatch.setattr("engine.inference.embedder.embed_all", fails)
    state = world()
    embedder, expected = embedder_on(FAR.type, state), embedder_on("cpu", state)
    arguments = (state.graph, state.items.ids(), state.catalog.contents(), state.users())
    embedder.build(*arguments)
    expected.build(*arguments)
    assert torch.equal(embedder.items, expected.items)
    assert "inference.device lazy is too small: 2 GiB wanted" in caplog.text
