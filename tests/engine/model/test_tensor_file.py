"""Tensors read in place, compared with what the safetensors library makes of the same bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import load, save

from engine.model.tensor_file import MAX_HEADER_BYTES, TensorFileError, read_tensors

TYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool]
shapes = st.lists(st.integers(0, 4), max_size=3)


def alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)


@given(tensors=st.lists(st.tuples(st.sampled_from(TYPES), shapes), max_size=5), words=st.text(max_size=20))
def test_reads_what_the_library_has_written(tensors, words):
    torch.manual_seed(0)
    written = {f"t{at}": (10 * torch.randn(shape)).to(kind) for at, (kind, shape) in enumerate(tensors)}
    read, metadata = read_tensors(bytearray(save(written, {"words": words})))
    assert metadata == {"words": words}
    assert read.keys() == written.keys()
    assert all(alike(read[name], written[name]) for name in written)


@given(at=st.integers(0, 400), bits=st.integers(1, 255), cut=st.integers(0, 3))
def test_damaged_bytes_are_refused_or_read_as_the_library_reads_them(at, bits, cut):
    data = bytearray(save({"a": torch.arange(12.0).view(3, 4), "b": torch.arange(3)}, {"format": "x"}))
    data[at % len(data)] ^= bits
    del data[len(data) - cut :]
    try:
        read, _ = read_tensors(data)
    except TensorFileError:
        return
    theirs = load(bytes(data))
    assert read.keys() == theirs.keys()
    for name, tensor in read.items():
        assert tensor.shape == theirs[name].shape
        assert tensor.contiguous().view(torch.uint8).tolist() == theirs[name].contiguous().view(torch.uint8).tolist()


def file(header: Any, body: bytes) -> bytearray:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return bytearray(len(text).to_bytes(8, "little") + text + body)


def entry(kind: str = "F32", shape: Any = (2,), place: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": kind, "shape": shape, "data_offsets": place}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (bytearray(), "has 0 bytes|said to have 0 bytes"),
        (bytearray(b"\xff" * 16), "its header is said to have"),
        (file(b" " * (MAX_HEADER_BYTES + 1), b""), "must have at most 1048576 bytes, got 1048577"),
        (file([], b""), "can't be read"),
        (file(b"[" * 100_000, b""), "can't be read"),
        (file({"a": []}, b""), "can't be read"),
        (file({"a": entry("F31")}, bytes(8)), "type 'F31'"),
        (file({"a": entry(shape=[2.0])}, bytes(8)), "whole numbers"),
        (file({"a": entry(shape=[-2, -1])}, bytes(8)), "whole numbers"),
        (file({"a": entry(shape=[True, 2])}, bytes(8)), "whole numbers"),
        (file({"a": entry(shape=[3])}, bytes(8)), "can't lie"),
        (file({"a": entry(place=[0, 2**63])}, bytes(8)), "can't lie"),
        (file({"a": entry(place=[8, 16])}, bytes(8)), "can't lie"),
        (file({"a": entry(), "b": entry()}, bytes(8)), "one after the other"),
        (file({"a": entry(place=[8, 16])}, bytes(16)), "one after the other"),
        (file({"a": entry()}, bytes(9)), "must fill it, got 8 of 9 bytes"),
    ],
)
def test_a_file_that_is_not_as_it_should_be_is_refused_with_the_reason(data, reason):
    with pytest.raises(TensorFileError, match=reason):
        read_tensors(data)
    with pytest.raises((SafetensorError, ValueError, TypeError)):
        if len(data) > MAX_HEADER_BYTES:
            raise ValueError("the library takes longer headers")
        load(bytes(data))


def test_tensors_share_the_memory_of_the_file():
    data = bytearray(save({"a": torch.zeros(1000)}))
    read, _ = read_tensors(data)
    read["a"][:] = 1
    assert load(bytes(data))["a"].sum() == 1000
