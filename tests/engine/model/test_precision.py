"""A model in fewer bits: close to the one it was made from, which stays as it was."""

from __future__ import annotations

from typing import cast

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from engine.config import Precision
from engine.model.layers import Dense
from engine.model.precision import in_precision
from engine.model.recommender import ModelShape, Recommender
from engine.model.sequence import SequenceEncoder
from engine.state.ring import Neighbors

LESS = ["bfloat16", "int8"]
# Of each factor: what half of the last step is of the largest value in a row.
STEP = {"bfloat16": 2.0**-8, "int8": 0.5 / 127}


def dense(inputs: int, outputs: int, seed: int) -> Dense:
    torch.manual_seed(seed)
    return Dense(inputs, outputs).requires_grad_(False)


def events(users: int, length: int, items: int) -> Neighbors:
    draw = torch.Generator().manual_seed(2)
    row = torch.randint(0, items, (users, length), generator=draw)
    zero = torch.zeros_like(row)
    return Neighbors(row, 60_000 * torch.arange(length).repeat(users, 1), zero, zero.float(), zero.int() + 1)


@given(
    precision=st.sampled_from(LESS),
    inputs=st.integers(1, 70),
    outputs=st.integers(1, 70),
    rows=st.integers(1, 9),
    spread=st.sampled_from([1e-3, 1.0, 1e3]),
)
def test_a_product_is_off_by_no_more_than_the_steps_of_its_factors(
    precision: Precision, inputs: int, outputs: int, rows: int, spread: float
) -> None:
    layer = dense(inputs, outputs, seed=inputs)
    x = spread * torch.randn(rows, inputs)
    exact = layer(x)
    got = in_precision(nn.Sequential(layer), precision)(x)
    largest = x.abs().amax(1, keepdim=True) * layer.weight.abs().amax(1)  # [rows, outputs]
    bound = 2.5 * STEP[precision] * inputs * largest + STEP[precision] * (layer.bias.abs() + exact.abs()) + 1e-5
    assert got.dtype == torch.float32 and got.shape == exact.shape
    assert ((got - exact).abs() <= bound).all()
    assert torch.equal(got, exact) == (inputs == 1)  # else it is really done in fewer bits


@pytest.mark.parametrize("precision", LESS)
def test_a_part_of_the_outputs_is_that_part_of_all(precision: Precision) -> None:
    layer = in_precision(nn.Sequential(dense(16, 24, seed=0)), precision)[0]
    x = torch.randn(3, 5, 16)
    whole = layer(x)
    assert whole.shape == (3, 5, 24)
    for first, end in ((0, 8), (8, 24), (23, 24)):
        torch.testing.assert_close(layer.part(x, first, end), whole[..., first:end])


def test_rows_of_zeros_and_of_very_different_size_don_t_disturb_each_other() -> None:
    layer = dense(8, 8, seed=0)
    x = torch.stack([torch.zeros(8), torch.full((8,), 1e-6), torch.full((8,), 1e6)])
    got = in_precision(nn.Sequential(layer), "int8")(x)
    torch.testing.assert_close(got, layer(x), rtol=0.02, atol=1e-6)


@pytest.mark.parametrize("precision", LESS)
def test_values_that_are_not_finite_stay_visible(precision: Precision) -> None:
    layer = dense(4, 4, seed=0)
    layer.weight[1, 2] = float("nan")
    got = in_precision(nn.Sequential(layer), precision)(torch.ones(1, 4))
    assert got[0, 1].isnan() and got[0, [0, 2, 3]].isfinite().all()


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("precision", LESS)
def test_sessions_are_encoded_to_nearly_the_same(precision: Precision, gated: bool) -> None:
    torch.manual_seed(0)
    encoder = SequenceEncoder(32, 2, 2, 8, 3, 0.0, gated=gated).eval().requires_grad_(False)
    table, past = F.normalize(torch.randn(50, 32), dim=1), events(6, 12, 50)
    served = in_precision(encoder, precision)
    exact, got = encoder.latest(table, past), served.latest(table, past)
    assert (F.cosine_similarity(exact, got) > 0.999).all() and not torch.equal(exact, got)
    assert not any(isinstance(layer, nn.Linear) for layer in served.modules())
    # The newest position alone, as served, is that of all of them.
    torch.testing.assert_close(got, served(table, past)[:, -1], atol=3e-3, rtol=0)


@pytest.mark.parametrize("precision", ["float32", *LESS])
def test_a_served_model_leaves_the_one_it_is_made_from_as_it_was(precision: str) -> None:
    torch.manual_seed(0)
    model = Recommender(ModelShape(vocabulary=5, content_dim=4, kinds=2, dim=16)).eval().requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    sequence = model.sequence
    served = model.served_in(cast(Precision, precision))
    assert model.sequence is sequence and isinstance(model.sequence.out, nn.Linear)
    assert served.graph is model.graph and served.ranker is model.ranker
    assert (served.sequence is sequence) == (precision == "float32")
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
