"""Purchases and products in the shape of the real files, made by hand."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from deploy.demo.data import DataError, data_folder, events, read_items, read_purchases, readable


def _write_transactions(folder: Path, rows: list[tuple[int, int, int, int, int, datetime]]) -> None:
    names = ["household_id", "basket_id", "product_id", "quantity", "week", "transaction_timestamp"]
    columns = {name: [row[at] for row in rows] for at, name in enumerate(names)}
    columns["transaction_timestamp"] = pa.array(columns["transaction_timestamp"], pa.timestamp("ns"))
    parquet.write_table(pa.table(columns), folder / "transactions.parquet")


def test_history_and_live_part_are_cut_by_week_and_sorted_by_time_and_basket(tmp_path: Path) -> None:
    nine, ten, later = datetime(2017, 1, 1, 9), datetime(2017, 1, 1, 10), datetime(2017, 1, 9, 9, 0, 1)
    _write_transactions(
        tmp_path,
        [
            (1, 11, 7, 1, 2, later),
            (1, 12, 5, 2, 1, ten),
            (2, 10, 9, 1, 1, ten),
            (2, 10, 3, 1, 1, ten),
            (3, 99, 1, 1, 1, nine),
        ],
    )
    history, live = read_purchases(tmp_path, weeks=1)
    assert history.basket.tolist() == [99, 10, 10, 12]
    assert history.product.tolist() in ([1, 3, 9, 5], [1, 9, 3, 5])
    assert history.household.tolist() == [3, 2, 2, 1]
    assert live.product.tolist() == [7]
    assert live.time_ms.tolist() == [1483952401000]  # 2017-01-09 09:00:01 UTC


def test_within_a_basket_the_order_tells_nothing_and_is_the_same_in_every_run(tmp_path: Path) -> None:
    when = datetime(2017, 1, 1, 9)
    rows = [(1, 10, product, 1, 1, when) for product in range(1000)]
    _write_transactions(tmp_path, [*rows, (1, 11, 1, 1, 2, when)])
    first, second = (read_purchases(tmp_path, weeks=1)[0].product for _ in range(2))
    assert first.tolist() == second.tolist()
    assert sorted(first.tolist()) == list(range(1000))
    rising = sum(a < b for a, b in pairwise(first.tolist()))
    assert 400 < rising < 600


def test_an_event_carries_household_basket_product_time_and_at_least_one_piece(tmp_path: Path) -> None:
    moment = datetime(2017, 1, 1, 9)
    _write_transactions(
        tmp_path, [(4, 40, 5, 0, 1, moment), (4, 40, 6, 3, 1, moment), (4, 41, 7, 1, 2, datetime(2017, 2, 1))]
    )
    none, three = events(read_purchases(tmp_path, weeks=1)[0])
    assert (none.event_id, none.user_id, none.session_id, none.item_id) == ("40-5", "4", "40", "5")
    assert none.kind == "purchase"
    assert none.time.ToMilliseconds() == 1483261200000
    assert (none.value, three.value) == (1, 3)


@pytest.mark.parametrize("weeks", [0, 2])
def test_no_purchases_on_one_side_is_refused_with_the_weeks_there_are(tmp_path: Path, weeks: int) -> None:
    _write_transactions(tmp_path, [(1, 1, 1, 1, 1, datetime(2017, 1, 1)), (1, 2, 1, 1, 2, datetime(2017, 1, 8))])
    with pytest.raises(DataError, match=f"weeks 1..2, got {weeks}"):
        read_purchases(tmp_path, weeks)


def test_products_become_items_with_readable_titles(tmp_path: Path) -> None:
    rows = [
        (3, "MEAT", "National", "BEEF", "LEAN", None),
        (1, "GROCERY", "Private", "FRZN ICE", "ICE - CRUSHED/CUBED", "22 LB"),
        (2, "MISCELLANEOUS", "National", None, None, None),
        (4, "GROCERY", "National", "SOUP", "SOUP", "AB    1 DZ"),
    ]
    names = ["product_id", "department", "brand", "product_category", "product_type", "package_size"]
    table = pa.table({name: [row[at] for row in rows] for at, name in enumerate(names)})
    parquet.write_table(table, tmp_path / "products.parquet")

    items = read_items(tmp_path)
    assert [item.item_id for item in items] == ["1", "2", "3", "4"]
    assert [item.title for item in items] == [
        "Ice - crushed/cubed, 22 lb (private)",
        "Miscellaneous, item 2 (national)",
        "Beef: lean (national)",
        "Soup, ab 1 dozen (national)",
    ]
    assert [list(item.categories) for item in items] == [
        ["Grocery", "Frozen ice", "Ice - crushed/cubed"],
        ["Miscellaneous"],
        ["Meat", "Beef", "Lean"],
        ["Grocery", "Soup"],
    ]


def test_abbreviations_are_spelled_out_and_what_the_data_cut_off_is_dropped() -> None:
    assert readable("SALD DRSNG/SNDWCH SPRD") == "Salad dressing/sandwich spread"
    assert readable("CHEESE: NATURAL  BULK") == "Cheese: natural bulk"
    assert readable("DRY DOG FOOD SUPER PREM (ONE/N") == "Dry dog food super premium"
    assert readable("POTATOES RUSSET (BULK&BAG)") == "Potatoes russet (bulk&bag)"


def test_the_installed_data_is_found_without_importing_it() -> None:
    assert (data_folder() / "transactions.parquet").is_file()
    assert (data_folder() / "products.parquet").is_file()
