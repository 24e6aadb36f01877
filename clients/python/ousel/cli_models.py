"""`ousel models`: lists, compares, pins, rolls back and prunes the models of the registry."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from ousel import render_models
from ousel.client import Client
from ousel.model_types import RolledBack


def models(client: Client, args: argparse.Namespace) -> object:
    """Does what was asked for; the value of its answer, and its text where that was asked for."""
    return _ACTIONS[args.action or "list"](client, args)


def rolled_back(done: RolledBack) -> str:
    if done.serving:
        return f"model version {done.version} serves again, {done.swap_ms:.0f} ms to swap"
    return f"all engines go back to model version {done.version}; this one builds it first, see `ousel models`"


def _list(client: Client, args: argparse.Namespace) -> object:
    listed = client.list_models()
    return listed if args.json else render_models.model_list(listed)


def _compare(client: Client, args: argparse.Namespace) -> object:
    known = {model.version: model for model in client.list_models().models}
    for version in (args.left, args.right):
        if version not in known:
            held = ", ".join(map(str, known)) or "none"
            args.wrong_usage(f"the registry has the versions {held}, got {version}")
    pair = known[args.left], known[args.right]
    return pair if args.json else render_models.comparison(*pair)


def _pin(client: Client, args: argparse.Namespace) -> object:
    version = client.pin_model(args.pinned)
    return {"version": version} if args.json else f"all engines serve model version {version} until it is unpinned"


def _unpin(client: Client, args: argparse.Namespace) -> object:
    version = client.unpin_model()
    if args.json:
        return {"version": version}
    return f"all engines go on to model version {version}" if version else "no model is pinned, and none is to serve"


def _roll_back(client: Client, args: argparse.Namespace) -> object:
    done = client.roll_back(args.expect)
    return done if args.json else rolled_back(done)


def _prune(client: Client, args: argparse.Namespace) -> object:
    versions = client.prune_models(args.keep)
    if args.json:
        return {"versions": versions}
    return f"deleted: model versions {', '.join(map(str, versions))}" if versions else "there was nothing to delete"


_ACTIONS: dict[str, Callable[[Client, argparse.Namespace], object]] = {
    "list": _list,
    "compare": _compare,
    "pin": _pin,
    "unpin": _unpin,
    "rollback": _roll_back,
    "prune": _prune,
}
