import io
import json
import re
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime
from importlib import metadata

import grpc
import pytest
from ousel.cli import main

from tests.clients.command_line import PROGRAM, run


@pytest.fixture(autouse=True)
def address(engine, monkeypatch):
    monkeypatch.setenv("OUSEL_ADDRESS", engine.address)


@pytest.fixture
def start():
    """Starts the command line in a process of its own, which does not outlive the test or 20 s."""
    processes = []

    def start_process(*arguments):
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        limit = threading.Timer(20, process.kill)
        limit.start()
        processes.append((process, limit))
        return process

    yield start_process
    for process, limit in processes:
        limit.cancel()
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def test_recommend_prints_a_numbered_list_under_a_header(capsys, engine):
    code, out, err = run(capsys, "recommend", "ann", "-k", "2")
    assert (code, err) == (0, "")
    header, first, second = out.splitlines()
    assert header.split() == ["user", "ann", "origin:", "model", "model", "version:", "3"]
    assert first.split() == ["1", "apple", "The", "apple", "1.0000", "index,", "popular"]
    assert second.split() == ["2", "bread", "The", "bread", "0.5000", "index,", "popular"]
    assert (engine.requests[0].query.user_id, engine.requests[0].query.k) == ("ann", 2)


@pytest.mark.parametrize("command", [["recommend", "ann"], ["watch", "ann", "--updates", "1"]])
def test_commands_leave_the_length_of_a_list_to_the_engine_unless_told(capsys, engine, command):
    assert run(capsys, *command)[0] == 0
    assert run(capsys, *command, "-k", "3")[0] == 0
    asked = [request.query.k for request in engine.requests] + [sent.subscribe.k for sent in engine.stream_messages]
    assert asked == [0, 3]


def test_recommend_for_a_session_that_nothing_is_known_of_says_so(capsys, engine, make_list):
    engine.list = make_list("apple", known=False, model_version=0)
    code, out, _ = run(capsys, "recommend", "tab-1", "--session")
    assert code == 0
    assert (engine.requests[0].query.user_id, engine.requests[0].query.session_id) == ("", "tab-1")
    assert out.splitlines()[0] == "session tab-1  origin: popularity  model version: 0  (no events of this one yet)"


def test_recommend_says_when_there_is_nothing(capsys, engine, make_list):
    engine.list = make_list()
    assert "nothing to recommend" in run(capsys, "recommend", "ann")[1]


def test_recommend_as_json_holds_the_whole_list(capsys):
    code, out, _ = run(capsys, "recommend", "ann", "--json")
    assert code == 0
    ranked = json.loads(out)
    assert ranked["items"][1] == {
        "item_id": "bread",
        "title": "The bread",
        "score": 0.5,
        "sources": ["index", "popular"],
    }
    assert (ranked["origin"], ranked["known"], ranked["model_version"]) == ("model", True, 3)
    assert ranked["reflects"] == [{"topic": "ousel.events", "partition": 1, "offset": 41}]


def test_catalog_text_cannot_steer_the_terminal(capsys, engine):
    engine.list = {"items": [{"item_id": "x", "title": "\x1b[2Jboo\n" + "long " * 20}]}
    _, out, _ = run(capsys, "recommend", "ann")
    assert "\x1b" not in out
    assert len(out.splitlines()) == 2
    assert "?[2Jboo?long" in out and "…" in out


def test_watch_marks_what_is_new_and_what_moved(capsys, engine, make_list):
    engine.on_subscribe = [
        ("CAUSE_SUBSCRIBED", make_list("apple", "bread", "cake")),
        ("CAUSE_EVENTS", make_list("bread", "apple", "cake", "date")),
        ("CAUSE_MODEL", make_list("bread", "apple", "cake", "date", model_version=4)),
    ]
    code, out, err = run(capsys, "watch", "ann", "-k", "4", "--updates", "3")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    headers = [line for line in lines if "cause:" in line]
    assert [re.search(r"cause: (\w+).*model version: (\d+)", line).groups() for line in headers] == [
        ("subscribed", "3"),
        ("events", "3"),
        ("model", "4"),
    ]
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} ", line) for line in headers)
    marks = [(line[5], line[7:].split()[0]) for line in lines if line not in headers]
    assert marks == [
        *[(" ", "apple"), (" ", "bread"), (" ", "cake")],
        *[("^", "bread"), ("v", "apple"), (" ", "cake"), ("+", "date")],
        *[(" ", "bread"), (" ", "apple"), (" ", "cake"), (" ", "date")],
    ]
    assert engine.stream_messages[0].subscribe.k == 4


def test_watch_ends_quietly_on_ctrl_c(engine, start):
    process = start("watch", "ann")
    assert "cause: subscribed" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")
    engine.wait_for(lambda: engine.open_streams == 0)


def test_watch_tries_again_when_the_engine_went_away(engine, start, restart):
    process = start("watch", "ann", "--updates", "3")
    for _ in range(2):
        # The list has been seen: only then does the next loss start its waits afresh.
        assert "cause: subscribed" in next(line for line in process.stdout if "cause:" in line)
        engine = restart(engine)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert out.count("cause: subscribed") == 1
    waits = [re.fullmatch(r"ousel: connection lost, trying again in ([\d.]+) s", line) for line in err.splitlines()]
    assert all(waits), err  # and nothing of gRPC's own log
    assert [wait[1] for wait in waits].count("0.2") == 2


def test_watch_ends_quietly_when_its_reader_goes_away(engine, start):
    engine.on_subscribe *= 1000
    process = start("watch", "ann")
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=20) == 0
    assert process.stderr.read() == ""


def test_watch_gives_up_on_what_trying_again_will_not_mend(capsys, engine):
    engine.stop()
    code, out, err = run(capsys, "watch", "ann")
    assert (code, out) == (1, "")
    assert err.startswith(f"ousel: the engine at {engine.address} is not available")


def test_track_sends_the_event_and_prints_its_position(capsys, engine):
    code, out, err = run(capsys, "track", "ann", "apple", "--kind", "purchase", "--value", "2")
    assert (code, err) == (0, "")
    event = engine.requests[0].event
    assert (event.user_id, event.item_id, event.kind, event.value) == ("ann", "apple", "purchase", 2)
    assert out == f"event {event.event_id} is in ousel.events, partition 2, offset 7\n"


def test_track_for_a_session(capsys, engine):
    assert run(capsys, "track", "tab-1", "apple", "--session")[0] == 0
    event = engine.requests[0].event
    assert (event.user_id, event.session_id, event.kind, event.value) == ("", "tab-1", "view", 1)


def test_status_prints_a_table_and_json(capsys, engine):
    engine.status.items = 92_331
    engine.status.model_metrics["hit_rate@20"] = 0.25
    engine.status.reflects.add(topic="ousel.events", partition=0, offset=5)
    code, out, _ = run(capsys, "status")
    assert code == 0
    rows = _rows(out)
    assert (rows["serving"], rows["model version"], rows["items"]) == ("yes", "3", "92,331")
    assert (rows["hit_rate@20"], rows["ousel.events/0"]) == ("0.25", "folded up to offset 5")
    status = json.loads(run(capsys, "status", "--json")[1])
    assert (status["serving"], status["items"], status["model_metrics"]) == (True, 92_331, {"hit_rate@20": 0.25})


def test_status_shows_the_share_of_the_log_and_what_was_left_out(capsys, engine):
    engine.status.MergeFrom(
        type(engine.status)(
            users=7, users_limit=5000, users_evicted=1, users_forgotten=2, items_evicted=3, events_duplicate=4,
            records_redelivered=5, partitions=[0, 2], partitions_total=4, targets=6000, targets_evicted=8,
        )
    )  # fmt: skip
    before = _rows(run(capsys, "status")[1])
    assert (before["users"], before["users evicted"], before["users forgotten"]) == ("7 of at most 5,000", "1", "2")
    assert (before["items evicted"], before["duplicate events"], before["redelivered"]) == ("3", "4", "5")
    assert (before["relation targets"], before["targets evicted"]) == ("6,000", "8")
    assert (before["partitions"], before["snapshot"]) == ("0, 2 of 4", "none yet")
    assert json.loads(run(capsys, "status", "--json")[1])["snapshot_time"] is None
    engine.status.snapshot_time.FromMilliseconds(1_700_000_000_250)
    assert _rows(run(capsys, "status")[1])["snapshot"] == "2023-11-14 22:13:20 UTC"
    assert json.loads(run(capsys, "status", "--json")[1])["snapshot_time"] == "2023-11-14T22:13:20.250000+00:00"


def _rows(out: str) -> dict[str, str]:
    return dict(re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in out.splitlines())


def test_export_prints_one_json_object(capsys, engine):
    engine.export.known = True
    event = engine.export.subjects.add(partition=2, sessions=1).history.add(item_id="apple", kind="cart", session=3)
    event.time.FromMilliseconds(1_700_000_000_250)
    code, out, err = run(capsys, "export", "ann")
    assert (code, err) == (0, "")
    exported = json.loads(out)
    assert (exported["known"], exported["partitions"]) == (True, [0, 2])
    time = "2023-11-14T22:13:20.250000+00:00"
    assert exported["subjects"][0]["history"] == [
        {"item_id": "apple", "kind": "cart", "time": time, "value": 0.0, "session": 3}
    ]
    run(capsys, "export", "tab-1", "--session")
    assert [(request.user_id, request.session_id) for request in engine.requests] == [("ann", ""), ("", "tab-1")]


def test_forget_with_yes_does_not_ask_and_says_who_and_where(capsys, engine):
    engine.forgotten.subjects.add(user_id="ann")
    engine.forgotten.subjects.add(session_id="tab-1")
    engine.forgotten.positions.add(topic="ousel.events", partition=2, offset=7)
    code, out, err = run(capsys, "forget", "ann", "--yes")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "forgotten: user ann",
        "forgotten: session tab-1",
        "linked sessions were looked for in partitions 0, 2",
        "written to ousel.events/2, offset 7",
    ]
    run(capsys, "forget", "tab-1", "--session", "--yes")
    assert [(request.user_id, request.session_id) for request in engine.requests] == [("ann", ""), ("", "tab-1")]


@pytest.fixture
def terminal(monkeypatch):
    """Makes standard input a terminal on which these lines are typed, and then Ctrl-D."""

    def typed(lines):
        stdin = io.StringIO(lines)
        stdin.isatty = lambda: True
        monkeypatch.setattr(sys, "stdin", stdin)

    return typed


@pytest.mark.parametrize("answer", ["y\n", "Yes\n"])
def test_forget_asks_on_a_terminal(capsys, engine, terminal, answer):
    terminal(answer)
    code, out, err = run(capsys, "forget", "ann\x1b[2J")
    assert code == 0
    assert err == "Forget user 'ann\\x1b[2J' for good? [y/N] "
    assert "Forget" not in out  # which may be a file
    assert engine.requests[0].user_id == "ann\x1b[2J"


@pytest.mark.parametrize("answer", ["\n", "n\n", "yeah\n", ""])
def test_forget_without_a_yes_forgets_nobody(engine, terminal, answer):
    terminal(answer)
    with pytest.raises(SystemExit, match="not confirmed, nothing was forgotten"):
        main(["forget", "ann"])
    assert engine.requests == []


def test_forget_where_nobody_can_be_asked_needs_yes(capsys, engine, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    with pytest.raises(SystemExit) as caught:
        main(["forget", "ann"])
    assert caught.value.code == 2
    assert "--yes is needed" in capsys.readouterr().err
    assert engine.requests == []


def test_digest_prints_a_table_and_json(capsys):
    code, out, err = run(capsys, "digest")
    assert (code, err) == (0, "")
    assert _rows(out) == {
        "ousel.events/0": "a1  8 events, up to offset 9",
        "ousel.events/2": "b2  0 events, up to offset -1",
        "catalog": "c3",
        "ousel.items/0": "up to offset 3",
    }
    digest = json.loads(run(capsys, "digest", "--json")[1])
    assert [one["digest"] for one in digest["partitions"]] == ["a1", "b2"]


def test_snapshot_says_what_is_safe(capsys, engine):
    assert run(capsys, "snapshot") == (0, "ousel.events/2  safe up to offset 7\n", "")
    assert json.loads(run(capsys, "snapshot", "--json")[1]) == [{"topic": "ousel.events", "partition": 2, "offset": 7}]
    engine.failures.append((grpc.StatusCode.FAILED_PRECONDITION, "snapshot.enabled must be true"))
    assert run(capsys, "snapshot") == (1, "", "ousel: snapshot.enabled must be true\n")


def test_rollback_says_what_serves_again(capsys, engine):
    assert run(capsys, "rollback") == (0, "model version 2 serves again, 12 ms to swap\n", "")
    assert json.loads(run(capsys, "rollback", "--expect", "3", "--json")[1]) == {
        "version": 2,
        "swap_ms": 12.0,
        "serving": True,
    }
    assert [request.expected_version for request in engine.requests] == [0, 3]


@pytest.mark.parametrize("command", [["recommend", "ann"], ["watch", "ann", "--updates", "1"]])
def test_lists_are_filtered_as_the_api_filters_them(capsys, engine, command):
    more = [
        "--category",
        "fruit",
        "--category",
        "dairy",
        "--exclude",
        "apple",
        "--exclude",
        "milk",
        "--exclude-history",
    ]
    assert run(capsys, *command, *more)[0] == 0
    (query,) = [request.query for request in engine.requests] or [sent.subscribe for sent in engine.stream_messages]
    assert list(query.options.categories) == ["fruit", "dairy"]
    assert list(query.options.exclude_item_ids) == ["apple", "milk"]
    assert query.options.exclude_history


def test_lists_are_not_filtered_unless_told(capsys, engine):
    run(capsys, "recommend", "ann")
    options = engine.requests[0].query.options
    assert (list(options.categories), list(options.exclude_item_ids), options.exclude_history) == ([], [], False)


_MOMENT = datetime(2026, 3, 31, 8, 0, 0, 250_000, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "2026-03-31T08:00:00.250Z", "2026-03-31 10:00:00.25+02:00", "2026-03-31T08:00:00.250000000Z",
        "2026-03-31 08:00:00.25 UTC", "1774944000.25", "1774944000250", "1774944000250000", "1774944000250000000",
        "1.77494400025e9",
    ],
)  # fmt: skip
def test_a_tracked_time_is_read_as_the_engine_reads_times(capsys, engine, text):
    assert run(capsys, "track", "ann", "apple", "--time", text)[0] == 0
    assert engine.requests[0].event.time.ToDatetime(UTC) == _MOMENT


def test_an_event_without_a_time_is_left_to_the_log(capsys, engine):
    run(capsys, "track", "ann", "apple")
    assert not engine.requests[0].event.HasField("time")
    assert (engine.requests[0].event.kind, engine.requests[0].event.value) == ("view", 1.0)


def test_an_event_keeps_the_id_that_it_is_given(capsys, engine):
    run(capsys, "track", "ann", "apple", "--event-id", "e-1")
    assert engine.requests[0].event.event_id == "e-1"


def test_track_as_json_says_where_the_event_lies(capsys):
    code, out, err = run(capsys, "track", "ann", "apple", "--event-id", "e-1", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == {
        "event_id": "e-1", "position": {"topic": "ousel.events", "partition": 2, "offset": 7}
    }  # fmt: skip


def test_watch_as_json_is_an_object_a_line(capsys, engine, make_list):
    engine.on_subscribe = [("CAUSE_SUBSCRIBED", make_list("apple")), ("CAUSE_EVENTS", make_list("bread", "apple"))]
    code, out, err = run(capsys, "watch", "ann", "--updates", "2", "--json")
    assert (code, err) == (0, "")
    first, second = map(json.loads, out.splitlines())
    assert (first["cause"], second["cause"]) == ("subscribed", "events")
    assert [item["item_id"] for item in second["list"]["items"]] == ["bread", "apple"]
    assert datetime.fromisoformat(first["time"]).utcoffset() is not None


def test_forget_as_json_says_who_and_where(capsys, engine):
    engine.forgotten.subjects.add(user_id="ann")
    engine.forgotten.positions.add(topic="ousel.events", partition=2, offset=7)
    code, out, err = run(capsys, "forget", "ann", "--yes", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == {
        "subjects": [{"user_id": "ann", "session_id": ""}],
        "positions": [{"topic": "ousel.events", "partition": 2, "offset": 7}],
        "partitions": [0, 2],
    }


def test_the_version_is_that_of_the_distribution(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"ousel {metadata.version('ousel-client')}\n"
