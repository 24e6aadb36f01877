"""`python -m deploy.demo.files --out FOLDER`: the year of purchases as files that `ousel-trainer evaluate` reads.

Shapes: N purchases.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from deploy.demo.data import DataError, Purchases, data_folder, read_items, read_purchases

_WEEKS = 52  # the data has 53; both parts are written


def main(argv: Sequence[str] | None = None) -> int:
    """Writes both files and returns the exit code: 0 done, 1 the data isn't installed."""
    parser = argparse.ArgumentParser(prog="python -m deploy.demo.files", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/purchases"), help="folder to write to")
    out: Path = parser.parse_args(argv).out
    try:
        write_files(data_folder(), out)
    except DataError as error:
        print(f"files: {error}", file=sys.stderr)
        return 1
    print(f"written {out / 'events.parquet'} and {out / 'items.parquet'}")
    return 0


def write_files(data: Path, out: Path) -> None:
    """Writes `events.parquet` and `items.parquet`.

    Raises:
        DataError: the data is not what it should be.
    """
    both = read_purchases(data, _WEEKS)
    out.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.concat_tables([_events(part) for part in both]), out / "events.parquet")
    items = read_items(data)
    catalog = pa.table(
        {
            "item_id": [item.item_id for item in items],
            "title": [item.title for item in items],
            "categories": ["|".join(item.categories) for item in items],
        }
    )
    parquet.write_table(catalog, out / "items.parquet")


def _events(purchases: Purchases) -> pa.Table:
    return pa.table(
        {
            "user_id": purchases.household.astype(str),
            "session_id": purchases.basket.astype(str),
            "item_id": purchases.product.astype(str),
            "timestamp": purchases.time_ms / 1000,
            "kind": pa.array(["purchase"]).take(np.zeros(len(purchases), np.int64)),
            "value": np.maximum(1, purchases.quantity).astype(np.float32),
        }
    )


if __name__ == "__main__":
    sys.exit(main())
