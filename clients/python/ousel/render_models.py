"""The models of the registry as plain text, for the command line."""

from __future__ import annotations

from ousel.model_types import ModelList, ModelOrigin, RegisteredModel
from ousel.render import printable, table

_MANY = 6  # metrics in one line of the list


def model_list(listed: ModelList) -> str:
    """A line per model, the newest first, and what the engine that was asked makes of them."""
    lines = []
    for model in listed.models:
        marks = "pinned" if model.version == listed.pinned_version else ""
        reason = f": {model.reason}" if model.reason else ""
        state = f"{model.state}{reason}"
        metrics = ", ".join(f"{name} {value:.4g}" for name, value in list(model.metrics.items())[:_MANY])
        taken = f"{model.accepted:%Y-%m-%d %H:%M:%S} UTC  {model.size_bytes / 1e6:8.1f} MB"
        columns = (taken, printable(model.pushed_by), marks, printable(state), printable(metrics))
        lines.append((str(model.version), "  ".join(filter(None, columns))))
    found = table(lines) if lines else "no model was pushed yet"
    return f"{found}\n\n{_engine(listed)}"


def _engine(listed: ModelList) -> str:
    serving = "no model" if not listed.serving_version else f"version {listed.serving_version}"
    rows = [("this engine serves", serving + _from(listed.origin))]
    if listed.announced_version != listed.serving_version:
        rows.append(("it is to serve", f"version {listed.announced_version or 'none'}"))
    if listed.building is not None:
        one = listed.building
        rows.append(("it builds", f"version {one.version}, {100 * one.progress:.0f}% after {one.seconds:,.0f} s"))
    if listed.refused is not None:
        rows.append(("it refuses", f"version {listed.refused.version}: {printable(listed.refused.reason)}"))
    if listed.registry_problem:
        rows.append(("problem", printable(listed.registry_problem)))
    rows.append(("registry", f"{printable(listed.dir)}, topic {printable(listed.topic)}"))
    return table(rows)


def _from(origin: ModelOrigin) -> str:
    return ", its own copy, because the registry could not give another" if origin is ModelOrigin.LOCAL_COPY else ""


def comparison(left: RegisteredModel, right: RegisteredModel) -> str:
    """What two models scored, side by side, and what else differs."""
    names = sorted({*left.metrics, *right.metrics})
    width = max(map(len, [*names, "trained on records"]))
    lines = [f"{'version':<{width}}  {left.version:>14}  {right.version:>14}"]
    for label, values in (
        ("accepted", (f"{left.accepted:%m-%d %H:%M:%S}", f"{right.accepted:%m-%d %H:%M:%S}")),
        ("megabytes", (f"{left.size_bytes / 1e6:.1f}", f"{right.size_bytes / 1e6:.1f}")),
        ("trained on records", (_records(left), _records(right))),
        ("state", (str(left.state), str(right.state))),
    ):
        lines.append(f"{label:<{width}}  {values[0]:>14}  {values[1]:>14}")
    for name in names:
        one, other = left.metrics.get(name), right.metrics.get(name)
        change = f"  {100 * (other / one - 1):+.1f}%" if one and other is not None else ""
        lines.append(f"{printable(name):<{width}}  {_figure(one):>14}  {_figure(other):>14}{change}")
    return "\n".join(lines)


def _records(model: RegisteredModel) -> str:
    return f"{sum(at.offset + 1 for at in model.trained_on):,}" if model.trained_on else "not said"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
