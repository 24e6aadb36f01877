"""Makes an item's text into the vector that a model reads.

Titles and categories only: an image or any other encoder's vector comes with the record, as `Item.features`.

The fold is a function of the log, so one text must give one vector, whatever was encoded before or beside it.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.config import ConfigError, StateConfig
from engine.events.batch import CatalogItem

_WORD = re.compile(r"[^\W_]+")


class ContentEncoder(Protocol):
    """Gives a vector for title and categories; the given features are not its business.

    Attributes:
        dim: width of the vector.
        saved: whether snapshots keep the vectors: where encoding takes long, or another machine or version of a
            library gives other bits. Else a restart makes them anew.
    """

    @property
    def dim(self) -> int: ...

    @property
    def saved(self) -> bool: ...

    def encode(self, item: CatalogItem) -> NDArray[np.float32]:
        """[dim] of norm 1; zeros for an item without title and categories."""


class HashedText:
    """Signed hashing of categories and title words (Weinberger et al., ICML 2009): nothing to load, and in no time."""

    saved = False

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def encode(self, item: CatalogItem) -> NDArray[np.float32]:
        vector = np.zeros(self.dim, dtype=np.float32)
        for token in _tokens(item):
            code = zlib.crc32(token.encode())
            vector[code % self.dim] += 1.0 if code & 0x8000_0000 else -1.0
        norm = np.linalg.norm(vector)
        if norm > 0:
            vector /= norm
        return vector


class SentenceText:
    """A sentence-transformer's vector of title and categories: items are alike that say the same in other words.

    Args:
        model: a loaded `SentenceTransformer`.
    """

    saved = True

    def __init__(self, model: Any) -> None:
        self._model = model
        self.dim = len(self._encode("text"))

    def encode(self, item: CatalogItem) -> NDArray[np.float32]:
        text = ". ".join(part for part in (item.title, ", ".join(item.categories)) if part)
        return self._encode(text) if text else np.zeros(self.dim, dtype=np.float32)

    def _encode(self, text: str) -> NDArray[np.float32]:
        # One by one: padded to its neighbors in a batch, a text gives other last bits.
        vectors = self._model.encode([text], normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(vectors[0], dtype=np.float32)


def content_encoder(config: StateConfig) -> ContentEncoder:
    """The encoder that the configuration names.

    Raises:
        ConfigError: its package is not installed, its model can't be loaded, or `content_dim` is not its width.
    """
    if config.content_encoder == "hashed" or config.content_model is None:
        return HashedText(config.content_dim)
    encoder = _sentence_text(config.content_model)
    if encoder.dim != config.content_dim:
        raise ConfigError(
            f"state.content_dim must be {encoder.dim}, the width of {config.content_model}, got {config.content_dim}"
        )
    return encoder


@cache  # a state is made anew for every assignment of partitions
def _sentence_text(name: str) -> SentenceText:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise ConfigError(
            "state.content_encoder sentence-transformer needs the extra `text` (pip install 'ousel-engine[text]'),"
            " which is not installed"
        ) from None
    try:
        return SentenceText(SentenceTransformer(name))
    except (OSError, ValueError) as error:
        raise ConfigError(f"state.content_model must be a model that can be loaded, got {name!r}: {error}") from error


def _tokens(item: CatalogItem) -> Iterable[str]:
    for category in item.categories:
        yield f"category:{category}"
    for word in _WORD.findall(item.title.casefold()):
        yield f"word:{word}"
