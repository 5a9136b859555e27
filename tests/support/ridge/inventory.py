from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from trainers.interface import DataError, Inventory, RowKeys
from trainers.reading.tables import read_frame

reads = []  # the columns of each reading, for tests


def take_inventory(config, folder, cache=None, spread=None):
    data = replace(config.data, root=os.path.abspath(config.data.root))
    paths = [Path(data.root, name) for name in (data.train_table, data.test_table)]
    frames = [read_frame(path) for path in paths if path.exists()]
    reads.append(data.columns)
    missing = [name for name in (data.id_column, data.target, *data.columns) if name not in frames[0]]
    if missing:
        raise DataError(f"{paths[0]} has no column {missing[0]}")
    is_bad = frames[0][list(data.columns)].eq("").any(axis=1)
    bad = [{"table": "train", "id": row_id, "problem": "an empty cell", "done": "dropped"}
           for row_id in frames[0][data.id_column][is_bad]]  # fmt: skip
    tables = {"train": frames[0][~is_bad], **({"test": frames[1]} if len(frames) > 1 else {})}
    ids = {name: frame[data.id_column].to_numpy(str) for name, frame in tables.items()}
    content = "".join(frame.to_csv() for frame in tables.values())
    keys = {}
    if data.twins:
        keys["twin"] = RowKeys(*(_hash(tables[name][data.twins]) for name in tables))
    return replace(config, data=data), Inventory(
        ids["train"], tables["train"][data.target].to_numpy(float), data.target, len(ids.get("test", ())),
        hashlib.sha256(content.encode()).hexdigest(), bad_rows=tuple(bad), test_ids=ids.get("test"), row_keys=keys,
        tables=tables,
    )  # fmt: skip


def _hash(column):
    return np.array([int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") for text in column], np.uint64)


def describe_inputs(config):
    return config.data


def write_inputs(config, inventory, folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in inventory.tables.items():
        frame.to_parquet(folder / f"{name}.parquet")


def prepare_node(config):
    if not Path(config.data.root).is_dir():
        raise DataError(f"no folder {config.data.root}")
