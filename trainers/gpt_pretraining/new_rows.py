"""New documents to score: found, checked before anything is launched, and read in blocks. Light: no torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pyarrow as pa

from trainers.gpt_pretraining.config import Config, DataConfig
from trainers.gpt_pretraining.rows.documents import Document, find_files, read_documents
from trainers.interface import DataError

PLACES = "a file of documents (.txt, .jsonl, .csv, .parquet), or a folder with such files"
BATCHES_TOGETHER = 4  # as documents are scored while a fold trains
_SHOWN = 3


@dataclass(frozen=True)
class NewRows:
    """Documents to score.

    Attributes:
        path: the file or folder.
        files: with the documents.
        data: how they are read.
        batch_rows: that are scored together.
    """

    path: Path
    files: tuple[Path, ...]
    data: DataConfig
    batch_rows: int
    PROBLEMS: ClassVar = "a problem"
    id_column: ClassVar = "id"
    inputs: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    def check(self) -> int:
        """Reads all of them; returns their number.

        Raises:
            DataError: there is none, or one cannot be read.
        """
        number, bad = 0, list[Document]()
        for document in read_documents(list(self.files), self.data):
            if document.problem:
                bad.append(document)
            else:
                number += 1
        if bad and self.data.on_bad_row == "error":
            shown = "; ".join(f"{one.name!r}: {one.problem}" for one in bad[:_SHOWN])
            raise DataError(
                f"{self.path}: {len(bad)} of {len(bad) + number} documents cannot be used: {shown}; correct them, or "
                "take them out"
            )
        if not number:
            raise DataError(f"{self.path}: no document that can be scored")
        return number

    def read(self, num_rows: int) -> Iterator[pa.Table]:
        """The documents in blocks: id and text."""
        waiting: list[Document] = []
        for document in read_documents(list(self.files), self.data):
            if not document.problem:
                waiting.append(document)
            if len(waiting) == num_rows:
                yield _tabulate(waiting)
                waiting = []
        if waiting:
            yield _tabulate(waiting)


def _tabulate(documents: Sequence[Document]) -> pa.Table:
    texts = pa.array([one.text for one in documents], pa.large_string())
    return pa.table({"id": pa.array([one.name for one in documents], pa.string()), "text": texts})


def find_train_rows(config: Config) -> NewRows:
    """The run's own training documents, as new rows.

    Raises:
        DataError: they are not there any more.
    """
    files, _ = find_files(config.data)
    return _build([config], Path(str(config.data.root)), files, config.data)


def find_test_rows(config: Config) -> NewRows:
    """The run's own test documents, as new rows.

    Raises:
        DataError: it has none, or they are not there any more.
    """
    _, tests = find_files(config.data)
    if not tests:
        raise DataError(
            f"data.root={config.data.root}: the run has no test documents: expected --blend, or --data FILE"
        )
    return _build([config], Path(str(config.data.root)), tests, config.data)


def find_new_rows(configs: Sequence[Config], place: Path) -> NewRows:
    """Finds the documents.

    Args:
        configs: of the models that score them.
        place: a file, or a folder with such files; of a folder with training and test documents the latter.

    Raises:
        DataError: there are none.
    """
    path = place.absolute()
    data = replace(
        configs[0].data, root=str(path), train="", max_rows=None, group_column=None, fold_column=None, floor_column=None
    )
    if path.is_file():
        data = replace(data, test="")
    files, tests = find_files(data)
    return _build(configs, path, tests or files, data)


def _build(configs: Sequence[Config], path: Path, files: Sequence[Path], data: DataConfig) -> NewRows:
    together = math.lcm(*(config.training.eval_batch_size * BATCHES_TOGETHER for config in configs))
    return NewRows(path, tuple(files), data, together)
