"""`make demo`, or `python -m deploy.demo`: broker, engine and trainer on a year of real purchases."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

# Before anything imports gRPC: its own lines would tear the view, and children are started beside its threads.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

from rich.console import Console

from deploy.demo.data import DataError
from deploy.demo.live import LiveOptions
from deploy.demo.run import DemoError, Options, run
from deploy.demo.services import ServiceDied
from deploy.demo.writer import WriteError
from deploy.local.broker import BrokerError
from engine.config import ConfigError

_RETRAIN_EVENTS = 2000


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the demo and returns its exit code: 0 done or stopped, 1 something failed, 2 wrong usage or setting."""
    args = _parser().parse_args(argv)
    console = Console()
    args.data_dir.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(
        filename=args.data_dir / "demo.log", filemode="w", format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("kafka").setLevel(logging.ERROR)
    # A short run should see its second model too.
    retrain = min(_RETRAIN_EVENTS, max(100, args.events // 5)) if args.events else _RETRAIN_EVENTS
    options = Options(
        live=LiveOptions(args.events, args.rate, args.tills, args.household),
        weeks=args.weeks,
        followed=args.followed,
        data_dir=args.data_dir,
        report=args.report,
        train_minutes=args.train_minutes,
        retrain_events=retrain,
        live_view=console.is_terminal and not args.no_live_view,
    )
    try:
        return asyncio.run(run(options, console))
    except ConfigError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    except (BrokerError, DataError, DemoError, ServiceDied, WriteError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    except BrokenPipeError:
        # Whoever read our output has seen enough. Python's own flush at exit must not fail on it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.demo",
        description="Broker, engine and trainer on a year of real purchases. Ctrl-C ends it and leaves nothing behind.",
        epilog="OUSEL_KAFKA__BOOTSTRAP=host:port uses that Kafka, with fresh topics, instead of the embedded broker.",
    )
    add = parser.add_argument
    add("--events", type=_positive, metavar="N", help="end after N live events; default: Ctrl-C ends")
    add("--weeks", type=_positive, default=10, help="weeks of the year that are history, default %(default)s")
    add("--rate", type=_positive_float, default=150.0, help="live events per second, default %(default)g")
    add("--tills", type=_positive, default=32, help="baskets that are rung up side by side, default %(default)s")
    add("--followed", type=_positive, default=300, help="households whose lists are measured, default %(default)s")
    add("--household", metavar="ID", help="the one to show; default: one that has much to buy, then the next")
    add("--train-minutes", type=_positive_float, default=4.0, help="budget of the first training, default %(default)g")
    add("--data-dir", type=Path, default=Path("build/demo"), help="for logs and the broker's data, default %(default)s")
    add("--report", type=Path, default=Path("build/demo.json"), help="the summary as JSON, default %(default)s")
    add("--no-live-view", action="store_true", help="plain lines, also in a terminal")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be >= 1, got {value}")
    return value


def _positive_float(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be > 0, got {text}")
    return value


if __name__ == "__main__":
    sys.exit(main())
