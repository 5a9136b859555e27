"""What the driver asks of this family before it launches anything: the rows, and whether the model can be built.

Light: torch is loaded only where a weights file has to be looked into.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from trainers.clip_regression.config import Config, DataConfig, ModelConfig, has_encoders
from trainers.clip_regression.rows.backgrounds import open_small_pictures
from trainers.clip_regression.rows.cells import parse_reference_date
from trainers.clip_regression.rows.labels import check_classes, note_unknown
from trainers.clip_regression.rows.remote_data import opened_data
from trainers.clip_regression.rows.row_keys import collect_row_keys
from trainers.clip_regression.rows.rows_file import leave_weights_digest, place_rows, write_rows
from trainers.clip_regression.rows.synthetic_data import make_class_data, make_data
from trainers.clip_regression.rows.table import fingerprint_files, read_test_rows, read_train_rows
from trainers.interface import (
    DataError,
    Inventory,
    Spread,
    call_here,
)
from trainers.reading.data_folder import prepare_folder, resolve_folder
from trainers.reading.known_files import KnownFiles
from trainers.reading.picture_rules import find_depth
from trainers.storage.object_storage import is_uri
from trainers.values import suggest

MODEL_CONFIGS = Path(__file__).parent / "model_configs"


def take_inventory(
    config: Config, folder: Path, cache: Path | None = None, spread: Spread = call_here
) -> tuple[Config, Inventory]:
    """Reads and checks all rows.

    Args:
        config: as the user gave it.
        folder: where to put made-up data if `data.root` is not given.
        cache: where to keep what was fetched from object storage; None: below that folder.
        spread: looks at pictures in object storage.

    Returns:
        The config with absolute paths, and the inventory.

    Raises:
        DataError: with all problems found in the tables and pictures, or with the model's weights.
    """
    config = replace(config, model=_resolve_weights(config.model))
    if has_encoders(config):
        check_model(config.model)
    parse_reference_date(config.data)
    data = replace(config.data, root=_resolve_root(config.data, folder))
    said_of_classes: tuple[str, ...] = ()
    with opened_data(data, cache or folder / "cache", spread) as (here, open_folder):
        known = KnownFiles(cache, here.folder)
        train, test = read_train_rows(here, open_folder, known), read_test_rows(here, open_folder, known)
        tables = [train] if test is None else [train, test]
        fingerprint = fingerprint_files(here, tables, config.model.pretrained)
    if train.classes:
        data, told = replace(data, task="classification"), check_classes(train.classes, train.target, data.target)
        said_of_classes = (*told, *note_unknown(train.classes, () if test is None else test.classes, data.target))
        _refuse_loss(config)
    depth, said = find_depth([value for rows in tables for value in rows.largest], data.bit_depth)
    notes = dict.fromkeys(note for rows in tables for note in rows.notes)
    return replace(config, data=replace(data, bit_depth=depth)), Inventory(
        ids=train.ids,
        target=train.target.astype(np.int64) if train.classes else train.target,
        target_name=data.target,
        num_test=0 if test is None else len(test),
        fingerprint=fingerprint,
        groups=train.groups,
        time=None if np.isnan(train.time).all() else train.time,
        predefined_fold=None if train.folds is None else train.folds.astype(np.int64),
        bad_rows=tuple(bad for rows in tables for bad in rows.bad_rows),
        test_ids=None if test is None else test.ids,
        row_keys=collect_row_keys(train, test, near=config.data.near_duplicates),
        tables=dict(zip(("train", "test"), tables, strict=False)),
        notes=(*notes, *said, *said_of_classes),
        classes=train.classes,
    )


def list_places(config: Config) -> list[Path] | None:
    """The files and folders that the inventory of a config, as the user gave it, is taken of; None: they are not on a
    disk, or not known beforehand."""
    data = config.data
    if not data.root or "://" in data.root:
        return None
    root = Path(os.path.abspath(os.path.expanduser(data.root)))
    has_table = (root / data.train_table).is_file()
    names = (data.train_table, data.test_table, data.train_pictures and data.test_pictures, data.train_pictures)
    places = [root / name for name in names if name] if has_table else [root]
    return [*places, Path(os.path.abspath(os.path.expanduser(config.model.pretrained or "none")))]


def describe_inputs(config: Config) -> tuple[DataConfig, str, str | None]:
    """What of a config decides what is read and left for the folds."""
    return config.data, config.model.clip, config.model.pretrained


def write_inputs(config: Config, inventory: Inventory, folder: Path) -> None:
    """Writes the rows, as they were checked, for the folds.

    Raises:
        OSError: the storage does not take them, or a picture that was there a moment ago cannot be read.
    """
    for table, rows in inventory.tables.items():
        write_rows(place_rows(folder, config.data, table), rows)
    leave_weights_digest(config.model, folder)


def open_backgrounds(config: Config, inputs: Path, table: str) -> Callable[[str], np.ndarray | None]:
    """A function of a row's id that gives its picture; see `rows/backgrounds.py`."""
    return open_small_pictures(config.data, inputs, table)


def _refuse_loss(config: Config) -> None:
    """Raises DataError for a loss of numbers where classes are learned."""
    if config.loss.kind != "mse":
        raise DataError(
            f"loss.kind={config.loss.kind}: target {config.data.target!r} is a class, and classes are learned by "
            "cross-entropy; leave out loss.kind"
        )


def _maker(data: DataConfig) -> Callable[[Path], Path]:
    """Makes the data that a run without `data.root` has."""
    return make_class_data if data.task == "classification" else make_data


def _resolve_root(data: DataConfig, folder: Path) -> str:
    """The whole path of the data's folder; a URI without a slash at its end.

    Raises:
        DataError: there is no such folder.
    """
    if data.root and "://" in data.root:
        return data.root.rstrip("/")
    return resolve_folder(data.root, folder, _maker(data))


def _resolve_weights(model: ModelConfig) -> ModelConfig:
    """A weights file gets its absolute path; a tag stays as it is.

    Raises:
        DataError: something that looks like a path is no file.
    """
    if not model.pretrained:
        return model
    path = os.path.abspath(os.path.expanduser(model.pretrained))
    if os.path.isfile(path):
        return replace(model, pretrained=path)
    if os.sep in model.pretrained:
        raise DataError(
            f"model.pretrained={model.pretrained}: no such file; give a file of weights, or open_clip's tag"
        )
    return model


def known_models() -> list[str]:
    """Names that `model.clip` may have, found without loading open_clip."""
    spec = importlib.util.find_spec("open_clip")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    return sorted(path.stem for folder in (package / "model_configs", MODEL_CONFIGS) for path in folder.glob("*.json"))


def check_model(model: ModelConfig) -> None:
    """Refuses a model name that is not known and weights that are absent or of another architecture.

    Raises:
        DataError: with the names that come nearest.
    """
    names = known_models()
    if model.clip not in names:
        raise DataError(
            f"model.clip={model.clip}: expected the name of a model of open_clip{suggest(model.clip, names)}"
        )
    if not model.pretrained:
        return
    if os.path.isfile(model.pretrained):
        from trainers.clip_regression.network.encoders import check_weights_file

        check_weights_file(model.clip, Path(model.pretrained))
        return
    from trainers.clip_regression.network.clip_library import open_clip

    tags = open_clip.list_pretrained_tags_by_model(model.clip)
    if model.pretrained not in tags:
        known = f"tags of {model.clip}: {', '.join(tags)}" if tags else f"{model.clip} has no published weights"
        raise DataError(
            f"model.pretrained={model.pretrained}: no such file or tag; {known}{suggest(model.pretrained, tags)}"
        )


def prepare_node(config: Config) -> None:
    """Looks whether this machine sees the data, makes the made-up data where it has none, and fetches the weights of a
    tag into its cache, so that folds find them there.

    Raises:
        DataError: it does not see the data, or the weights cannot be had.
    """
    model = config.model
    if config.data.root and not is_uri(config.data.root):
        prepare_folder(config.data.root, _maker(config.data))
    if not has_encoders(config) or not model.pretrained or os.path.isfile(model.pretrained):
        return
    from trainers.clip_regression.network.clip_library import open_clip

    try:
        open_clip.download_pretrained(open_clip.get_pretrained_cfg(model.clip, model.pretrained))
    except Exception as error:  # the hub's client raises many types; all of them mean the same to the user
        raise DataError(
            f"model.pretrained={model.pretrained}: the weights of {model.clip} cannot be downloaded: {error}\n"
            "Check the network, or download them elsewhere and set model.pretrained=/path/to/file "
            "(and model.quick_gelu=true for OpenAI's weights)"
        ) from None
