"""What lists show, whether or not it is right: how much of the catalog, how popular, how varied.

Shapes: B lists, K places of a list, N items, C categories, W words of 64 categories.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.data.log import Events, Ints

_DECILES = 10
_TOP_CATEGORIES = 10


class Exposure:
    """Counts of what was shown at each k.

    Attributes:
        shown: by k, [N] in how many lists an item was.
    """

    def __init__(
        self, events: Events, train: Ints, ks: Sequence[int], categories: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        """Takes the categories by item id; without any there are no figures about categories."""
        self.shown = {k: np.zeros(len(events.items), np.int64) for k in ks}
        self._popularity = np.bincount(events.item[train], minlength=len(events.items))  # [N] events to train on
        of_item = [tuple(dict.fromkeys((categories or {}).get(item, ()))) for item in events.items]
        self._names = list(dict.fromkeys(name for names in of_item for name in names))
        number = {name: at for at, name in enumerate(self._names)}
        self._pair_item = np.repeat(np.arange(len(of_item)), [len(names) for names in of_item])
        self._pair_category = np.array([number[name] for names in of_item for name in names], np.int64)
        # [W, N] bit sets, so that the overlap of two items is a count of bits.
        self._sets = np.zeros((-(-len(number) // 64), len(of_item)), np.uint64)
        bit = np.uint64(1) << (self._pair_category % 64).astype(np.uint64)
        np.bitwise_or.at(self._sets, (self._pair_category // 64, self._pair_item), bit)
        self._diversity = dict.fromkeys(ks, 0.0)  # sums over lists that have a pair to compare
        self._compared = dict.fromkeys(ks, 0)
        self._repeated = dict.fromkeys(ks, 0)

    def add(self, lists: NDArray[np.int32], had: NDArray[np.bool_]) -> None:
        """Counts lists [B, K], -1 where a place is empty, of whose items the asker `had` [B, K] some before."""
        for k, shown in self.shown.items():
            part = lists[:, :k]
            shown += np.bincount(part[part >= 0], minlength=len(shown))
            self._repeated[k] += int(had[:, :k].sum())
        if self._names:
            distance, comparable = self._distances(lists[:, : max(self.shown)])
            for k in self.shown:
                pairs = np.triu(comparable[:, :k, :k], 1)
                count = pairs.sum(axis=(1, 2))
                some = count > 0
                total = (distance[:, :k, :k] * pairs).sum(axis=(1, 2))
                self._diversity[k] += float((total[some] / count[some]).sum())
                self._compared[k] += int(some.sum())

    def figures(self) -> dict[str, Any]:
        """By name@k.

        coverage: share of the catalog that was in any list. novelty: mean over what was shown of -log2 of the item's
        share of the training events, one added to each item. repeats: share of what was shown that the asker had
        before. gini: 0 where all items were shown equally often, near 1 where one had it all. exposure_by_decile: share
        of what was shown by tenth of the catalog, the most popular first; top_tenth: the first of them. diversity: mean
        over lists of 1 - Jaccard of the categories of two of its items, those without categories aside.
        exposure_by_category: share of what was shown of the largest categories; an item counts for each of its own in
        equal parts.
        """
        figures: dict[str, Any] = {}
        smoothed = self._popularity + 1
        surprise = -np.log2(smoothed / smoothed.sum())
        by_popularity = np.argsort(-self._popularity, kind="stable")
        for k, shown in self.shown.items():
            total = max(1, int(shown.sum()))
            figures[f"coverage@{k}"] = float((shown > 0).mean())
            figures[f"novelty@{k}"] = float((shown * surprise).sum() / total)
            figures[f"repeats@{k}"] = self._repeated[k] / total
            figures[f"gini@{k}"] = gini(shown)
            deciles = [float(part.sum() / total) for part in np.array_split(shown[by_popularity], _DECILES)]
            figures[f"top_tenth@{k}"] = deciles[0]
            figures[f"exposure_by_decile@{k}"] = deciles
            if self._names:
                figures[f"diversity@{k}"] = self._diversity[k] / max(1, self._compared[k])
                figures[f"exposure_by_category@{k}"] = self._by_category(shown)
        return figures

    def _distances(self, lists: NDArray[np.int32]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """[B, K, K] 1 - Jaccard of the categories of two places, and whether both have any."""
        shared = np.zeros((*lists.shape, lists.shape[1]), np.int64)
        size = np.zeros(lists.shape, np.int64)
        for word in self._sets:  # one at a time keeps the memory small
            at = np.where(lists >= 0, word[lists], 0)
            shared += np.bitwise_count(at[:, :, None] & at[:, None, :])
            size += np.bitwise_count(at)
        union = size[:, :, None] + size[:, None, :] - shared
        return 1 - shared / np.maximum(1, union), (size[:, :, None] > 0) & (size[:, None, :] > 0)

    def _by_category(self, shown: Ints) -> dict[str, float]:
        own = np.bincount(self._pair_item, minlength=len(shown))
        weight = (shown / np.maximum(1, own))[self._pair_item]
        share = np.bincount(self._pair_category, weight, minlength=len(self._names)) / max(1, int(shown.sum()))
        top = np.argsort(-share, kind="stable")[:_TOP_CATEGORIES]
        return {self._names[at]: float(share[at]) for at in top}


def gini(shown: Ints) -> float:
    """Inequality of the counts [N], 0 to 1; 0 where nothing was shown."""
    total = int(shown.sum())
    if not total:
        return 0.0
    rank = np.arange(1, len(shown) + 1)
    return float((2 * rank - len(shown) - 1) @ np.sort(shown) / (len(shown) * total))
