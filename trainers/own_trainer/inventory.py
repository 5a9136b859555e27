"""What the driver asks of this family before it launches anything: the rows, and the trainer. No torch of its own."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from trainers.interface import (
    DataError,
    Inventory,
    RowKeys,
    Spread,
    call_here,
)
from trainers.own_trainer.config import Config, DataConfig, ModelConfig, Task
from trainers.own_trainer.made_data import make_data
from trainers.own_trainer.table import (
    find_test_table,
    find_train_table,
    hash_rows,
    is_number,
    number_classes,
    read_folds,
    read_numbers,
    read_rows,
    read_times,
)
from trainers.own_trainer.users_code.source import load_source
from trainers.reading.table_files import is_table_name
from trainers.storage.object_storage import is_uri, split_uri
from trainers.storage.remote_files import find_object, list_objects, read_object
from trainers.storage.whole_files import write_whole

ROW_ID = "__row_id__"  # the column of the inputs that holds the rows' ids
_SHOWN = 3


@dataclass(frozen=True)
class Table:
    """Rows as they are, and their ids, (N,) str."""

    frame: pd.DataFrame
    ids: np.ndarray


def take_inventory(
    config: Config, folder: Path, cache: Path | None = None, spread: Spread = call_here
) -> tuple[Config, Inventory]:
    """Reads and checks all rows, and loads the trainer.

    Args:
        config: as the user gave it.
        folder: where to put made-up data if `data.root` is not given.
        cache: where to keep what was fetched from object storage; None: below that folder.
        spread: not used.

    Returns:
        The config with absolute paths and the task, and the inventory.

    Raises:
        DataError: with what is wrong with the tables, or with the trainer.
    """
    source = load_source(config.trainer.path)
    try:
        source.build_options(config.my)
    except ValueError as error:
        raise DataError(f"{source.name}: {error}") from None
    data = replace(config.data, root=_resolve_root(config.data.root, folder))
    here = replace(data, root=_bring(data.root or "", cache or folder / "cache"))
    train_path, test_path = find_train_table(here), find_test_table(here)
    frame, ids = read_rows(train_path, here, is_test=False)
    task = _find_task(config.model.task, frame[data.target], train_path)
    frame, ids, bad_rows = _drop_without_target(frame, ids, here, train_path)
    test = None if test_path is None else Table(*read_rows(test_path, here, is_test=True))
    target, classes = _read_target(frame[data.target], task, train_path)
    made_by = f"trained by {source.name}, whose source has the SHA-256 {source.sha256}"
    return replace(config, data=data, model=replace(config.model, task=task)), Inventory(
        ids=ids,
        target=target,
        target_name=data.target,
        num_test=0 if test is None else len(test.ids),
        fingerprint=_hash_files(train_path, test_path),
        groups=None if data.group_column is None else _read_groups(frame[data.group_column], train_path),
        time=None if data.time_column is None else read_times(frame[data.time_column], train_path),
        predefined_fold=None if data.fold_column is None else read_folds(frame[data.fold_column], train_path),
        bad_rows=bad_rows,
        test_ids=None if test is None else test.ids,
        row_keys=_collect_keys(frame, test, data),
        tables={"train": Table(frame, ids), "test": test},
        notes=(made_by,) if config.trainer.path else (),
        classes=classes,
    )


def describe_inputs(config: Config) -> tuple[DataConfig, ModelConfig]:
    """What of a config decides what is read and left for the folds."""
    return config.data, replace(config.model, seed=0)


def write_inputs(config: Config, inventory: Inventory, folder: Path) -> None:
    """Writes the rows and the trainer for the folds.

    Raises:
        OSError: the storage does not take them.
        DataError: a column, or the trainer, cannot be written.
    """
    for name, table in inventory.tables.items():
        if table is not None:
            write_whole(folder / f"{name}.parquet", to_parquet(table.frame.assign(**{ROW_ID: table.ids}), name))
    if config.trainer.path is not None:
        source = load_source(config.trainer.path)
        write_whole(folder / name_packed(config), source.pack())
        write_whole(folder / f"{name_packed(config)}.txt", source.text.encode())


def name_packed(config: Config) -> str:
    """Name of the file of the inputs that holds the trainer."""
    return f"function-{(config.model.source_sha256 or 'of_unknown_source')[:12]}"


def to_parquet(frame: pd.DataFrame, what: str) -> bytes:
    """A table as a Parquet file.

    Raises:
        DataError: a column has values of several types.
    """
    content = io.BytesIO()
    try:
        frame.to_parquet(content, index=False)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise DataError(
            f"the {what} table cannot be kept: {error}. Give each column one type: numbers, texts, dates, categories"
        ) from None
    return content.getvalue()


def prepare_node(config: Config) -> None:
    """Machines need nothing: the rows and the trainer are among the run's inputs."""


def _resolve_root(root: str | None, folder: Path) -> str:
    """The whole path of the table or folder.

    Raises:
        DataError: there is none.
    """
    if root and is_uri(root):
        return root.rstrip("/")
    path = os.path.abspath(os.path.expanduser(root)) if root else str(make_data(folder))
    if not os.path.exists(path):
        raise DataError(f"data.root={path}: no such file or folder")
    return path


def _bring(root: str, cache: Path) -> str:
    """The tables' place on this machine: of object storage they are copied into the cache."""
    if not is_uri(root):
        return root
    try:
        place = split_uri(root)[2]
    except ValueError as error:
        raise DataError(f"data.root: {error}") from None
    folder, name = cache / "tables" / hashlib.sha256(root.encode()).hexdigest()[:12], place.rpartition("/")[2]
    if name and find_object(root) is not None:
        write_whole(folder / name, read_object(root))
        return str(folder / name)
    listed = list_objects(root)
    if not listed:
        raise DataError(f"data.root={root}: no such file or folder")
    for name in filter(lambda name: is_table_name(Path(name)), listed):
        write_whole(folder / name, read_object(f"{root}/{name}"))
    return str(folder)


def _find_task(task: Task, target: pd.Series, path: Path) -> Task:
    if task == "auto" and not is_number(target):
        raise DataError(
            f"{path}: the target {target.name!r} is of type {target.dtype}, and this recipe predicts numbers. Classes "
            "are predicted by --config-name=own_classifier"
        )
    return "regression" if task == "auto" else task


def _drop_without_target(
    frame: pd.DataFrame, ids: np.ndarray, data: DataConfig, path: Path
) -> tuple[pd.DataFrame, np.ndarray, tuple[Mapping[str, str], ...]]:
    """The rows that have a target, and the list of those that have none."""
    missing = frame[data.target].isna().to_numpy()
    if is_number(frame[data.target]):
        missing = missing | ~np.isfinite(frame[data.target].to_numpy(np.float64, na_value=np.nan))
    if not missing.any():
        return frame, ids, ()
    if data.on_bad_row == "error":
        shown = ", ".join(f"row {row + 1} (id {str(ids[row])!r})" for row in np.flatnonzero(missing)[:_SHOWN])
        raise DataError(
            f"{path}: the target {data.target!r} is missing or infinite in {missing.sum()} of {len(ids)} rows: "
            f"{shown}. Correct the table, or set data.on_bad_row=drop to go on without these rows (they are listed in "
            "bad_rows.csv)"
        )
    listed = tuple(
        {"table": path.name, "id": row_id, "problem": "no target", "done": "dropped"} for row_id in ids[missing]
    )
    return frame[~missing].reset_index(drop=True), ids[~missing], listed


def _read_target(target: pd.Series, task: Task, path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """The target, (N,), and the names of its classes, if it has any: then it is their numbers."""
    if task != "classification":
        return read_numbers(target, path, "the target"), ()
    names, number_N = number_classes(target)
    if not 2 <= len(names) <= max(2, len(target) // 2):
        raise DataError(
            f"{path}: the target {target.name!r} has {len(names)} classes in {len(target)} rows: expected at least 2, "
            "and 2 rows of each"
        )
    return number_N, names


def _read_groups(groups: pd.Series, path: Path) -> np.ndarray:
    if groups.isna().any():
        row = int(np.flatnonzero(groups.isna())[0])
        raise DataError(
            f"{path}: the group column {groups.name!r} is empty in {groups.isna().sum()} rows, such as row {row + 1}"
        )
    names_N: np.ndarray = groups.astype(str).to_numpy(str)
    return names_N


def _hash_files(*paths: Path | None) -> str:
    """SHA-256 over the bytes of the tables."""
    digest = hashlib.sha256()
    for path in paths:
        if path is not None:
            digest.update(path.read_bytes())
        digest.update(b"\0")
    return digest.hexdigest()


def _collect_keys(frame: pd.DataFrame, test: Table | None, data: DataConfig) -> dict[str, RowKeys]:
    """Which rows have all features in common, and which the same group."""
    frames = [frame] if test is None else [frame, test.frame]
    features = [name for name in frame.columns if name not in data.roles]
    found: dict[str, RowKeys] = {}
    if data.id_column is None and test is not None:  # numbers of rows say nothing
        found["id"] = RowKeys(np.zeros(len(frame), np.uint64), np.zeros(len(test.ids), np.uint64))
    if features and all(name in one for one in frames for name in features):
        keys = hash_rows(frames, features)
        found["row"] = RowKeys(keys[0], keys[1] if test is not None else np.zeros(0, np.uint64))
    if data.group_column:
        named = [one[[data.group_column]] if data.group_column in one else None for one in frames]
        keys = [
            np.zeros(len(one), np.uint64) if group is None else hash_rows([group], [data.group_column])[0]
            for one, group in zip(frames, named, strict=True)
        ]
        found["group"] = RowKeys(keys[0], keys[1] if test is not None else np.zeros(0, np.uint64))
    return found
