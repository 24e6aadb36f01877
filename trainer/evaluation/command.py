"""`ousel-trainer evaluate`: a file, a protocol, the model and its peers, a table and a JSON file."""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from engine.command_line import number_option, path_option, whole_number_option
from engine.config import load_settings
from engine.events.times import TimeRule
from engine.failures import WrongValue, told
from engine.log_start import start_log
from engine.model.device import check_device
from trainer.atomic import write_atomically
from trainer.checkpoint import Checkpoint, CheckpointError
from trainer.config import TrainerConfig
from trainer.curves import Curves, CurvesError
from trainer.data.files import Items, read_events, read_items
from trainer.data.id_overlap import overlap_problem
from trainer.data.log import Events, Scorer, Split
from trainer.divergence import Diverged
from trainer.evaluation import splits
from trainer.evaluation.arms import FrozenOusel, RetrainedOusel
from trainer.evaluation.cold import Frozen, numbered_by_hash
from trainer.evaluation.content import described
from trainer.evaluation.index import index_figures
from trainer.evaluation.ousel import OuselScorer
from trainer.evaluation.peers import DecayedPopularity, peers
from trainer.evaluation.ranker import ranker_part
from trainer.evaluation.run import AMONG_COLD, AMONG_COLD_NEW, AMONG_NEW, Judged, judge, ratios
from trainer.evaluation.settings import OuselSettings, settings_of
from trainer.outputs import check_output, check_output_folder

_log = logging.getLogger(__name__)


class Protocol(StrEnum):
    """How the log is split, and what is asked."""

    LEAVE_ONE_OUT = splits.LEAVE_ONE_OUT
    SESSIONS = splits.SESSIONS
    SUCCESSIVE = splits.SUCCESSIVE
    PREQUENTIAL = splits.PREQUENTIAL


_SPLITS: dict[Protocol, Callable[..., Split]] = {
    Protocol.LEAVE_ONE_OUT: splits.leave_one_out,
    Protocol.SESSIONS: splits.sessions,
    Protocol.SUCCESSIVE: splits.successive,
    Protocol.PREQUENTIAL: splits.prequential,
}
_MAX_THREADS = 256
_WITH_VALIDATION = (Protocol.LEAVE_ONE_OUT, Protocol.SESSIONS)


def evaluate(
    events: Annotated[Path, path_option("CSV, gzip'd CSV, Parquet or a folder of Parquet files of events")],
    protocol: Annotated[Protocol, typer.Option(help="how the log is split, and what is asked")],
    items: Annotated[
        Path | None, path_option("the same of the catalog; adds features of items, and figures by category")
    ] = None,
    k: Annotated[str, typer.Option(help="lengths of the lists, as 10,20")] = "10,20",
    compare: Annotated[bool, typer.Option("--compare", help="judge the peers on the same split, too")] = False,
    validation: Annotated[
        bool, typer.Option("--validation", help="ask about a part of what would be trained on: to choose settings")
    ] = False,
    most: Annotated[int | None, whole_number_option("ask at most so many questions, evenly over the log")] = None,
    cold_share: Annotated[
        float | None, number_option("keep this share of the items out of training, and ask about cold items only")
    ] = None,
    model: Annotated[list[str] | None, typer.Option("--set", help="a setting of the model, as dim=64")] = None,
    checkpoint: Annotated[
        Path | None, path_option("file to write after each epoch, and to go on from where it exists")
    ] = None,
    index: Annotated[bool, typer.Option(help="measure what HNSW costs against an exact search")] = True,
    curves: Annotated[
        Path | None, path_option("folder for the curves of the training: event files for TensorBoard, and a PNG")
    ] = None,
    threads: Annotated[int, whole_number_option("intra-op threads of the training")] = 1,
    out: Annotated[Path | None, path_option("write all figures here, as JSON")] = None,
) -> None:
    """Judge the model, and with --compare the methods that it has to beat, on a file of events."""
    try:
        config = load_settings(TrainerConfig, None)
        start_log(config, "info")
        ks = _lengths(k)
        if not 1 <= threads <= _MAX_THREADS:
            raise ValueError(f"--threads must be in 1..{_MAX_THREADS}, got {threads}")
        settings = settings_of(model or [], _defaults(protocol, content=items is not None))
        _check_settings(settings, protocol, items, cold_share)
        _check_outputs(out, checkpoint, curves)
        rule = TimeRule.of(config.events)
        asked = _asked(events, items, rule, protocol, validation, most, cold_share)
        _check_trainable(asked, settings)
        drawing = Curves(curves, "epoch") if curves else None
    except (ValueError, CurvesError) as error:
        raise WrongValue(f"ousel-trainer evaluate: {error}") from None
    torch.set_num_threads(threads)
    log, split = asked.log, asked.split
    _log.info(
        "%s: %d events, %d items, %d to train on, %d questions, split %s", protocol.value, len(log), len(log.items),
        len(split.train), len(split.questions), split.digest[:16],
    )  # fmt: skip
    ousel = _ousel(settings, asked, validation, checkpoint)
    scorers = [*_variants(ousel, split), *_others(split, compare, cold_share is not None)]
    parts = _parts(split, cold=cold_share is not None)
    categories = asked.named.categories if asked.named else None
    begun = time.monotonic()
    try:
        judged = {
            scorer.name: judge(scorer, log, split, ks, categories, among_cold=cold_share is not None)
            for scorer in scorers
        }
    except (CheckpointError, Diverged) as error:
        raise SystemExit(f"ousel-trainer evaluate: {error}") from None
    if drawing:
        _draw(drawing, ousel.course.curve)
    others = {name: one for name, one in judged.items() if not name.startswith(OuselScorer.name)}
    over_best = ratios(judged["ousel"], others, ks, parts)
    found: dict[str, Any] = {
        "protocol": protocol.value,
        "validation": validation,
        "split_hash": split.digest,
        "cold_share": cold_share,
        "questions": len(split.questions),
        "settings": dataclasses.asdict(settings),
        "threads": threads,
        "epochs": ousel.course.curve,
        "seconds": round(time.monotonic() - begun, 1),
        "models": {name: one.figures() for name, one in judged.items()},
        "ratios": over_best,
    }
    _print(judged, over_best, ks, parts)
    if index:
        found["index"] = index_figures(ousel, log, split, ks)
        print(_index_line(found["index"], max(ks)))
    print(f"split {split.digest}")
    if out:
        _write(out, found)


@dataclasses.dataclass(frozen=True)
class _Asked:
    """What the files hold, and what is asked of it; `named` is None where there is no catalog."""

    log: Events
    split: Split
    named: Items | None


def _check_settings(settings: OuselSettings, protocol: Protocol, items: Path | None, cold_share: float | None) -> None:
    check_device("--set device", settings.device)
    if settings.content and items is None:
        raise ValueError("--set content=true needs --items, got none")
    if settings.patience and protocol is not Protocol.LEAVE_ONE_OUT:
        raise ValueError(f"--set patience needs the protocol {splits.LEAVE_ONE_OUT}, got {protocol.value}")
    if settings.patience and cold_share is not None:  # the validation questions would tell of the items held out
        raise ValueError("--cold-share can't go with --set patience, got both")


def _check_outputs(out: Path | None, checkpoint: Path | None, curves: Path | None) -> None:
    """Says before the training what would fail after it."""
    if out is not None:
        check_output("--out", out)
    if checkpoint is not None:
        check_output("--checkpoint", checkpoint)
    if curves is not None:
        check_output_folder("--curves", curves)


def _asked(
    events: Path,
    items: Path | None,
    rule: TimeRule,
    protocol: Protocol,
    validation: bool,
    most: int | None,
    cold_share: float | None,
) -> _Asked:
    """Reads the files and splits the log.

    Raises:
        ValueError: a file can't be used, or the protocol finds nothing to ask.
    """
    named = read_items(items) if items else None
    log = read_events(events, named, rule)
    if named is not None:
        problem = overlap_problem(log.items[: int(log.item.max()) + 1], named.title)
        if problem:
            _log.warning("%s", problem)
    if cold_share is not None:
        log = numbered_by_hash(log)
    split = _split(log, protocol, validation, most, cold_share)
    splits.check_no_leak(log, split)
    return _Asked(log, split, named)


def _check_trainable(asked: _Asked, settings: OuselSettings) -> None:
    """Raises ValueError where nothing is left for the encoders, or for the ranker's part of them, to learn from."""
    log, train = asked.log, asked.split.train
    if not len(train):
        raise ValueError(f"{asked.split.protocol} must leave events to train on, got none")
    if settings.ranker and not len(ranker_part(log, train, settings.ranker_share, by_session=settings.by_session)[0]):
        raise ValueError(
            f"--set ranker=true needs events before the newest {settings.ranker_share:g} of those to train on"
            f" (ranker_share), got {len(train)} of one time or session"
        )


def _ousel(settings: OuselSettings, asked: _Asked, validation: bool, checkpoint: Path | None) -> OuselScorer:
    """The model, with what the catalog says of its items."""
    split = asked.split
    catalog = described(asked.log, asked.named) if asked.named else None
    # What tells when to stop must not be what is asked about in the end.
    watched = splits.leave_one_out(asked.log, validation=True) if settings.patience and not validation else None
    return OuselScorer(
        settings,
        content=catalog.contents() if catalog and settings.content else None,
        group=catalog.group if catalog else None,
        validation=split if validation and settings.patience else watched,
        checkpoint=None if checkpoint is None else Checkpoint(checkpoint, f"{split.digest[:16]} {settings}"),
    )


def _variants(ousel: OuselScorer, split: Split) -> list[Scorer]:
    """The model as it is, and where the log goes on, without what is new in it and trained on it, too."""
    if not splits.goes_on(split):
        return [ousel]
    return [FrozenOusel(ousel), ousel, *([RetrainedOusel(ousel)] if ousel.settings.ranker else [])]


def _write(out: Path, found: dict[str, Any]) -> None:
    """Writes the figures, or prints them where the disk does not take them: they may have cost hours."""
    text = json.dumps(found, indent=2) + "\n"
    try:
        write_atomically(out, lambda file: file.write(text.encode()))
    except OSError as error:
        print(text)
        raise SystemExit(f"ousel-trainer evaluate: --out {out} can't be written: {told(error)}") from None
    print(f"written to {out}")


def _draw(curves: Curves, entries: list[dict[str, float]]) -> None:
    with curves:
        for entry in entries:
            for name in [name for name in ("loss", "score") if name in entry]:
                curves.add(name, int(entry["epoch"]), entry[name])


def _lengths(text: str) -> list[int]:
    try:
        ks = [int(part) for part in text.split(",")]
    except ValueError:
        ks = []
    if not ks or not all(1 <= length <= 1000 for length in ks):
        raise ValueError(f"--k must be numbers in 1..1000 with commas between, got {text!r}")
    return sorted(set(ks))


def _parts(split: Split, *, cold: bool) -> tuple[str, ...]:
    """The targets that figures are compared on."""
    if cold:
        return ("cold", AMONG_COLD) if split.filter_seen else ("cold", AMONG_COLD, "cold_new", AMONG_COLD_NEW)
    return ("", "new") if split.filter_seen else ("", "new", AMONG_NEW)


def _defaults(protocol: Protocol, *, content: bool) -> dict[str, Any]:
    """The settings that depend on what is asked."""
    by_session = protocol is Protocol.SESSIONS
    # A last event that may be no repeat is the encoders' own task; elsewhere live features are what the ranker is for.
    ranker = protocol is not Protocol.LEAVE_ONE_OUT
    return {"by_session": by_session, "content": content, "ranker": ranker, "refit": by_session}


def _split(log: Events, protocol: Protocol, validation: bool, most: int | None, cold_share: float | None) -> Split:
    if validation and protocol not in _WITH_VALIDATION:
        known = " or ".join(one.value for one in _WITH_VALIDATION)
        raise ValueError(f"--validation needs the protocol {known}, got {protocol.value}")
    more = {"validation": True} if validation else {}
    if cold_share is None:
        split = _SPLITS[protocol](log, most=most, **more)
    else:
        split = splits.hold_out_items(log, _SPLITS[protocol](log, **more), share=cold_share, most=most)
    if not len(split.questions):
        raise ValueError(f"{protocol.value} must have something to ask, got a log without such events")
    return split


def _others(split: Split, compare: bool, cold: bool) -> list[Scorer]:
    """Who is judged beside the model. Cold items are put beside popularity in any case: as it was when training ended
    and, where the log goes on, as it is when asked."""
    if not cold:
        return peers() if compare else []
    frozen = [Frozen(DecayedPopularity())] if splits.goes_on(split) else []
    return [*(peers() if compare else [DecayedPopularity()]), *frozen]


def _print(judged: dict[str, Judged], over_best: dict[str, Any], ks: list[int], parts: tuple[str, ...]) -> None:
    names = [f"{metric}@{k}" for k in ks for metric in ("hr", "mrr", "ndcg", "recall")]
    table = Table(title="Figures, and ousel over the best peer with its 95% interval", title_justify="left")
    table.add_column()
    for name in judged:
        table.add_column(name, justify="right")
    if over_best:
        table.add_column("ratio", justify="right")
    figures = {name: one.figures() for name, one in judged.items()}
    for name in [f"{name}_{part}" if part else name for part in parts for name in names]:
        if any(name not in of_one for of_one in figures.values()):
            continue
        row = [f"{of_one[name]:.4f}" for of_one in figures.values()]
        if name in over_best:
            low, high = over_best[name]["interval"]
            row.append(f"{over_best[name]['ratio']:.3f} ({low:.3f}..{high:.3f})")
        table.add_row(name, *row)
    Console(width=140).print(table)


def _index_line(figures: dict[str, Any], k: int) -> str:
    return (
        f"HNSW over {figures['items']} items, M {figures['m']}, ef_search {figures['ef_search']}: finds "
        f"{figures[f'recall@{k}']:.4f} of the exact {k} best; NDCG@{k} {figures[f'ndcg@{k}_hnsw']:.4f} "
        f"of {figures[f'ndcg@{k}_exact']:.4f}, {figures[f'ndcg_cost@{k}']:.2%} lost"
    )
