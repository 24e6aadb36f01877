"""How the model is shaped and trained when it is judged on a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from engine.config import Device, Precision
from engine.model.layers import Aggregation
from engine.model.recommender import check_heads

_MOST = 10**9  # epochs, steps or items: no setting that counts them needs more
Share = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(gt=0, le=10)]


@dataclass(frozen=True)
class OuselSettings:
    """Shape of the encoders, and their training.

    Attributes:
        by_session: whether histories are those of sessions, as `sessions` asks, or of users.
        expansion, gated, relative_time, local_heads, local_window, by_kind: see `ModelShape`.
        epochs: passes over all targets, on one cycle of the learning rate.
        patience: epochs without a gain on the validation questions after which training ends; 0: all epochs are run,
            and nothing is validated.
        augment_crop, augment_mask, augment_reorder: see `TrainSection`.
        stride: share of the window after which the next one of a long history begins.
        half: products in bfloat16.
        device: that the encoders are trained on; see `TrainSection`.
        content: whether items have features of the catalog besides their learned ids. With `id_dropout` the ids are
            hidden at times, so that an item without one can be found by its features.
        min_count: events that an item needs for a learned id.
        full_softmax: most items up to which the loss is among all of them; beyond, among `negatives` drawn ones.
        graph_steps: steps that the encoders go on for with the graph, which the embeddings then follow; 0: items have
            no neighbors.
        aggregation: of neighbors in the graph; see `ModelShape`.
        history, neighbors: events kept per user, users and next items per item, as `state` in the engine.
        ranker: whether candidates are ordered by the ranker, which learns from the newest `ranker_share` of what may be
            trained on, with encoders that have not seen it.
        refit: whether the encoders learn anew from everything once the ranker is trained.
        index_candidates, neighbor_sources: as `ranking` in the engine.
        precision: as `inference` in the engine, once all is trained.
    """

    by_session: bool
    dim: Annotated[int, Field(ge=8, le=1024)] = 64
    heads: Annotated[int, Field(ge=1, le=64)] = 2
    blocks: Annotated[int, Field(ge=1, le=64)] = 2
    window: Annotated[int, Field(ge=2, le=4096)] = 30
    expansion: Annotated[int, Field(ge=1, le=16)] = 2
    gated: bool = False
    relative_time: bool = True
    local_heads: Annotated[int, Field(ge=0, le=64)] = 0
    local_window: Annotated[int, Field(ge=1, le=4096)] = 8
    by_kind: bool = False
    dropout: Share = 0.2
    batch: Annotated[int, Field(ge=1, le=65_536)] = 128
    epochs: Annotated[int, Field(ge=1, le=_MOST)] = 10
    patience: Annotated[int, Field(ge=0, le=_MOST)] = 0
    learning_rate: Rate = 2e-3
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.05
    id_dropout: Share = 0.0
    augment_crop: Annotated[float, Field(ge=0, le=1)] = 0.0
    augment_mask: Share = 0.0
    augment_reorder: Annotated[float, Field(ge=0, le=1)] = 0.0
    stride: Annotated[float, Field(gt=0, le=1)] = 0.5
    half: bool = False
    device: Device = field(default="cpu", repr=False)  # a checkpoint can go on elsewhere
    min_count: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    full_softmax: Annotated[int, Field(ge=0, le=_MOST)] = 20_000
    negatives: Annotated[int, Field(ge=1, le=1_000_000)] = 1024
    graph_steps: Annotated[int, Field(ge=0, le=_MOST)] = 0
    graph_learning_rate: Rate = 5e-4
    aggregation: Aggregation = "attention"
    history: Annotated[int, Field(ge=2, le=4096)] = 128
    neighbors: Annotated[int, Field(ge=1, le=1024)] = 64
    ranker: bool = False
    ranker_share: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    ranker_epochs: Annotated[int, Field(ge=1, le=1000)] = 5
    ranker_learning_rate: Rate = 3e-3
    ranker_dropout: Share = 0.1
    refit: bool = False
    index_candidates: Annotated[int, Field(ge=1, le=10_000)] = 200
    neighbor_sources: Annotated[int, Field(ge=0, le=64)] = 5
    content: bool = False
    precision: Precision = field(default="float32", repr=False)  # no checkpoint depends on it
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 1

    def __post_init__(self) -> None:
        check_heads(self.dim, self.heads, self.local_heads)


def settings_of(given: Sequence[str], defaults: Mapping[str, Any]) -> OuselSettings:
    """The settings that `--set NAME=VALUE` gives, each within its bounds.

    Args:
        defaults: values of settings that are not given; `by_session` can't be given.

    Raises:
        ValueError: names the setting, what it must be and what it is.
    """
    hints = get_type_hints(OuselSettings, include_extras=True)
    names = [name for name in hints if name != "by_session"]
    values = dict(defaults)
    for each in given:
        name, _, text = each.partition("=")
        if name not in names:
            near = get_close_matches(name, names, n=1)
            meant = f", did you mean {near[0]}?" if near else ""
            raise ValueError(f"--set must name one of {', '.join(names)}, got {each!r}{meant}")
        try:
            values[name] = TypeAdapter(hints[name]).validate_python(text)
        except ValidationError:
            raise ValueError(f"--set {name} must be {_allowed(hints[name])}, got {text!r}") from None
    try:
        return OuselSettings(**values)
    except ValueError as error:
        raise ValueError(f"--set {error}") from None


def _allowed(hint: Any) -> str:
    """What a setting may be, as an error says it."""
    if hint is bool:
        return "true or false"
    if get_origin(hint) is Literal:
        return f"one of {', '.join(get_args(hint))}"
    kind, *details = get_args(hint)
    if kind is str:
        return "cpu, cuda or cuda:N"
    bounds = [
        f"{sign} {bound:g}" if isinstance(bound, float) else f"{sign} {bound}" for sign, bound in _bounds(details)
    ]
    return f"{'a whole number' if kind is int else 'a number'} {' and '.join(bounds)}"


def _bounds(details: Sequence[FieldInfo]) -> Iterator[tuple[str, float]]:
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    for bound in details[0].metadata:
        for name, sign in signs.items():
            if hasattr(bound, name):
                yield sign, getattr(bound, name)
