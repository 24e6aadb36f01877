"""How far a training is, and how large its steps are."""

from __future__ import annotations

import math
import time

_WARMUP_STEPS = 100  # at most: so many until the optimizer knows how the gradients vary
_WARMUP = 0.05  # of the steps, where they are fewer
_LAST_RATE = 0.01


class Schedule:
    """Steps, and the time that they may take: it ends with whichever comes first.

    Args:
        steps: None: as many as the time allows.
        budget_s: may be raised while the training goes on.
    """

    def __init__(self, steps: int | None, budget_s: float = math.inf) -> None:
        self._start_s = time.monotonic()
        self.steps = steps
        self.budget_s = budget_s
        self.step = 0

    def progress(self) -> float:
        """From 0 to 1; 0 before the first step, which every training takes, however slow its start was."""
        if not self.step:
            return 0.0
        by_steps = 0.0 if self.steps is None else self.step / self.steps
        return min(1.0, max(by_steps, self.elapsed_s() / self.budget_s))

    def is_whole(self) -> bool:
        """Whether all steps have been taken."""
        return self.steps is not None and self.step >= self.steps

    def rate(self) -> float:
        """Share of the learning rate now: a short rise, and then all of it."""
        warmup = _WARMUP_STEPS if self.steps is None else max(1.0, min(_WARMUP_STEPS, _WARMUP * self.steps))
        return min(1.0, (self.step + 1) / warmup)

    def elapsed_s(self) -> float:
        """Time trained, that before a resumption included."""
        return time.monotonic() - self._start_s

    def resume(self, step: int, elapsed_s: float) -> None:
        """Goes on from where a training was."""
        self.step = step
        self._start_s = time.monotonic() - elapsed_s


def cosine_rate(at: float) -> float:
    """Share of the peak learning rate at `at`, from 0 to 1: a short rise, then a cosine down to a hundredth."""
    return min(1.0, (at + 1e-3) / _WARMUP) * (_LAST_RATE + (1 - _LAST_RATE) * 0.5 * (1 + math.cos(math.pi * at)))
