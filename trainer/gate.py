"""Which model may be pushed: one that is better than counting, and not worse than the one before."""

from __future__ import annotations

from engine.ranking.scorers import SCORERS
from trainer.evaluate import JUDGED, best_scorer
from trainer.train import Trained


def refusal(trained: Trained, max_drop: float) -> str | None:
    """Why a model must not be pushed, or None where it may."""
    now = trained.metrics[JUDGED]
    scorer, counted = best_scorer(trained.metrics)
    if now <= counted:
        return f"{JUDGED} must be above that of {scorer}, got {now:.4f} and {counted:.4f}"
    if trained.before is not None:
        floor = (1 - max_drop) * trained.before[JUDGED]
        if now < floor:
            return f"{JUDGED} must be at least {floor:.4f} ({1 - max_drop:.0%} of the model before), got {now:.4f}"
    return None


def summary(metrics: dict[str, float]) -> str:
    """The figures of a training in one line."""
    scorers = [f"{name} {metrics[f'{name}_{JUDGED}']:.4f}" for name in SCORERS]
    return f"{JUDGED} {metrics[JUDGED]:.4f}, {', '.join(scorers)}, on {metrics['events']:.0f} questions"
