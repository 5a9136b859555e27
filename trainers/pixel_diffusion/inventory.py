"""What the driver asks of this family before it launches anything: the pictures, every one decoded and checked, and
their classes. No torch."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
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
from trainers.pixel_diffusion.config import FEATURES_PACKAGE, NOT_MEASURED, Config, DataConfig, SamplingConfig
from trainers.pixel_diffusion.rows.listing import Listing, list_rows
from trainers.pixel_diffusion.rows.rows_file import NO_LABEL, Rows, place_rows, write_rows
from trainers.pixel_diffusion.rows.scan import Scan, scan_pictures
from trainers.pixel_diffusion.rows.shapes_data import is_made, make_data
from trainers.reading.data_folder import prepare_folder, resolve_folder
from trainers.reading.known_files import KnownFiles
from trainers.reading.picture_files import collect_left_out
from trainers.storage.object_storage import is_uri


def take_inventory(
    config: Config, folder: Path, cache: Path | None = None, spread: Spread = call_here
) -> tuple[Config, Inventory]:
    """Reads and checks all pictures.

    Args:
        config: as the user gave it.
        folder: where to put made-up pictures if `data.root` is not given.
        cache: where to remember what is in the files; None: nowhere.
        spread: not used: pictures are not read from object storage.

    Returns:
        The config with an absolute path, and the inventory.

    Raises:
        DataError: with all problems found.
    """
    if config.data.root and is_uri(config.data.root):
        raise DataError(
            f"data.root={config.data.root}: expected a folder on this machine, not in object storage; copy the "
            "pictures to one, as by `aws s3 cp --recursive`"
        )
    data = replace(config.data, root=resolve_folder(config.data.root, folder, make_data))
    sampling = replace(config.sampling, features=_find_features(config.sampling))
    known = KnownFiles(cache, data.folder)
    train, test = (
        scan_pictures(data, listing, table, known)
        for listing, table in zip(list_rows(data), ("train", "test"), strict=True)
    )
    classes = tuple(sorted(set(train.listing.labels) - {""}))
    if len(classes) == 1:  # which says nothing
        classes = ()
    if classes and config.sampling.num_samples and config.sampling.guidance != 1 and not config.training.label_drop:
        raise DataError(
            f"sampling.guidance={config.sampling.guidance:g}: expected 1 with training.label_drop=0, as what a model "
            "makes without a label is never learned; set one of them"
        )
    rows, test_rows = (_to_rows(scan, classes) for scan in (train, test))
    notes, left_out = collect_left_out(train.listing.left_out | test.listing.left_out)
    return replace(config, data=data, sampling=sampling), Inventory(
        ids=rows.ids,
        target=None,
        target_name="",
        num_test=len(test_rows),
        fingerprint=_fingerprint(train, test),
        groups=None if train.listing.groups is None else np.array(train.listing.groups),
        predefined_fold=_find_folds(data, train.listing),
        bad_rows=train.bad_rows + test.bad_rows + left_out,
        test_ids=test_rows.ids if len(test_rows) else None,
        row_keys={} if is_made(data.folder) else _collect_keys(train, test),
        tables={"train": rows} | ({"test": test_rows} if len(test_rows) else {}),
        notes=(*notes, *_note(data, train, classes), *_note_features(sampling)),
        strata=rows.label_N if classes else None,
    )


def write_inputs(config: Config, inventory: Inventory, folder: Path) -> None:
    """Writes the rows, as they were checked, for the folds.

    Raises:
        OSError: the storage does not take them.
    """
    for table, rows in inventory.tables.items():
        write_rows(place_rows(folder, config.data, table), rows)


def describe_inputs(config: Config) -> DataConfig:
    """What decides which rows there are and what a node needs: the same for trials that differ elsewhere."""
    return config.data


def prepare_node(config: Config) -> None:
    """Looks whether this machine sees the pictures; makes the made-up ones where it has none.

    Raises:
        DataError: it does not see them.
    """
    prepare_folder(str(config.data.folder), make_data)


def _to_rows(scan: Scan, classes: tuple[str, ...]) -> Rows:
    """Raises DataError where a test picture is of a class that no training picture has."""
    number_of = {name: number for number, name in enumerate(classes)} | {"": NO_LABEL}
    listing = scan.listing
    if classes and (unknown := sorted(set(listing.labels) - set(number_of))):
        raise DataError(
            f"pictures that no fold learns from are of class {unknown[0]!r} ({len(unknown)} such classes), which no "
            f"picture to learn from has: expected {', '.join(map(repr, classes[:10])) or 'none'}; remove them, or add "
            "pictures to learn from"
        )
    labels = np.array([number_of[label] if classes else NO_LABEL for label in listing.labels], np.int64)
    return Rows(np.array(listing.ids, str), list(map(str, listing.paths)), scan.digests_NK, labels, classes)


def _note(data: DataConfig, train: Scan, classes: tuple[str, ...]) -> list[str]:
    notes = []
    if train.num_small:
        notes.append(
            f"{train.num_small:,} of {len(train.listing.ids):,} pictures are smaller than data.size={data.size} and "
            "are enlarged: what a model learns of them is partly the blur"
        )
    if is_made(data.folder):
        notes.append(
            "the made-up pictures are drawn from 2,178 with replacement, so that the best possible loss is known: "
            "equal ones in several folds are meant, and are not looked for"
        )
    if not classes:
        notes.append("no classes: pictures are made without labels and without guidance")
    return notes


def _find_features(sampling: SamplingConfig) -> str:
    """The whole path of a file of weights.

    Raises:
        DataError: it is not there.
    """
    if sampling.features in ("auto", "none"):
        return sampling.features
    path = os.path.abspath(os.path.expanduser(sampling.features))
    if not os.path.isfile(path):
        raise DataError(
            f"sampling.features={path}: no such file; expected auto, none or a file of CLIP ViT-B-32's weights"
        )
    return path


def _note_features(sampling: SamplingConfig) -> list[str]:
    lacks = sampling.features == "auto" and importlib.util.find_spec(FEATURES_PACKAGE) is None
    return [NOT_MEASURED] if lacks and sampling.num_samples else []


def _find_folds(data: DataConfig, listing: Listing) -> np.ndarray | None:
    if listing.folds is None:
        return None
    wrong = [
        (row_id, cell)
        for row_id, cell in zip(listing.ids, listing.folds, strict=True)
        if not re.fullmatch(r"\s*(-[12]|\d{1,9})(\.0*)?\s*", cell)
    ]
    if wrong:
        raise DataError(
            f"{data.table}: {data.fold_column!r} (data.fold_column) holds {wrong[0][1]!r} of {wrong[0][0]!r}: expected "
            f"a whole number, at least -2 ({len(wrong)} such rows); correct the table"
        )
    return np.array([int(float(cell)) for cell in listing.folds], np.int64)


def _collect_keys(train: Scan, test: Scan) -> dict[str, RowKeys]:
    """Which pictures have the same bytes, and which the same group."""
    keys = {"picture": RowKeys(_digest_keys(train.digests_NK), _digest_keys(test.digests_NK))}
    if train.listing.groups is not None:
        own, other = (list(scan.listing.groups or []) for scan in (train, test))
        shown = {_to_key(name): name for name in set(own)}
        own_N, other_N = (np.array([_to_key(name) for name in one], np.uint64) for one in (own, other))
        keys["group"] = RowKeys(own_N, other_N, shown)
    return keys


def _digest_keys(digests_NK: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(digests_NK[:, :8]).view(np.uint64).ravel()


def _to_key(name: str) -> int:
    if not name:
        return NO_KEY
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") or 1


def _fingerprint(*scans: Scan) -> str:
    """SHA-256 over names, classes and contents of all files, and what the table says of them."""
    whole = hashlib.sha256()
    for scan in scans:
        for column in (scan.listing.ids, scan.listing.labels, scan.listing.groups, scan.listing.folds):
            whole.update("\0".join(column or ()).encode() + b"\1")
        whole.update(scan.digests_NK.tobytes())
    return whole.hexdigest()
