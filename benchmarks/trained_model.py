"""A model of real items for benchmarks: trained for two minutes on the year of purchases that the demo uses.

Weights that nobody has trained would measure another engine: an HNSW graph loses its way among random vectors, and a
scan can't tell them apart by their codes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from deploy.demo.data import data_folder
from deploy.demo.files import write_files

_KEPT = Path("build/benchmarks")
_MINUTES = "2"  # of training; with all that follows it takes a minute or two more


def trained_model() -> bytes:
    """The weights, as `PushModel` takes them; trained once and kept for later runs, as long as nobody deletes them."""
    path = _KEPT / f"purchases-{_MINUTES}-minutes.safetensors"
    if not path.exists():
        print(f"training a model for {_MINUTES} minutes, once, into {path}", flush=True)
        _KEPT.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="ousel-purchases-") as folder:
            _train(Path(folder), path)
    return path.read_bytes()


def _train(folder: Path, out: Path) -> None:
    write_files(data_folder(), folder)
    command = [
        sys.executable, "-m", "trainer", "train", "--events", str(folder / "events.parquet"), "--items",
        str(folder / "items.parquet"), "--out", str(folder / out.name),
    ]  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OUSEL_")}
    subprocess.run(command, env=environment | {"OUSEL_TRAINER__MAX_MINUTES": _MINUTES}, check=True)
    (folder / out.name).replace(out)
