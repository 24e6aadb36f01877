"""What is known of the items themselves: titles, categories, content vectors, availability.

Shapes: N items, F content features.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.events.batch import CatalogItem

_WORD = re.compile(r"[^\W_]+")
_ALWAYS = np.iinfo(np.int64)


class Catalog:
    """Columns by item row, growable. An item that only events have named has no title and no content."""

    def __init__(self, content_dim: int, features_dim: int) -> None:
        self._hashed_dim = content_dim
        self._features_dim = features_dim
        self.title: list[str] = []
        self.categories: list[tuple[str, ...]] = []
        self._members: dict[str, set[int]] = {}  # category -> rows
        self.content = torch.zeros(0, content_dim + features_dim)  # [N, F], the hashed part of norm 1 or 0
        self._from_ms = np.zeros(0, dtype=np.int64)
        self._until_ms = np.zeros(0, dtype=np.int64)
        self._deleted = np.zeros(0, dtype=bool)

    @property
    def content_dim(self) -> int:
        """F: hashed content and the given features."""
        return self._hashed_dim + self._features_dim

    def grow(self, items: int) -> None:
        """Makes room for rows 0..items-1, available always."""
        missing = items - len(self.title)
        if missing <= 0:
            return
        self.title.extend([""] * missing)
        self.categories.extend([()] * missing)
        if items > len(self.content):
            more = max(items, 2 * len(self.content), 1024) - len(self.content)
            self.content = torch.cat([self.content, self.content.new_zeros(more, self.content_dim)])
            self._from_ms = np.concatenate([self._from_ms, np.full(more, _ALWAYS.min)])
            self._until_ms = np.concatenate([self._until_ms, np.full(more, _ALWAYS.max)])
            self._deleted = np.concatenate([self._deleted, np.zeros(more, dtype=bool)])

    def fold(self, rows: Sequence[int], items: Sequence[CatalogItem]) -> None:
        """Replaces what is known of `rows` by `items`, in log order: the newest record wins whole."""
        for row, item in zip(rows, items, strict=True):
            self._deleted[row] = item.deleted
            if item.deleted:
                continue
            self.title[row] = item.title
            for category in self.categories[row]:
                self._members[category].discard(row)
            for category in item.categories:
                self._members.setdefault(category, set()).add(row)
            self.categories[row] = item.categories
            self.content[row] = torch.from_numpy(self._encode(item))
            self._from_ms[row] = _ALWAYS.min if item.available_from_ms is None else item.available_from_ms
            self._until_ms[row] = _ALWAYS.max if item.available_until_ms is None else item.available_until_ms

    def deleted(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """[len(rows)] True where the newest record deletes the item."""
        return self._deleted[rows]

    def servable(self, rows: NDArray[np.int64], now_ms: int) -> NDArray[np.bool_]:
        """[len(rows)] True where an item may be recommended now."""
        return ~self._deleted[rows] & (self._from_ms[rows] <= now_ms) & (now_ms < self._until_ms[rows])

    def members(self, categories: Iterable[str]) -> NDArray[np.int64]:
        """Rows of the items in at least one of `categories`, ascending; deleted ones may be among them."""
        rows: set[int] = set()
        for category in categories:
            rows |= self._members.get(category, set())
        return np.array(sorted(rows), dtype=np.int64)

    def contents(self) -> Tensor:
        """[N, F] content of every item."""
        return self.content[: len(self.title)]

    def _encode(self, item: CatalogItem) -> NDArray[np.float32]:
        """[F] signed hashing of categories and title words (Weinberger et al., ICML 2009), then the given features."""
        vector = np.zeros(self.content_dim, dtype=np.float32)
        for token in _tokens(item):
            code = zlib.crc32(token.encode())
            vector[code % self._hashed_dim] += 1.0 if code & 0x8000_0000 else -1.0
        norm = np.linalg.norm(vector)
        if norm > 0:
            vector /= norm
        if item.features:
            vector[self._hashed_dim :] = item.features
        return vector


def _tokens(item: CatalogItem) -> Iterable[str]:
    for category in item.categories:
        yield f"category:{category}"
    for word in _WORD.findall(item.title.casefold()):
        yield f"word:{word}"
