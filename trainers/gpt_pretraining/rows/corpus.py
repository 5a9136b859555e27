"""Documents as tokens on disk: mapped into memory by all folds of a machine, which share one copy.

`<table>.tokens` holds the tokens of all documents one after the other, without ends; `<table>.parquet` a line for each
document: id, number of its first token, tokens, bytes, and its entropy in nats where it is known.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from trainers.gpt_pretraining.rows.tokenizers import Tokenizer, read_tokenizer
from trainers.storage.whole_files import appearing_whole, write_whole

TOKENIZER = "tokenizer.json"
_TEXTS_AT_ONCE, _CHARACTERS_AT_ONCE = 512, 4_000_000


@dataclass(frozen=True)
class Corpus:
    """Documents as tokens.

    Attributes:
        ids: (N,) str.
        tokens_S: of all, one after the other, mapped.
        starts_N: the first token of each, (N,) int64.
        counts_N: tokens of each, (N,) int64.
        bytes_N: of each in UTF-8, (N,) int64.
        floors_N: the entropy of each in nats, (N,) float64, NaN where it is not known.
    """

    ids: np.ndarray
    tokens_S: np.ndarray
    starts_N: np.ndarray
    counts_N: np.ndarray
    bytes_N: np.ndarray
    floors_N: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, number: int) -> np.ndarray:
        """The tokens of a document, (n,)."""
        start = self.starts_N[number]
        return self.tokens_S[start : start + self.counts_N[number]]

    def find(self, ids: Sequence[str]) -> np.ndarray:
        """The numbers of documents, (n,)."""
        place = {row_id: number for number, row_id in enumerate(self.ids.tolist())}
        return np.array([place[row_id] for row_id in ids], np.int64)


def write_corpus(
    folder: Path, table: str, ids: np.ndarray, texts: pa.ChunkedArray, floors: np.ndarray, tokenizer: Tokenizer
) -> None:
    """Writes documents as tokens; the package works on all cores, memory holds a block of texts."""
    counts, sizes = np.zeros(len(ids), np.int64), np.zeros(len(ids), np.int64)
    with appearing_whole(folder / f"{table}.tokens") as file:
        for start, block in _list_blocks(texts):
            for number, tokens in enumerate(tokenizer.encode(block), start=start):
                counts[number] = len(tokens)
                sizes[number] = len(block[number - start].encode("utf-8", "surrogatepass"))
                file.write(tokens.astype(tokenizer.dtype).tobytes())
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    columns = {"id": ids.tolist(), "start": starts, "tokens": counts, "bytes": sizes, "floor": floors}
    with appearing_whole(folder / f"{table}.parquet") as rows:
        pq.write_table(pa.table(columns), rows)


def _list_blocks(texts: pa.ChunkedArray) -> Iterator[tuple[int, list[str]]]:
    """Blocks of texts that are not too large, each with the number of its first."""
    block: list[str] = []
    size = 0
    for number in range(len(texts)):
        block.append(texts[number].as_py())
        size += len(block[-1])
        if len(block) == _TEXTS_AT_ONCE or size >= _CHARACTERS_AT_ONCE:
            yield number + 1 - len(block), block
            block, size = [], 0
    if block:
        yield len(texts) - len(block), block


def write_tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    """Writes the tokenizer beside the tokens."""
    write_whole(folder / TOKENIZER, tokenizer.to_json().encode())


def open_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer that lies there."""
    return read_tokenizer((folder / TOKENIZER).read_bytes())


def open_corpus(folder: Path, table: str, tokenizer: Tokenizer) -> Corpus | None:
    """The documents of a table, mapped; None: there is no such table."""
    place = folder / f"{table}.parquet"
    if not place.exists():
        return None
    with pq.ParquetFile(place) as file:
        rows = file.read()
    tokens = np.memmap(folder / f"{table}.tokens", tokenizer.dtype, mode="r")
    numbers = (rows[name].to_numpy() for name in ("start", "tokens", "bytes", "floor"))
    return Corpus(np.array(rows["id"].to_pylist(), str), tokens, *numbers)


def hold_corpus(ids: Sequence[str], texts: Sequence[str], tokenizer: Tokenizer) -> Corpus:
    """Documents in memory."""
    tokens = tokenizer.encode(texts)
    counts = np.array([len(one) for one in tokens], np.int64)
    sizes = np.array([len(text.encode("utf-8", "surrogatepass")) for text in texts], np.int64)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
    joined = np.concatenate(tokens).astype(tokenizer.dtype) if tokens else np.zeros(0, tokenizer.dtype)
    return Corpus(np.array(ids, str), joined, starts, counts, sizes, np.full(len(texts), np.nan))
