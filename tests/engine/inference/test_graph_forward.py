"""The compiled forward over rings is that of the layers which training uses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.inference.graph_forward import GraphForward
from engine.model.gnn import GraphEncoder
from engine.state.ring import Neighbors

ROWS, HOUR_MS = 9, 3_600_000


def encoder(
    seed: int, *, dim: int = 12, heads: int = 2, kinds: int = 3, aggregation: Any = "attention"
) -> GraphEncoder:
    torch.manual_seed(seed)
    made = GraphEncoder(5, 4, kinds, dim, heads, 0.0, aggregation=aggregation)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made.eval().requires_grad_(False)


@st.composite
def edges(draw: st.DrawFn, count: int) -> Neighbors:
    """[count, n], padded anywhere; kinds that the model does not know and weights below 0 among them."""
    n = draw(st.integers(1, 7))
    chance = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    there = torch.rand(count, n, generator=chance) < draw(st.sampled_from([0.0, 0.4, 1.0]))
    row = torch.randint(0, ROWS, (count, n), generator=chance).masked_fill(~there, -1)
    time_ms = torch.randint(0, 10**4 * HOUR_MS, (count, n), generator=chance) * there
    kind = torch.randint(-1, 6, (count, n), generator=chance)
    return Neighbors(row, time_ms, kind, 4 * torch.randn(count, n, generator=chance), torch.zeros_like(row).int())


@given(st.data(), st.integers(0, 3), st.sampled_from([(12, 2), (8, 1), (16, 4)]), st.integers(1, 5))
def test_is_that_of_the_encoder(data: st.DataObject, seed: int, shape: tuple[int, int], count: int) -> None:
    dim, heads = shape
    layers = encoder(seed, dim=dim, heads=heads)
    forward = GraphForward.of(layers)
    assert forward is not None
    items, users, target = torch.randn(ROWS, dim), torch.randn(ROWS, dim), torch.randn(count, dim)
    of_users, nexts = data.draw(edges(count)), data.draw(edges(count))
    torch.testing.assert_close(forward.users(items, nexts), layers.users(items, nexts), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        forward.items(target, users, of_users, items, nexts),
        layers.items(target, users, of_users, items, nexts),
        atol=1e-5,
        rtol=1e-5,
    )


def test_no_rows_are_no_rows() -> None:
    forward = GraphForward.of(encoder(0))
    assert forward is not None
    none, table = Neighbors.none(0, 4), torch.randn(ROWS, 12)
    assert forward.users(table, none).shape == (0, 12)
    assert forward.items(table[:0], table, none, table, none).shape == (0, 12)


@pytest.mark.parametrize("aggregation", ["mean", "sum"])
def test_other_aggregations_are_left_to_the_encoder(aggregation: str) -> None:
    assert GraphForward.of(encoder(0, aggregation=aggregation)) is None


def test_values_that_are_not_finite_stay_visible() -> None:
    layers = encoder(0)
    layers.item_from_users.lin_value.weight[0, 0] = float("nan")
    forward = GraphForward.of(layers)
    assert forward is not None
    table, one = torch.randn(ROWS, 12), Neighbors.none(1, 2)
    one.row[0, 1] = 3
    assert forward.items(table[:1], table, one, table, one).isnan().any()
