"""The command line: `ousel recommend|watch|track|status|export|forget|digest|snapshot|rollback`.

Exit codes: 0 done, 1 the engine can't be reached or refused, or you did, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, NoReturn

# gRPC reads it when the first channel opens; its own log lines would mix with ours.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

from ousel import render
from ousel.channel import DEFAULT_ADDRESS
from ousel.client import Client
from ousel.errors import OuselError, StreamEnded, Unavailable
from ousel.types import RecommendationList

_K_HELP = "length of the list; where it is left out, the engine takes 10"
_BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 5.0)  # between tries to reach an engine that went away; the last one repeats


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; wrong usage exits with 2 as argparse does."""
    args = _parser().parse_args(argv)
    try:
        with Client(args.address) as client:
            args.run(client, args)
        return 0
    except OuselError as error:
        print(f"ousel: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0 if args.run is _watch else 130
    except BrokenPipeError:
        # Whoever read our output has seen enough. Python's own flush at exit must not fail on it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _recommend(client: Client, args: argparse.Namespace) -> None:
    ranked = client.recommend(*_who(args), k=args.k)
    _say(_as_json(ranked) if args.json else render.ranking(_name(args), ranked))


def _watch(client: Client, args: argparse.Namespace) -> None:
    previous: RecommendationList | None = None
    shown = tries = 0
    while True:
        try:
            with client.stream(*_who(args), k=args.k) as updates:
                for update in updates:
                    _say(render.update(_name(args), update, previous, datetime.now()))
                    previous = update.list
                    tries = 0
                    shown += 1
                    if shown == args.updates:
                        return
            raise StreamEnded("the engine ended the stream")
        except (Unavailable, StreamEnded):
            if previous is None:
                raise
        delay_s = _BACKOFF_S[min(tries, len(_BACKOFF_S) - 1)]
        print(f"ousel: connection lost, trying again in {delay_s:g} s", file=sys.stderr, flush=True)
        time.sleep(delay_s)
        tries += 1


def _track(client: Client, args: argparse.Namespace) -> None:
    tracked = client.track(args.item, *_who(args), kind=args.kind, value=args.value)
    position = tracked.position
    _say(f"event {tracked.event_id} is in {position.topic}, partition {position.partition}, offset {position.offset}")


def _status(client: Client, args: argparse.Namespace) -> None:
    status = client.status()
    _say(_as_json(status) if args.json else render.status(status))


def _export(client: Client, args: argparse.Namespace) -> None:
    _say(_as_json(client.export_user(*_who(args))))


def _forget(client: Client, args: argparse.Namespace) -> None:
    if not args.yes:
        _confirm(f"Forget {'session' if args.session else 'user'} {args.user!r} for good? [y/N] ", args.wrong_usage)
    _say(render.forgotten(client.forget_user(*_who(args))))


def _confirm(question: str, wrong_usage: Callable[[str], NoReturn]) -> None:
    if not sys.stdin.isatty():
        wrong_usage("this can't be taken back; where nobody can be asked, --yes is needed")
    try:
        answer = input(question)
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise SystemExit("ousel: not confirmed, nothing was forgotten")


def _digest(client: Client, args: argparse.Namespace) -> None:
    state = client.get_digest()
    _say(_as_json(state) if args.json else render.state_digest(state))


def _snapshot(client: Client, args: argparse.Namespace) -> None:
    reflects = client.take_snapshot()
    _say(_as_json(reflects) if args.json else render.snapshot(reflects))


def _rollback(client: Client, args: argparse.Namespace) -> None:
    done = client.roll_back(args.expect)
    _say(_as_json(done) if args.json else f"model version {done.version} serves again, {done.swap_ms:.0f} ms to swap")


def _who(args: argparse.Namespace) -> tuple[str | None, str | None]:
    """user_id, session_id."""
    return (None, args.user) if args.session else (args.user, None)


def _name(args: argparse.Namespace) -> str:
    return f"{'session' if args.session else 'user'} {args.user}"


def _as_json(value: object) -> str:
    return json.dumps(value, default=_plain, ensure_ascii=False, indent=2)


def _plain(value: Any) -> object:
    return value.isoformat() if isinstance(value, datetime) else asdict(value)


def _say(text: str) -> None:
    print(text, flush=True)  # at once, also into a pipe


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ousel", description="Talks to an Ousel recommender engine.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    recommend = commands.add_parser("recommend", help="one ranked list, now")
    _add_user(recommend)
    recommend.add_argument("-k", type=int, help=_K_HELP)
    recommend.add_argument("--json", action="store_true", help="one JSON object")
    recommend.set_defaults(run=_recommend)

    watch = commands.add_parser("watch", help="the list each time it changes: + new, ^ moved up, v moved down")
    _add_user(watch)
    watch.add_argument("-k", type=int, help=_K_HELP)
    watch.add_argument("--updates", type=_positive, metavar="N", help="end after N lists; default: Ctrl-C ends")
    watch.set_defaults(run=_watch)

    track = commands.add_parser("track", help="write one event to the log")
    _add_user(track)
    track.add_argument("item", metavar="ITEM", help="item id")
    track.add_argument("--kind", default="view", help="such as view or purchase, default %(default)s")
    track.add_argument("--value", type=float, default=1.0, help="what the kind counts, default %(default)s")
    track.set_defaults(run=_track)

    status = commands.add_parser("status", help="how the engine is doing")
    status.add_argument("--json", action="store_true", help="one JSON object")
    status.set_defaults(run=_status)

    export = commands.add_parser("export", help="all that the engine holds about a user, as one JSON object")
    _add_user(export)
    export.set_defaults(run=_export)

    forget = commands.add_parser("forget", help="forget a user for good, with its linked anonymous sessions")
    _add_user(forget)
    forget.add_argument("--yes", action="store_true", help="don't ask")
    forget.set_defaults(run=_forget, wrong_usage=forget.error)

    digest = commands.add_parser("digest", help="digests of all that the engine holds, to compare with another's")
    digest.add_argument("--json", action="store_true", help="one JSON object")
    digest.set_defaults(run=_digest)

    snapshot = commands.add_parser("snapshot", help="take a snapshot now, and say what it holds")
    snapshot.add_argument("--json", action="store_true", help="one JSON array")
    snapshot.set_defaults(run=_snapshot)

    rollback = commands.add_parser("rollback", help="have the model before the serving one serve again")
    rollback.add_argument(
        "--expect", type=_positive, metavar="VERSION", help="only if this one serves; default: whichever does"
    )
    rollback.add_argument("--json", action="store_true", help="one JSON object")
    rollback.set_defaults(run=_rollback)

    address = os.environ.get("OUSEL_ADDRESS") or DEFAULT_ADDRESS
    text = "host:port of the engine, default OUSEL_ADDRESS or " + DEFAULT_ADDRESS
    parser.add_argument("--address", default=address, help=text)
    for command in commands.choices.values():  # so that it may stand before or after the command
        command.add_argument("--address", default=argparse.SUPPRESS, help=text)
    return parser


def _add_user(command: argparse.ArgumentParser) -> None:
    command.add_argument("user", metavar="USER", help="user id")
    command.add_argument("--session", action="store_true", help="USER is an anonymous session id")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be >= 1, got {value}")
    return value


if __name__ == "__main__":
    sys.exit(main())
