"""What is written is what is read, down to the last bit."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from engine.events.batch import CatalogItem
from engine.snapshot.files import DamagedError
from engine.snapshot.format import read_catalog, read_slice, write_snapshot
from engine.snapshot.manifest import read_manifest
from engine.state.copying import SavedCatalog, SavedState
from engine.state.slice import SavedSlice
from tests.engine.logs import decoded
from tests.engine.snapshot.saved import (
    ITEMS,
    ROWS,
    assert_same,
    catalog,
    fold,
    folded,
    new_slice,
    save,
    state_of,
)

names = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=9)
ids = st.lists(names | names.map("\x00{}".format) | st.none(), max_size=9)
whole = st.integers(-(2**63), 2**63 - 1)
dtypes = st.sampled_from(["int8", "int32", "int64", "float32", "float64", "bool"])
tables = st_numpy.arrays(dtypes, st_numpy.array_shapes(max_dims=3, min_side=0, max_side=5)).map(torch.from_numpy)
slices = st.builds(
    SavedSlice,
    tables=st.dictionaries(names, tables, max_size=4),
    users=ids,
    items=ids,
    targets=ids,
    recent_ids=st.lists(names, max_size=9),
    numbers=st.dictionaries(names, whole, max_size=3).map(lambda numbers: numbers | {"position": 7}),
    lists=st.dictionaries(names, st.lists(whole, max_size=5), max_size=4),
    began=st.integers(0, 7),
)
records = st.builds(
    CatalogItem,
    names,
    st.text(st.characters(codec="utf-8"), max_size=9),
    st.lists(st.text(st.characters(codec="utf-8"), max_size=4), max_size=3).map(tuple),
    st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=3).map(tuple),
    st.none() | whole,
    st.none() | whole,
    st.booleans(),
)


def written(folder: Path, saved: SavedState) -> Path:
    write_snapshot(folder, saved, "a", {})
    return folder


def slice_of(folder: Path, partition: int = 0) -> SavedSlice:
    return read_slice(folder, read_manifest(folder), partition)


@pytest.mark.parametrize("events", [0, 1, 20, len(ROWS)])
@pytest.mark.parametrize("forget", ["", "u1"])
def test_a_slice_comes_back_as_it_was_after_evictions_and_forgetting(tmp_path, events, forget):
    if forget and not events:
        forget = ""
    slice_ = folded(events, forget)
    assert slice_.evicted_users > 0 or events < 20
    assert slice_.evicted_items > 0 or events < 20
    want = save(slice_)
    assert_same(slice_of(written(tmp_path, SavedState("ousel.events", {0: want}, catalog()))), want)


def test_a_restored_slice_goes_on_as_the_one_that_was_saved(tmp_path):
    one = folded(40)
    other = new_slice()
    other.restore(slice_of(written(tmp_path, SavedState("ousel.events", {0: save(one)}, catalog()))))
    for slice_ in (one, other):
        fold(slice_, decoded(ROWS[40:], 40))
    assert_same(save(other), save(one))


def test_loaded_tables_can_be_written():
    with tempfile.TemporaryDirectory() as folder:
        loaded = slice_of(written(Path(folder), state_of(20)))
    for table in loaded.tables.values():
        table += 1


@settings(max_examples=40, deadline=None)
@given(saved=st.dictionaries(st.integers(0, 1023), slices, max_size=3), items=st.lists(records, max_size=5))
def test_any_slices_and_catalog_come_back_equal(saved, items):
    positions = {("items", 3): 5, ('"\n', 0): 2**62}
    with tempfile.TemporaryDirectory() as path:
        folder = written(Path(path), SavedState("ousel.events", saved, SavedCatalog(items, positions, 12)))
        manifest = read_manifest(folder)
        assert manifest.positions == dict.fromkeys(saved, 7)
        for partition, want in saved.items():
            assert_same(slice_of(folder, partition), want)
        assert read_catalog(folder, manifest) == SavedCatalog(items, positions, 12)


def test_the_catalog_comes_back_with_its_order_and_deleted_items(tmp_path):
    saved = SavedState("ousel.events", {}, catalog())
    assert list(saved.catalog.items) == list(ITEMS)
    got = read_catalog(written(tmp_path, saved), read_manifest(tmp_path))
    assert got == saved.catalog


def test_columns_longer_than_a_line_and_tables_longer_than_a_piece_come_back(tmp_path):
    count = 300_000
    users = [f"user {at}" if at % 10 else None for at in range(count)]
    want = SavedSlice(
        {"edge": torch.arange(count * 2).reshape(count, 2), "kind": torch.arange(count) % 2 == 0},
        users,
        [],
        ["e"] * 4096,
        {"position": 1},
        {"free": list(range(4097))},
        users[:5000],
    )
    items = [CatalogItem(f"i{at}", f"Title {at}") for at in range(1000)]
    folder = written(tmp_path, SavedState("ousel.events", {5: want}, SavedCatalog(items, {}, 1000)))
    assert_same(slice_of(folder, 5), want)
    assert read_catalog(folder, read_manifest(folder)).items == items


def test_kept_content_comes_back_by_record_and_no_bit_of_it_can_flip_unnoticed(tmp_path):
    content, rows = torch.randn(9, 5), torch.tensor([7, 0, 3])
    saved = replace(catalog(), content=content, rows=rows)
    assert len(saved.items) == 3
    folder = written(tmp_path, SavedState("ousel.events", {}, saved))
    got = read_catalog(folder, read_manifest(folder))
    assert got.items == list(saved.items)
    assert torch.equal(got.content[got.rows], content[rows])
    path = folder / "catalog.content"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(DamagedError, match=r"catalog\.content"):
        read_catalog(folder, read_manifest(folder))


def test_no_bit_of_any_file_can_flip_unnoticed(tmp_path):
    """Every tenth byte or so of small files is enough: a digest covers all of them alike."""
    folder = written(tmp_path, state_of(20))
    assert len(list(folder.iterdir())) == 5
    for path in folder.iterdir():
        good = path.read_bytes()
        for at in range(0, len(good), max(1, len(good) // 10)):
            bad = bytearray(good)
            bad[at] ^= 1 << (at % 8)
            path.write_bytes(bad)
            with pytest.raises(DamagedError, match=path.name.removesuffix(".sha256")):
                read_catalog(folder, read_manifest(folder))
                slice_of(folder)
        path.write_bytes(good)
    slice_of(folder)


def test_the_manifest_says_what_is_in_the_snapshot(tmp_path):
    folder = written(tmp_path, state_of(20, 30))
    manifest = read_manifest(folder)
    assert manifest.positions == {0: 20, 1: 30}
    assert manifest.catalog_positions == {("ousel.items", 0): 3}
    for part in manifest.slices.values():
        for entry in (part.tables_file, part.columns_file):
            assert (folder / entry.name).stat().st_size == entry.bytes > 0
        assert part.rows["users"] == 4
    assert manifest.catalog.rows == 3
