"""How the model is shaped and trained when it is judged on a file."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.config import Device, Precision
from engine.model.layers import Aggregation
from engine.model.recommender import check_heads


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
    dim: int = 64
    heads: int = 2
    blocks: int = 2
    window: int = 30
    expansion: int = 2
    gated: bool = False
    relative_time: bool = True
    local_heads: int = 0
    local_window: int = 8
    by_kind: bool = False
    dropout: float = 0.2
    batch: int = 128
    epochs: int = 10
    patience: int = 0
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    id_dropout: float = 0.0
    augment_crop: float = 0.0
    augment_mask: float = 0.0
    augment_reorder: float = 0.0
    stride: float = 0.5
    half: bool = False
    device: Device = field(default="cpu", repr=False)  # a checkpoint can go on elsewhere
    min_count: int = 1
    full_softmax: int = 20_000
    negatives: int = 1024
    graph_steps: int = 0
    graph_learning_rate: float = 5e-4
    aggregation: Aggregation = "attention"
    history: int = 128
    neighbors: int = 64
    ranker: bool = False
    ranker_share: float = 0.1
    ranker_epochs: int = 5
    ranker_learning_rate: float = 3e-3
    ranker_dropout: float = 0.1
    refit: bool = False
    index_candidates: int = 200
    neighbor_sources: int = 5
    content: bool = False
    precision: Precision = field(default="float32", repr=False)  # no checkpoint depends on it
    seed: int = 1

    def __post_init__(self) -> None:
        check_heads(self.dim, self.heads, self.local_heads)
