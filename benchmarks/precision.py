"""What a session costs to encode in fewer bits, beside float32 in the same run, and how far its query turns.

    python -m benchmarks.precision [--quick]

Random models of two blocks and a window of 64, sessions of 128 events over 10,000 items, one thread, processor time;
all three precisions in turns, medians. A list costs one session's encoding where nothing is kept of it.

    WIDTH_BATCH_PRECISION   time of float32 over that of the precision: above 1, it pays
    cosine_PRECISION        the least cosine of any query with that of float32

What that costs in hits and NDCG only a trained model can tell: `ousel-trainer evaluate --set inference.precision=int8`.
"""

from __future__ import annotations

import argparse
import time
from statistics import median
from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.report import report
from engine.config import Precision
from engine.model.precision import in_precision
from engine.model.sequence import SequenceEncoder
from engine.state.ring import Neighbors

WIDTHS, BATCHES = (64, 128, 256), (1, 8, 64)
EVENTS, ITEMS, KINDS = 128, 10_000, 8
_MINUTE_MS = 60_000
_PRECISIONS: tuple[Precision, ...] = get_args(Precision)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precision", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="within 50 s")
    turns = 9 if parser.parse_args().quick else 60
    torch.set_num_threads(1)
    torch.manual_seed(0)
    figures: dict[str, float] = {f"cosine_{name}": 1.0 for name in _PRECISIONS[1:]}
    rows = []
    with torch.inference_mode():
        for width in WIDTHS:
            encoders = _encoders(width)
            table = F.normalize(torch.randn(ITEMS, width), dim=1)
            for batch in BATCHES:
                seconds, queries = _measure(encoders, table, _sessions(batch), turns)
                for name in _PRECISIONS[1:]:
                    figures[f"{width}_{batch}_{name}"] = round(seconds["float32"] / seconds[name], 2)
                    cosine = float(F.cosine_similarity(queries["float32"], queries[name]).min())
                    figures[f"cosine_{name}"] = min(figures[f"cosine_{name}"], round(cosine, 5))
                shown = ", ".join(f"{name} {figures[f'{width}_{batch}_{name}']}" for name in _PRECISIONS[1:])
                rows.append(
                    (
                        f"width {width}, {batch} at a time: float32 {1000 * seconds['float32']:.2f} ms; times as fast",
                        shown,
                    )
                )
    rows.append(
        (
            "least cosine with the query of float32",
            ", ".join(f"{figures[f'cosine_{name}']}" for name in _PRECISIONS[1:]),
        )
    )
    report("precision", f"Sessions of {EVENTS} events in bfloat16 and int8, beside float32", rows, figures)


def _encoders(width: int) -> dict[str, SequenceEncoder]:
    encoder = SequenceEncoder(width, 2, 2, 64, KINDS, 0.0).eval().requires_grad_(False)
    for parameter in encoder.parameters():  # a new one has blocks that hardly do anything
        parameter.add_(0.5 * torch.randn_like(parameter) / parameter.shape[-1] ** 0.5)
    return {name: in_precision(encoder, name) for name in _PRECISIONS}


def _sessions(count: int) -> Neighbors:
    row = torch.randint(0, ITEMS, (count, EVENTS))
    time_ms = (_MINUTE_MS * torch.randint(1, 60, row.shape)).cumsum(1)
    session = (torch.rand(row.shape) < 0.1).cumsum(1).int()
    return Neighbors(row, time_ms, torch.randint(0, KINDS, row.shape), torch.ones(row.shape), session)


def _measure(
    encoders: dict[str, SequenceEncoder], table: Tensor, sessions: Neighbors, turns: int
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Seconds of one call of each, and what it gave."""
    seconds: dict[str, list[float]] = {name: [] for name in encoders}
    queries = {}
    for turn in range(turns + 1):
        for name, encoder in encoders.items():
            began_s = time.thread_time()
            queries[name] = encoder.latest(table, sessions)
            if turn:  # the first warms up
                seconds[name].append(time.thread_time() - began_s)
    return {name: median(some) for name, some in seconds.items()}, queries


if __name__ == "__main__":
    main()
