"""Which candidates may be listed, against sets; lists themselves are compared with the trained parts elsewhere."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.features.candidates import HISTORY_BIT, INDEX_BIT
from engine.ranking.list_kernels import Wishes, is_among, keep_listable
from engine.ranking.ragged import Ragged, padded

ROWS = 12
rows = st.sets(st.integers(0, ROWS - 1))
queries = st.lists(
    st.fixed_dictionaries(
        {
            "candidates": rows, "shown": rows, "hits": rows, "history": st.lists(st.integers(-1, ROWS - 1), max_size=4),
            "leaves_history": st.booleans(), "excluded": st.lists(st.integers(0, ROWS - 1)),
            "members": st.none() | rows, "related": rows,
        }
    ),
    min_size=1,
    max_size=4,
)  # fmt: skip


@given(asked=queries)
def test_what_may_not_be_listed_is_hidden_and_all_else_is_kept(asked):
    row = padded([np.array(sorted(one["candidates"]), np.int64) for one in asked])
    hit = np.array([[at in one["hits"] for at in line] for one, line in zip(asked, row, strict=True)], np.bool_)
    source = np.where(row < 0, 0, np.where(hit, INDEX_BIT, HISTORY_BIT)).reshape(row.shape)
    shown = np.array([[at in one["shown"] for at in line] for one, line in zip(asked, row, strict=True)], np.bool_)
    history = padded([np.array(one["history"], np.int64) for one in asked])
    members = Ragged.of([sorted(one["members"] or ()) for one in asked])
    wishes = Wishes(
        np.zeros(len(asked), np.int64), np.array([one["leaves_history"] for one in asked]),
        *Ragged.of([one["excluded"] for one in asked]), *members,
        np.array([one["members"] is not None for one in asked]), *Ragged.of([sorted(one["related"]) for one in asked]),
    )  # fmt: skip
    kept, bits, count, hidden, indexed, found, first = keep_listable(
        row, source, shown.reshape(row.shape), history, wishes
    )
    assert kept.shape == (len(asked), max(1, *count.tolist(), 0))
    for b, one in enumerate(asked):
        left_out = set(one["excluded"]) | (set(one["history"]) if one["leaves_history"] else set())
        may = one["candidates"] & one["shown"] - left_out
        if one["members"] is not None:
            may &= one["members"]
        assert kept[b].tolist() == sorted(may) + [-1] * (kept.shape[1] - len(may))
        assert count[b] == len(may)
        assert bits[b, : len(may)].tolist() == [INDEX_BIT if at in one["hits"] else HISTORY_BIT for at in sorted(may)]
        gone = one["candidates"] - may
        part = slice(first[b], first[b + 1])
        assert hidden[part].tolist() == sorted(gone) + sorted(one["related"] - gone)
        assert indexed[part].tolist() == [at in gone & one["shown"] for at in hidden[part].tolist()]
        assert found[part].tolist() == [at in gone & one["hits"] for at in hidden[part].tolist()]


@given(held=rows, first=st.integers(0, 3), end=st.integers(0, 3), row=st.integers(-1, ROWS))
def test_a_row_is_among_rising_ones_where_a_set_has_it(held, first, end, row):
    rising = np.array(sorted(held), np.int64)
    end = len(rising) - min(end, len(rising))
    assert is_among(rising, first, end, row) == (row in rising[first:end].tolist())
