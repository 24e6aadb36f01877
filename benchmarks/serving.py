"""How fast lists are answered over gRPC while events are folded, beside a handler that only returns such a list.

    python -m benchmarks.serving [--quick]

One engine (`serving_engine`), and a process of its own that calls, a socket between them: a compiled one where it can
be built (`compiled_caller`), else several of Python, which take much of the processor from the engine. Lists of 20 for
users drawn at random. One question after the other:

1. What does a list cost in the process, made alone and made with 31 others? How many do two threads make of a batch of
   64, over those of one?
2. Closed loops: how many calls per second are answered with 1, 8 and 64 at a time on their way, and how many of 64 by
   `Echo`? The latter two in turns, several times; medians count.
3. And how many lists, where a call asks for 20 of them (`RecommendBatch`)?
4. Open loops: how late are answers where calls come at random times, at a quarter, half, three quarters and all of what
   the closed loop of 64 gave, and at 1,000 per second? How late are echoes at half of it?
5. And where twice as many come: how late are those that are answered, and how many are refused with a hint?
"""

from __future__ import annotations

import argparse
import os

# Before numpy loads, as in the engine.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # it would say at every start of a caller that it can't be given

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import median

import torch
import uvloop

from benchmarks.compiled_caller import compiled_caller
from benchmarks.report import Figure, report, shown
from benchmarks.serving_engine import EVENTS_PER_S, USERS, Engine, K, running
from benchmarks.trained_model import trained_model
from engine import collector
from engine.control_groups import threads_beside_one
from engine.ranking.query import Query
from engine.ranking.side_by_side import ALONE, SideBySide

IN_FLIGHT = 64
TOGETHER = 32
BATCH = 20
SHARES = (0.25, 0.5, 0.75, 1.0)
_CALLERS = 2  # of Python


@dataclass(frozen=True)
class Seen:
    """One load as its callers saw it.

    Attributes:
        delays_ms: of all that was answered, rising.
        engine_s: processor time of the engine.
    """

    seconds: float
    answered: int
    refused: int
    refused_with_hint: int
    delays_ms: Sequence[float]
    engine_s: float

    @property
    def per_s(self) -> float:
        return self.answered / self.seconds

    @property
    def engine_ms(self) -> float:
        """Of each call."""
        return 1000 * self.engine_s / max(1, self.answered + self.refused)

    def delay_ms(self, share: float) -> float:
        """So many of the answers came no later."""
        return self.delays_ms[min(len(self.delays_ms) - 1, int(share * len(self.delays_ms)))]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="within a minute and a half")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    sys.setswitchinterval(0.00002)  # as in the engine
    collector.set_aside()
    figures = uvloop.run(_measure(200_000 if quick else 1_000_000, 1.8 if quick else 10.0, 3 if quick else 5))
    rows = [
        ("a list in the process, alone and with 31 others, in ms", shown(figures, "alone_ms", "batched_ms")),
        ("lists of two threads over those of one", f"{figures['threads_ratio']}"),
        *((f"lists, {n} calls at a time", f"{figures[f'closed_{n}_per_s']:,} calls/s") for n in (1, 8, IN_FLIGHT)),
        ("a handler that returns such a list", f"{figures['echo_per_s']:,} calls/s"),
        ("ratio", f"{figures['ratio']}"),
        (f"lists, {BATCH} in a call, over those of one in a call", f"{figures['batch_call_ratio']}"),
        ("processor time of the engine per call, folding included", f"{figures['engine_ms_per_call']} ms"),
        ("the same per echo", f"{figures['engine_ms_per_echo']} ms"),
        *((f"at {share:g} of that load: p50, p99, in ms", shown(figures, *_open(share))) for share in SHARES),
        ("p99 at half of it, over the echo's at the same rate", f"{figures['half_p99_ratio']}"),
        ("at 1,000 calls/s: p99", f"{figures['open_1000_p99_ms']} ms"),
        ("at twice the load: p99 of what is answered, over that at half", f"{figures['overload_ratio']}"),
        ("of what is refused then, with a hint when to come back", f"{figures['refused_with_hint_share']:.0%}"),
        ("caller", str(figures["caller"])),
    ]
    report(
        "serving",
        f"Lists of {K} of {figures['items']:,} items, while {EVENTS_PER_S} events/s are folded",
        rows,
        figures,
    )


async def _measure(history: int, seconds: float, turns: int) -> dict[str, Figure]:
    program, weights = compiled_caller(), trained_model()
    async with running(history, weights) as engine:
        print("making lists", flush=True)
        alone_ms, batched_ms, threads_ratio = await engine.in_its_thread(lambda: _in_process(engine, 40 * turns))
        await engine.catch_up()
        print("calling", flush=True)
        load = _Caller(engine, program)
        await load.run("Recommend", seconds)  # warms both sides
        lists, echoes = [], []
        for _ in range(turns):
            echoes.append(await load.run("Echo", seconds))
            lists.append(await load.run("Recommend", seconds))
        per_s, echo_per_s = (median(part.per_s for part in parts) for parts in (lists, echoes))
        few = {n: await load.run("Recommend", seconds, in_flight=n) for n in (1, 8)}
        batches = await load.run("RecommendBatch", seconds, in_flight=4, queries=BATCH)
        opened = {share: await load.run("Recommend", 2 * seconds, share * per_s) for share in SHARES}
        echo_at_half = await load.run("Echo", 2 * seconds, per_s / 2)
        thousand = await load.run("Recommend", 2 * seconds, 1000)
        twice = await load.run("Recommend", 2 * seconds, 2 * per_s)
        items = engine.items
    half_ms = opened[0.5].delay_ms(0.99)
    figures: dict[str, Figure] = {
        "alone_ms": round(alone_ms, 3),
        "batched_ms": round(batched_ms, 3),
        "threads_ratio": round(threads_ratio, 2),
        "list_threads": threads_beside_one(engine.config.serving.list_threads),
    }
    figures |= {f"closed_{n}_per_s": round(seen.per_s) for n, seen in few.items()}
    figures |= {
        f"closed_{IN_FLIGHT}_per_s": round(per_s),
        "echo_per_s": round(echo_per_s),
        "ratio": round(per_s / echo_per_s, 3),
        "batch_call_ratio": round(BATCH * batches.per_s / per_s, 2),
    }
    for share, seen in opened.items():
        for name, quantile in zip(_open(share), (0.5, 0.99), strict=True):
            figures[name] = round(seen.delay_ms(quantile), 1)
    return figures | {
        "half_p99_ratio": round(half_ms / echo_at_half.delay_ms(0.99), 2),
        "open_1000_p99_ms": round(thousand.delay_ms(0.99), 1),
        "open_1000_refused": thousand.refused,
        "overload_ratio": round(twice.delay_ms(0.99) / half_ms, 2),
        "refused_with_hint_share": round(twice.refused_with_hint / max(1, twice.refused), 3),
        "refused_share": round(twice.refused / (twice.refused + twice.answered), 3),
        "engine_ms_per_call": round(median(part.engine_ms for part in lists), 2),
        "engine_ms_per_echo": round(median(part.engine_ms for part in echoes), 2),
        "items": items,
        "caller": "python" if program is None else "compiled",
    }


def _open(share: float) -> tuple[str, str]:
    """The names of p50 and p99 at a share of the load."""
    return f"open_{share:g}_p50_ms", f"open_{share:g}_p99_ms"


def _in_process(engine: Engine, times: int) -> tuple[float, float, float]:
    """Milliseconds of a list made alone, and of one of those made together; lists of two threads over those of one.

    Medians, once every user's session is encoded.
    """
    draw = Random(1)
    two, used = SideBySide(2), threads_beside_one(engine.config.serving.list_threads)
    for first in range(0, USERS, TOGETHER):
        engine.make([Query(f"user-{user}", "", K) for user in range(first, min(first + TOGETHER, USERS))])

    def by_turns(*ways: tuple[int, SideBySide]) -> list[float]:
        took_ms: list[list[float]] = [[] for _ in ways]
        for _ in range(times):
            for (count, threads), took in zip(ways, took_ms, strict=True):
                queries = [Query(f"user-{draw.randrange(USERS)}", "", K) for _ in range(count)]
                began_s = time.perf_counter()
                engine.make(queries, threads)
                took.append(1000 * (time.perf_counter() - began_s) / count)
        return [median(took) for took in took_ms]

    alone, together = by_turns((1, ALONE), (TOGETHER, ALONE))
    by_one, by_two = by_turns((IN_FLIGHT, ALONE), (IN_FLIGHT, two))
    two.close()
    assert engine.pipeline.generation is not None
    engine.pipeline.generation.index.search_threads = used
    return alone, together, by_one / by_two


class _Caller:
    """Runs loads, each in processes of its own."""

    def __init__(self, engine: Engine, program: Path | None) -> None:
        self._engine = engine
        python = [sys.executable, "-m", "benchmarks.serving_calls"]
        self._commands = [python] * _CALLERS if program is None else [[str(program)]]

    async def run(
        self, method: str, seconds: float, per_s: float = 0.0, *, in_flight: int = IN_FLIGHT, queries: int = 1
    ) -> Seen:
        """Calls at random times, `per_s` of them, or as many as come back where that is 0."""
        before_s = time.process_time()
        commands = self._commands[:in_flight]
        shares = [in_flight // len(commands) + (n < in_flight % len(commands)) for n in range(len(commands))]
        processes = [
            await asyncio.create_subprocess_exec(
                *command, str(self._engine.port), method, str(seconds), str(per_s / len(commands)), str(share),
                str(USERS), str(K), str(queries), stdout=asyncio.subprocess.PIPE,
            )
            for command, share in zip(commands, shares, strict=True)
        ]  # fmt: skip
        outputs = [(await process.communicate())[0] for process in processes]
        if any(process.returncode for process in processes):
            raise SystemExit(f"a caller of {method} has failed")
        seen = [json.loads(output) for output in outputs]
        return Seen(
            seconds=max(one["seconds"] for one in seen),
            delays_ms=sorted(delay for one in seen for delay in one["delays_ms"]),
            engine_s=time.process_time() - before_s,
            **{name: sum(one[name] for one in seen) for name in ("answered", "refused", "refused_with_hint")},
        )


if __name__ == "__main__":
    main()
