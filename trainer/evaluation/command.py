"""`ousel-trainer evaluate`: a file, a protocol, the model and its peers, a table and a JSON file."""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Callable
from contextlib import nullcontext
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from engine.command_line import config_option, number_option, path_option, whole_number_option
from engine.config import load_settings
from engine.events.times import TimeRule
from engine.failures import WrongValue, told
from engine.log_start import start_log
from engine.model.device import check_device
from engine.model.weights import Weights
from trainer.atomic import write_atomically
from trainer.checkpoint import Checkpoint, CheckpointError
from trainer.config import TrainerConfig
from trainer.curves import Curves, CurvesError
from trainer.data.files import Items, read_events, read_items
from trainer.data.id_overlap import overlap_problem
from trainer.data.log import Events, Lister, Scorer, Split
from trainer.data.written import write_events
from trainer.divergence import Diverged
from trainer.evaluation import splits
from trainer.evaluation.arms import FrozenOusel, LiveOusel
from trainer.evaluation.cold import Frozen, numbered_by_hash
from trainer.evaluation.content import described
from trainer.evaluation.index import index_figures
from trainer.evaluation.ousel import OuselScorer
from trainer.evaluation.peers import DecayedPopularity
from trainer.evaluation.peers.tuning import tuned
from trainer.evaluation.run import AMONG_COLD, AMONG_COLD_NEW, AMONG_NEW, Judged, judge, ratios
from trainer.evaluation.training_data import kinds_of
from trainer.model_file import load_model
from trainer.outputs import check_output, check_output_folder

_log = logging.getLogger(__name__)


class Protocol(StrEnum):
    """How the log is split, and what is asked."""

    LEAVE_ONE_OUT = splits.LEAVE_ONE_OUT
    SESSIONS = splits.SESSIONS
    SUCCESSIVE = splits.SUCCESSIVE
    PREQUENTIAL = splits.PREQUENTIAL


_BEYOND = ("coverage", "novelty", "gini", "top_tenth", "repeats")  # what is told beyond accuracy, of every scorer
_SPLITS: dict[Protocol, Callable[..., Split]] = {
    Protocol.LEAVE_ONE_OUT: splits.leave_one_out,
    Protocol.SESSIONS: splits.sessions,
    Protocol.SUCCESSIVE: splits.successive,
    Protocol.PREQUENTIAL: splits.prequential,
}


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
    config: Annotated[Path | None, config_option()] = None,
    given: Annotated[
        list[str] | None, typer.Option("--set", help="a setting, as trainer.dim=64; wins over file and variables")
    ] = None,
    model: Annotated[
        Path | None, path_option("weights file to judge, as `train` writes it; nothing is trained")
    ] = None,
    write_training: Annotated[
        Path | None, path_option("write what may be learned from here, as CSV, for `train`; nothing is judged")
    ] = None,
    checkpoint: Annotated[
        Path | None, path_option("file to save the training to, and to go on from where it exists")
    ] = None,
    index: Annotated[bool, typer.Option(help="measure what HNSW costs against an exact search")] = True,
    curves: Annotated[
        Path | None, path_option("folder for the curves of the training: event files for TensorBoard, and a PNG")
    ] = None,
    out: Annotated[Path | None, path_option("write all figures here, as JSON")] = None,
) -> None:
    """Judge the model, and with --compare the methods that it has to beat, on a file of events."""
    try:
        settings = load_settings(TrainerConfig, config, given or [])
        start_log(settings, "info")
        ks = _lengths(k)
        check_device("trainer.device", settings.trainer.device)
        _check_outputs(out, write_training, checkpoint, curves)
        weights = load_model(model).weights if model else None
        asked = _asked(events, items, TimeRule.of(settings.events), protocol, validation, most, cold_share)
        if weights is not None:
            _check_fits(weights, asked, settings)
        elif len(asked.split.train) < 2:
            raise ValueError(f"{protocol.value} must leave 2 events to train on, got {len(asked.split.train)}")
        drawing = Curves(curves) if curves else None
    except (ValueError, CurvesError) as error:
        raise WrongValue(f"ousel-trainer evaluate: {error}") from None
    torch.set_num_threads(settings.trainer.threads)
    if write_training is not None:
        write_events(write_training, asked.log, asked.split.train, by_session=protocol is Protocol.SESSIONS)
        print(f"{len(asked.split.train)} events written to {write_training}, split {asked.split.digest}")
        return
    ousel = _ousel(settings, asked, weights, checkpoint, drawing)
    others, chosen = _others(asked, protocol, compare, max(ks))
    with drawing or nullcontext():
        found = _judged([*_variants(ousel, asked.split), *others], asked, ks)
    if index:
        found["index"] = index_figures(ousel, asked.log, asked.split, ks)
        print(_index_line(found["index"], max(ks)))
    print(f"split {asked.split.digest}: {found['ties']}")
    if out:
        used = settings.model_dump(mode="json", include={"trainer", "ranking", "state"})
        asked_how = {"protocol": protocol.value, "validation": validation, "cold_share": cold_share}
        model_name = None if model is None else str(model)
        _write(out, {**asked_how, "settings": used, "model": model_name, "peers": chosen, **found})


@dataclasses.dataclass(frozen=True)
class _Asked:
    """A log as it was read from files, and the questions about it.

    Attributes:
        named: None where there is no catalog.
        cold: whether cold items alone are asked about.
    """

    log: Events
    split: Split
    named: Items | None
    cold: bool


def _check_fits(weights: Weights, asked: _Asked, settings: TrainerConfig) -> None:
    """Raises ValueError where a model can't run over this log."""
    shape, width = weights.model.shape, settings.state.content_dim
    if shape.content_dim != width:
        raise ValueError(f"--model must have content_dim {width} (state.content_dim), got {shape.content_dim}")
    kinds = kinds_of(asked.log, settings)
    if shape.kinds < len(kinds):
        raise ValueError(f"--model must have kinds >= {len(kinds)} ({', '.join(kinds)}), got {shape.kinds}")


def _check_outputs(out: Path | None, write_training: Path | None, checkpoint: Path | None, curves: Path | None) -> None:
    """Says before the training what would fail after it."""
    if write_training is not None:
        if write_training.suffix != ".csv":  # `train` takes the suffix at its word.
            raise ValueError(f"--write-training must end in .csv, got {str(write_training)!r}")
        check_output("--write-training", write_training)
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
    _log.info(
        "%s: %d events, %d items, %d to train on, %d questions, split %s", protocol.value, len(log), len(log.items),
        len(split.train), len(split.questions), split.digest[:16],
    )  # fmt: skip
    return _Asked(log, split, named, cold_share is not None)


def _ousel(
    settings: TrainerConfig,
    asked: _Asked,
    weights: Weights | None,
    checkpoint: Path | None,
    curves: Curves | None,
) -> OuselScorer:
    """The model, with what the catalog says of its items."""
    split = asked.split
    return OuselScorer(
        settings,
        by_session=split.protocol == splits.SESSIONS,
        catalog=described(asked.log, asked.named, settings.state) if asked.named else None,
        weights=weights,
        checkpoint=None if checkpoint is None else Checkpoint(checkpoint, f"{split.digest[:16]} {settings.trainer}"),
        curves=curves,
    )


def _variants(ousel: OuselScorer, split: Split) -> list[Lister]:
    """The model as the protocol asks it, and beside it with a state that stands still, or that goes on."""
    if splits.goes_on(split):
        return [FrozenOusel(ousel), ousel]
    return [ousel, LiveOusel(ousel)] if split.protocol == splits.SESSIONS else [ousel]


def _judged(scorers: list[Scorer | Lister], asked: _Asked, ks: list[int]) -> dict[str, Any]:
    """Fits and asks every scorer, prints the table, and returns the figures."""
    log, split = asked.log, asked.split
    parts = _parts(split, cold=asked.cold)
    categories = asked.named.categories if asked.named else None
    begun = time.monotonic()
    try:
        judged = {one.name: judge(one, log, split, ks, categories, among_cold=asked.cold) for one in scorers}
    except (CheckpointError, Diverged) as error:
        raise SystemExit(f"ousel-trainer evaluate: {error}") from None
    peers = {name: one for name, one in judged.items() if not name.startswith(OuselScorer.name)}
    over_best = ratios(judged["ousel"], peers, ks, parts)
    _print(judged, over_best, ks, parts)
    return {
        "split_hash": split.digest,
        "ties": splits.ties(log, split),
        "questions": len(split.questions),
        "seconds": round(time.monotonic() - begun, 1),
        "models": {name: one.figures() for name, one in judged.items()},
        "ratios": over_best,
    }


def _write(out: Path, found: dict[str, Any]) -> None:
    """Writes the figures, or prints them where the disk does not take them: they may have cost hours."""
    text = json.dumps(found, indent=2) + "\n"
    try:
        write_atomically(out, lambda file: file.write(text.encode()))
    except OSError as error:
        print(text)
        raise SystemExit(f"ousel-trainer evaluate: --out {out} can't be written: {told(error)}") from None
    print(f"written to {out}")


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


def _split(log: Events, protocol: Protocol, validation: bool, most: int | None, cold_share: float | None) -> Split:
    more = {"validation": True} if validation else {}
    if cold_share is None:
        split = _SPLITS[protocol](log, most=most, **more)
    else:
        split = splits.hold_out_items(log, _SPLITS[protocol](log, **more), share=cold_share, most=most)
    if not len(split.questions):
        raise ValueError(f"{protocol.value} must have something to ask, got a log without such events")
    return split


def _others(asked: _Asked, protocol: Protocol, compare: bool, k: int) -> tuple[list[Scorer], dict[str, Any]]:
    """Who is judged beside the model, and the settings that were chosen for them.

    Cold items are put beside popularity in any case: as it was when training ended and, where the log goes on, as it is
    when asked.
    """
    if not compare and not asked.cold:
        return [], {}
    found: list[Scorer] = [DecayedPopularity()]
    settings: dict[str, Any] = {}
    if compare:
        found, settings = tuned(asked.log, _SPLITS[protocol](asked.log, validation=True), k)
    frozen = [Frozen(DecayedPopularity())] if asked.cold and splits.goes_on(asked.split) else []
    return [*found, *frozen], settings


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
    table.add_section()
    for name in (f"{what}@{k}" for k in ks for what in _BEYOND):
        table.add_row(name, *(f"{of_one[name]:.4f}" for of_one in figures.values()))
    Console(width=140).print(table)


def _index_line(figures: dict[str, Any], k: int) -> str:
    return (
        f"HNSW over {figures['items']} items, M {figures['m']}, ef_search {figures['ef_search']}: finds "
        f"{figures[f'recall@{k}']:.4f} of the exact {k} best; NDCG@{k} {figures[f'ndcg@{k}_hnsw']:.4f} "
        f"of {figures[f'ndcg@{k}_exact']:.4f}, {figures[f'ndcg_cost@{k}']:.2%} lost"
    )
