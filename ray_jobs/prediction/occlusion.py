"""Which part of its picture a row's prediction rests on: each part is covered in turn, and the error of the row is
measured anew (Zeiler and Fergus 2014, https://arxiv.org/abs/1311.2901). Of the rows that are predicted worst and best.

Shape suffixes: N rows, G parts a side, H height, W width.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from ray_jobs.config.run import RunConfig
from ray_jobs.prediction.importance import FoldRows, bind_model, open_model
from ray_jobs.runs.folder import RunFolder
from trainers.interface import load_inventory_module
from trainers.storage.whole_files import write_whole

PARTS = 7  # a side
_EACH = 3  # rows of the worst, and of the best
_OPACITY, _UP, _DOWN = 0.65, (213, 94, 0), (0, 114, 178)


@dataclass(frozen=True)
class OccludedRow:
    """A row, by how its error changes where a part of its picture is covered.

    Attributes:
        row_id: whose.
        error: as it is.
        change_GG: of the error; above 0: the part helps.
        picture_HW3: the picture, uint8.
    """

    row_id: str
    error: float
    change_GG: np.ndarray
    picture_HW3: np.ndarray


def find_occlusion(
    folder: RunFolder, config: RunConfig, rows: Any, folds: Sequence[FoldRows], say: Callable[[str], None]
) -> list[OccludedRow]:
    """The rows that are predicted worst and those that are predicted best, the worst first; empty where rows have no
    pictures, or the family does not show them.

    Args:
        folder, config, rows, folds: as in `find_importance`.
        say: hears how far it is.
    """
    open_backgrounds = getattr(load_inventory_module(config.family), "open_backgrounds", None)
    if open_backgrounds is None or not hasattr(rows, "with_pictures"):
        return []
    show = open_backgrounds(config.trainer, folder.inputs, "train")
    ranked = sorted(
        ((_measure(config, one.target_n[[n]], predicted), number, n)
         for number, one in enumerate(folds)
         for n, predicted in enumerate(one.predict(one.block)[:, None])),
        reverse=True,
    )  # fmt: skip
    with_picture = [one for one in ranked if show(str(folds[one[1]].ids_n[one[2]])) is not None]
    chosen = [*with_picture[:_EACH], *with_picture[_EACH:][-_EACH:]]
    found = []
    for at, (error, number, n) in enumerate(chosen, start=1):
        say(f"covering parts of a picture ({at} of {len(chosen)})")
        picture = show(str(folds[number].ids_n[n]))
        assert picture is not None, "rows without one were left out"
        change_GG = _cover(folder, config, rows, folds[number], n, picture) - error
        found.append(OccludedRow(str(folds[number].ids_n[n]), error, change_GG, picture))
    return found


def _measure(config: RunConfig, target_1: np.ndarray, prediction_1: np.ndarray) -> float:
    """The error of a row; by the kind's first score where the metric is not defined for one."""
    try:
        return config.kind.measure_error(config.ensemble.metric, target_1, prediction_1)
    except ValueError:
        return config.kind.measure_error(config.kind.scores[0], target_1, prediction_1)


def _cover(
    folder: RunFolder, config: RunConfig, rows: Any, one: FoldRows, n: int, picture_HW3: np.ndarray
) -> np.ndarray:
    """The error of a row with each part of its picture covered, (G, G). The picture as it is shown, small, is what is
    covered, and compared with itself."""
    names = [f"covered{part:03}" for part in range(PARTS * PARTS)]
    block = pa.concat_tables([one.block.slice(n, 1)] * len(names))
    place = block.column_names.index(rows.id_column)
    block = block.set_column(place, block.field(place), pa.array(names, block.field(place).type))
    with tempfile.TemporaryDirectory() as scratch:
        for part, name in enumerate(names):
            _save(cover_part(picture_HW3, *divmod(part, PARTS)), Path(scratch, f"{name}.png"))
        here = rows.with_pictures(Path(scratch))
        predicted = bind_model(open_model(folder, config, here, one.fold))(block)
    errors = [_measure(config, one.target_n[[n]], predicted[[part]]) for part in range(len(names))]
    return np.array(errors).reshape(PARTS, PARTS)


def cover_part(picture_HW3: np.ndarray, row: int, column: int) -> np.ndarray:
    """A picture with one of its parts in its mean colour."""
    height, width, _ = picture_HW3.shape
    covered = picture_HW3.copy()
    top, bottom = row * height // PARTS, (row + 1) * height // PARTS
    left, right = column * width // PARTS, (column + 1) * width // PARTS
    covered[top:bottom, left:right] = picture_HW3.mean(axis=(0, 1)).astype(np.uint8)
    return covered


def _save(picture_HW3: np.ndarray, path: Path) -> None:
    Image.fromarray(picture_HW3).save(path)


def draw_change(row: OccludedRow) -> np.ndarray:
    """The picture in grey under what its parts change, (H, W, 3) uint8: orange where the error grows without the part,
    blue where it falls."""
    height, width, _ = row.picture_HW3.shape
    change = row.change_GG / max(float(np.abs(row.change_GG).max()), 1e-12)
    whole = np.asarray(Image.fromarray(change.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR))
    colour = np.where(whole[..., None] > 0, np.array(_UP), np.array(_DOWN))
    opacity = _OPACITY * np.abs(whole[..., None])
    grey = row.picture_HW3.mean(axis=2, keepdims=True)
    drawn: np.ndarray = ((1 - opacity) * grey + opacity * colour).astype(np.uint8)
    return drawn


def write_occlusion(folder: RunFolder, found: Sequence[OccludedRow]) -> None:
    """Writes `occlusion/`: a picture of each row, numbered from the worst on."""
    for path in folder.occlusion.glob("*.png"):
        path.unlink()
    for number, row in enumerate(found):
        file = io.BytesIO()
        side_by_side = np.concatenate([row.picture_HW3, draw_change(row)], axis=1)
        Image.fromarray(side_by_side).save(file, "PNG")
        write_whole(folder.occlusion / f"{number}_{row.row_id}.png", file.getvalue())
