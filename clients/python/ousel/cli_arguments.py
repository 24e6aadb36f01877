"""The arguments of the command line: its commands, their options, and the values that these take.

A wrong value ends with exit code 2 and a line that names the option, the value and what is allowed.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from difflib import get_close_matches
from importlib import metadata
from typing import Any

from ousel.channel import DEFAULT_ADDRESS
from ousel.completion import SHELLS
from ousel.credentials import Credentials
from ousel.errors import InvalidArgument

ADDRESS_VARIABLE = "OUSEL_ADDRESS"
# Each option of the credentials, its variable, the argument that it is, and what it says. No option takes a token:
# the arguments of a program can be read by everybody on its machine.
_CREDENTIALS = (
    ("--tls-ca", "OUSEL_TLS_CA", "authorities", "FILE", "PEM file of the authorities that engines are checked with"),
    ("--tls-cert", "OUSEL_TLS_CERT", "certificate", "FILE", "PEM file of your certificate, where engines ask for one"),
    ("--tls-key", "OUSEL_TLS_KEY", "key", "FILE", "PEM file of its key"),
    ("--tls-name", "OUSEL_TLS_NAME", "server_name", "NAME", "name in the engine's certificate, if not the address's"),
    ("--token-file", "OUSEL_TOKEN_FILE", "token_file", "FILE", "file with the token that says who you are"),
)
_TOKEN_VARIABLE = "OUSEL_TOKEN"

_EXAMPLE = "2026-03-31T08:00:00Z"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_END_S = 253_402_300_800  # the end of the year 9999
_number = re.compile(r"[+-]?[0-9]{1,24}(\.[0-9]*)?([eE][+]?[0-9]{1,2})?").fullmatch
_host_and_port = re.compile(r".+:([0-9]{1,5})").fullmatch
_other_target = re.compile(r"(unix|unix-abstract|dns|ipv4|ipv6|vsock|xds):").match  # gRPC's ways to name a server

# The fields that an engine names where it refuses a value, and the option that each came from.
_OPTIONS = {
    "k": "-k",
    "categories": "--category",
    "exclude_item_ids": "--exclude",
    "kind": "--kind",
    "value": "--value",
    "time": "--time",
    "event_id": "--event-id",
    "item_id": "ITEM",
    "user_id": "USER",
    "session_id": "USER",
    "expected_version": "--expect",
    **{name: option for option, _, name, _, _ in _CREDENTIALS},
    "version": "VERSION",
    "keep": "--keep",
}
_FIELD = re.compile(r"^(?:the )?(?:event\.|query\.)?(\w+)(?=\[\d+\] | must | needs )")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments of one command; wrong usage exits with 2 as argparse does.

    The result has `command`, `address`, `credentials` and the options of the command; `wrong_usage` ends with a line.
    """
    parser = make_parser()
    args = parser.parse_args(argv)
    args.address = _address(args, parser)
    args.credentials = _credentials(args, parser)
    return args


def in_options(message: str) -> str:
    """A refusal of an engine, in which the option stands for the field that came from it."""
    return _FIELD.sub(lambda field: _OPTIONS.get(field[1], field[0]), message, count=1)


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(prog="ousel", description="Talks to an Ousel recommender engine.")
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and end")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, text: str) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = commands.add_parser(
            name, help=text, description=f"{text[0].upper()}{text[1:]}."
        )
        added.set_defaults(command=name, wrong_usage=added.error)
        return added

    _add_lists(command)
    _add_track(command)
    _add_json(command("status", "how the engine is doing"))
    _add_user(command("export", "all that the engine holds about a user, as one JSON object"))
    forget = command("forget", "forget a user for good, with its linked anonymous sessions")
    _add_user(forget)
    forget.add_argument("--yes", action="store_true", help="don't ask")
    _add_json(forget)
    _add_json(command("digest", "digests of all that the engine holds, to compare with another's"))
    _add_json(command("snapshot", "take a snapshot now, and say what it holds"), "one JSON array")
    rollback = command("rollback", "have the model before the serving one serve again")
    text = "only if this one serves; default: whichever does"
    rollback.add_argument("--expect", type=_whole, metavar="VERSION", help=text)
    _add_json(rollback)
    _add_models(command)
    completion = command("completion", "print a script that has a shell complete commands and options")
    completion.add_argument("shell", choices=SHELLS, help="the shell that the script is for")

    for one in (parser, *commands.choices.values()):  # so that it may stand before or after the command
        _add_connection(one)
    return parser


class _Version(argparse.Action):
    """Prints the version and ends. It is looked up only here, so that nothing else needs an installed distribution."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(f"ousel {metadata.version('ousel-client')}")
        parser.exit()


def _add_lists(command: Callable[[str, str], argparse.ArgumentParser]) -> None:
    recommend = command("recommend", "one ranked list, now")
    watch = command("watch", "the list each time it changes: + new, ^ moved up, v moved down")
    for one in (recommend, watch):
        _add_user(one)
        one.add_argument("-k", type=_whole, help="length of the list; where it is left out, the engine takes 10")
        text = "keep only items of this category; given several times, of any of them"
        one.add_argument("--category", action="append", type=_text, metavar="NAME", help=text)
        text = "leave this item out; may be given several times"
        one.add_argument("--exclude", action="append", type=_text, metavar="ITEM", help=text)
        text = "leave out every item that the engine remembers of the user"
        one.add_argument("--exclude-history", action="store_true", help=text)
    _add_json(recommend)
    watch.add_argument("--updates", type=_whole, metavar="N", help="end after N lists; default: Ctrl-C ends")
    _add_json(watch, "one JSON object a line, for each list")


def _add_track(command: Callable[[str, str], argparse.ArgumentParser]) -> None:
    track = command("track", "write one event to the log")
    _add_user(track)
    track.add_argument("item", type=_text, metavar="ITEM", help="item id")
    track.add_argument("--kind", default="view", help="such as view or purchase; default: view")
    track.add_argument("--value", type=_finite, default=1.0, help="a quantity, a rating or seconds; default: 1")
    text = f"when it happened: {_EXAMPLE}, with a zone, or seconds, ms, us or ns since 1970; default: now"
    track.add_argument("--time", type=time_of, help=text)
    text = "id of the event; the same one again counts once; default: a new one"
    track.add_argument("--event-id", type=_text, metavar="ID", help=text)
    _add_json(track)


def _add_models(command: Callable[[str, str], argparse.ArgumentParser]) -> None:
    models = command("models", "the models of the registry: list, compare, pin, roll back and prune them")
    _add_json(models)
    actions = models.add_subparsers(metavar="ACTION", dest="action")

    def action(name: str, text: str) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = actions.add_parser(
            name, help=text, description=f"{text[0].upper()}{text[1:]}."
        )
        added.set_defaults(wrong_usage=added.error)
        added.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="one JSON object")
        _add_connection(added)
        return added

    action("list", "all of them, the newest first, and what this engine makes of them; this is the default")
    compare = action("compare", "what two versions scored, side by side")
    compare.add_argument("left", type=_whole, metavar="VERSION", help="one version")
    compare.add_argument("right", type=_whole, metavar="VERSION", help="the other")
    pin = action("pin", "have all engines serve a version, whatever is pushed meanwhile")
    pin.add_argument("pinned", type=_whole, metavar="VERSION", help="the version")
    action("unpin", "have all engines serve the newest version again")
    rollback = action("rollback", "take the serving version back, and have the one before it serve again")
    text = "only if this one serves; default: whichever does"
    rollback.add_argument("--expect", type=_whole, metavar="VERSION", help=text)
    prune = action("prune", "delete all versions but the newest, those that serve and a pinned one")
    prune.add_argument("--keep", type=_whole, metavar="N", help="newest versions to keep; default: registry.keep")


def _add_user(command: argparse.ArgumentParser) -> None:
    command.add_argument("user", type=_text, metavar="USER", help="user id")
    command.add_argument("--session", action="store_true", help="USER is an anonymous session id")


def _add_connection(command: argparse.ArgumentParser) -> None:
    text = f"host:port of the engine, or several with commas, default {ADDRESS_VARIABLE} or {DEFAULT_ADDRESS}"
    command.add_argument("--address", default=argparse.SUPPRESS, help=text)
    _add_credentials(command)


def _add_json(command: argparse.ArgumentParser, text: str = "one JSON object") -> None:
    command.add_argument("--json", action="store_true", help=text)


def _address(args: argparse.Namespace, parser: argparse.ArgumentParser) -> str | list[str]:
    given: str | None = getattr(args, "address", None)
    name = ADDRESS_VARIABLE if given is None else "--address"
    address = os.environ.get(ADDRESS_VARIABLE, "") if given is None else given
    if given is None and not address:
        _warn_of_misspelt_variable()
        return DEFAULT_ADDRESS
    if _other_target(address):
        return address
    addresses = address.split(",")
    for one in addresses:
        # Without a port gRPC would go to 443, where no engine listens, and say that it does not answer.
        port = _host_and_port(one)
        if not ((port and int(port[1]) < 2**16) or "@" in one):
            parser.error(f"{name} must be host:port, such as {DEFAULT_ADDRESS}, got {address!r}")
    return addresses if len(addresses) > 1 else address


def _add_credentials(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("credentials")
    for option, variable, name, kind, text in _CREDENTIALS:
        group.add_argument(option, dest=name, default=argparse.SUPPRESS, metavar=kind, help=f"{text}, or {variable}")
    text = "TLS with the authorities that the whole web trusts, or OUSEL_TLS=1"
    group.add_argument("--tls", action="store_true", default=argparse.SUPPRESS, help=text)
    text = "send the token in plain text, also to another machine, or OUSEL_INSECURE=1"
    group.add_argument("--insecure", action="store_true", default=argparse.SUPPRESS, help=text)


def _credentials(args: argparse.Namespace, parser: argparse.ArgumentParser) -> Credentials:
    given: dict[str, Any] = {
        name: getattr(args, name, None) or os.environ.get(variable) or None for _, variable, name, _, _ in _CREDENTIALS
    }
    if not given["token_file"]:
        given["token"] = os.environ.get(_TOKEN_VARIABLE) or None
    for name in ("tls", "insecure"):
        given[name] = getattr(args, name, False) or os.environ.get(f"OUSEL_{name}".upper()) == "1"
    try:
        return Credentials(**given)
    except InvalidArgument as error:
        parser.error(in_options(str(error)))


def _warn_of_misspelt_variable() -> None:
    found = get_close_matches(ADDRESS_VARIABLE, [name for name in os.environ if "__" not in name], n=1, cutoff=0.85)
    if found:
        print(f"ousel: {found[0]} is ignored, did you mean {ADDRESS_VARIABLE}?", file=sys.stderr)


def time_of(text: str) -> datetime:
    """A time in the forms of docs/events.md: RFC 3339 with a zone, or a number whose size tells its unit."""
    allowed = f"RFC 3339 text with a zone, such as {_EXAMPLE}, or a number of seconds, ms, us or ns since 1970"
    try:
        if _number(text):
            seconds = number = Decimal(text)
            while abs(seconds) >= _END_S and number / seconds < 10**9:
                seconds /= 1000
            return _EPOCH + timedelta(microseconds=math.floor(seconds * 10**6))
        time = datetime.fromisoformat(f"{text[:-4]}+00:00" if text.endswith(" UTC") else text)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"must be {allowed}, got {text!r}") from None
    if time.utcoffset() is None:
        raise argparse.ArgumentTypeError(f"must be a time with its zone, as {_EXAMPLE} is, got {text!r}")
    return time


def _whole(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if not 1 <= value < 2**31:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {2**31 - 1}, got {text!r}")
    return value


def _finite(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"must be a finite number, got {text!r}")
    return value


def _text(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("must not be empty, got ''")
    return text
