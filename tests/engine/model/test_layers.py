"""The dense forward of the graph attention against PyG's own over an edge list, and of the others against a loop."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.model.layers import EdgeFeatures, RingAttention, RingPooling, SessionBlock
from engine.model.sequence import SequenceEncoder
from engine.state.ring import Neighbors

DIM, EDGE_DIM = 8, 6


def neighbors(row: torch.Tensor, time_ms: torch.Tensor | None = None, session: torch.Tensor | None = None) -> Neighbors:
    zero = torch.zeros_like(row)
    time_ms = zero if time_ms is None else time_ms
    session = zero.to(torch.int32) if session is None else session
    return Neighbors(row, time_ms, zero, torch.ones(row.shape), session)


@given(seed=st.integers(0, 10_000), targets=st.integers(1, 4), slots=st.integers(1, 5), sources=st.integers(1, 30))
def test_gathering_from_rings_equals_message_passing(seed, targets, slots, sources):
    torch.manual_seed(seed)
    layer = RingAttention(DIM, heads=2, edge_dim=EDGE_DIM).eval()
    table, target = torch.randn(sources, DIM), torch.randn(targets, DIM)
    index = torch.randint(-1, sources, (targets, slots))
    edge = torch.randn(targets, slots, EDGE_DIM)
    dst, slot = (index >= 0).nonzero(as_tuple=True)
    edge_index = torch.stack([index[dst, slot], dst])
    with torch.no_grad():
        got = layer.gather(target, table, index, edge)
        want = layer((table, target), edge_index, edge[dst, slot])
    assert torch.allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("mean", [True, False])
@given(seed=st.integers(0, 10_000), targets=st.integers(1, 4), slots=st.integers(1, 5), sources=st.integers(1, 30))
def test_pooling_adds_or_averages_a_message_per_edge_and_nothing_where_there_is_none(
    mean, seed, targets, slots, sources
):
    torch.manual_seed(seed)
    layer = RingPooling(DIM, EDGE_DIM, mean=mean)
    table, target = torch.randn(sources, DIM), torch.randn(targets, DIM)
    index = torch.randint(-1, sources, (targets, slots))
    edge = torch.randn(targets, slots, EDGE_DIM)
    with torch.no_grad():
        got = layer.gather(target, table, index, edge)
        for row in range(targets):
            messages = [
                layer.lin_value(table[index[row, slot]]) + layer.lin_edge(edge[row, slot])
                for slot in range(slots)
                if index[row, slot] >= 0
            ]
            total = sum(messages, torch.zeros(DIM)) / (max(1, len(messages)) if mean else 1)
            torch.testing.assert_close(got[row], total + layer.lin_skip(target[row]), atol=1e-5, rtol=0)


def test_age_counts_from_the_rows_own_newest_edge():
    features = EdgeFeatures(kinds=2, dim=4)
    row = torch.tensor([[0, 1, 2]])
    early = features(neighbors(row, torch.tensor([[0, 1000, 2000]])))
    late = features(neighbors(row, torch.tensor([[0, 1000, 2000]]) + 10**12))
    assert torch.equal(early, late)


def test_a_block_leaves_earlier_positions_untouched_by_later_events():
    torch.manual_seed(0)
    encoder = SequenceEncoder(DIM, heads=2, blocks=2, window=6, kinds=2, dropout=0.0).eval()
    table = torch.randn(9, DIM)
    row = torch.randint(0, 9, (2, 6))
    changed = row.clone()
    changed[:, 4:] = (changed[:, 4:] + 1) % 9
    with torch.no_grad():
        first, second = encoder(table, neighbors(row)), encoder(table, neighbors(changed))
    assert torch.allclose(first[:, :4], second[:, :4], atol=1e-6)
    assert not torch.allclose(first[:, 4:], second[:, 4:], atol=1e-3)


def test_padding_on_the_left_does_not_change_the_last_position():
    torch.manual_seed(0)
    encoder = SequenceEncoder(DIM, heads=2, blocks=2, window=6, kinds=2, dropout=0.0).eval()
    table = torch.randn(9, DIM)
    row = torch.tensor([[3, 1, 4]])
    time_ms = torch.tensor([[1, 2, 3]]) * 60_000
    session = torch.tensor([[1, 1, 2]], dtype=torch.int32)
    padded = neighbors(
        torch.cat([torch.full((1, 3), -1), row], 1),
        torch.cat([torch.zeros(1, 3, dtype=torch.int64), time_ms], 1),
        torch.cat([torch.zeros(1, 3, dtype=torch.int32), session], 1),
    )
    with torch.no_grad():
        plain, wide = encoder(table, neighbors(row, time_ms, session)), encoder(table, padded)
    assert torch.allclose(plain[:, -1], wide[:, -1], atol=1e-5)


def test_without_dropout_a_block_is_deterministic():
    torch.manual_seed(0)
    block = SessionBlock(DIM, heads=2, dropout=0.5).eval()
    x, bias = torch.randn(2, 3, DIM), torch.zeros(2, 2, 3, 3)
    assert torch.equal(block(x, bias), block(x, bias))


def test_a_layer_leaves_no_file_of_the_library_behind():
    RingAttention(DIM, heads=2, edge_dim=4)
    generated = sys.modules["engine.model.layers_RingAttention_propagate"].__file__
    assert generated is not None and not Path(generated).exists()
