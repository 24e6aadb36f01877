"""Files of events and items: what is read, in which order, and where a wrong cell is."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config import EventsConfig
from engine.events.times import TimeRule
from trainer.data.file_error import FileError
from trainer.data.files import read_events, read_items
from trainer.data.log import Events

HEADER = "user_id,session_id,item_id,timestamp,kind,value,split\n"
ID = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0", exclude_categories=["Cs"]), max_size=3)
NULLS = st.sampled_from(["NA", "null", "NaN", "007", "7", "7.0", "true", " a", '"', "a,b", "#N/A"])


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


T = 1709251200


def rows_of(events: Events) -> list[tuple[str, str, str, float]]:
    return [
        (events.users[u], events.sessions[s], events.items[i], t)
        for u, s, i, t in zip(events.user, events.session, events.item, events.time, strict=True)
    ]


def test_ids_are_text_byte_for_byte(tmp_path: Path) -> None:
    path = write(tmp_path / "e.csv", 'user_id,item_id,timestamp\n007,NA,1\n7,null,2\n7.0," 7",3\nnan,"a,""b",4\n')
    assert [row[::2] for row in rows_of(read_events(path))] == [
        ("007", "NA"),
        ("7", "null"),
        ("7.0", " 7"),
        ("nan", 'a,"b'),
    ]


@given(
    cells=st.lists(
        st.tuples(ID | NULLS, ID | NULLS, ID.filter(bool) | NULLS, st.integers(0, 3)).filter(
            lambda row: row[0] or row[1]
        ),
        min_size=1,
        max_size=12,
    )
)
def test_all_formats_read_the_same_rows_by_time_and_then_by_place(
    tmp_path_factory: pytest.TempPathFactory, cells: list[tuple[str, str, str, int]]
) -> None:
    folder = tmp_path_factory.mktemp("files")
    quoted = "".join(",".join('"' + str(c).replace('"', '""') + '"' for c in row) + "\n" for row in cells)
    text = "user_id,session_id,item_id,timestamp\n" + quoted
    write(folder / "e.csv", text)
    (folder / "e.csv.gz").write_bytes(gzip.compress(text.encode()))
    columns = dict(
        zip(["user_id", "session_id", "item_id", "timestamp"], map(list, zip(*cells, strict=True)), strict=True)
    )
    parquet.write_table(pa.table(columns), folder / "e.parquet")
    want = [(u or s, s or u, i, float(t)) for u, s, i, t in sorted(cells, key=lambda row: row[3])]
    for name in ("e.csv", "e.csv.gz", "e.parquet"):
        events = read_events(folder / name)
        assert rows_of(events) == want
        for numbers in (events.user, events.session, events.item):  # by order of first appearance
            assert list(dict.fromkeys(numbers.tolist())) == list(range(numbers.max() + 1))


def test_line_breaks_in_cells_survive_files_of_many_blocks(tmp_path: Path) -> None:
    path = write(tmp_path / "e.csv", "user_id,item_id,timestamp\n" + '"a long\nid","x\n\n\ny",1\n' * 60_000)
    events = read_events(path)
    assert (len(events), list(events.users), list(events.items)) == (60_000, ["a long\nid"], ["x\n\n\ny"])


def test_a_user_and_an_anonymous_session_of_one_id_stay_apart(tmp_path: Path) -> None:
    events = read_events(write(tmp_path / "e.csv", "user_id,session_id,item_id,timestamp\n5,,a,1\n,5,b,2\n5,5,c,3\n"))
    assert events.user.tolist() == [0, 1, 0]
    assert events.session.tolist() == [0, 1, 1]
    assert list(events.users) == ["5", "5"]


def test_absent_columns_have_their_defaults(tmp_path: Path) -> None:
    events = read_events(write(tmp_path / "e.csv", "extra,session_id,item_id,timestamp\n1.5,s,a,1\n"))
    assert (events.kinds, events.kind.tolist(), events.value.tolist()) == (["view"], [0], [1.0])
    assert events.test is None
    assert (list(events.users), list(events.sessions)) == (["s"], ["s"])


def test_every_column_is_read_and_empty_kinds_and_values_have_their_defaults(tmp_path: Path) -> None:
    path = write(tmp_path / "e.csv", HEADER + "u,s,a,2,buy,0.5,test\nu,s,b,1,,,train\n")
    events = read_events(path)
    assert rows_of(events) == [("u", "s", "b", 1.0), ("u", "s", "a", 2.0)]
    assert [events.kinds[at] for at in events.kind] == ["view", "buy"]
    assert events.value.tolist() == [1.0, 0.5]
    assert events.test is not None
    assert events.test.tolist() == [False, True]


@pytest.mark.parametrize(
    ("cells", "times", "timed"),
    [
        (["0", "1", "2"], [0, 1, 2], False),
        (["99999999"], [99999999], False),
        (["874724710", "100000000000000"], [874724710, 100000000000], True),
        (["1709251200000", "1709251201", "1709251202000000", "1709251203000000000"], [*range(T, T + 4)], True),
        (["1396437466.94"], [1396437466.94], True),
        (["2024-03-01T00:00:00Z", "2024-03-01 02:00:01+02:00"], [1709251200, 1709251201], True),
        (["2024-03-01T00:00:00.25Z", "1709251200000"], [T, T + 0.25], True),
        (["2024-03-01 00:00:00 UTC"], [T], True),
    ],
)
def test_the_size_of_a_number_tells_its_unit_and_small_whole_numbers_are_an_order(
    tmp_path: Path, cells: list[str], times: list[float], timed: bool
) -> None:
    events = read_events(
        write(tmp_path / "e.csv", "user_id,item_id,timestamp\n" + "".join(f"u,a,{c}\n" for c in cells))
    )
    assert events.time.tolist() == times
    assert events.timed is timed


@pytest.mark.parametrize(
    ("kind", "zone"),
    [
        (pa.timestamp("s"), "UTC"),
        (pa.timestamp("ms", "UTC"), ""),
        (pa.timestamp("ns", "Europe/Berlin"), ""),
        (pa.date32(), "UTC"),
        (pa.timestamp("us"), "Europe/Berlin"),
    ],
)
def test_times_of_parquet_are_seconds_whatever_their_unit_and_zone(
    tmp_path: Path, kind: pa.DataType, zone: str
) -> None:
    day = datetime(2024, 3, 1, tzinfo=UTC)
    rule = TimeRule.of(EventsConfig(time_zone=zone))
    table = {"user_id": pa.array([7, 8]), "item_id": pa.array(["a", "b"]).dictionary_encode()}
    table["timestamp"] = pa.array([day.replace(tzinfo=None)] * 2).cast(pa.timestamp("us", "UTC")).cast(kind)
    parquet.write_table(pa.table(table), tmp_path / "e.parquet")
    if zone:
        with pytest.raises(FileError, match=r"timestamp must have a time zone, .*OUSEL_EVENTS__TIME_ZONE"):
            read_events(tmp_path / "e.parquet")
    events = read_events(tmp_path / "e.parquet", rule=rule)
    offset_s = 3600 if zone == "Europe/Berlin" else 0
    assert events.time.tolist() == [day.timestamp() - offset_s] * 2
    assert (events.timed, list(events.users), list(events.items)) == (True, ["7", "8"], ["a", "b"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "got an empty file"),
        ("\n\n", "got an empty file"),
        (HEADER, "at least one row"),
        ("user_id,item_id\nu,a\n", "column timestamp must be there, got the header 'user_id,item_id'"),
        ("user_id,timestamp\nu,1\n", "column item_id must be there"),
        ("item_id,timestamp\na,1\n", "column user_id or session_id must be there, got the header 'item_id,timestamp'"),
        ("user_id,item_id,item_id,timestamp\nu,a,b,1\n", "item_id must be there once, got 2"),
        ("user_id,item_id,timestamp\nu,a,1\nu,,2\n", "line 3: item_id must be a non-empty id, got ''"),
        ("user_id,item_id,timestamp\n,a,1\n", "line 2: user_id must be an id"),
        ("session_id,item_id,timestamp\n,a,1\n", "line 2: session_id must be an id"),
        ("user_id,item_id,timestamp\nu,a,1\nu,b,nan\n", "line 3: timestamp must be .* got 'nan'"),
        ("user_id,item_id,timestamp\nu,a,inf\n", "line 2: timestamp must be .* got 'inf'"),
        ("user_id,item_id,timestamp\nu,a,\n", "line 2: timestamp must be .* got ''"),
        ("user_id,item_id,timestamp\nu,a,1\nu,b,2024-01-01\n", "line 3: timestamp must be .* got '2024-01-01'"),
        ("user_id,item_id,timestamp\nu,a,2024-01-01Z\n", "line 2: timestamp must be RFC 3339 .* got '2024-01-01Z'"),
        (
            "user_id,item_id,timestamp\nu,a,2024-01-01T00:00:00Z\nu,b,2024-01-01\n",
            "line 3: timestamp must be a time with its zone, .* events.time_zone must be set, got '2024-01-01'",
        ),
        (
            "user_id,item_id,timestamp\nu,a,1709251200\nu,b,5\n",
            r"line 3: timestamp must be a time not before 1990-01-0",
        ),
        ("user_id,item_id,timestamp\nu,a,1970-01-20T18:47:31Z\n", "line 2: timestamp must be a time not before 1990"),
        ("user_id,item_id,timestamp\nu,a,0.5\n", "line 2: timestamp must be a time not before 1990"),
        ("user_id,item_id,timestamp\nu,a,3e20\n", "line 2: timestamp must be a time in the years up to 9999"),
        ('user_id,item_id,timestamp\nu,"a\nb",1\n\nu,,2\n', "line 5: item_id"),
        (
            "user_id,item_id,timestamp\nu,a,1,2\n",
            "line 2: a row must have 3 values, as the header has, got 4: 'u,a,1,2'",
        ),
        (HEADER + "u,s,a,1,,-1,test\n", "line 2: value must be a finite number >= 0, got '-1'"),
        (HEADER + "u,s,a,1,,nan,test\n", "line 2: value must be .* got 'nan'"),
        (HEADER + "u,s,a,1,,1e39,test\n", "line 2: value must be .* got '1e39'"),
        (HEADER + "u,s,a,1,,x,test\n", "line 2: value must be .* got 'x'"),
        (HEADER + "u,s,a,1,,1,train\nu,s,a,1,,1,valid\n", "line 3: split must be 'train' or 'test', got 'valid'"),
        (HEADER + "u,s,a,1,,1,\n", "line 2: split must be"),
    ],
)
def test_a_wrong_cell_is_named_with_its_line_column_and_value(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "e.csv", text)
    with pytest.raises(FileError, match=message) as raised:
        read_events(path)
    assert str(raised.value).startswith(str(path))


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ({"item_id": ["a", None]}, "row 2: item_id must be a non-empty id, got None"),
        ({"item_id": [1.0, 2.0]}, "item_id must be text, .*, got a column of double: .*pandas"),
        ({"timestamp": [1.0, float("nan")]}, "row 2: timestamp must be"),
        ({"timestamp": [1, None]}, "row 2: timestamp must be .* got None"),
        ({"timestamp": [True, False]}, "timestamp must be times, whole numbers, .*, got a column of bool"),
        ({"value": [0.5, float("nan")]}, "row 2: value must be"),
        ({"split": ["test", None]}, "row 2: split must be"),
        ({"user_id": [b"\xff", b"a"]}, "user_id must be .*, got a column of binary that is not text in UTF-8"),
    ],
)
def test_a_wrong_cell_of_parquet_is_named_with_its_row(tmp_path: Path, column: dict[str, Any], message: str) -> None:
    table = {"user_id": ["u", "v"], "item_id": ["a", "b"], "timestamp": [1, 2]} | column
    parquet.write_table(pa.table(table), tmp_path / "e.parquet")
    with pytest.raises(FileError, match=message):
        read_events(tmp_path / "e.parquet")


def test_missing_values_of_parquet_are_one(tmp_path: Path) -> None:
    table = {"user_id": ["u", "v"], "item_id": ["a", "b"], "timestamp": [1, 2], "value": [None, 0.5]}
    parquet.write_table(pa.table(table), tmp_path / "e.parquet")
    assert read_events(tmp_path / "e.parquet").value.tolist() == [1.0, 0.5]


def test_what_is_no_readable_file_is_refused(tmp_path: Path) -> None:
    for name, content, message in [
        ("none.csv", None, "must be a file, found none"),
        ("e.txt", b"x", "must end in .csv, .csv.gz or .parquet, or be a folder of .parquet files"),
        ("e.csv.gz", b"user_id", "can't be read"),
        ("cut.csv.gz", gzip.compress(b"user_id,item_id,timestamp\nu,a,1\n")[:-9], "can't be read"),
        ("e.parquet", b"PAR1", "can't be read"),
        ("e.csv", b"user_id,item_id,timestamp\nu,a,1\nu,caf\xe9,1\n", "line 3: must be text in UTF-8, .*0xe9, .*'é'"),
    ]:
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(FileError, match=message):
            read_events(tmp_path / name)


def test_items_have_titles_and_categories_and_those_without_events_come_last(tmp_path: Path) -> None:
    items = write(tmp_path / "i.csv", '\ufeffitem_id,title,categories\nz,"Zed, the",a|b||a\nx,,\ny,Why,c\n')
    read = read_items(items)
    assert read.title == {"z": "Zed, the", "x": "", "y": "Why"}
    assert read.categories == {"z": ("a", "b"), "x": (), "y": ("c",)}
    events = read_events(write(tmp_path / "e.csv", "user_id,item_id,timestamp\nu,new,1\nu,x,2\n"), read)
    assert list(events.items) == ["new", "x", "z", "y"]
    assert np.bincount(events.item, minlength=len(events.items)).tolist() == [1, 1, 0, 0]


def test_an_item_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="line 3: item_id must be there once, got 'x'"):
        read_items(write(tmp_path / "i.csv", "item_id\nx\nx\n"))
