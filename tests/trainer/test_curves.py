"""Curves as TensorBoard and people read them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tensorboardX.proto import event_pb2

from trainer.curves import PICTURE, Curves, CurvesError


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of each name in the event files: records of a length, its checksum, an event, its checksum."""
    found: dict[str, list[tuple[int, float]]] = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            size = int.from_bytes(data[at : at + 8], "little")
            event = event_pb2.Event.FromString(data[at + 12 : at + 12 + size])
            at += 16 + size
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def drawn(curves: Curves) -> dict[str, list[tuple[int, float]]]:
    """What the picture's plots show, by label."""
    return {
        plot.get_ylabel(): list(zip(*(axis.tolist() for axis in plot.lines[0].get_data()), strict=True))
        for plot in curves.figure().axes
    }


def test_every_point_is_in_the_event_files_and_in_the_picture(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "curves"
    with Curves(folder) as curves:
        for step in (1, 2, 3):
            curves.add("loss", step, 4.0 / step)
        curves.add("validation", 3, 0.5)
    want = {"loss": [(1, 4.0), (2, 2.0), (3, pytest.approx(4 / 3))], "validation": [(3, 0.5)]}
    assert scalars(folder) == want
    assert drawn(curves) == want
    assert (folder / PICTURE).read_bytes().startswith(b"\x89PNG")


def test_the_picture_is_drawn_however_it_ends(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Curves(tmp_path) as curves:
        curves.add("loss", 1, 1.0)
        raise KeyboardInterrupt
    assert (tmp_path / PICTURE).exists()


def test_the_picture_is_whole_after_a_resumption(tmp_path: Path) -> None:
    with Curves(tmp_path / "1") as curves:
        curves.add("loss", 1, 1.0)
    with Curves(tmp_path / "2") as again:
        again.restore(curves.state())
        again.add("loss", 2, 2.0)
    assert drawn(again) == {"loss": [(1, 1.0), (2, 2.0)]}


def test_a_long_curve_is_thinned_out_evenly(tmp_path: Path) -> None:
    with Curves(tmp_path) as curves:
        for step in range(20_000):
            curves.add("loss", step, 2.0 * step)
    points = drawn(curves)["loss"]
    assert points == [(step, 2.0 * step) for step in range(0, 20_000, 8)]
    assert len(scalars(tmp_path)["loss"]) == 20_000


@pytest.mark.parametrize("package", ["matplotlib", "tensorboardX"])
def test_a_missing_package_is_named_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    for name in [package, *(one for one in sys.modules if one.startswith(f"{package}."))]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(CurvesError, match=rf"needs the package {package}.*: pip install 'ousel-engine\[curves\]'"):
        Curves(tmp_path)
