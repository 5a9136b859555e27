"""What the driver asks of this family before it launches anything: the documents, checked and as tokens. No torch."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from trainers.gpt_pretraining.config import Config, DataConfig, TokenizerConfig
from trainers.gpt_pretraining.rows.corpus import TOKENIZER, open_corpus, write_corpus, write_tokenizer
from trainers.gpt_pretraining.rows.documents import Document, find_files, read_documents
from trainers.gpt_pretraining.rows.tales import make_data
from trainers.gpt_pretraining.rows.tokenizers import Tokenizer, build_tokenizer
from trainers.interface import (
    NO_KEY,
    DataError,
    Inventory,
    RowKeys,
    Spread,
    call_here,
)
from trainers.reading.near_texts import find_near_texts
from trainers.storage.mapped_table import link_file, new_table, open_table
from trainers.storage.object_storage import is_uri

_SHOWN, _BATCH = 3, 1000
_SCHEMA = pa.schema([("text", pa.large_string())])
_CELLS = ("group_column", "fold_column", "floor_column")


@dataclass
class _Read:
    """What is known of the documents of a table; their texts are on disk."""

    place: Path
    ids: list[str] = field(default_factory=list)
    keys: list[int] = field(default_factory=list)
    cells: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in _CELLS})
    bad: list[Document] = field(default_factory=list)
    digest: str = ""

    @property
    def texts(self) -> pa.ChunkedArray:
        return open_table(self.place)["text"]

    @property
    def floors(self) -> np.ndarray:
        cells = self.cells["floor_column"] or [""] * len(self.ids)
        return np.array([float(cell) if _is_number(cell) else np.nan for cell in cells])


class _Texts:
    """Texts on disk as a sequence."""

    def __init__(self, *columns: pa.ChunkedArray) -> None:
        self.whole = pa.chunked_array([chunk for column in columns for chunk in column.chunks], pa.large_string())

    def __len__(self) -> int:
        return len(self.whole)

    def __getitem__(self, number: int) -> str:
        return str(self.whole[number].as_py())


def take_inventory(
    config: Config, folder: Path, cache: Path | None = None, spread: Spread = call_here
) -> tuple[Config, Inventory]:
    """Reads and checks all documents, finds or learns the tokenizer, and writes the documents as tokens.

    Args:
        config: as the user gave it.
        folder: where to put made-up tales if `data.root` is not given.
        cache: where tokens are kept; None: below that folder.
        spread: not used.

    Returns:
        The config with absolute paths, and the inventory.

    Raises:
        DataError: with what is wrong with the documents.
    """
    data = _resolve(config.data, folder)
    tokenizer = config.tokenizer
    if tokenizer.path is not None:
        tokenizer = replace(tokenizer, path=os.path.abspath(os.path.expanduser(tokenizer.path)))
    config = replace(config, data=data, tokenizer=tokenizer)
    kept = (cache or folder / "cache") / "documents"
    train_files, test_files = find_files(data)
    read = {"train": _read(train_files, data, kept), "test": _read(test_files, replace(data, max_rows=None), kept)}
    if not read["train"].ids:
        raise DataError(f"data.root={data.root}: no document that can be learned from")
    bad_rows = _settle_bad_rows(read, data)
    corpus, learned = _tokenise(read, tokenizer, kept)
    train, test, row_keys = read["train"], read["test"], _collect_keys(read, data)
    sizes = open_corpus(corpus, "train", learned)
    assert sizes is not None
    return config, Inventory(
        ids=np.array(train.ids, str),
        target=None,
        target_name="nats",
        strata=np.argsort(np.argsort(sizes.bytes_N, kind="stable"), kind="stable") * 10 // len(train.ids),
        num_test=len(test.ids),
        fingerprint=hashlib.sha256(f"{train.digest}{test.digest}".encode()).hexdigest(),
        groups=np.array(train.cells["group_column"], str) if data.group_column else None,
        predefined_fold=_read_folds(train.cells["fold_column"], data) if data.fold_column else None,
        bad_rows=bad_rows,
        test_ids=np.array(test.ids, str) if test.ids else None,
        row_keys=row_keys,
        tables=corpus,
        notes=(_describe(learned, tokenizer, corpus), *_describe_near(row_keys, data)),
    )


def describe_inputs(config: Config) -> tuple[DataConfig, TokenizerConfig]:
    """What decides which documents there are and what their tokens are."""
    return config.data, config.tokenizer


def write_inputs(config: Config, inventory: Inventory, folder: Path) -> None:
    """Puts the tokens and the tokenizer where the folds find them; they are the files of the cache where the file
    system can do that.

    Raises:
        OSError: the storage does not take them.
    """
    corpus: Path = inventory.tables
    for path in sorted(corpus.iterdir()):
        link_file(path, folder / path.name)


def prepare_node(config: Config) -> None:
    """Machines need nothing but the weights to begin with: tokens are among the run's inputs.

    Raises:
        DataError: this machine does not see the weights.
    """
    if config.model.pretrained and not Path(os.path.expanduser(config.model.pretrained)).is_dir():
        raise DataError(
            f"model.pretrained={config.model.pretrained}: no such folder on {os.uname().nodename}; expected one with "
            "model.safetensors and config.json, which all machines see"
        )


def _resolve(data: DataConfig, folder: Path) -> DataConfig:
    if data.root and is_uri(data.root):
        raise DataError(
            f"data.root={data.root}: expected files on this machine, not in object storage; copy them, as by "
            "`aws s3 cp --recursive`"
        )
    if data.root is None:
        return replace(data, root=str(make_data(folder)), floor_column=data.floor_column or "entropy_nats")
    return replace(data, root=os.path.abspath(os.path.expanduser(data.root)))


def _read(files: list[Path], data: DataConfig, kept: Path) -> _Read:
    """Reads the documents of some files, and writes their texts to disk."""
    kept.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(repr((list(map(str, files)), data)).encode()).hexdigest()[:12]
    read, digest, waiting = _Read(kept / f"texts_{name}.arrow"), hashlib.sha256(), list[str]()
    with new_table(read.place, _SCHEMA) as table:
        for document in read_documents(files, data):
            if data.max_rows is not None and len(read.ids) >= data.max_rows:
                break
            if document.problem:
                read.bad.append(document)
                continue
            content = document.text.encode("utf-8", "surrogatepass")
            read.ids.append(document.name)
            read.keys.append(int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little") or 1)
            for role, cell in document.cells.items():
                read.cells[role].append(cell)
            digest.update(f"{document.name}\0{document.cells}\0{len(content)}\0".encode("utf-8", "surrogatepass"))
            digest.update(content)
            waiting.append(document.text)
            if len(waiting) == _BATCH:
                table.write_table(pa.table({"text": pa.array(waiting, pa.large_string())}))
                waiting.clear()
        table.write_table(pa.table({"text": pa.array(waiting, pa.large_string())}))
    read.digest = digest.hexdigest()
    return read


def _settle_bad_rows(read: dict[str, _Read], data: DataConfig) -> tuple[dict[str, str], ...]:
    """The list of documents that are left out.

    Raises:
        DataError: there are some, and the user wants none to be left out.
    """
    bad = [(table, document) for table, one in read.items() for document in one.bad]
    if bad and data.on_bad_row == "error":
        shown = "; ".join(f"{document.name!r}: {document.problem}" for _, document in bad[:_SHOWN])
        more = f"; and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
        raise DataError(
            f"{len(bad)} of {len(bad) + sum(len(one.ids) for one in read.values())} documents of {data.root} cannot be "
            f"used: {shown}{more}. Correct them, or set data.on_bad_row=drop to go on without them (they are listed in "
            "bad_rows.csv)"
        )
    if both := sorted(set(read["train"].ids) & set(read["test"].ids)):
        raise DataError(
            f"training and test documents both have the id {both[0]!r} ({len(both)} such ids): expected each once"
        )
    return tuple(
        {"table": table, "id": document.name, "problem": document.problem, "done": "dropped"} for table, document in bad
    )


def _tokenise(read: dict[str, _Read], config: TokenizerConfig, kept: Path) -> tuple[Path, Tokenizer]:
    """The folder with the tokens, and the tokenizer. What was tokenised before is found again."""
    train = read["train"]
    tokenizer = build_tokenizer(config, (str(text.as_py()) for text in train.texts))
    said = hashlib.sha256(f"{tokenizer.to_json()}{train.digest}{read['test'].digest}".encode())
    corpus = kept / f"tokens_{said.hexdigest()[:16]}"
    if not (corpus / TOKENIZER).exists():
        shutil.rmtree(corpus, ignore_errors=True)
        for table, one in read.items():
            if one.ids:
                write_corpus(corpus, table, np.array(one.ids, str), one.texts, one.floors, tokenizer)
        write_tokenizer(corpus, tokenizer)  # the last: it says that all is there
    return corpus, tokenizer


def _collect_keys(read: dict[str, _Read], data: DataConfig) -> dict[str, RowKeys]:
    """Which documents are the same, nearly the same, or of one group."""
    train, test = read["train"], read["test"]
    keys = {"text": RowKeys(np.array(train.keys, np.uint64), np.array(test.keys, np.uint64))}
    if data.near_texts:
        texts = _Texts(train.texts, test.texts)
        near = find_near_texts(texts, least=data.near_texts)  # type: ignore[arg-type]  # read by number only
        keys["near text"] = near.to_row_keys(texts, len(train.ids))  # type: ignore[arg-type]
    if data.group_column:
        own, others = (np.array([_key(cell) for cell in one.cells["group_column"]], np.uint64) for one in (train, test))
        shown = {_key(cell): cell for cell in set(train.cells["group_column"])}
        keys["group"] = RowKeys(own, others, shown)
    return keys


def _key(content: str) -> int:
    if not content:
        return NO_KEY
    return int.from_bytes(hashlib.blake2b(content.encode(), digest_size=8).digest(), "little") or 1


def _describe_near(keys: dict[str, RowKeys], data: DataConfig) -> list[str]:
    """How many documents are nearly the same, in a sentence."""
    if "near text" not in keys or not (num := int(np.count_nonzero(keys["near text"].train))):
        return []
    num_groups = len(np.unique(keys["near text"].train[keys["near text"].train != NO_KEY]))
    return [
        f"{num:,} training documents are nearly the same as another ({num_groups:,} groups; word 5-grams with a "
        f"Jaccard index of at least {data.near_texts:g}); folds.on_leak=group keeps each group in one fold"
    ]


def _describe(tokenizer: Tokenizer, config: TokenizerConfig, corpus: Path) -> str:
    """What became of the texts, in a sentence."""
    told = []
    for table in ("train", "test"):
        if (rows := open_corpus(corpus, table, tokenizer)) is not None:
            tokens, size = int(rows.counts_N.sum()), int(rows.bytes_N.sum())
            told.append(
                f"{table}: {len(rows):,} documents, {tokens:,} tokens, {size / max(1, tokens):.2f} bytes a token"
            )
    seen = (
        "; it has seen the texts that validate, and no test documents" if config.kind in ("bpe", "characters") else ""
    )
    return f"tokens by {tokenizer.name}{seen}. {'. '.join(told)}"


def _read_folds(cells: list[str], data: DataConfig) -> np.ndarray:
    if wrong := [cell for cell in cells if not re.fullmatch(r"\s*(-[12]|\d{1,9})(\.0*)?\s*", cell)]:
        raise DataError(
            f"{data.fold_column!r} (data.fold_column) holds {wrong[0]!r} ({len(wrong)} such documents): expected a "
            "whole number, at least -2"
        )
    return np.array([int(float(cell)) for cell in cells], np.int64)


def _is_number(cell: str) -> bool:
    try:
        return bool(np.isfinite(float(cell)))
    except ValueError:
        return False
