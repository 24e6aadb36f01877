"""Compiled functions are kept on disk, never older than what they are made of, and never needed to start."""

from __future__ import annotations

import importlib.util
import itertools
import logging
import os
import resource
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numba.core import types
from numba.extending import intrinsic

from engine import kernel_cache
from engine.commands.compile import kernel_modules
from engine.kernel_cache import CacheReport, digest_of

CALLED = """
from engine.kernel_cache import compiled

STEP = {step}
NAMES = ("a", "b", "c")

@compiled("i8(i8)", any_order=True)
def more(value):
    return value + STEP if value in (7, 8, 9) or len(NAMES) == value else 0
"""
CALLER = """
from engine.kernel_cache import compiled
from called import more

@compiled("i8(i8[::1])")
def first(values):
    return more(values[0])
"""
names = itertools.count()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(folder))
    return folder


def start(folder: Path, monkeypatch: pytest.MonkeyPatch, step: int = 1) -> tuple[int, CacheReport]:
    """What two modules compute, one of which calls the other, and what became of their functions."""
    report = CacheReport()
    monkeypatch.setattr(kernel_cache, "report", report)
    folder.mkdir(exist_ok=True)
    texts = {"called": CALLED.format(step=step), "caller": CALLER}
    for name, text in texts.items():
        (folder / f"{name}.py").write_text(text)
        loaded(name, folder / f"{name}.py", monkeypatch)
    return sys.modules["caller"].first(np.array([7, 8])), report


def loaded(name: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    # Without the bytecode of before: a test changes a file twice within a second.
    exec(compile(path.read_text(), path, "exec"), module.__dict__)
    return module


def files(cache: Path) -> list[Path]:
    return sorted(cache.glob("*.kernel"))


def test_the_next_start_compiles_nothing(tmp_path, cache, monkeypatch):
    got, report = start(tmp_path / "a", monkeypatch)
    assert (got, report.compiled, report.loaded, report.folder) == (8, 2, 0, cache)
    got, report = start(tmp_path / "b", monkeypatch)  # wherever the sources lie
    assert (got, report.compiled, report.loaded, report.problem) == (8, 0, 2, None)
    assert len(files(cache)) == 2


def test_a_function_that_calls_one_that_changed_in_another_file_is_compiled_anew(tmp_path, cache, monkeypatch):
    start(tmp_path, monkeypatch)
    caller = (tmp_path / "caller.py").stat()
    got, report = start(tmp_path, monkeypatch, step=30)
    assert (got, report.compiled, report.loaded) == (37, 2, 0)
    assert (tmp_path / "caller.py").stat().st_size == caller.st_size
    assert len(files(cache)) == 2  # what no source gives any more is deleted


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:40],
        lambda content: content[:-1],
        lambda content: content[:200] + bytes([content[200] ^ 1]) + content[201:],
        lambda content: content[:32] + b"\x80\x04K\x01.",
        lambda content: os.urandom(len(content)),
        lambda content: os.urandom(32) + content[32:],  # a digest of something else
    ],
)
def test_damaged_code_is_compiled_anew_and_said(tmp_path, cache, monkeypatch, caplog, damage):
    start(tmp_path, monkeypatch)
    for path in files(cache):
        path.write_bytes(damage(path.read_bytes()))
    got, report = start(tmp_path, monkeypatch)
    assert (got, report.compiled, report.loaded) == (8, 2, 0)
    report.log(logging.getLogger("engine"))
    (line,) = [record.getMessage() for record in caplog.records]
    assert str(cache) in line
    assert "2 were compiled again and are kept now" in line
    assert report.problem is None
    assert start(tmp_path, monkeypatch)[1].loaded == 2  # and it is whole again


def test_a_digest_that_fits_what_is_no_code_ends_nothing(tmp_path, cache, monkeypatch):
    import hashlib

    start(tmp_path, monkeypatch)
    for path in files(cache):
        path.write_bytes(hashlib.sha256(b"no pickle").digest() + b"no pickle")
    assert start(tmp_path, monkeypatch)[0] == 8


def test_a_file_in_the_place_of_the_folder_is_said_and_the_functions_work(tmp_path, cache, monkeypatch):
    cache.write_text("")
    got, report = start(tmp_path, monkeypatch)
    assert (got, report.compiled) == (8, 2)
    assert str(cache) in str(report.problem)


def test_a_folder_that_nobody_may_write_is_said_and_the_functions_work(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/proc/ousel")  # which is so for root, too
    got, report = start(tmp_path, monkeypatch)
    assert (got, report.compiled) == (8, 2)
    assert "/proc/ousel" in str(report.problem)


def test_code_beside_the_sources_is_used_though_nobody_may_write_there(tmp_path, monkeypatch):
    """As in a container whose image was built by another user."""
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/ousel")
    start(tmp_path, monkeypatch)
    beside = tmp_path / "__pycache__"
    assert len(files(beside)) == 2
    monkeypatch.setattr(kernel_cache, "_write", lambda path, content: pytest.fail("it has to be written"))
    got, report = start(tmp_path, monkeypatch)
    assert (got, report.loaded, report.folder, report.problem) == (8, 2, beside, None)


def test_without_a_home_the_functions_work(tmp_path, monkeypatch):
    def nowhere(*_: object) -> None:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    (tmp_path / "__pycache__").write_text("no folder")
    got, report = start(tmp_path, monkeypatch)
    assert (got, report.compiled) == (8, 2)
    assert report.problem is not None


FULL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
import numpy, engine.kernel_cache
sys.path.insert(0, sys.argv[1])
import caller
assert caller.first(numpy.array([7])) == 8
print(engine.kernel_cache.report.problem)
"""


def test_a_full_disk_is_said_and_leaves_no_half(tmp_path, cache, monkeypatch):
    (tmp_path / "called.py").write_text(CALLED.format(step=1))
    (tmp_path / "caller.py").write_text(CALLER)
    assert resource.RLIMIT_FSIZE is not None
    done = subprocess.run(
        [sys.executable, "-B", "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=True, cwd=Path.cwd()
    )
    assert "can't be written: File too large" in done.stdout
    assert list(cache.iterdir()) == []


def test_each_process_gives_the_code_the_same_name(tmp_path):
    """Sets have another order in each, and objects another address."""
    (tmp_path / "called.py").write_text(CALLED.format(step=1))
    (tmp_path / "caller.py").write_text(CALLER)
    ask = "import sys; sys.path.insert(0, sys.argv[1]); import caller; from engine.kernel_cache import digest_of;"
    ask += "print(digest_of(caller.first.py_func))"
    found = set()
    for seed in "123":
        variables = os.environ | {"PYTHONHASHSEED": seed, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
        done = subprocess.run(
            [sys.executable, "-c", ask, str(tmp_path)], capture_output=True, text=True, check=True, env=variables
        )
        found.add(done.stdout)
    assert len(found) == 1
    assert len(files(tmp_path / "cache")) == 2


def test_a_function_that_uses_an_intrinsic_is_compiled_anew_once_that_has_changed() -> None:
    def made(step: int) -> Any:
        @intrinsic
        def shifted(typing_context: Any, number: Any) -> Any:
            def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
                return builder.add(values[0], context.get_constant(types.int64, step))

            return types.int64(types.int64), generate

        def kernel(number: int) -> int:
            return shifted(number)

        return kernel

    assert digest_of(made(1)) == digest_of(made(1)) != digest_of(made(2))


RECORD = """
from typing import NamedTuple
from engine.kernel_cache import compiled, record

@record("i8", "i8")
class Pair(NamedTuple):
    {fields}

@compiled("i8(Pair)")
def older(pair):
    return pair.a

@compiled("Pair(i8)")
def twice(number):
    return Pair(number, 2 * number)
"""


def of_record(folder: Path, monkeypatch: pytest.MonkeyPatch, *fields: str) -> tuple[ModuleType, CacheReport]:
    report = CacheReport()
    monkeypatch.setattr(kernel_cache, "report", report)
    monkeypatch.setattr(kernel_cache, "_RECORDS", {})
    path = folder / "pairs.py"
    path.write_text(RECORD.format(fields="\n    ".join(f"{field}: int" for field in fields)))
    return loaded("pairs", path, monkeypatch), report


def test_a_function_takes_and_gives_records_by_the_names_of_their_fields(tmp_path, cache, monkeypatch):
    pairs, _ = of_record(tmp_path, monkeypatch, "a", "b")
    assert pairs.older(pairs.Pair(3, 4)) == 3
    made = pairs.twice(5)
    assert (type(made), made.a, made.b) == (pairs.Pair, 5, 10)


def test_a_function_is_compiled_anew_once_the_fields_of_a_record_have_changed_places(tmp_path, cache, monkeypatch):
    of_record(tmp_path, monkeypatch, "a", "b")
    assert of_record(tmp_path, monkeypatch, "a", "b")[1].compiled == 0
    pairs, report = of_record(tmp_path, monkeypatch, "b", "a")
    assert (report.compiled, report.loaded) == (2, 0)
    assert pairs.older(pairs.Pair(3, 4)) == 4


def test_a_record_without_a_type_for_each_field_is_refused(tmp_path, cache, monkeypatch):
    with pytest.raises(ValueError, match="Pair has 3 fields, and 2 types"):
        of_record(tmp_path, monkeypatch, "a", "b", "c")


def test_two_records_of_one_name_are_refused(tmp_path, cache, monkeypatch):
    pairs, _ = of_record(tmp_path, monkeypatch, "a", "b")
    other = type("Pair", (pairs.Pair,), {"__module__": "elsewhere"})
    with pytest.raises(ValueError, match="a record Pair is in pairs, too"):
        kernel_cache.record("i8", "i8")(other)


def test_all_modules_with_compiled_functions_are_compiled_by_the_command():
    modules = kernel_modules()
    assert {"engine.state.kernels", "engine.features.table", "engine.index.best"} <= modules.keys()
    assert sum(modules.values()) >= 60
