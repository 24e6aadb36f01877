from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deploy.demo.data import data_folder
from deploy.demo.files import main, write_files
from trainer.data.files import read_events, read_items


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("purchases")
    write_files(data_folder(), out)
    return out


def test_the_purchases_are_read_back_in_log_order(written: Path) -> None:
    events = read_events(written / "events.parquet", read_items(written / "items.parquet"))
    assert events.timed
    assert (np.diff(events.time) >= 0).all()
    assert len(events) == 1_469_307
    assert len(events.users) == 2_469
    assert set(events.kinds) == {"purchase"}
    assert events.value.min() >= 1


def test_every_product_is_described(written: Path) -> None:
    items = read_items(written / "items.parquet")
    assert all(items.title.values())
    assert any(len(categories) > 1 for categories in items.categories.values())


def test_missing_data_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("deploy.demo.data.find_spec", lambda _: None)
    assert main(["--out", str(tmp_path / "never")]) == 1
    assert "pip install" in capsys.readouterr().err
    assert not (tmp_path / "never").exists()
