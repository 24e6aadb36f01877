"""The bytes of a push: what they cost, and what its header may say."""

from __future__ import annotations

import hashlib
import time
import tracemalloc

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ousel.v1.model_service_pb2 import PushWeightsRequest, WeightsHeader

from engine.config import Config, ModelConfig
from engine.serving.errors import InvalidRequest
from engine.serving.requests import check_header
from engine.serving.upload import Blocks, Reception

CONFIG = Config(model=ModelConfig(max_weights_bytes=2**30))
DAY_S = 86_400


class Caller:
    """Sends these chunks, and then nothing more."""

    def __init__(self, *chunks: bytes) -> None:
        self._messages = [PushWeightsRequest(chunk=chunk) for chunk in chunks]

    async def read(self):
        return self._messages.pop(0) if self._messages else grpc.aio.EOF


@given(chunks=st.lists(st.binary(max_size=50), max_size=30), size=st.integers(1, 20))
def test_what_came_in_pieces_is_one_again(chunks, size):
    whole = b"".join(chunks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.serving.upload._BLOCK_BYTES", size)
        blocks = Blocks()
        for chunk in chunks:
            blocks.add(chunk)
        assert blocks.size == len(whole)
        assert len(blocks._blocks) <= len(whole) // size and all(type(block) is bytes for block in blocks._blocks)
        assert blocks.verified(hashlib.sha256(whole).digest()) == whole


async def test_memory_grows_with_the_bytes_that_have_come_and_not_with_those_announced():
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRequest, match="size_bytes says 1073741824, got 100003"):
            await Reception(CONFIG.model).read(Caller(bytes(100_000), b"a", b"b", b"c"), 2**30)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def check(newest: int = 0, **fields: object) -> None:
    known = {"version": 4, "size_bytes": 1, "sha256": bytes(32), "metrics": {"hit_rate@20": 0.5}}
    check_header(WeightsHeader(**{**known, **fields}), CONFIG, newest)


@pytest.mark.parametrize(
    ("version", "newest"),
    [
        (1, 0),
        (100_000_000, 0),
        (20_261_129, 0),  # a date
        (200_000_000, 100_000_000),
        pytest.param(int(time.time()), 0, id="seconds"),
        pytest.param(int(time.time() * 1000), 0, id="milliseconds"),
        pytest.param(int(time.time() * 1000) + 1, int(time.time() * 1000), id="one_later"),
    ],
)
def test_a_version_may_be_a_count_or_a_time(version, newest):
    check(version=version, newest=newest)


@pytest.mark.parametrize(
    "version",
    [
        2**64 - 1,
        2**63,
        100_000_001,
        pytest.param(int(time.time()) + 3 * DAY_S, id="seconds_in_three_days"),
        pytest.param(1000 * (int(time.time()) + 3 * DAY_S), id="milliseconds_in_three_days"),
        10**18,
    ],
)
def test_a_version_far_ahead_of_all_that_could_come_after_it_is_refused(version):
    with pytest.raises(InvalidRequest, match=rf"version must be at most 100000000, .* got {version}$"):
        check(version=version)


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({f"m{at}": 0.0 for at in range(65)}, "metrics must be at most 64, got 65"),
        ({"": 0.0}, "metrics must have names, got ''"),
        ({"m" * 129: 0.0}, "the name of a metric must have at most 128 bytes in UTF-8, got 129"),
        ({"a\x1b[2Jb": 0.0}, "the name of a metric must not have control characters"),
        ({"loss": float("inf")}, r"metrics\['loss'\] must be finite, got inf"),
    ],
)
def test_the_metrics_of_a_header_are_few_named_and_finite(metrics, message):
    with pytest.raises(InvalidRequest, match=message):
        check(metrics=metrics)
