"""What a training looked like: event files for TensorBoard, written as it goes on, and one picture at its end.

Needs the packages of the extra `curves`, and only here.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURE = "curves.png"
_MOST_POINTS = 4096  # of one curve in the picture; TensorBoard gets them all


class CurvesError(RuntimeError):
    """The packages that draw are not installed."""


def check_installed() -> None:
    """Raises CurvesError where a package is missing, so that this is said before a training."""
    try:
        import matplotlib.figure  # noqa: F401
        import tensorboardX  # noqa: F401
    except ImportError as error:
        raise CurvesError(f"--curves needs the package {error.name}: pip install 'ousel-engine[curves]'") from None


class Curve:
    """The points of one line, evenly thinned out where there are more than a picture shows."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.values: list[float] = []
        self._every = 1
        self._seen = 0

    def add(self, step: int, value: float) -> None:
        if self._seen % self._every == 0:
            self.steps.append(step)
            self.values.append(value)
        self._seen += 1
        if len(self.steps) > _MOST_POINTS:
            del self.steps[1::2], self.values[1::2]
            self._every *= 2


class Curves:
    """Figures by name and step; a context manager that draws at its end, however that comes.

    Args:
        folder: made where it isn't there; an earlier picture in it is replaced.
        unit: what steps count.

    Raises:
        CurvesError: a package is missing.
    """

    def __init__(self, folder: Path, unit: str = "step") -> None:
        check_installed()
        from tensorboardX import SummaryWriter

        self._folder = folder
        self._unit = unit
        self._curves: dict[str, Curve] = {}
        self._writer = SummaryWriter(str(folder))

    def __enter__(self) -> Curves:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()
        if self._curves:
            self.figure().savefig(self._folder / PICTURE)

    def add(self, name: str, step: int, value: float) -> None:
        self._writer.add_scalar(name, value, step)
        self._curves.setdefault(name, Curve()).add(step, value)

    def figure(self) -> Figure:
        """The picture: one plot below the other, by name in the order in which they came."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 2.5 * len(self._curves)), layout="constrained")
        plots = figure.subplots(len(self._curves), sharex=True, squeeze=False)[:, 0]
        for plot, (name, curve) in zip(plots, self._curves.items(), strict=True):
            plot.plot(curve.steps, curve.values, marker="." if len(curve.steps) < 100 else "")
            plot.set_ylabel(name)
            plot.grid(alpha=0.3)
        plots[-1].set_xlabel(self._unit)
        return figure

    def state(self) -> dict[str, Any]:
        """All points that the picture shows, so that it is whole after a resumption."""
        return {name: vars(curve) for name, curve in self._curves.items()}

    def restore(self, state: dict[str, Any]) -> None:
        for name, values in state.items():
            vars(self._curves.setdefault(name, Curve())).update(values)
