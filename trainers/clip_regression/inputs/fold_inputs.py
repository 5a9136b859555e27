"""What a fold works with: a model with encoders, on pictures and texts; or one without, on features that frozen
encoders have computed before, or on numbers alone. Whatever can be kept for other folds, epochs and runs is kept. Only
a fold that encodes loads open_clip, which takes 3 s of CPU time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trainers.clip_regression.config import Config, has_encoders, is_cached
from trainers.clip_regression.inputs.data import Numbers, RowFeatures, RowTensors
from trainers.clip_regression.inputs.features import prepare_features
from trainers.clip_regression.network.model import ClipRegressor
from trainers.clip_regression.rows.rows_file import RowsFile, place_rows, read_rows
from trainers.clip_regression.rows.table import Rows
from trainers.interface import DataError, FoldContext, Split
from trainers.storage.row_blocks import RowBlocks

if TYPE_CHECKING:
    from trainers.clip_regression.network.model import Clip


@dataclass(frozen=True)
class FoldInputs:
    """What a fold works with.

    Attributes:
        model: untrained.
        architecture: of the encoders; None where there is nothing to encode.
        preprocessing: of pictures; empty where there is nothing to encode.
        weights: file and SHA-256 of frozen encoders that the model lacks because all rows come as features; on rank 0
            only.
        to_inputs: gives the inputs of these rows of a table (train, test).
    """

    model: ClipRegressor
    architecture: dict[str, Any] | None
    preprocessing: dict[str, Any]
    weights: tuple[Path, str] | None
    to_inputs: Callable[[str, np.ndarray], RowTensors | RowFeatures]


def read_tables(config: Config, inputs: Path) -> dict[str, RowsFile]:
    """The tables that the driver has left: train, and test where there is one.

    Raises:
        OSError: they are not there.
    """
    paths = {name: place_rows(inputs, config.data, name) for name in ("train", "test")}
    encodes = has_encoders(config) and not is_cached(config)
    tables = {"train": RowsFile("train", paths["train"], read_rows(paths["train"], inputs=encodes))}
    if paths["test"].exists():
        tables["test"] = RowsFile("test", paths["test"], read_rows(paths["test"], inputs=encodes))
    return tables


def build_fold_inputs(
    config: Config,
    tables: dict[str, RowsFile],
    numbers: Numbers,
    split: Split,
    context: FoldContext,
    *,
    num_outputs: int = 1,
) -> FoldInputs:
    """Builds the model and finds its inputs; computes what of them is not kept yet.

    Args:
        config: of the family.
        tables: from `read_tables`.
        numbers: fitted on the fold's training rows.
        split: whose fold this is.
        context: where it is trained.
        num_outputs: of the model, for a row.

    Raises:
        DataError: a picture cannot be decoded and `data.on_bad_row` is `error`.
    """
    if not has_encoders(config):
        model = _build_model(config, None, None, numbers, num_outputs)
        return FoldInputs(
            model, None, {}, None, _to_features(config, tables, numbers, {name: {} for name in tables}, context)
        )
    if not is_cached(config):
        return _equip_with_encoders(config, tables, numbers, split, context, num_outputs)
    features = prepare_features(config, tables, split, context)
    encoders = features.encoders
    model = _build_model(config, None, encoders.architecture, numbers, num_outputs, encoders.num_params)
    to_inputs = _to_features(config, tables, numbers, features.blocks, context)
    return FoldInputs(model, encoders.architecture, encoders.preprocessing, features.weights, to_inputs)


def _to_features(
    config: Config,
    tables: dict[str, RowsFile],
    numbers: Numbers,
    features: dict[str, dict[str, list[RowBlocks]]],
    context: FoldContext,
) -> Callable[[str, np.ndarray], RowFeatures]:
    def to_inputs(table: str, index: np.ndarray) -> RowFeatures:
        rows = tables[table].rows.take(index)
        return RowFeatures(rows, numbers, features[table], index, _note_unreadable(config, table, rows, context))

    return to_inputs


def _equip_with_encoders(
    config: Config,
    tables: dict[str, RowsFile],
    numbers: Numbers,
    split: Split,
    context: FoldContext,
    num_outputs: int,
) -> FoldInputs:
    from trainers.clip_regression.inputs.picture_reader import PictureReader, keep_decoded
    from trainers.clip_regression.network.clip_library import open_clip
    from trainers.clip_regression.network.encoders import describe_architecture, load_clip

    clip, preprocessing = load_clip(config.model)
    architecture, tokenizer = describe_architecture(config.model), open_clip.get_tokenizer(config.model.clip)
    model = _build_model(config, clip, architecture, numbers, num_outputs)
    reader = PictureReader(preprocessing, config.data.picture_rules) if config.data.train_pictures else None
    decoded = {}
    if reader is not None:
        num_bytes = sum(len(table.rows) for table in tables.values()) * math.prod(reader.shape)
        if num_bytes <= config.training.picture_cache_gib * 2**30:
            decoded = keep_decoded(reader, preprocessing, tables, split, context)

    def to_inputs(table: str, index: np.ndarray) -> RowTensors:
        rows = tables[table].rows.take(index)
        stored = (decoded[table], index) if decoded else None
        note = _note_unreadable(config, table, rows, context)
        return RowTensors(rows, numbers, config, reader, tokenizer, context.num_threads, note, stored)

    return FoldInputs(model, architecture, preprocessing, None, to_inputs)


def _note_unreadable(config: Config, table: str, rows: Rows, context: FoldContext) -> Callable[[int, str], None]:
    """What to do with a picture of these rows that cannot be decoded."""
    name = config.data.test_table if table == "test" else config.data.train_table

    def note(row: int, problem: str) -> None:
        if config.data.on_bad_row == "error" and table != "test":
            advice = "in a new run (another run.name) replace it, or set data.on_bad_row=drop to use the mean colour"
            raise DataError(f"{name}: id {str(rows.ids[row])!r}: {problem}; {advice}")
        context.note_bad_row(name, str(rows.ids[row]), problem, "mean colour")

    return note


def _build_model(
    config: Config,
    clip: Clip | None,
    architecture: dict[str, Any] | None,
    numbers: Numbers,
    num_outputs: int,
    num_absent_params: int = 0,
) -> ClipRegressor:
    return ClipRegressor(
        clip,
        architecture,
        config.model,
        has_image=bool(config.data.train_pictures),
        has_text=bool(config.data.text_columns),
        age_width=numbers.width,
        num_absent_params=num_absent_params,
        num_outputs=num_outputs,
    )
