"""What the model sees of a fold's training documents in an epoch: a function of (seed, fold, epoch) alone.

stream: the documents in a new order, each behind the end of a text, as one stream that is cut into windows at a random
offset. Attention goes over the ends, as GPT-2's does. document: rows begin with a document and are padded; a document
that is longer is cut into several rows. Nothing is cropped.

Shape suffixes: N documents, B rows, T places.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from trainers.gpt_pretraining.network.model import NOTHING
from trainers.gpt_pretraining.rows.corpus import Corpus

_ORDER, _OFFSET = 1, 2  # what random numbers are for, beside the order of the rows


@dataclass(frozen=True)
class Stream:
    """Windows of a stream of documents.

    Attributes:
        corpus: all documents.
        documents_N: the numbers of those that train.
        context: T.
        end: the token that ends a text.
        seed, fold: what decides the order.
    """

    corpus: Corpus
    documents_N: np.ndarray
    context: int
    end: int
    seed: int
    fold: int

    @cached_property
    def num_tokens(self) -> int:
        """Of the stream: each document and the end before it, and an end."""
        return int(self.corpus.counts_N[self.documents_N].sum()) + len(self.documents_N) + 1

    @property
    def num_rows(self) -> int:
        """Windows of an epoch."""
        return max(1, (self.num_tokens - 1) // self.context)

    @property
    def kept(self) -> dict[str, int]:
        """Tokens of an epoch: those that are learned, left over at both ends, padded."""
        learned = min(self.num_rows * self.context, self.num_tokens - 1)
        return {"tokens": learned, "tokens_left_over": self.num_tokens - 1 - learned, "tokens_padded": 0}

    def open_epoch(self, epoch: int) -> _Epoch:
        """The windows of an epoch."""
        order_N = np.random.default_rng([self.seed, self.fold, epoch, _ORDER]).permutation(self.documents_N)
        room = self.num_tokens - 1 - self.num_rows * self.context
        offset = 0
        if room > 0:
            offset = int(np.random.default_rng([self.seed, self.fold, epoch, _OFFSET]).integers(room + 1))
        starts_N = np.concatenate([[0], np.cumsum(self.corpus.counts_N[order_N] + 1)])
        return _Epoch(self, order_N, starts_N, offset)


@dataclass(frozen=True)
class _Epoch:
    """A stream; its document n begins, with the end before it, at `starts_N[n]`."""

    stream: Stream
    order_N: np.ndarray
    starts_N: np.ndarray
    offset: int

    def read(self, row: int) -> np.ndarray:
        """The tokens of a window and the one after it, (T + 1,) or fewer where all documents are fewer."""
        stream = self.stream
        first = self.offset + row * stream.context
        last = min(first + stream.context + 1, stream.num_tokens)
        found, place = np.full(last - first, stream.end, np.int64), first
        number = int(np.searchsorted(self.starts_N, first, side="right")) - 1
        while place < last and number < len(self.order_N):
            begin, end = int(self.starts_N[number]) + 1, int(self.starts_N[number + 1])
            low, high = max(place, begin), min(last, end)
            if low < high:
                found[low - first : high - first] = stream.corpus.read(int(self.order_N[number]))[
                    low - begin : high - begin
                ]
            place, number = end, number + 1
        return found


@dataclass(frozen=True)
class Documents:
    """Rows that begin with a document; attributes as of `Stream`."""

    corpus: Corpus
    documents_N: np.ndarray
    context: int
    end: int
    seed: int
    fold: int

    @cached_property
    def pieces(self) -> np.ndarray:
        """Of each row the number of its document and of its first token, (R, 2)."""
        rows = [
            (number, first)
            for number in self.documents_N.tolist()
            for first in range(0, int(self.corpus.counts_N[number]) + 1, self.context)
        ]
        return np.array(rows, np.int64).reshape(-1, 2)

    @property
    def num_rows(self) -> int:
        """Rows of an epoch."""
        return len(self.pieces)

    @property
    def kept(self) -> dict[str, int]:
        """Tokens of an epoch: those that are learned, left over, and padded, at most."""
        learned = int((self.corpus.counts_N[self.documents_N] + 1).sum())
        return {
            "tokens": learned,
            "tokens_left_over": 0,
            "tokens_padded": self.num_rows * min(self.context, self._longest) - learned,
        }

    @property
    def _longest(self) -> int:
        return int(self.corpus.counts_N[self.documents_N].max()) + 1

    def open_epoch(self, epoch: int) -> Documents:
        """The same rows in every epoch; their order is the learner's."""
        return self

    def read(self, row: int) -> np.ndarray:
        """The tokens of a row and the one after it, (T + 1,) or fewer."""
        number, first = self.pieces[row]
        tokens = self.corpus.read(int(number))
        whole = np.full(len(tokens) + 2, self.end, np.int64)
        whole[1:-1] = tokens
        return whole[first : first + self.context + 1]


def build_batch(rows: list[np.ndarray], end: int) -> tuple[Tensor, Tensor]:
    """Tokens and targets, (B, T) each, as long as the longest row."""
    length = max(map(len, rows)) - 1
    tokens_BT = torch.full((len(rows), length), end)
    targets_BT = torch.full((len(rows), length), NOTHING)
    for number, row in enumerate(rows):
        tokens_BT[number, : len(row) - 1] = torch.from_numpy(row[:-1])
        targets_BT[number, : len(row) - 1] = torch.from_numpy(row[1:])
    return tokens_BT, targets_BT


def read_batches(rows: Stream | Documents, epoch: int, portions: list[np.ndarray]) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of an epoch, each of the rows of a portion."""
    opened = rows.open_epoch(epoch)
    for portion in portions:
        yield build_batch([opened.read(int(row)) for row in portion], rows.end)
