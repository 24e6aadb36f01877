"""A training: encoders on the oldest part of the log, the ranker on the next, judged on the newest; then on all of it.

A first model comes soon. Then the training goes on from it for as long as that brings anything, and gives every model
that is better than those before.
"""

from __future__ import annotations

import copy
import hashlib
import logging
import math
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from engine.model.device import CPU
from engine.model.weights import Weights
from trainer.checkpoint import Checkpoint
from trainer.config import Recipe, TrainSection
from trainer.curves import Curves
from trainer.data.log import Questions
from trainer.dataset import Histories
from trainer.encoder import EncoderTrainer, steps_of
from trainer.evaluate import COVERAGE, JUDGED, best_scorer, evaluate
from trainer.forward import ItemForward
from trainer.habits import item_habits
from trainer.parallel import Ranks
from trainer.progress import Progress
from trainer.ranking import fit_ranker, make_examples, sampled, with_begun
from trainer.replay import EventLog, TrainingData
from trainer.rules import settled
from trainer.schedule import Schedule
from trainer.start import continues, start_weights, with_graph, words
from trainer.validation import Validation

_log = logging.getLogger(__name__)

_FIRST_SHARE = 0.35  # of the time for a first model that the encoders take; the ranker and the verdict take the rest
_ONLY_SHARE = 0.5  # the same where nothing follows on it
_SHARE = 0.35  # the same of the time for all: with the graph and anew from the whole log they take as long once more
_NEXT_SHARE = 0.1  # the same for a model in between, where counting beats the first: nobody is to wait for the end
_LEARNED_WITHIN, _ASKED_WITHIN = 3, 1  # times that a basket is asked about again once it has begun
_EARNS = 1.01  # of what the encoders score without the graph, for the graph layers to be worth what they cost
_FIRST_LISTS = 2500  # that the ranker of a first model learns from, at most: nobody is to wait for all of them
_FIRST_ASKED = 1000  # questions of the verdict on a first model, at most; it is asked all of them beside the next
_ATTEMPTS = 3
_COLLAPSED = 0.5  # of the items that co-visitation lists: a model that lists fewer knows little but the popular ones
_COUNTED = f"covisitation_{COVERAGE}"
# Settings that say when to train, what to keep and where to push, not what is learned.
_AROUND = {
    "nice", "min_events", "max_log_events", "archive_dir", "archive_days", "retrain_events", "retrain_minutes",
    "engine", "push_timeout_s", "check_s", "checkpoint_s", "models_dir", "metrics_enabled",
    "metrics_host", "metrics_port",
}  # fmt: skip


class Helped(Exception):
    """This process was one of several that trained the encoders, and not the first; that one has the model."""


@dataclass(frozen=True)
class Trained:
    """A model and what it scored on the newest slice; `before` is what the weights pushed before score on it.

    Attributes:
        steps: after which the encoders are as they are.
        refitted: whether its encoders have learned from the newest slice, too; then the figures are those that they had
            before.
    """

    weights: Weights
    metrics: dict[str, float]
    before: dict[str, float] | None
    steps: int
    seconds: float
    refitted: bool = False


def train(
    data: TrainingData,
    config: TrainSection,
    previous: Weights | None,
    stop: threading.Event,
    progress: Progress,
    checkpoint: Checkpoint | None = None,
    curves: Curves | None = None,
    ranks: Ranks | None = None,
) -> Iterator[Trained]:
    """Trains until nothing is gained any more, or the time is over; each model that it gives is better than the last.

    Args:
        previous: weights to start from and to compare with, or None for a first training. They may be another
            catalog's: what they know of content holds for items that they have never seen.
        checkpoint, curves, ranks: of the encoders' training, see `EncoderTrainer`. Without ranks, one process on
            `config.device`.

    Raises:
        Stopped: `stop` was set.
        Helped: the encoders are trained, and the first rank does the rest.
        CheckpointError: the checkpoint there is of another run.
        Diverged: the loss or a weight is not finite any more.
    """
    config = settled(config, data.log, data.state.history, previous.model.shape if previous else None)
    torch.set_num_threads(config.threads)
    return _Training(data, config, previous, stop, progress, checkpoint, curves, ranks).models()


class _Training:
    """One run of `train`, with what all its parts need."""

    def __init__(
        self,
        data: TrainingData,
        config: Recipe,
        previous: Weights | None,
        stop: threading.Event,
        progress: Progress,
        checkpoint: Checkpoint | None,
        curves: Curves | None,
        ranks: Ranks | None,
    ) -> None:
        self._started_s = time.monotonic()
        self._data, self._config, self._previous = data, config, previous
        self._stop, self._progress = stop, progress
        self._checkpoint, self._curves = checkpoint, curves
        self._ranks = ranks or Ranks(device=torch.device(config.device))
        self._histories = Histories(data.log)
        self._end = len(data.log)
        self._judged = _cut(data.log, self._end, config.holdout_share, config.holdout_events)
        self._ranked = _cut(data.log, self._judged, config.ranker_share, config.ranker_events)
        learned = self._histories.questions(self._ranked, self._judged)
        asked = self._histories.questions(self._judged, self._end)
        self._learned = with_begun(learned, config.ranker_samples, _LEARNED_WITHIN, config.seed)
        self._asked = with_begun(asked, config.evaluation_samples, _ASKED_WITHIN, config.seed + 1)
        validated = sampled(learned, config.validation_samples, config.seed + 2)
        self._validation = Validation(data, self._histories, validated, self._ranked) if config.patience else None
        self._before: dict[int, dict[str, float]] = {}  # by the number of questions

    def models(self) -> Iterator[Trained]:
        """See `train`."""
        start = start_weights(self._data, self._ranked, self._config, self._previous)
        again = self._previous is not None and continues(start, self._previous)
        all_s = 60 * self._config.max_minutes
        first_s = min(60 * self._config.first_minutes, all_s)
        if again:
            first_s = all_s = 60 * self._config.retrain_max_minutes
        # Step 1. A first model, soon; then the best that there is time for, anew where it fell onto the popular items.
        best, without, spent_s, settings = None, 0.0, 0.0, self._config
        attempts = 1 if again else _ATTEMPTS
        for attempt in range(attempts):
            for made, score, took_s in self._attempt(attempt, first_s, all_s):
                best = self._in_full(best) if best else None
                if best is None or self._is_better(made, best):
                    best, without, spent_s, settings = made, score, took_s, self._config
                    yield best
            if attempt == attempts - 1 or not self._collapsed(made):
                break
            self._config = self._slower(made)
        assert best is not None
        self._config = settings  # those of the best
        # Step 2. The same with the graph, where that earns what it costs.
        if self._config.graph_share and self._validation and best.steps and not again:
            linked = self._linked(best, without, spent_s)
            if linked is not None and self._is_better(linked, best):
                best = linked
                yield best
        # Step 3. Encoders that know everything, with the ranker that has learned to trust those before.
        if self._config.refit:
            yield self._refitted(best, _ONLY_SHARE * first_s if again else math.inf)
        if not self._ranks.is_first:
            raise Helped

    def _attempt(self, number: int, first_s: float, all_s: float) -> Iterator[tuple[Trained, float, float]]:
        """A first model and what it becomes, each with what validation finds of it and how long its encoders took."""
        weights = start_weights(self._data, self._ranked, self._config, self._previous)
        checkpoint = self._checkpoint.beside(f"attempt{number}") if self._checkpoint and number else self._checkpoint
        share = _FIRST_SHARE if all_s > first_s else _ONLY_SHARE
        encoder, schedule = self._encoder(weights, self._ranked, share * first_s, checkpoint)
        over = encoder.run(self._stop, self._progress)
        if not schedule.step:
            _log.warning(
                "the encoders have learned nothing: among the oldest %d events, those before the slices of the ranker"
                " and of the verdict, nobody has two", self._ranked,
            )  # fmt: skip
        goes_on = not over and all_s > first_s
        made = self._judge(weights, encoder, encoder.best_step, goes_on)
        yield made, encoder.stopping.best, schedule.elapsed_s()
        budgets = [_SHARE * all_s] if goes_on else []
        if goes_on and self._is_beaten(made) and self._comes_long_before(_NEXT_SHARE * all_s, schedule):
            budgets.insert(0, _NEXT_SHARE * all_s)
        for budget_s in budgets:
            schedule.budget_s = max(schedule.budget_s, budget_s)
            over = encoder.run(self._stop, self._progress)
            yield self._judge(weights, encoder, encoder.best_step), encoder.stopping.best, schedule.elapsed_s()
            if over:
                break

    def _is_beaten(self, made: Trained) -> bool:
        """Whether a scorer without a model is as good, so that it can't be pushed."""
        return self._ranks.of_first(lambda: best_scorer(made.metrics)[1] - made.metrics[JUDGED]) >= 0

    def _comes_long_before(self, budget_s: float, schedule: Schedule) -> bool:
        """Whether encoders learn much until then, beside what they have."""
        return self._ranks.of_first(lambda: budget_s - 2 * schedule.elapsed_s()) > 0

    def _collapsed(self, made: Trained) -> bool:
        """Whether its lists hold so few items, beside those of co-visitation, that it knows only the popular ones."""
        return self._ranks.of_first(lambda: made.metrics[COVERAGE] - _COLLAPSED * made.metrics[_COUNTED]) < 0

    def _slower(self, made: Trained) -> Recipe:
        """The settings to start again with: the faster encoders learn, the more they fall onto the popular items."""
        rate = self._config.learning_rate / 2
        _log.warning(
            "the model has fallen onto the popular items: its lists hold %.1f%% of all, those of co-visitation %.1f%%;"
            " it is trained anew with trainer.learning_rate %g",
            100 * made.metrics[COVERAGE], 100 * made.metrics[_COUNTED], rate,
        )  # fmt: skip
        return self._config.model_copy(update={"learning_rate": rate})

    def _in_full(self, made: Trained) -> Trained:
        """The same model with the verdict of all questions, where a first verdict asked some."""
        if not self._ranks.is_first or made.metrics["events"] == len(self._asked):
            return made
        metrics = self._evaluate(self._forward(made.weights), self._asked)
        return replace(made, metrics=metrics, before=self._of_previous(self._asked))

    def _is_better(self, one: Trained, other: Trained) -> bool:
        """What the first rank says, which alone has figures: all go on alike."""
        return self._ranks.of_first(lambda: one.metrics[JUDGED] - other.metrics[JUDGED]) > 0

    def _linked(self, best: Trained, without: float, spent_s: float) -> Trained | None:
        """The same model, gone on with items that have their neighbors; None where validation finds it no better.

        Args:
            without: what validation finds of the model without neighbors.
            spent_s: on that one; this one gets its share in time, too, since steps with the graph are dear.
        """
        share = self._config.graph_share
        weights = Weights(with_graph(best.weights.model), best.weights.vocabulary)
        steps = max(1, round(best.steps * share / (1 - share)))
        checkpoint = self._checkpoint.beside("linked") if self._checkpoint else None
        encoder, _ = self._encoder(weights, self._ranked, share / (1 - share) * spent_s, checkpoint, steps)
        encoder.run(self._stop, self._progress)
        earned = encoder.stopping.best / max(without, 1e-9)
        _log.info("validation finds %.4f with the graph, and %.4f without it", encoder.stopping.best, without)
        return self._judge(weights, encoder, best.steps + encoder.best_step) if earned >= _EARNS else None

    def _encoder(
        self, weights: Weights, end: int, budget_s: float, checkpoint: Checkpoint | None, steps: int | None = None
    ) -> tuple[EncoderTrainer, Schedule]:
        """What trains encoders on events 0..end-1; validated where these don't reach into the ranker's slice."""
        known = words(self._data.item_ids, weights.vocabulary)
        weights.model.habit.copy_(item_habits(self._data.log.slice(0, end), known, len(weights.vocabulary)))
        forward = ItemForward(weights.model.to(self._ranks.device), known, self._data.content)
        schedule = Schedule(steps or steps_of(self._histories, end, self._config), budget_s)
        validate = self._validation.score if self._validation and end <= self._ranked else None
        encoder = EncoderTrainer(
            forward, self._data, self._histories, end, self._config, schedule, linked=weights.model.graph.linked,
            checkpoint=checkpoint, validate=validate, curves=self._curves if steps is None else None,
            ranks=self._ranks,
        )  # fmt: skip
        return encoder, schedule

    def _judge(self, weights: Weights, encoder: EncoderTrainer, steps: int, soon: bool = False) -> Trained:
        """A copy of the model at its best, with a ranker and the verdict.

        Args:
            soon: both are made of a sample, as it does for a first model.
        """
        with encoder.best():
            model = copy.deepcopy(weights.model).to(CPU)  # where the state lies that the ranker's lists are made of
        made = Weights(model, weights.vocabulary)
        if not self._ranks.is_first:
            return Trained(made, dict.fromkeys((JUDGED, COVERAGE, _COUNTED), 0.0), None, steps, 0.0)
        forward = self._forward(made)
        learned, asked = self._learned, self._asked
        if soon:
            learned = sampled(learned, _FIRST_LISTS, self._config.seed)
            asked = sampled(asked, _FIRST_ASKED, self._config.seed)
        examples = make_examples(forward, self._data, self._histories, learned, self._stop, self._progress)
        if examples is not None:
            fit_ranker(forward, examples, self._config, self._stop, self._progress)
        metrics = self._evaluate(forward, asked)
        before = self._of_previous(asked)
        model.eval().requires_grad_(False)
        return Trained(made, metrics, before, steps, time.monotonic() - self._started_s)

    def _of_previous(self, asked: Questions) -> dict[str, float] | None:
        """The figures of the weights to start from, on the same questions; None where there are no such weights."""
        if self._previous is None:
            return None
        if len(asked) not in self._before:
            self._before[len(asked)] = self._evaluate(self._forward(self._previous), asked)
        return self._before[len(asked)]

    def _refitted(self, best: Trained, budget_s: float) -> Trained:
        """The same model, whose encoders have learned anew from the whole log for as long."""
        linked = best.weights.model.graph.linked
        # With the graph steps are dear, and what was learned without it stays.
        weights = start_weights(self._data, self._end, self._config, best.weights if linked else self._previous)
        steps = math.ceil((self._config.graph_share if linked else 1) * best.steps * self._end / max(1, self._ranked))
        checkpoint = self._checkpoint.beside("again") if self._checkpoint else None
        encoder, schedule = self._encoder(weights, self._end, budget_s, checkpoint, max(1, steps))
        encoder.run(self._stop, self._progress)
        with encoder.best():
            model = copy.deepcopy(weights.model).to(CPU)
        model.ranker = best.weights.model.ranker
        model.eval().requires_grad_(False)
        seconds = time.monotonic() - self._started_s
        return Trained(
            Weights(model, weights.vocabulary), best.metrics, best.before, best.steps + schedule.step, seconds, True
        )

    def _forward(self, weights: Weights) -> ItemForward:
        return ItemForward(weights.model, words(self._data.item_ids, weights.vocabulary), self._data.content)

    def _evaluate(self, forward: ItemForward, asked: Questions) -> dict[str, float]:
        return evaluate(forward, self._data, self._histories, asked, self._stop, self._progress)


def _cut(log: EventLog, end: int, share: float, most: int) -> int:
    """Where the newest part of events 0..end-1 begins; events of one time are on one side."""
    at = end - max(1, min(most, int(end * share)))
    return int(torch.searchsorted(log.time_ms[:end], log.time_ms[at])) or at


def run_of(data: TrainingData, config: TrainSection, previous: bytes | None, ranks: int = 1) -> str:
    """All that a training depends on, by name: equal where it would end with the same weights.

    Args:
        previous: the file of the weights to start from.
        ranks: how many processes train it.
    """
    digest = hashlib.sha256(f"{data.state!r} {data.kind_weight.tolist()}".encode())
    for column in (*vars(data.log).values(), data.content):
        digest.update(column.contiguous().numpy())
    digest.update(data.deleted.tobytes())
    digest.update("\n".join(data.item_ids).encode())
    start = "none" if previous is None else hashlib.sha256(previous).hexdigest()[:16]
    settings = [f"{name}={value}" for name, value in config.model_dump(exclude=_AROUND).items()]
    return ", ".join([f"data={digest.hexdigest()[:16]}", f"previous={start}", f"ranks={ranks}", *settings])
