"""Parquet of other programs: every type that can be meant, and folders of part files."""

from __future__ import annotations

import decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from trainer.data.file_error import FileError
from trainer.data.files import read_events, read_items

T = 1_700_000_000
TEXTS = [
    pa.array(["7", "8"], pa.string()),
    pa.array(["7", "8"], pa.large_string()),
    pa.array(["7", "8"], pa.string_view()),
    pa.array(["7", "8"]).dictionary_encode(),
    pa.array(["7", "8"], pa.large_string()).dictionary_encode(),
    pa.array([7, 8], pa.int64()).dictionary_encode(),
    pa.array([b"7", b"8"], pa.binary()),
    pa.array([b"7", b"8"], pa.large_binary()),
    pa.array([b"7", b"8"], pa.binary_view()),
    pa.array([b"7", b"8"], pa.binary(1)),
    *(pa.array([7, 8], kind) for kind in (pa.int8(), pa.uint16(), pa.int32(), pa.int64(), pa.uint64())),
    *(
        pa.array([decimal.Decimal(7), decimal.Decimal(8)], kind)
        for kind in (pa.decimal128(38, 0), pa.decimal128(20, 10), pa.decimal256(76, 0), pa.decimal32(5, 2))
    ),
]


def ids(values: pa.Array) -> str:
    return str(values.type)


def write(path: Path, columns: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table(columns), path)
    return path


def base(**columns: Any) -> dict[str, Any]:
    return {"user_id": ["u", "v"], "item_id": ["a", "b"], "timestamp": [T, T + 1]} | columns


def part(first: int, count: int, **columns: Any) -> dict[str, Any]:
    at = range(first, first + count)
    return {
        "user_id": [f"u{i}" for i in at],
        "item_id": [f"i{i}" for i in at],
        "timestamp": [T + i for i in at],
    } | columns


@pytest.mark.parametrize("values", TEXTS, ids=ids)
@pytest.mark.parametrize("name", ["user_id", "session_id", "item_id", "kind"])
def test_every_type_of_text_and_whole_numbers_is_an_id(tmp_path: Path, values: pa.Array, name: str) -> None:
    events = read_events(write(tmp_path / "e.parquet", base(**{name: values})))
    names = {"user_id": "users", "session_id": "sessions", "item_id": "items", "kind": "kinds"}
    assert list(getattr(events, names[name])) == ["7", "8"]


def test_uuids_are_ids_as_they_are_written(tmp_path: Path) -> None:
    values = pa.array([bytes(range(16)), bytes(16)], pa.uuid())
    events = read_events(write(tmp_path / "e.parquet", base(item_id=values)))
    assert list(events.items) == ["00010203-0405-0607-0809-0a0b0c0d0e0f", "00000000-0000-0000-0000-000000000000"]


@pytest.mark.parametrize("name", ["session_id", "kind", "value"])
def test_a_column_of_nothing_but_nulls_is_one_without_values(tmp_path: Path, name: str) -> None:
    events = read_events(write(tmp_path / "e.parquet", base(**{name: pa.nulls(2)})))
    assert (list(events.sessions), events.kinds, events.value.tolist()) == (["u", "v"], ["view"], [1, 1])


@pytest.mark.parametrize(
    "values",
    [
        pa.array([str(T), str(T + 1)], pa.string_view()),
        pa.array([str(T), str(T + 1)]).dictionary_encode(),
        pa.array(["2023-11-14T22:13:20Z", "2023-11-14T22:13:21Z"], pa.large_string()),
        pa.array([T * 1000, T * 1000 + 1000], pa.uint64()),
        pa.array([decimal.Decimal(T), decimal.Decimal(T + 1)], pa.decimal128(20, 6)),
        pa.array([T, T + 1], pa.timestamp("s", "UTC")),
        pa.array([T * 10**9, T * 10**9 + 10**9], pa.timestamp("ns", "America/New_York")),
        pa.array([T, T + 1], pa.float64()),
    ],
    ids=ids,
)
def test_every_type_that_can_be_a_time_is_one(tmp_path: Path, values: pa.Array) -> None:
    events = read_events(write(tmp_path / "e.parquet", base(timestamp=values)))
    assert events.timed and events.time.tolist() == [T, T + 1]


@pytest.mark.parametrize(
    "values",
    [
        pa.array([decimal.Decimal("0.5"), None], pa.decimal128(9, 3)),
        pa.array(["0.5", None], pa.string_view()),
        pa.array([0.5, None], pa.float16()),
        pa.array(["0.5", ""]).dictionary_encode(),
    ],
    ids=ids,
)
def test_every_type_of_numbers_is_a_value(tmp_path: Path, values: pa.Array) -> None:
    assert read_events(write(tmp_path / "e.parquet", base(value=values))).value.tolist() == [0.5, 1]


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.string()),
        pa.large_list(pa.large_string()),
        pa.list_(pa.string_view()),
        pa.list_view(pa.string()),
        pa.large_list_view(pa.string()),
    ],
    ids=str,
)
def test_categories_may_be_lists(tmp_path: Path, kind: pa.DataType) -> None:
    lists = pa.array([["a", "b", "a"], None, [], ["c|d", None]], kind)
    path = write(tmp_path / "i.parquet", {"item_id": ["w", "x", "y", "z"], "categories": lists})
    assert list(read_items(path).categories.values()) == [("a", "b"), (), (), ("c|d",)]


def test_categories_may_be_lists_of_one_length_and_of_numbers(tmp_path: Path) -> None:
    lists = pa.array([[7, 8], None, [9, 7]], pa.list_(pa.int32(), 2))
    path = write(tmp_path / "i.parquet", {"item_id": ["w", "x", "y"], "categories": lists})
    assert list(read_items(path).categories.values()) == [("7", "8"), (), ("9", "7")]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ({"item_id": pa.array([True, False])}, "item_id must be text, whole numbers or .*, got a column of bool$"),
        ({"item_id": [["a"], ["b"]]}, "item_id must be text, .*, got a column of list<"),
        ({"user_id": [{"id": 1}, {"id": 2}]}, "user_id must be text, .*, got a column of struct<"),
        ({"user_id": [0.5, 1.0]}, "user_id must be text, .*, got a column of double: .*pandas"),
        ({"item_id": pa.nulls(2)}, "row 1: item_id must be a non-empty id, got None"),
        (
            {"item_id": pa.array([decimal.Decimal("1.5"), decimal.Decimal(2)], pa.decimal128(9, 1))},
            r"item_id must be text, .*, got a column of decimal128\(9, 1\) with fractions",
        ),
        ({"timestamp": pa.nulls(2)}, "row 1: timestamp must be .*, got None"),
        (
            {"timestamp": pa.array([1, 2], pa.duration("s"))},
            r"timestamp must be times, .*, got a column of duration\[s\]",
        ),
        (
            {"timestamp": pa.array([1, 2], pa.time32("ms"))},
            r"timestamp must be times, .*, got a column of time32\[ms\]",
        ),
        ({"timestamp": [[1], [2]]}, "timestamp must be times, .*, got a column of list<"),
        ({"timestamp": pa.array([20240131, 20240201])}, "row 1: timestamp must be .*2024-01-31T00:00:00Z for 20240131"),
        ({"value": pa.array([True, False])}, "value must be whole numbers, floats, .*, got a column of bool"),
    ],
)
def test_a_type_that_cannot_be_meant_is_named_with_what_is_allowed(
    tmp_path: Path, column: dict[str, Any], message: str
) -> None:
    with pytest.raises(FileError, match=message) as raised:
        read_events(write(tmp_path / "e.parquet", base(**column)))
    assert str(raised.value).startswith(str(tmp_path / "e.parquet"))


def test_lists_of_what_is_no_text_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "i.parquet", {"item_id": ["a"], "categories": [[{"name": "x"}]]})
    with pytest.raises(
        FileError, match=r"categories must be text with \| between the categories, .*, got a column of list<"
    ):
        read_items(path)


@pytest.fixture
def spark(tmp_path: Path) -> Path:
    """A folder as Spark leaves it: part files by day and kind, one of them empty, and what is not data."""
    folder = tmp_path / "events.parquet"
    write(folder / "day=1" / "kind=view" / "part-00000-1.snappy.parquet", part(0, 2))
    write(folder / "day=1" / "kind=__HIVE_DEFAULT_PARTITION__" / "part-00001-1.snappy.parquet", part(2, 1))
    write(folder / "day=2" / "kind=add%20to%20cart" / "part-00000-2.snappy.parquet", part(3, 2))
    empty = pa.table(part(0, 1)).slice(0, 0)
    parquet.write_table(empty, folder / "day=1" / "kind=view" / "part-00002-1.snappy.parquet")
    (folder / "_SUCCESS").touch()
    (folder / "day=1" / "kind=view" / ".part-00000-1.snappy.parquet.crc").write_bytes(b"crc")
    write(folder / "_temporary" / "0" / "part-00009.snappy.parquet", part(90, 5))
    write(folder / ".hidden" / "part-00009.parquet", part(90, 5))
    return folder


def test_a_folder_of_part_files_is_read_as_one_file(spark: Path) -> None:
    events = read_events(spark)
    assert list(events.items) == [f"i{at}" for at in range(5)]
    assert [events.kinds[at] for at in events.kind] == ["view", "view", "view", "add to cart", "add to cart"]


def test_an_error_in_a_folder_names_the_part_file_and_its_row(spark: Path) -> None:
    wrong = write(spark / "day=2" / "kind=view" / "part-00001.parquet", part(5, 3, item_id=["a", "", "b"]))
    with pytest.raises(FileError, match="row 2: item_id must be a non-empty id") as raised:
        read_events(spark)
    assert str(raised.value).startswith(f"{wrong}, row 2: ")


def test_part_files_may_differ_in_width_and_lack_columns(tmp_path: Path) -> None:
    write(tmp_path / "e" / "1.parquet", part(0, 1, user_id=pa.array([1], pa.int32()), value=pa.array([2], pa.int8())))
    write(tmp_path / "e" / "2.parquet", part(1, 1, user_id=pa.array([2**40])))
    write(tmp_path / "e" / "3.parquet", part(2, 1, user_id=pa.nulls(1), session_id=pa.array(["s"], pa.string_view())))
    events = read_events(tmp_path / "e")
    assert (list(events.users), events.value.tolist()) == (["1", str(2**40), "s"], [2, 1, 1])


def test_part_files_of_two_types_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "e" / "1.parquet", part(0, 1))
    write(tmp_path / "e" / "2.parquet", part(1, 1, item_id=[7]))
    with pytest.raises(FileError, match="item_id must be of one type in all part files, got string and int64"):
        read_events(tmp_path / "e")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("part-0.csv", "a folder must hold files whose names end in .parquet, got part-0.csv"),
        ("_SUCCESS", ", got none"),
    ],
)
def test_a_folder_without_part_files_is_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(FileError, match=message):
        read_events(tmp_path)


def test_a_column_of_a_folder_is_text_byte_for_byte(tmp_path: Path) -> None:
    columns = part(0, 1)
    del columns["item_id"]
    write(tmp_path / "e" / "item_id=007" / "1.parquet", columns)
    assert list(read_events(tmp_path / "e").items) == ["007"]
