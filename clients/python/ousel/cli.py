"""The command line: `ousel recommend|watch|track|status|export|forget|digest|snapshot|rollback|models|completion`.

Exit codes: 0 done; 1 the call failed, or you did not confirm it; 2 wrong usage or a wrong value; 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

# gRPC reads it when the first channel opens; its own log lines would mix with ours.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

from ousel import cli_models, render
from ousel.cli_arguments import in_options, make_parser, parse
from ousel.client import Client
from ousel.completion import script
from ousel.errors import InvalidArgument, OuselError, StreamEnded, Unavailable
from ousel.types import RecommendationList, Update

_BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 5.0)  # between tries to reach an engine that went away; the last one repeats


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; wrong usage exits with 2 as argparse does."""
    args = parse(argv)
    try:
        if args.command == "completion":
            _say(script(args.shell, make_parser()).rstrip())
            return 0
        with Client(args.address, credentials=args.credentials, resume_s=0) as client:
            _COMMANDS[args.command](client, args)
        return 0
    except InvalidArgument as error:
        print(f"ousel: {in_options(str(error))}", file=sys.stderr)
        return 2
    except OuselError as error:
        print(f"ousel: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0 if args.command == "watch" else 130
    except BrokenPipeError:
        # Whoever read our output has seen enough. Python's own flush at exit must not fail on it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _recommend(client: Client, args: argparse.Namespace) -> None:
    ranked = client.recommend(*_who(args), **_query(args))
    _say(_as_json(ranked) if args.json else render.ranking(_name(args), ranked))


def _watch(client: Client, args: argparse.Namespace) -> None:
    previous: RecommendationList | None = None
    for shown, update in enumerate(_updates(client, args), start=1):
        now = datetime.now().astimezone()
        if args.json:
            _say(json.dumps({"time": now.isoformat(), **asdict(update)}, ensure_ascii=False))
        else:
            _say(render.update(_name(args), update, previous, now.replace(tzinfo=None)))
        previous = update.list
        if shown == args.updates:
            return


def _updates(client: Client, args: argparse.Namespace) -> Iterator[Update]:
    """The lists of a stream, which is opened again where it is lost after its first list."""
    tries: int | None = None  # since the last list; None before the first one
    while True:
        try:
            with client.stream(*_who(args), **_query(args)) as updates:
                for update in updates:
                    yield update
                    tries = 0
            raise StreamEnded("the engine ended the stream")
        except (Unavailable, StreamEnded) as error:
            if tries is None:
                raise
            if error.reason == "STREAM_TOO_OLD":  # Nothing is lost; the engine has its streams spread again.
                continue
        delay_s = _BACKOFF_S[min(tries, len(_BACKOFF_S) - 1)]
        print(f"ousel: connection lost, trying again in {delay_s:g} s", file=sys.stderr, flush=True)
        time.sleep(delay_s)
        tries += 1


def _track(client: Client, args: argparse.Namespace) -> None:
    tracked = client.track(
        args.item, *_who(args), kind=args.kind, value=args.value, time=args.time, event_id=args.event_id
    )
    _say(_as_json(tracked) if args.json else render.tracked(tracked))


def _status(client: Client, args: argparse.Namespace) -> None:
    status = client.status()
    _say(_as_json(status) if args.json else render.status(status))


def _export(client: Client, args: argparse.Namespace) -> None:
    _say(_as_json(client.export_user(*_who(args))))


def _forget(client: Client, args: argparse.Namespace) -> None:
    if not args.yes:
        _confirm(f"Forget {'session' if args.session else 'user'} {args.user!r} for good? [y/N] ", args)
    done = client.forget_user(*_who(args))
    _say(_as_json(done) if args.json else render.forgotten(done))


def _confirm(question: str, args: argparse.Namespace) -> None:
    if not sys.stdin.isatty():
        args.wrong_usage("this can't be taken back; where nobody can be asked, --yes is needed")
    print(question, end="", file=sys.stderr, flush=True)  # The answer of the engine alone belongs to stdout.
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise SystemExit("ousel: not confirmed, nothing was forgotten")


def _digest(client: Client, args: argparse.Namespace) -> None:
    state = client.get_digest()
    _say(_as_json(state) if args.json else render.state_digest(state))


def _snapshot(client: Client, args: argparse.Namespace) -> None:
    reflects = client.take_snapshot()
    _say(_as_json(reflects) if args.json else render.snapshot(reflects))


def _rollback(client: Client, args: argparse.Namespace) -> None:
    done = client.roll_back(args.expect)
    _say(_as_json(done) if args.json else cli_models.rolled_back(done))


def _models(client: Client, args: argparse.Namespace) -> None:
    answer = cli_models.models(client, args)
    _say(answer if isinstance(answer, str) else _as_json(answer))


def _who(args: argparse.Namespace) -> tuple[str | None, str | None]:
    """user_id, session_id."""
    return (None, args.user) if args.session else (args.user, None)


def _query(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "k": args.k,
        "categories": args.category or (),
        "exclude_item_ids": args.exclude or (),
        "exclude_history": args.exclude_history,
    }


def _name(args: argparse.Namespace) -> str:
    return f"{'session' if args.session else 'user'} {args.user}"


def _as_json(value: object) -> str:
    return json.dumps(value, default=_plain, ensure_ascii=False, indent=2)


def _plain(value: Any) -> object:
    return value.isoformat() if isinstance(value, datetime) else asdict(value)


def _say(text: str) -> None:
    print(text, flush=True)  # at once, also into a pipe


_COMMANDS: dict[str, Callable[[Client, argparse.Namespace], None]] = {
    "recommend": _recommend,
    "watch": _watch,
    "track": _track,
    "status": _status,
    "export": _export,
    "forget": _forget,
    "digest": _digest,
    "snapshot": _snapshot,
    "rollback": _rollback,
    "models": _models,
}


if __name__ == "__main__":
    sys.exit(main())
