"""What the driver asks of this family before it launches anything: the pictures and masks, every one decoded and
checked. No torch."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from trainers.interface import (
    NO_KEY,
    DataError,
    Inventory,
    RowKeys,
    Spread,
    call_here,
)
from trainers.reading.data_folder import prepare_folder, resolve_folder
from trainers.reading.known_files import KnownFiles
from trainers.reading.near_pictures import number_near_pictures, read_thumbnails, without_exact
from trainers.reading.picture_files import collect_left_out
from trainers.storage.object_storage import is_uri
from trainers.unet_segmentation.config import Config, DataConfig
from trainers.unet_segmentation.rows.folders import Found, Labels, find_pairs, read_labels
from trainers.unet_segmentation.rows.rows_file import Rows, place_rows, read_rows, show_picture, write_rows
from trainers.unet_segmentation.rows.scan import scan_pairs
from trainers.unet_segmentation.rows.synthetic_data import make_data


def take_inventory(
    config: Config, folder: Path, cache: Path | None = None, spread: Spread = call_here
) -> tuple[Config, Inventory]:
    """Reads and checks all pictures and masks.

    Args:
        config: as the user gave it.
        folder: where to put made-up pictures if `data.root` is not given.
        cache: where to remember what is in the files; None: nowhere.
        spread: not used: pictures are not read from object storage.

    Returns:
        The config with an absolute path and the masks' values as they were found, and the inventory.

    Raises:
        DataError: with all problems found.
    """
    if config.data.root and is_uri(config.data.root):
        raise DataError(
            f"data.root={config.data.root}: expected a folder on this machine, not in object storage; copy the "
            "pictures "
            "and masks to one, as by `aws s3 cp --recursive`"
        )
    data = replace(config.data, root=resolve_folder(config.data.root, folder, make_data))
    labels = read_labels(data)
    train, test = _divide(data, labels)
    train = _note_unknown_groups(data, labels, train)
    if data.max_rows is not None:
        train = train.take(range(min(len(train.ids), data.max_rows)))
    data, found = scan_pairs(data, train, test, KnownFiles(cache, data.folder))
    notes, left_out = collect_left_out(found["train"].left_out | found["test"].left_out)
    rows, test_rows = found["train"].good_rows, found["test"].good_rows
    groups = _find_groups(data, labels, rows, is_test=False)
    test_groups = _find_groups(data, labels, test_rows, is_test=True)
    return replace(config, data=data), Inventory(
        ids=rows.ids,
        target=rows.foreground,
        target_name="foreground",
        num_test=len(test_rows),
        fingerprint=_fingerprint(found, labels),
        groups=groups,
        predefined_fold=_find_folds(data, labels, rows),
        bad_rows=tuple(bad for one in found.values() for bad in one.bad_rows) + left_out,
        test_ids=test_rows.ids if len(test_rows) else None,
        row_keys=_collect_keys(found, groups, test_groups, near=data.near_duplicates),
        tables={name: one.good_rows for name, one in found.items() if len(one.good_rows)},
        notes=tuple(note for one in found.values() for note in one.notes) + notes,
    )


def write_inputs(config: Config, inventory: Inventory, folder: Path) -> None:
    """Writes the rows, as they were checked, for the folds.

    Raises:
        OSError: the storage does not take them.
    """
    for table, rows in inventory.tables.items():
        write_rows(place_rows(folder, config.data, table), rows)


def list_places(config: Config) -> list[Path] | None:
    """The files and folders that the inventory of a config, as the user gave it, is taken of; None: they are not known
    beforehand."""
    data = config.data
    if not data.root:
        return None
    root = Path(os.path.abspath(os.path.expanduser(data.root)))
    return [root / name for name in (data.table, data.images, data.masks, data.test_images, data.test_masks) if name]


def describe_inputs(config: Config) -> DataConfig:
    """What decides which rows there are and what a node needs: the same for trials that differ elsewhere."""
    return config.data


def prepare_node(config: Config) -> None:
    """Looks whether this machine sees the pictures; makes the made-up ones where it has none.

    Raises:
        DataError: it does not see them.
    """
    prepare_folder(str(config.data.folder), make_data)


def open_backgrounds(config: Config, inputs: Path, table: str) -> Callable[[str], np.ndarray]:
    """What a map lies over: a function that gives of a row's id (H, W, 3) uint8.

    Args:
        config: of the run, resolved.
        inputs: where `write_inputs` has written.
        table: train or test.
    """
    rows = read_rows(place_rows(inputs, config.data, table))
    position = {row_id: index for index, row_id in enumerate(rows.ids.tolist())}
    return lambda row_id: show_picture(rows, position[row_id], config.data)


def _divide(data: DataConfig, labels: Labels | None) -> tuple[Found, Found]:
    """The pairs to learn from and those to predict."""
    root = data.folder
    is_test: dict[str, bool] = {}
    if labels is not None and labels.is_test is not None:
        is_test = dict(zip(labels.ids, labels.is_test, strict=True))
    wanted = None if labels is None else labels.ids
    pairs = find_pairs(data, root / data.images, root / data.masks, wanted, lambda row_id: not is_test.get(row_id))
    if is_test:
        places = {value: [n for n, i in enumerate(pairs.ids) if is_test[i] == value] for value in (False, True)}
        if not places[True]:
            raise DataError(
                f"{data.table}: no row has data.test_split={data.test_split} in {data.split_column!r}; set "
                "data.test_split "
                "to a value of this column, or leave data.split_column out"
            )
        test = replace(
            pairs.take(places[True]), is_test=True, problems={}, fatal={}, causes=(), left_out={}
        )  # told with the others
        return pairs.take(places[False]), test
    folder = root / data.test_images if data.test_images else None
    if folder is None or not folder.is_dir():
        return pairs, Found([], [], [], is_test=True)
    masks = root / data.test_masks if data.test_masks and (root / data.test_masks).is_dir() else None
    test = replace(find_pairs(data, folder, masks, None, lambda row_id: False), is_test=True)
    if both := sorted(set(test.ids) & set(pairs.ids)):
        raise DataError(
            f"{folder} and {root / data.images} both have a picture {both[0]!r} ({len(both)} such names): expected "
            "each name once, as names are ids; rename them"
        )
    return pairs, test


def _note_unknown_groups(data: DataConfig, labels: Labels | None, train: Found) -> Found:
    """Training pictures of which the table does not say what they must not be split from are a problem."""
    if labels is None or labels.groups is None:
        return train
    unknown = {i for i, group in zip(labels.ids, labels.groups, strict=True) if not group} & set(train.ids)
    if not unknown:
        return train
    what = f"{data.group_column!r} is empty in {data.table}"
    return replace(train, problems={**train.problems, what: [(i, "") for i in train.ids if i in unknown]})


def _find_groups(data: DataConfig, labels: Labels | None, rows: Rows, *, is_test: bool) -> np.ndarray | None:
    """What is never split, by row; "" of a row that is only predicted: unknown.

    Raises:
        DataError: a name does not fit the pattern.
    """
    if data.group_pattern:
        found = [re.search(data.group_pattern, row_id) for row_id in rows.ids.tolist()]
        names = ["" if match is None or match[1] is None else match[1] for match in found]
        missing = [row_id for row_id, name in zip(rows.ids.tolist(), names, strict=True) if not name]
        if missing and not is_test:
            raise DataError(
                f"data.group_pattern={data.group_pattern} finds nothing in {len(missing)} names, such as "
                f"{missing[0]!r}; give a pattern that fits, or data.group_pattern=none where pictures belong to "
                "nobody (and, of folds, folds.kind=random)"
            )
        return np.array(names, str)
    if labels is None or labels.groups is None:
        return None
    group_of = dict(zip(labels.ids, labels.groups, strict=True))
    return np.array([group_of.get(row_id, "") for row_id in rows.ids.tolist()])


def _find_folds(data: DataConfig, labels: Labels | None, rows: Rows) -> np.ndarray | None:
    if labels is None or labels.folds is None:
        return None
    fold_of = dict(zip(labels.ids, labels.folds, strict=True))
    cells = {row_id: fold_of[row_id] for row_id in rows.ids.tolist()}
    if wrong := [row_id for row_id, cell in cells.items() if not re.fullmatch(r"\s*(-[12]|\d{1,9})(\.0*)?\s*", cell)]:
        raise DataError(
            f"{data.table}: {data.fold_column!r} (data.fold_column) holds {cells[wrong[0]]!r} of {wrong[0]!r}: "
            "expected a "
            f"whole number, at least -2 ({len(wrong)} such rows); correct the table"
        )
    return np.array([int(float(cell)) for cell in cells.values()], np.int64)


def _collect_keys(
    found: dict[str, Found], groups: np.ndarray | None, test_groups: np.ndarray | None, *, near: bool
) -> dict[str, RowKeys]:
    """Which pictures have the same bytes or, if it is asked for, are nearly the same, and which have the same group."""
    pictures, test_pictures = (
        np.array([_to_key(digest) for digest in found[name].good_rows.picture_digests], np.uint64)
        for name in ("train", "test")
    )
    keys = {"picture": RowKeys(pictures, test_pictures)}
    if near:
        paths = [path for name in ("train", "test") for path in found[name].good_rows.pictures]
        numbers = number_near_pictures(read_thumbnails([*map(Path, paths)]))
        numbers = without_exact(numbers, np.concatenate([pictures, test_pictures]))
        keys["near_picture"] = RowKeys(numbers[: len(pictures)], numbers[len(pictures) :])
    if groups is not None:
        names = [groups, np.array([], str) if test_groups is None else test_groups]
        train, test = (np.array([_to_key(name.encode()) for name in one.tolist()], np.uint64) for one in names)
        keys["group"] = RowKeys(train, test, {_to_key(name.encode()): name for name in set(groups.tolist())})
    return keys


def _to_key(content: bytes) -> int:
    if not content:
        return NO_KEY
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little") or 1


def _fingerprint(found: dict[str, Found], labels: Labels | None) -> str:
    """SHA-256 over names and contents of all files, and what the table says of them."""
    whole = hashlib.sha256()
    for name in ("train", "test"):
        rows = found[name].good_rows
        whole.update(name.encode())
        for row_id, picture, mask in zip(rows.ids.tolist(), rows.picture_digests, rows.mask_digests, strict=True):
            whole.update(row_id.encode() + b"\0" + picture + mask)
    if labels is not None:
        for column in (labels.ids, labels.groups, labels.folds):
            whole.update("\0".join(column or ()).encode())
    return whole.hexdigest()
