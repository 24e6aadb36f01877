"""The server that `benchmarks.serving` calls answers all that it is asked, so that the benchmark measures answers."""

from __future__ import annotations

import asyncio
import json
import sys

from benchmarks.serving_engine import USERS, K, running
from benchmarks.swap_models import honest
from engine.model.weights import encode_weights

METHODS = ("Recommend", "RecommendBatch", "Echo")
SECONDS, IN_FLIGHT, QUERIES = "0.8", "4", "3"


def test_lists_batches_and_echoes_are_answered_by_a_model_while_events_are_folded() -> None:
    async def called(port: int, method: str) -> dict[str, int]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.serving_calls", str(port), method, SECONDS, "0", IN_FLIGHT,
            str(USERS), str(K), QUERIES, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        output = (await process.communicate())[0]
        assert process.returncode == 0, f"the caller of {method} has failed"
        seen: dict[str, int] = json.loads(output)
        return seen

    async def play() -> None:
        weights = encode_weights(honest([f"nobody-has-{number}" for number in range(10)], 1))
        async with running(300, weights, items=200) as engine:
            before = engine.pipeline.state.events_folded
            for method in METHODS:
                assert (await called(engine.port, method))["answered"] > 0, method
            assert engine.pipeline.generation is not None
            assert engine.pipeline.state.events_folded > before >= 300
            assert engine.make([]) == b""

    asyncio.run(play())
