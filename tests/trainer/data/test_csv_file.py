"""CSV files of other programs: quotes, separators, headers, encodings and dates, each read right or refused by line."""

from __future__ import annotations

import gzip
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config import EventsConfig
from engine.events.times import TimeRule
from trainer.data.csv_file import header_of, line_of, read_columns
from trainer.data.file_error import FileError
from trainer.data.files import read_events, read_items, read_rows

RULE = TimeRule.of(EventsConfig())
NAMES = "user_id,item_id,timestamp,title\n"
ROW = "u{0},i{0},17000000{0:02},plain\n"


def rows(first: int, last: int) -> str:
    return "".join(ROW.format(at) for at in range(first, last))


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def problem(path: Path) -> str:
    with pytest.raises(FileError) as raised:
        read_events(path)
    return str(raised.value)


@pytest.mark.parametrize("name", ["e.csv", "e.csv.gz"])
def test_a_quote_that_is_never_closed_is_refused_with_the_line_where_it_opens(tmp_path: Path, name: str) -> None:
    text = (NAMES + rows(0, 10) + 'u,i,1700000010,"disk\n' + rows(11, 60)).encode()
    path = write(tmp_path / name, gzip.compress(text) if name.endswith(".gz") else text)
    assert f"{path}, line 12: a value that begins with a quote must end with one, got none up to" in problem(path)


def test_the_line_is_that_of_the_quote_where_the_row_begins_above_it(tmp_path: Path) -> None:
    path = write(tmp_path / "e.csv", NAMES + rows(0, 2) + '"a\nb",i,1700000010,"disk\n' + rows(11, 60))
    assert "line 5: a value that begins with a quote must end with one" in problem(path)


def test_a_quote_that_only_another_stray_quote_closes_is_refused(tmp_path: Path) -> None:
    text = NAMES + rows(0, 2) + 'u,i,1700000010,"disk\n' + rows(11, 20) + 'u,i,1700000030,"tape\n' + rows(31, 40)
    message = problem(write(tmp_path / "e.csv", text))
    assert "line 4: a comma or the end of the line must follow where a value in quotes ends" in message
    assert "got a value that ends on line 14 before 'tape'" in message


def test_text_behind_a_closing_quote_is_refused(tmp_path: Path) -> None:
    message = problem(write(tmp_path / "e.csv", NAMES + 'u,i,1700000000,"5" disk"\n'))
    assert "line 2: a comma or the end of the line must follow" in message and "before ' disk\"'" in message


def test_a_value_in_quotes_that_holds_rows_is_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = NAMES + rows(0, 2) + 'u,i,1700000010,"disk\n' + rows(11, 20) + 'u,i,1700000030,5"\n' + rows(31, 40)
    path = write(tmp_path / "e.csv", text)
    assert len(read_events(path)) == 2 + 1 + 9
    assert f"{path}, line 4: a value in quotes goes on over lines that look like rows" in caplog.text


def test_a_title_of_several_lines_is_no_reason_for_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "e.csv", NAMES + 'u,i,1700000010,"one,\ntwo, three\n\nfour"\n' + rows(11, 20))
    assert len(read_events(path)) == 10
    assert "look like rows" not in caplog.text


def test_a_quote_inside_a_value_without_quotes_is_text(tmp_path: Path) -> None:
    path = write(tmp_path / "i.csv", 'item_id,title\na,5" disk\nb,"5"" disk"\nc,plain\n')
    assert list(read_items(path).title.values()) == ['5" disk', '5" disk', "plain"]


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_and_byte_order_marks_do_not_matter(tmp_path: Path, end: str, mark: str) -> None:
    path = write(tmp_path / "e.csv", (mark + NAMES + 'u,"i",1700000010,"a, b"\n' + rows(11, 13)).replace("\n", end))
    events = read_events(path)
    assert (list(events.items), list(events.users)) == (["i", "i11", "i12"], ["u", "u11", "u12"])


VALUE = st.lists(st.sampled_from(['"', ",", "\n", "\r\n", "a", " ", ";", "é"]), max_size=4).map("".join)


@given(table=st.lists(st.tuples(VALUE, VALUE, VALUE), min_size=1, max_size=8), cut=st.integers(1, 40))
def test_what_is_written_in_quotes_is_read_back_and_no_cut_of_it_swallows_a_row(
    tmp_path_factory: pytest.TempPathFactory, table: list[tuple[str, str, str]], cut: int
) -> None:
    path = tmp_path_factory.mktemp("csv") / "e.csv"
    header = ["a", "b", "c"]
    lines = [",".join('"' + value.replace('"', '""') + '"' for value in row) for row in table]
    text = "a,b,c\n" + "\n".join(lines) + "\n"
    write(path, text)
    columns = read_columns(path, header, header)
    assert list(zip(*(columns[name].to_pylist() for name in header), strict=True)) == table
    begin = [2 + sum(line.count("\n") + 1 for line in lines[:at]) for at in range(len(table))]
    assert [line_of(path, row) for row in range(len(table))] == begin
    # Cut off somewhere, the file has fewer rows, or is refused: never a row that reaches over what was one before.
    write(path, text[: -cut or None])
    try:
        shorter = read_columns(path, header_of(path), header[:1])["a"].to_pylist() if header_of(path) == header else []
    except FileError:
        return
    assert shorter == [row[0] for row in table[: len(shorter)]]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("user_id;item_id;timestamp", "got the header 'user_id;item_id;timestamp': .* semicolons; write .* commas"),
        ("user_id\titem_id\ttimestamp", r"got the header 'user_id\\titem_id\\ttimestamp': .* by tabs"),
        ("user_id|item_id|timestamp", "got the header .*: its values are separated by vertical bars"),
        ("User Id;Item Id;Timestamp", "got the header 'User Id;Item Id;Timestamp': .* semicolons"),
        (
            "USER_ID,ITEM_ID,TIMESTAMP",
            "the columns item_id, timestamp, and user_id or session_id must be there, got the header"
            " 'USER_ID,ITEM_ID,TIMESTAMP': rename 'USER_ID' to user_id, rename 'ITEM_ID' to item_id",
        ),
        ("user_id, item_id, timestamp", "rename ' item_id' to item_id"),
        ("userId,itemId,timestamp", "rename 'userId' to user_id, rename 'itemId' to item_id"),
        ("user id,item id,time stamp", "rename 'time stamp' to timestamp"),
        (
            "timestamp,visitorid,event,itemid,transactionid",
            "the columns item_id, and user_id or session_id must be there, got the header"
            " 'timestamp,visitorid,event,itemid,transactionid': rename 'itemid' to item_id",
        ),
        ("u0,i0,1700000000", "got the header 'u0,i0,1700000000'$"),
    ],
)
def test_a_header_of_other_names_or_separators_is_shown_with_what_to_do(
    tmp_path: Path, header: str, message: str
) -> None:
    path = write(tmp_path / "e.csv", header + "\nu0,i0,1700000000\n")
    with pytest.raises(FileError, match=message):
        read_events(path)


def test_columns_that_are_not_read_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    path = write(tmp_path / "e.csv", "user_id,item_id,timestamp,Kind,device\nu,i,1700000000,buy,phone\n")
    assert list(read_events(path).kinds) == ["view"]
    lines = {record.levelname: record.getMessage() for record in caplog.records}
    assert lines["WARNING"].endswith("rename 'Kind' to kind") and lines["INFO"].endswith("that nothing reads: 'device'")


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ("20240131", "2024-01-31T00:00:00Z"),
        ("2024013108", "2024-01-31T08:00:00Z"),
        ("202401310815", "2024-01-31T08:15:00Z"),
        ("20240131081530", "2024-01-31T08:15:30Z"),
    ],
)
def test_dates_that_are_written_as_numbers_are_refused(tmp_path: Path, cell: str, written: str) -> None:
    path = write(tmp_path / "e.csv", f"user_id,item_id,timestamp\nu,i,{cell}\nu,j,{cell}\n")
    message = problem(path)
    assert "line 2: timestamp must be RFC 3339 text" in message
    assert f"a date that is written as a number is none of them: write {written} for {cell}, got '{cell}'" in message


@pytest.mark.parametrize("cells", [("20240131", "20241399"), ("1", "2"), ("20240131", "7")])
def test_an_order_is_no_date_where_one_of_its_numbers_is_none(tmp_path: Path, cells: tuple[str, str]) -> None:
    path = write(tmp_path / "e.csv", "user_id,item_id,timestamp\n" + "".join(f"u,i,{cell}\n" for cell in cells))
    assert not read_events(path).timed


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            NAMES.encode() + b"u,i,1700000000,ok\nu,na\xefve,1700000000,x\n",
            "line 3: must be text in UTF-8, .*0xef, .*'ï'",
        ),
        ("user_id,item_id,timestamp\nu,i,1\n".encode("utf-16"), "is in UTF-16: save it in UTF-8"),
        (b"PK\x03\x04" + bytes(30), "is a spreadsheet or a zip archive"),
        (b"PAR1" + bytes(30), "is a Parquet file: give it a name that ends in .parquet"),
        (gzip.compress(b"user_id", mtime=0), "is compressed by gzip: give it a name that ends in .csv.gz"),
        (b"", "must begin with a line of column names, got an empty file"),
        (NAMES.encode(), "must hold at least one row below its header, got none"),
        (NAMES.encode() + b"u,i,1700000000\n", "line 2: a row must have 4 values, as the header has, got 3: 'u,i,"),
        (NAMES.encode() + b'u,"i\n",1700000000,x\n\nu,i,1700000000,x,y\n', "line 5: a row must have 4 values"),
    ],
)
def test_a_file_that_only_looks_like_csv_is_refused_with_the_reason(
    tmp_path: Path, content: bytes, message: str
) -> None:
    with pytest.raises(FileError, match=message):
        read_events(write(tmp_path / "e.csv", content))


def test_columns_may_have_no_name(tmp_path: Path) -> None:
    """pandas writes its index so, and spreadsheets write empty columns."""
    path = write(tmp_path / "e.csv", ",user_id,item_id,timestamp,,\n0,u,i,1700000000,,\n1,u,j,1700000001,,\n")
    assert list(read_events(path).items) == ["i", "j"]


def test_a_column_that_nobody_reads_may_be_in_another_encoding(tmp_path: Path) -> None:
    path = write(tmp_path / "e.csv", NAMES.encode() + b'u,i,1700000000,caf\xe9\nu,j,1700000000,"caf\xe9"\n')
    assert list(read_events(path).items) == ["i", "j"]


def test_a_value_of_a_megabyte_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "e.csv", NAMES + 'u,i,1700000000,"' + "x\n" * 700_000 + '"\n' + rows(1, 3))
    assert len(read_events(path)) == 3


def test_a_split_is_read_only_where_it_is_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "e.csv", "user_id,item_id,timestamp,split\nu,i,1700000000,train\nu,j,1700000001,valid\n")
    assert read_rows(path, RULE, split=False).test is None
    assert "line 3: split must be 'train' or 'test', got 'valid'" in problem(path)
