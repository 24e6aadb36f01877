"""The `ousel` command refuses wrong values and wrong addresses, and tells why a call failed, each in one line."""

import os

import grpc
import pytest
from ousel.cli import main
from ousel.cli_arguments import parse

from tests.clients.command_line import run


@pytest.fixture(autouse=True)
def address(engine, monkeypatch):
    monkeypatch.setenv("OUSEL_ADDRESS", engine.address)


def test_a_call_that_fails_is_one_clear_line_and_exit_code_1(capsys, engine):
    engine.failures.append((grpc.StatusCode.FAILED_PRECONDITION, "there is no model before"))
    assert run(capsys, "rollback") == (1, "", "ousel: there is no model before\n")


@pytest.mark.parametrize(
    ("arguments", "refusal", "said"),
    [
        (("recommend", "ann", "-k", "5000"), "k must be within 1..1000", "-k must be within 1..1000"),
        (("recommend", "ann", "--category", "x"), "categories[0] must not be empty", "--category[0] must not be empty"),
        (("track", "ann", "a", "--kind", "buy"), "event.kind must be one of ['view'], got 'buy'",
         "--kind must be one of ['view'], got 'buy'"),
        (("track", "ann", "a"), "event.item_id must have at most 256 bytes", "ITEM must have at most 256 bytes"),
        (("export", "null"), "user_id must name a user, got 'null'", "USER must name a user, got 'null'"),
        (("recommend", "ann"), "the kitchen is closed", "the kitchen is closed"),
    ],
)  # fmt: skip
def test_a_value_that_the_engine_refuses_is_a_line_with_the_option_and_exit_code_2(
    capsys, engine, arguments, refusal, said
):
    engine.failures.append((grpc.StatusCode.INVALID_ARGUMENT, refusal))
    assert run(capsys, *arguments) == (2, "", f"ousel: {said}\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("recommend", "ann", "-k", "many"), "argument -k: must be a whole number from 1 to 2147483647, got 'many'"),
        (("recommend", "ann", "-k", "0"), "argument -k: must be a whole number from 1 to 2147483647, got '0'"),
        (("recommend", "ann", "-k", "9" * 5000), "argument -k: must be a whole number from 1 to 2147483647, got '999"),
        (("recommend", ""), "argument USER: must not be empty, got ''"),
        (("recommend", "ann", "--exclude", ""), "argument --exclude: must not be empty, got ''"),
        (
            ("watch", "ann", "--updates", "0"),
            "argument --updates: must be a whole number from 1 to 2147483647, got '0'",
        ),
        (("rollback", "--expect", "x"), "argument --expect: must be a whole number from 1 to 2147483647, got 'x'"),
        (("track", "ann", "a", "--value", "much"), "argument --value: must be a finite number, got 'much'"),
        (("track", "ann", "a", "--value", "nan"), "argument --value: must be a finite number, got 'nan'"),
        (("track", "ann", "a", "--value", "1e999"), "argument --value: must be a finite number, got '1e999'"),
        (("track", "ann", "a", "--time", "today"), "argument --time: must be RFC 3339 text with a zone, such as "),
        (("track", "ann", "a", "--time", "1e99"), "argument --time: must be RFC 3339 text with a zone, such as "),
        (("track", "ann", "a", "--time", "2026-03-31T08:00:00"), "argument --time: must be a time with its zone, as "),
        (("track", "ann", "a", "--time", "2026-03-31"), "argument --time: must be a time with its zone, as "),
        (("status", "--address", "localhost"), "--address must be host:port, such as 127.0.0.1:50051, got 'localhost'"),
        (("status", "--address", "localhost:port"), "--address must be host:port, such as "),
        (("status", "--address", "localhost:65536"), "--address must be host:port, such as "),
        (("completion", "csh"), "argument shell: invalid choice: 'csh' (choose from "),
    ],
)
def test_a_wrong_value_is_a_line_with_the_option_the_value_and_what_is_allowed(capsys, engine, arguments, said):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert said in line
    assert engine.requests == []


def test_a_wrong_address_in_the_variable_names_the_variable(capsys, monkeypatch):
    monkeypatch.setenv("OUSEL_ADDRESS", "localhost")
    with pytest.raises(SystemExit) as caught:
        main(["status"])
    assert caught.value.code == 2
    assert "error: OUSEL_ADDRESS must be host:port, such as 127.0.0.1:50051" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["unix:/run/ousel", "dns:///engine:50051", "[::1]:50051", "ipv4:127.0.0.1:50051"])
def test_every_way_of_grpc_to_name_a_server_is_an_address(address):
    assert parse(["status", "--address", address]).address == address


def test_a_misspelt_variable_of_the_address_is_warned_of(capsys, monkeypatch):
    monkeypatch.delenv("OUSEL_ADDRESS")
    monkeypatch.setenv("OUSEL_ADRESS", "127.0.0.1:1")
    monkeypatch.setenv("OUSEL_SERVING__PORT", "1")  # which is the engine's
    assert parse(["status"]).address == "127.0.0.1:50051"
    assert capsys.readouterr().err == "ousel: OUSEL_ADRESS is ignored, did you mean OUSEL_ADDRESS?\n"


@pytest.mark.parametrize("place", ["before", "after"])
def test_the_address_option_wins_and_may_stand_before_or_after_the_command(capsys, closed_port, place):
    option = ("--address", f"127.0.0.1:{closed_port}")
    arguments = (*option, "status") if place == "before" else ("status", *option)
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert err.startswith(f"ousel: the engine at 127.0.0.1:{closed_port} is not available (Connection refused)")


def test_the_address_defaults_to_the_loopback(capsys, monkeypatch):
    monkeypatch.delenv("OUSEL_ADDRESS")
    with pytest.raises(SystemExit) as caught:
        main(["status", "--help"])
    assert caught.value.code == 0
    assert "127.0.0.1:50051" in capsys.readouterr().out
    assert "OUSEL_ADDRESS" not in os.environ


@pytest.mark.parametrize("arguments", [("status",), ("watch", "ann"), ("track", "apple", "ann")])
def test_a_password_in_the_address_is_refused_and_not_shown(capsys, monkeypatch, arguments):
    monkeypatch.setenv("OUSEL_ADDRESS", "me:hunter2@127.0.0.1:50051")
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err == "ousel: the address must be host:port without a user, a password and an @\n"
    assert "hunter2" not in captured.out


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("dance",),
        ("recommend",),
        ("recommend", "ann", "-k", "many"),
        ("watch", "ann", "--updates", "0"),
        ("track", "ann"),
        ("forget",),
        ("export",),
        ("rollback", "--expect", "0"),
    ],
)
def test_wrong_usage_exits_with_2(capsys, engine, arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: ousel" in capsys.readouterr().err
    assert engine.requests == []
