"""A weights file comes back as it was, and is refused with a reason when it is not whole."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load, save

from engine.model.weights import WeightsError, decode_weights, encode_weights
from tests.engine.models import small_weights

IDS = ["milk", "ä", "line\nbreak"]
SWITCHES = [
    "expansion",
    "gated",
    "relative_time",
    "aggregation",
    "local_heads",
    "local_window",
    "by_kind",
]  # what a file may not name


def rewritten(data: bytes, change) -> bytes:
    tensors = load(data)
    metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    change(tensors, metadata)
    return save(tensors, metadata)


def test_comes_back_as_it_was():
    weights = small_weights(IDS)
    again = decode_weights(encode_weights(weights))
    assert again.vocabulary == IDS
    assert again.model.shape == weights.model.shape
    for name, tensor in weights.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], tensor)
    assert not again.model.training


def test_a_file_from_before_a_switch_existed_is_the_model_that_it_was():
    def forget_switches(_, metadata):
        shape = json.loads(metadata["shape"])
        for name in SWITCHES:
            del shape[name]
        metadata["shape"] = json.dumps(shape)

    weights = small_weights(IDS)
    assert decode_weights(rewritten(encode_weights(weights), forget_switches)).model.shape == weights.model.shape


@pytest.mark.parametrize(
    "switch", [{"aggregation": "mean"}, {"aggregation": "sum"}, {"local_heads": 1}, {"by_kind": True}]
)
def test_a_switched_model_comes_back_as_it_was(switch):
    weights = small_weights(IDS, **switch)
    again = decode_weights(encode_weights(weights))
    assert again.model.shape == weights.model.shape
    assert again.model.state_dict().keys() == weights.model.state_dict().keys()


def test_a_model_without_a_vocabulary_is_fine():
    assert decode_weights(encode_weights(small_weights([]))).vocabulary == []


NAME = "graph.mix.weight"


def drop(tensors, _):
    del tensors[NAME]


def reshape(tensors, _):
    tensors[NAME] = torch.zeros(3, 3)


def retype(tensors, _):
    tensors[NAME] = tensors[NAME].half()


def poison(tensors, _):
    tensors[NAME][0, 0] = float("nan")


def add(tensors, _):
    tensors["graph.extra"] = torch.zeros(1)


def cut_vocabulary(tensors, _):
    tensors["vocabulary.ends"] = tensors["vocabulary.ends"][:-1]


def falling_vocabulary(tensors, _):
    tensors["vocabulary.ends"] = torch.tensor([4, 2, 9])


def other_format(_, metadata):
    metadata["format"] = "else"


def other_shape(_, metadata):
    metadata["shape"] = json.dumps({"vocabulary": -1})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (drop, "lack tensor graph.mix.weight"),
        (reshape, r"graph.mix.weight must be \(8, 8\) torch.float32, got \(3, 3\)"),
        (retype, r"graph.mix.weight must be .* got \(8, 8\) torch.float16"),
        (poison, "graph.mix.weight holds values that are not finite"),
        (add, "unknown tensors"),
        (cut_vocabulary, "name the 3 items"),
        (falling_vocabulary, "must rise"),
        (other_format, "format must be 'ousel-1', got 'else'"),
        (other_shape, "shape is not usable"),
    ],
)
def test_a_file_that_is_not_whole_is_refused_with_the_reason(change, reason):
    with pytest.raises(WeightsError, match=reason):
        decode_weights(rewritten(encode_weights(small_weights(IDS)), change))


@pytest.mark.parametrize("data", [b"", b"\0" * 100, b"not safetensors at all", b"\xff" * 16])
def test_other_bytes_are_refused(data):
    with pytest.raises(WeightsError, match="safetensors"):
        decode_weights(data)


def test_a_truncated_file_is_refused():
    data = encode_weights(small_weights(IDS))
    with pytest.raises(WeightsError, match="safetensors"):
        decode_weights(data[:-7])
